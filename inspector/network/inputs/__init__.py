"""Inputs of a network: the one that takes the picture, its sizes, the others' values."""
