"""What the tests of all tasks share: how a planted network is opened, and outlines are found."""

import numpy as np

import inspector
from inspector.render.drawing.outline import LINE

CLOSE = 1e-4
"""Largest difference of a map from the native network's, of its peak."""


def load(path, **more):
    settings = {"device": "cpu", "preprocess": "unit", "unverified": True, **more}
    return inspector.load(path, overrides=("resize=squash",), **settings)


def lined(picture):
    """Pixels (h, w) that have the colour of an outline."""
    return (np.asarray(picture, int) == LINE).all(axis=2)
