"""Outputs of a network: their names and shapes, and what says that they are class scores."""
