"""Coordinates on the image: of the units of a tensor, of the cells of a layer."""
