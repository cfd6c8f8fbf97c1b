"""Two colour maps of the project's own, computed in a perceptual space.

Both are drawn as paths through OKLab (Ottosson 2020), in which equal distances look about
equally far apart. `sequential` runs from dark violet over red to pale yellow with lightness
rising evenly, so that it survives a grey printer and every kind of colour blindness.
`diverging` runs from blue over light grey to red, the same lightness at the same distance from
zero; blue against red is told apart by the common kinds of colour blindness.

Not Matplotlib's: importing that costs half a second, more than the rest of a plain run.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["STEPS", "apply_diverging", "apply_sequential", "diverging", "sequential", "to_oklab"]

STEPS = 256
"""Colours in a table, as many as eight bits can tell apart."""

Colours = NDArray[np.uint8]

# Lightness, chroma and hue (degrees) in OKLCH; the hue goes down through red, never green.
_SEQUENTIAL = (
    (0.30, 0.130, 290.0),
    (0.40, 0.165, 325.0),
    (0.50, 0.190, 357.0),
    (0.60, 0.195, 388.0),
    (0.70, 0.170, 410.0),
    (0.80, 0.160, 432.0),
    (0.90, 0.150, 455.0),
    (0.97, 0.070, 465.0),
)
_DIVERGING_COLD = ((0.42, 0.140, 258.0), (0.60, 0.120, 250.0), (0.80, 0.060, 245.0))
_DIVERGING_ZERO = (0.96, 0.0, 245.0)
_DIVERGING_WARM = ((0.80, 0.080, 45.0), (0.60, 0.160, 32.0), (0.42, 0.150, 27.0))

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


def apply_sequential(values: ArrayLike) -> Colours:
    """Colours (..., 3) of values in 0..1; others are clipped, NaN is taken as 0."""
    clean = np.nan_to_num(np.asarray(values, np.float64), nan=0.0)
    return sequential()[np.rint(np.clip(clean, 0, 1) * (STEPS - 1)).astype(np.intp)]


def apply_diverging(values: ArrayLike) -> Colours:
    """Colours (..., 3) of values in -1..1; others are clipped, NaN is taken as 0."""
    clean = np.nan_to_num(np.asarray(values, np.float64), nan=0.0)
    return diverging()[np.rint((np.clip(clean, -1, 1) + 1) / 2 * (STEPS - 1)).astype(np.intp)]
