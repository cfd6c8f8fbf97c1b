"""Quality at which photos were JPEG-compressed, read from their pixels.

The coefficients c of 8x8 blocks that were divided by a step q and rounded are its multiples: the
mean of cos(2 pi c / q) is 1, and 0 of coefficients that were not (after Fan & de Queiroz 2003).
Steps that are multiples of the true ones fit no odd multiple, and divisors fit all: the lowest
quality is the true one.  Only coefficients above half a step tell anything, and smaller ones there
must not be.

Many photos are measured together.  Most were not compressed, so that nearly all of the time goes
into seeing that no quality fits: half of the coefficients in single precision, and then the other
half where they left a doubt, with bounds that leave no quality out that may fit.
"""

from functools import cache
from typing import Any

import numpy as np

__all__ = ["NO_JPEG", "jpeg_qualities"]

Array = np.ndarray[Any, Any]

NO_JPEG = 100
"""Quality of a photo without traces of compression."""

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

_SLACK = 1e-3
"""Far above the rounding of a mean cosine in single precision."""

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


def jpeg_qualities(planes: Array) -> list[int]:
    """Lowest quality of the IJG's luminance table that each plane was quantised by, or NO_JPEG.

    Args:
        planes: Luma of photos of one size, (N, H, W), 0 to 255, on the 8x8 grid.

    Source: Fan & de Queiroz 2003 for the idea; the steps are those of ITU-T T.81, table K.1.

    Example:
        >>> import numpy as np
        >>> from inspector.measures.jpeg_traces import jpeg_qualities
        >>> jpeg_qualities(np.random.default_rng(0).uniform(0, 255, (2, 32, 32)))
        [100, 100]
    """
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
    values, frequencies, sizes = _largest(found.reshape(count, -1))
    telling = _telling(values, frequencies)
    told = (telling >= _LEAST) & (telling > _WHOLE * sizes[:, None])
    return [
        _quality_of(values[row, :size], frequencies[row, :size], telling[row], told[row])
        for row, size in enumerate(sizes.tolist())
    ]


def _largest(coefficients: Array) -> tuple[Array, Array, Array]:
    """Sizes of coefficients, an even choice from the largest on, with their frequencies.

    Args:
        coefficients: 63 of each block, one block after the other, of each photo (N, K).

    Returns:
        Sizes (N, L) and frequencies (N, L), and how many of them each photo has (N,); sizes of 0
        follow.
    """
    sizes = np.abs(coefficients)
    # The default sort is several times as quick as a stable one, which ties alone need.
    order = np.argsort(-sizes, axis=1)
    ordered = np.take_along_axis(sizes, order, 1)
    same = ordered[:, 1:] == ordered[:, :-1]
    if same.any():
        tied = (same & (ordered[:, 1:] > _ROUNDING)).any(1)
        order[tied] = np.argsort(-sizes[tied], axis=1, kind="stable")
    there = np.count_nonzero(sizes > _ROUNDING, axis=1)
    # Large and small ones: a photo that was not compressed has many between nothing and one step.
    steps = np.maximum(-(-there // _COEFFICIENTS), 1)
    counts = -(-there // steps)
    places = np.minimum(np.arange(counts.max()) * steps[:, None], sizes.shape[1] - 1)
    chosen = np.take_along_axis(order, places, 1)
    kept = np.arange(counts.max()) < counts[:, None]
    return np.where(kept, np.take_along_axis(sizes, chosen, 1), 0), chosen % 63 + 1, counts


def _telling(sizes: Array, frequencies: Array) -> Array:
    """Coefficients above half a step, by photo and quality (N, Q); a step of 1 tells nothing.

    Steps shrink from quality to quality, so that each coefficient tells from one quality on until
    its step is 1.
    """
    first, count, length = _larger(), len(sizes), len(_STEPS) + 1
    at = np.clip(np.ceil(2 * sizes).astype(np.intp) - 1, 0, first.shape[1] - 1)
    begins, ends = first[frequencies, at], first[frequencies, 1]
    own = length * np.arange(count)[:, None]
    began = np.bincount((own + begins).ravel(), minlength=length * count)
    ended = np.bincount((own + np.maximum(begins, ends)).ravel(), minlength=length * count)
    return np.cumsum((began - ended).reshape(count, length), 1)[:, :-1]


def _quality_of(sizes: Array, frequencies: Array, count: Array, told: Array) -> int:
    """Lowest quality whose steps coefficients (K,) are multiples of, or NO_JPEG.

    Args:
        sizes: Of the coefficients.
        frequencies: Of the coefficients.
        count: How many of them tell, by quality (Q,).
        told: Qualities of which enough tell (Q,).
    """
    left = _may_fit(sizes, frequencies, count, np.flatnonzero(told))
    if not left.size or not (_fits(sizes, frequencies, count, left) > _FIT).any():
        return NO_JPEG
    places = np.flatnonzero(told)
    fit = np.zeros(len(_STEPS))
    fit[places] = _fits(sizes, frequencies, count, places)
    # Its neighbours fit too: uphill from the first that does.
    best = int(np.argmax(fit > _FIT))
    while best + 1 < len(fit) and fit[best + 1] > fit[best]:
        best += 1
    return best + 1


def _fits(sizes: Array, frequencies: Array, count: Array, places: Array) -> Array:
    """Mean cosine of the coefficients (K,) that tell, of some qualities."""
    steps = _STEPS[places][:, frequencies]
    turns = sizes / steps
    turns -= np.rint(turns)  # from here on single precision is enough, and several times as quick
    waves = np.cos((2 * np.pi * turns).astype(np.float32))
    tells = (2 * sizes > steps) & (steps > 1)
    return np.asarray(np.where(tells, waves, 0).sum(1, dtype=np.float64) / count[places])


def _may_fit(sizes: Array, frequencies: Array, count: Array, places: Array) -> Array:
    """Which of some qualities may fit coefficients (K,)."""
    sizes = sizes.astype(np.float32)
    lost = np.zeros(places.size, np.float32)
    # Those that come later all fit, for all that is known: the larger half, of which most tell,
    # settles nearly all qualities.
    half = -(-len(sizes) // 2)
    for some in (slice(half), slice(half, None)):
        if not places.size:
            break
        lost += _lost(sizes[some], frequencies[some], places)
        may = count[places] - lost > (_FIT - _SLACK) * count[places]
        places, lost = places[may], lost[may]
    return places


def _lost(sizes: Array, frequencies: Array, places: Array) -> Array:
    """By how much the sum of cosines stays below the number of coefficients that tell (Q,)."""
    first, last = int(places[0]), int(places[-1]) + 1
    turns = _by_frequency()[frequencies, first:last]
    np.divide(sizes[:, None], turns, out=turns)
    whole = np.rint(turns)
    turns -= whole
    # Of less than half a step it is 0, and so is the angle: what tells nothing loses nothing.
    np.minimum(whole, 1, out=whole)
    whole *= np.float32(2 * np.pi)
    turns *= whole
    np.cos(turns, out=turns)
    summed = np.ones(len(sizes), np.float32) @ turns
    lost: Array = len(sizes) - summed
    return np.asarray(lost[places - first])


@cache
def _larger() -> Array:
    """Number of qualities whose step is larger than a whole number, by frequency and number."""
    sizes = np.arange(int(_STEPS.max()) + 1)
    return np.asarray((_STEPS[:, :, None] > sizes).sum(0))


@cache
def _by_frequency() -> Array:
    """Steps (64, Q) of each frequency, by quality; without end where they tell nothing."""
    return np.ascontiguousarray(np.where(_STEPS > 1, _STEPS, np.inf).T, np.float32)


@cache
def _basis() -> Array:
    """The orthonormal DCT-II of 8 samples, (8, 8)."""
    k, n = np.arange(8)[:, None], np.arange(8)[None]
    found = np.cos(np.pi * (2 * n + 1) * k / 16) / 2
    found[0] /= np.sqrt(2)
    return np.asarray(found)
