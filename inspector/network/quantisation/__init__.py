"""Quantised networks: what their integers stand for, and their activation functions."""
