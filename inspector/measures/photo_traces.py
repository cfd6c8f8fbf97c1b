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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

__all__ = [
    "NO_JPEG",
    "Traces",
    "frame_of",
    "jpeg_quality",
    "luma_of",
    "sharpness",
    "traces_of",
    "traces_of_all",
]

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

_SLACK = 1e-3
"""Far above the rounding of a mean cosine in single precision."""


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
    return traces_of_all([pixels])[0]


def traces_of_all(photos: Sequence[Array]) -> list[Traces]:
    """Traces of some photos; those of one size are measured together.

    Args:
        photos: (H, W, 3) each, 0 to 255.
    """
    frames = [frame_of(pixels) for pixels in photos]
    lumas = [luma_of(pixels, width) for pixels, (width, _) in zip(photos, frames, strict=True)]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, luma in enumerate(lumas):
        sizes.setdefault(luma.shape, []).append(place)
    measured: dict[int, tuple[float | None, int]] = {}
    for places in sizes.values():
        planes = np.stack([lumas[place] for place in places])
        pairs = zip(_sharpnesses(planes), _jpeg_qualities(planes), strict=True)
        measured |= zip(places, pairs, strict=True)
    return [
        Traces(measured[place][0], measured[place][1], width / min(pixels.shape[:2]), colour)
        for place, (pixels, (width, colour)) in enumerate(zip(photos, frames, strict=True))
    ]


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
    return _sharpnesses(luma[None])[0]


def _sharpnesses(planes: Array) -> list[float | None]:
    """Sharpness of planes of one size (N, H, W)."""
    first, second = np.zeros((2, len(planes)))
    for axis in (1, 2):
        one = np.diff(planes, axis=axis)
        two = np.diff(one, axis=axis)
        if two.size:
            first += np.square(one).reshape(len(planes), -1).mean(1)
            second += np.square(two).reshape(len(planes), -1).mean(1)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return [above / below if below > 0 else None for below, above in pairs]


def jpeg_quality(luma: Array) -> int:
    """Lowest quality of the IJG's luminance table that a plane (H, W) was quantised by, or NO_JPEG.

    The coefficients c of 8x8 blocks that were divided by a step q and rounded are its multiples:
    the mean of cos(2 pi c / q) is 1, and 0 of coefficients that were not.  Steps that are multiples
    of the true ones fit no odd multiple, and divisors fit all: the lowest quality is the true one.
    Only coefficients above half a step tell anything, and smaller ones there must not be.
    """
    return _jpeg_qualities(luma[None])[0]


def _jpeg_qualities(planes: Array) -> list[int]:
    """JPEG qualities of planes of one size (N, H, W)."""
    count = len(planes)
    rows, columns = (length // 8 for length in planes.shape[1:])
    if not rows or not columns:
        return [NO_JPEG] * count
    whole = planes[:, : 8 * rows, : 8 * columns].reshape(count, rows, 8, columns, 8)
    blocks = whole.swapaxes(2, 3).reshape(count, -1, 8, 8)
    if blocks.shape[1] > _BLOCKS:
        order = np.argsort(-blocks.std((2, 3)), axis=1, kind="stable")[:, :_BLOCKS]
        blocks = np.take_along_axis(blocks, order[:, :, None, None], 1)
    basis = _basis()
    found = (basis @ (blocks - 128) @ basis.T).reshape(count, -1, 64)[:, :, 1:]
    return [_quality_of(*_largest(own)) for own in found.reshape(count, -1)]


def _largest(coefficients: Array) -> tuple[Array, Array]:
    """Coefficients (K,) of an even choice of all sizes, from the largest on; their frequencies.

    Args:
        coefficients: 63 of each block, one block after the other.
    """
    sizes = np.abs(coefficients)
    places = np.flatnonzero(sizes > _ROUNDING)
    # Large and small ones: a photo that was not compressed has many between nothing and one step.
    order = np.argsort(-sizes[places], kind="stable")
    chosen = places[order[:: max(-(-order.size // _COEFFICIENTS), 1)]]
    return coefficients[chosen], chosen % 63 + 1


def _quality_of(values: Array, frequencies: Array) -> int:
    """Lowest quality whose steps coefficients (K,) are multiples of, or NO_JPEG."""
    count = _telling(values, frequencies)
    told = np.flatnonzero((count >= _LEAST) & (count > _WHOLE * values.size))
    if not told.size:
        return NO_JPEG
    # Most photos were not compressed: half of the coefficients show it.
    left = told[_may_fit(values[::2], frequencies[::2], count, told)]
    if not left.size or not (_fits(values, frequencies, count, left) > _FIT).any():
        return NO_JPEG
    fit = np.zeros(len(_STEPS))
    fit[told] = _fits(values, frequencies, count, told)
    # Its neighbours fit too: uphill from the first that does.
    best = int(np.argmax(fit > _FIT))
    while best + 1 < len(fit) and fit[best + 1] > fit[best]:
        best += 1
    return best + 1


def _fits(values: Array, frequencies: Array, count: Array, places: Array) -> Array:
    """Mean cosine of the coefficients (K,) that tell, of some qualities."""
    steps = _STEPS[places][:, frequencies]
    turns = values / steps
    turns -= np.rint(turns)  # from here on single precision is enough, and several times as quick
    waves = np.cos((2 * np.pi * turns).astype(np.float32))
    tells = (2 * np.abs(values) > steps) & (steps > 1)
    return np.asarray(np.where(tells, waves, 0).sum(1, dtype=np.float64) / count[places])


def _telling(values: Array, frequencies: Array) -> Array:
    """Coefficients (K,) above half a step, by quality; a step of 1 tells nothing.

    Steps shrink from quality to quality, so that each coefficient tells from one quality on until
    its step is 1.
    """
    first = _larger()
    sizes = np.minimum(np.ceil(2 * np.abs(values)).astype(np.intp) - 1, first.shape[1] - 1)
    begins, ends = first[frequencies, sizes], first[frequencies, 1]
    length = len(_STEPS) + 1
    began = np.bincount(begins, minlength=length)
    ended = np.bincount(np.maximum(begins, ends), minlength=length)
    return np.asarray(np.cumsum(began - ended)[:-1])


@cache
def _larger() -> Array:
    """Number of qualities whose step is larger than a whole number, by frequency and number."""
    sizes = np.arange(int(_STEPS.max()) + 1)
    return np.asarray((_STEPS[:, :, None] > sizes).sum(0))


def _may_fit(values: Array, frequencies: Array, count: Array, told: Array) -> Array:
    """Which qualities may fit (T,), by every second coefficient.

    Did all of the others fit those that are left out, it would not be enough.
    """
    some = slice(int(told[0]), int(told[-1]) + 1)
    steps = _by_frequency()[frequencies, some]
    tells = 2 * np.abs(values)[:, None] > steps
    tells &= steps > 1
    turns = values.astype(np.float32)[:, None] / steps
    turns -= np.rint(turns)
    turns *= np.float32(2 * np.pi)
    waves = np.cos(turns, out=turns)
    waves *= tells
    fit = waves.sum(0) + count[some] - tells.sum(0)
    return np.asarray((fit > (_FIT - _SLACK) * count[some])[told - told[0]])


@cache
def _by_frequency() -> Array:
    """Steps (64, Q) of each frequency, by quality."""
    return np.ascontiguousarray(_STEPS.T, np.float32)


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
