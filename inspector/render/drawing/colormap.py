"""Two colour maps of the project's own, computed in a perceptual space.

Both are drawn as paths through OKLab (Ottosson 2020), in which equal distances look about
equally far apart. `sequential` runs from dark violet over red to pale yellow with lightness
rising evenly, so that it survives a grey printer and every kind of colour blindness.
`diverging` runs from blue over light grey to red, the same lightness at the same distance from
zero; blue against red is told apart by the common kinds of colour blindness.

What is seen is the map laid over a greyed photo. So each begins at the lightness of the grey that
it is laid over (`DARK`, `LIGHT`): else colours of low values would first be darker or lighter than
the grey of zero, and a ring or a notch would stand where there is none in the map.

Not Matplotlib's: importing that costs half a second, more than the rest of a plain run.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "DARK",
    "LIGHT",
    "STEPS",
    "apply_diverging",
    "apply_sequential",
    "diverging",
    "on_paper",
    "sequential",
    "to_oklab",
]

STEPS = 256
"""Colours in a table, as many as eight bits can tell apart."""

DARK, LIGHT = (30, 104), (160, 255)
"""Greys that black and white of a photo become under `sequential` and under `diverging`."""

Colours = NDArray[np.uint8]

# Lightness, chroma and hue (degrees) in OKLCH; the hue goes down through red, never green.
_SEQUENTIAL = (
    (0.400, 0.115, 290.0),
    (0.500, 0.145, 325.0),
    (0.580, 0.150, 357.0),
    (0.660, 0.165, 388.0),
    (0.735, 0.155, 410.0),
    (0.815, 0.147, 432.0),
    (0.900, 0.148, 455.0),
    (0.970, 0.070, 465.0),
)
_DIVERGING_COLD = ((0.42, 0.140, 258.0), (0.57, 0.125, 250.0), (0.72, 0.075, 245.0))
_DIVERGING_ZERO = (0.855, 0.0, 245.0)
_DIVERGING_WARM = ((0.72, 0.095, 45.0), (0.57, 0.160, 32.0), (0.42, 0.150, 27.0))
_ON_PAPER = 110
"""Entry of `sequential` that stands for the maximum on white paper."""

# OKLab from linear sRGB: cone responses, their cube roots, and a rotation (Ottosson 2020).
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def to_oklab(rgb: ArrayLike) -> NDArray[np.float64]:
    """OKLab (..., 3) of sRGB colours (..., 3) in 0..255."""
    encoded = np.asarray(rgb, np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    result: NDArray[np.float64] = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return result


def _from_oklch(anchors: Sequence[tuple[float, float, float]]) -> Colours:
    """Colours (STEPS, 3) of a path through these anchors, evenly spaced."""
    lightness, chroma, hue = np.asarray(anchors).T
    angle = np.deg2rad(hue)
    lab = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=1)
    knots = np.linspace(0, STEPS - 1, len(lab))
    path = np.stack([np.interp(np.arange(STEPS), knots, axis) for axis in lab.T], axis=1)
    cones = (path @ np.linalg.inv(_TO_LAB).T) ** 3
    linear = np.clip(cones @ np.linalg.inv(_TO_CONES).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: Colours = np.rint(encoded * 255).astype(np.uint8)
    return table


@cache
def sequential() -> Colours:
    """Colours (STEPS, 3) for values from zero to the maximum."""
    return _from_oklch(_SEQUENTIAL)


@cache
def diverging() -> Colours:
    """Colours (STEPS, 3) for values from minus the largest magnitude to plus it."""
    return _from_oklch((*_DIVERGING_COLD, _DIVERGING_ZERO, *_DIVERGING_WARM))


@cache
def on_paper() -> Colours:
    """Colours (STEPS, 3) for values from zero to the maximum on white: lightness falls."""
    return sequential()[np.rint(np.linspace(STEPS - 1, _ON_PAPER, STEPS)).astype(np.intp)]


def apply_sequential(values: ArrayLike) -> Colours:
    """Colours (..., 3) of values in 0..1; others are clipped, NaN is taken as 0."""
    clean = np.nan_to_num(np.asarray(values, np.float64), nan=0.0)
    return sequential()[np.rint(np.clip(clean, 0, 1) * (STEPS - 1)).astype(np.intp)]


def apply_diverging(values: ArrayLike) -> Colours:
    """Colours (..., 3) of values in -1..1; others are clipped, NaN is taken as 0."""
    clean = np.nan_to_num(np.asarray(values, np.float64), nan=0.0)
    return diverging()[np.rint((np.clip(clean, -1, 1) + 1) / 2 * (STEPS - 1)).astype(np.intp)]
