"""Where on the image does a unit look?  Coordinates of units, grids of layers."""
