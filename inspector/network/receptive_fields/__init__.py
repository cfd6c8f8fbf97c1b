"""What can a value depend on?  Receptive fields, and what of a network may run on crops."""
