"""Receptive fields: which pixels a value depends on, and which stages may run on crops."""
