"""Traces that processing leaves in a whole photo: blur, JPEG compression, a frame.

Each is one number per photo that hardly depends on what the photo shows:

    sharpness      sum of squared second differences of the luma over that of its first differences,
                   along rows and columns: white noise has 3, a Gaussian blur of s pixels comes
                   near 1.5 / s^2
    jpeg quality   lowest quality (1 to 95) of the IJG's tables whose steps the photo's DCT
                   coefficients are multiples of (after Fan & de Queiroz 2003); 100 without
    frame          rows and columns of one colour on all four sides, as a share of the shorter side

The traces of JPEG are those of its 8x8 grid: they are gone where a photo was scaled, turned by
an angle or cut off the grid after it was compressed.  Two compressions leave those of the last.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

__all__ = ["NO_JPEG", "Traces", "frame_of", "jpeg_quality", "luma_of", "sharpness", "traces_of"]

Array = np.ndarray[Any, Any]

NO_JPEG = 100
"""Quality of a photo without traces of compression."""

_LUMA = np.array([0.299, 0.587, 0.114])
_SIDE = 256
"""Side of the middle part of a large photo that is measured, in pixels."""

_BLOCKS = 64
"""Blocks with most contrast that the quality is estimated of."""

_HIGHEST = 95
"""Quality above which the steps are not larger than the rounding of pixels."""

_FIT = 0.6
"""Mean cosine from which coefficients count as multiples of a step; 0 of any others."""

_ROUNDING = 1.5
"""Coefficients that the rounding of pixels alone does not reach."""

_COEFFICIENTS = 256
"""Coefficients of a photo that are compared with each quality's steps."""

_WHOLE = 0.3
"""Share of the coefficients that are a step or more from which the photo was compressed; the others
are what clipped pixels leave."""

_LEAST = 24
"""Coefficients below which nothing is said of the quality."""

_SAME = 6.0
"""Grey levels within which a line of a frame has one colour; JPEG moves it so far."""

_WIDEST = 0.25
"""Share of the shorter side above which an even margin is background, not a frame."""

# Table K.1 of ITU-T T.81 (the IJG's luminance table at quality 50).
_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


def _steps() -> Array:
    """Steps (_HIGHEST, 64) of each quality from 1 on, as the IJG's library scales them."""
    quality = np.arange(1, _HIGHEST + 1)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    steps = np.clip((_TABLE.ravel()[None] * scale[:, None] + 50) // 100, 1, 255)
    return np.asarray(steps, np.float64)


_STEPS = _steps()


@dataclass(frozen=True)
class Traces:
    """What processing left in one photo.

    Attributes:
        sharpness: Second over first differences, 0 to about 3; None of a photo of one colour.
        jpeg_quality: 1 to 95, or NO_JPEG.
        frame: Width of the frame as a share of the shorter side; 0 without one.
        colour: RGB of the frame, 0 to 255; None without one.
    """

    sharpness: float | None
    jpeg_quality: int
    frame: float
    colour: tuple[int, int, int] | None


def traces_of(pixels: Array) -> Traces:
    """Traces of one photo.

    Args:
        pixels: (H, W, 3), 0 to 255.

    Example:
        >>> import numpy as np
        >>> photo = np.random.default_rng(0).integers(0, 200, (64, 48, 3))
        >>> photo[:4] = photo[-4:] = photo[:, :4] = photo[:, -4:] = 255
        >>> found = traces_of(photo)
        >>> found.jpeg_quality, round(found.frame, 3), found.colour
        (100, 0.083, (255, 255, 255))
    """
    width, colour = frame_of(pixels)
    luma = luma_of(pixels, width)
    share = width / min(pixels.shape[:2])
    return Traces(sharpness(luma), jpeg_quality(luma), share, colour)


def luma_of(pixels: Array, frame: int = 0) -> Array:
    """Luma of at most _SIDE x _SIDE pixels from the middle, cut on the 8x8 grid, without the frame.

    Args:
        pixels: (H, W, 3), 0 to 255.
        frame: Width of the frame in pixels.
    """
    cut = []
    for length in pixels.shape[:2]:
        first = -(-max((length - _SIDE) // 2, frame) // 8) * 8
        last = min(first + _SIDE, length - frame)
        cut.append(slice(first, last) if last - first >= 8 else slice(None))
    return np.asarray(np.asarray(pixels[cut[0], cut[1]], np.float64) @ _LUMA)


def sharpness(luma: Array) -> float | None:
    """Squared second differences over squared first differences of a plane (H, W).

    None where it has no differences, or is smaller than 3x3.
    """
    first, second = 0.0, 0.0
    for axis in (0, 1):
        one = np.diff(luma, axis=axis)
        two = np.diff(one, axis=axis)
        if two.size:
            first += float(np.square(one).mean())
            second += float(np.square(two).mean())
    return second / first if first > 0 else None


def jpeg_quality(luma: Array) -> int:
    """Lowest quality of the IJG's luminance table that a plane (H, W) was quantised by, or NO_JPEG.

    The coefficients c of 8x8 blocks that were divided by a step q and rounded are its multiples:
    the mean of cos(2 pi c / q) is 1, and 0 of coefficients that were not.  Steps that are multiples
    of the true ones fit no odd multiple, and divisors fit all: the lowest quality is the true one.
    Only coefficients above half a step tell anything, and smaller ones there must not be.
    """
    rows, columns = (length // 8 for length in luma.shape)
    if not rows or not columns:
        return NO_JPEG
    whole = luma[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8)
    blocks = whole.swapaxes(1, 2).reshape(-1, 8, 8)
    if len(blocks) > _BLOCKS:
        blocks = blocks[np.argsort(-blocks.std((1, 2)), kind="stable")[:_BLOCKS]]
    basis = _basis()
    found = (basis @ (blocks - 128) @ basis.T).reshape(-1, 64)[:, 1:]
    place, frequency = np.nonzero(np.abs(found) > _ROUNDING)
    values = found[place, frequency]
    # Large and small ones: a photo that was not compressed has many between nothing and one step.
    order = np.argsort(-np.abs(values), kind="stable")
    chosen = order[:: max(-(-order.size // _COEFFICIENTS), 1)]
    values, steps = values[chosen], _STEPS[:, frequency[chosen] + 1]
    tells = (2 * np.abs(values) > steps) & (steps > 1)
    count = tells.sum(1)
    told = np.flatnonzero((count >= _LEAST) & (count > _WHOLE * values.size))
    turns = values / steps[told]
    turns -= np.rint(turns)  # from here on single precision is enough, and several times as quick
    waves = np.where(tells[told], np.cos((2 * np.pi * turns).astype(np.float32)), 0)
    fit = np.zeros(len(steps))
    fit[told] = waves.sum(1, dtype=np.float64) / count[told]
    if not (fit > _FIT).any():
        return NO_JPEG
    # Its neighbours fit too: uphill from the first that does.
    best = int(np.argmax(fit > _FIT))
    while best + 1 < len(fit) and fit[best + 1] > fit[best]:
        best += 1
    return best + 1


@cache
def _basis() -> Array:
    """The orthonormal DCT-II of 8 samples, (8, 8)."""
    k, n = np.arange(8)[:, None], np.arange(8)[None]
    found = np.cos(np.pi * (2 * n + 1) * k / 16) / 2
    found[0] /= np.sqrt(2)
    return np.asarray(found)


def frame_of(pixels: Array) -> tuple[int, tuple[int, int, int] | None]:
    """Width in pixels and colour of a frame of one colour on all four sides; (0, None) without.

    An even background that reaches further than a quarter of the shorter side is not a frame.

    Args:
        pixels: (H, W, 3), 0 to 255.
    """
    height, width = pixels.shape[:2]
    corner = np.asarray(pixels[0, 0], np.float64)
    most = int(_WIDEST * min(height, width))
    depth = 0
    while depth <= most:
        inner = pixels[depth : height - depth, depth : width - depth]
        if min(inner.shape[:2]) < 1:
            break
        lines = (inner[0], inner[-1], inner[:, 0], inner[:, -1])
        if any(np.abs(line - corner).max() > _SAME for line in lines):
            break
        depth += 1
    if not 0 < depth <= most:
        return 0, None
    ring = np.concatenate([pixels[:depth].reshape(-1, 3), pixels[-depth:].reshape(-1, 3)])
    red, green, blue = (int(v) for v in np.rint(np.median(ring, axis=0)))
    return depth, (red, green, blue)
