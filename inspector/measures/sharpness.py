"""How much a person could recognise in a projection: three measures.

With P (C, h, w) the projection, m = sqrt(sum_c P_c^2) its magnitude at each pixel of a unit's
receptive field, and n the number of those pixels:

    concentration   (sqrt(n) - |m|_1 / |m|_2) / (sqrt(n) - 1)          Hoyer 2004
    coherence       sum (a - b) / sum (a + b), a >= b the eigenvalues  Bigun & Granlund 1987
                    of the structure tensor at each pixel
    edge agreement  r(strokes of m, strokes of the photo's edges)
                    - mean r(strokes of m, strokes of other photos' edges)

with r Pearson's correlation over the field, and strokes what is left of a map between two
Gaussians (Marr & Hildreth 1980): where the object lies is not asked, only whether lines are where
the photo has edges.  A smear has a low concentration (0: all pixels alike, 1: one pixel), noise a
low coherence (0: no direction anywhere, 1: strokes), and what shows nothing of this photo an edge
agreement of 0: the correlation with other photos takes out what any picture would score.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector.errors import MethodRefused, require

__all__ = [
    "COARSE",
    "MEASURES",
    "coherence",
    "concentration",
    "correlation",
    "edges_of",
    "magnitude",
    "measured",
    "scale_for",
    "smoothed",
    "strokes",
]

MEASURES = ("edge agreement", "concentration", "coherence")

SMALLEST_SCALE, SHARE_OF_SIDE = 1.0, 64
"""Gaussian window: a 64th of the input's shorter side, and at least one pixel: strokes of guided
backpropagation run beside the edge that they belong to, not on it."""

COARSE = 3
"""How much wider the second Gaussian is, whose map is taken away."""

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Box = tuple[int, int, int, int]


def scale_for(height: int, width: int) -> float:
    """Standard deviation in pixels of the Gaussian window for an input of this size."""
    return max(SMALLEST_SCALE, min(height, width) / SHARE_OF_SIDE)


def magnitude(projection: Array) -> Float64:
    """Magnitude (h, w) of signed channels (C, h, w)."""
    found: Float64 = np.sqrt((np.asarray(projection, np.float64) ** 2).sum(0))
    return found


def smoothed(values: Array, scale: float) -> Float64:
    """Weighted means (h, w) under a Gaussian window, which is cut off at the border.

    Args:
        values: (h, w).
        scale: Standard deviation in pixels; weights beyond three of them are 0.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    filtered = partial(
        _ndimage().gaussian_filter, sigma=scale, radius=int(3 * scale), mode="constant"
    )
    # Divided by the window's weight inside of the map, so that weights sum to 1 at the border too.
    found: Float64 = filtered(np.asarray(values, np.float64)) / filtered(np.ones(values.shape))
    return found


def strokes(values: Array, scale: float) -> Float64:
    """What of a map (h, w) is finer than its surroundings: the difference of two Gaussians.

    Args:
        values: (h, w).
        scale: Standard deviation in pixels of the finer one.
    """
    return smoothed(values, scale) - smoothed(values, COARSE * scale)


def edges_of(pixels: Array, scale: float) -> Float64:
    """Strokes (h, w) of a photo's edges: Sobel's operator over all channels.

    Args:
        pixels: (h, w, C).
        scale: As in ``strokes``.
    """
    down, across = _sobel(np.asarray(pixels, np.float64).transpose(2, 0, 1))
    return strokes(np.sqrt((down**2 + across**2).sum(0)), scale)


def concentration(values: Array) -> float | None:
    """Hoyer's sparsity of magnitudes: 0 when all are equal, 1 when one alone is not 0.

    Returns:
        None for fewer than two values, or when all are 0.
    """
    flat = np.abs(np.asarray(values, np.float64)).ravel()
    length = float(np.sqrt((flat**2).sum()))
    if flat.size < 2 or length == 0:
        return None
    root = float(np.sqrt(flat.size))
    return float((root - flat.sum() / length) / (root - 1))


def coherence(projection: Array, scale: float) -> float | None:
    """How far neighbouring gradients agree in direction, weighted by their energy: 0 to 1.

    Args:
        projection: (C, h, w).
        scale: Standard deviation in pixels of the window of the structure tensor.

    Returns:
        None for a projection without any gradient.
    """
    down, across = _sobel(np.asarray(projection, np.float64))
    products = ((down * down).sum(0), (down * across).sum(0), (across * across).sum(0))
    yy, yx, xx = (smoothed(product, scale) for product in products)
    total = float((yy + xx).sum())
    difference = np.sqrt((yy - xx) ** 2 + 4 * yx**2)
    return float(difference.sum() / total) if total > 0 else None


def correlation(first: Array, second: Array) -> float | None:
    """Pearson's correlation; None when one of them is constant."""
    a, b = (np.asarray(v, np.float64) - np.mean(v, dtype=np.float64) for v in (first, second))
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / size) if size > 0 else None


def measured(
    projection: Array, box: Box, edges: Float64, others: Sequence[Float64], scale: float
) -> dict[str, float | None]:
    """All measures of one projection, and the plain correlation with the photo's edges.

    Args:
        projection: (C, H, W), the size of the network's input.
        box: Top, left, bottom, right of the unit's receptive field: nothing lies outside it.
        edges: (H, W), those of the photo, from ``edges_of``.
        others: (H, W) each, those of other photos; none leaves the edge agreement out.
        scale: As in ``strokes``.

    Returns:
        A number by name, None where a measure is not defined.

    Raises:
        MethodRefused: A projection that overflowed.
    """
    if not np.isfinite(projection).all():
        raise MethodRefused(
            "a projection holds numbers that are not finite",
            hint="choose a layer nearer to the image",
        )
    y0, x0, y1, x1 = box
    inside = slice(y0, y1), slice(x0, x1)
    sizes = magnitude(projection)
    lines = strokes(sizes, scale)[inside]
    own = correlation(lines, edges[inside])
    chance = [r for r in (correlation(lines, other[inside]) for other in others) if r is not None]
    agreement = own - float(np.mean(chance)) if own is not None and chance else None
    return {
        "edge agreement": agreement,
        "concentration": concentration(sizes[inside]),
        "coherence": coherence(projection[:, y0:y1, x0:x1], scale),
        "edge correlation": own,
    }


def _sobel(channels: Float64) -> tuple[Float64, Float64]:
    """Derivatives (C, h, w) down and across; the border's pixels go on outside."""
    ndimage = _ndimage()
    down, across = (
        np.stack([ndimage.sobel(channel, axis, mode="nearest") for channel in channels])
        for axis in (0, 1)
    )
    return down, across


def _ndimage() -> Any:
    """SciPy's filters of images.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    require("scipy.ndimage", "filtering images", "studies")
    from scipy import ndimage  # type: ignore[import-untyped]

    return ndimage
