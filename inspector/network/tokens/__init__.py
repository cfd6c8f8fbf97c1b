"""Tokens of a transformer: the places that they stand for, and the tensors that attend."""
