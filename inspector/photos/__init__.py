"""From a photo to the input and back?  Reading, preprocessing, geometry, occluders, data sets."""
