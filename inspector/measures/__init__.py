"""Which formulas act on arrays alone?  No model, no photo, no torch."""
