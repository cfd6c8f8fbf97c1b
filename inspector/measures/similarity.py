"""How much alike two heatmaps of one photo are; NumPy only.

Each figure is None where it is undefined, with the reason in words: a constant map has no order
and no variance, and a map without a positive value has neither a top nor a peak.

    figure        1 means                                 ties
    rank          the same order of all pixels            average ranks (Spearman 1904)
    pearson       equal up to scale and offset            -
    iou           the same top 20 % of pixels             see `top_mask`
    peak_shift 0  the highest pixel is the same           the first in reading order
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "TOP_SHARE",
    "Similarity",
    "average_ranks",
    "iou_of_top",
    "pearson",
    "rank_correlation",
    "similarity",
    "top_mask",
]

TOP_SHARE = 0.2
"""Share of the pixels that counts as the top of a map."""

MAX_PIXELS = 1 << 18
"""Larger photos are compared on a grid of every k-th pixel, but for the peak."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """Two maps A and B of one photo, on the pixels that both networks saw.

    Attributes:
        rank: Spearman's rank correlation, -1..1.
        pearson: Correlation of the values, -1..1.
        iou: Intersection over union of the two top sets, 0..1.
        top_shares: Share of the pixels in the top set of A and of B; `TOP_SHARE` but for ties.
        peaks: Highest pixel (y, x) of A and of B on the photo.
        peak_shift: Distance between them in photo pixels.
        peak_share: The same as a share of the photo's diagonal.
        pixels: Photo pixels that were compared.
        step: Every how many-th row and column of the photo they are.
        undefined: Why figures are None, a sentence each.
    """

    rank: float | None
    pearson: float | None
    iou: float | None
    top_shares: tuple[float | None, float | None]
    peaks: tuple[tuple[int, int] | None, tuple[int, int] | None]
    peak_shift: float | None
    peak_share: float | None
    pixels: int
    step: int
    undefined: tuple[str, ...] = ()

    @property
    def one_sided(self) -> bool:
        """Whether one map shows evidence and the other none: as unlike as maps can be."""
        return (self.peaks[0] is None) != (self.peaks[1] is None)


def similarity(a: ArrayLike, b: ArrayLike, *, max_pixels: int = MAX_PIXELS) -> Similarity:
    """Compare two maps of one photo.

    Args:
        a: (H, W) of the photo, NaN where the network saw nothing.
        b: Likewise.
        max_pixels: Photos with more pixels are compared on a coarser grid.

    Raises:
        ValueError: The shapes differ or are not (H, W).

    Example:
        >>> import numpy as np
        >>> from inspector.measures.similarity import similarity
        >>> first = np.arange(16.0).reshape(4, 4)
        >>> round(similarity(first, first.T).rank, 3)
        0.471
    """
    left, right = np.asarray(a), np.asarray(b)
    if left.shape != right.shape or left.ndim != 2:
        raise ValueError(f"two maps of one photo are needed, not {left.shape} and {right.shape}")
    both = np.isfinite(left) & np.isfinite(right)
    peaks = _peak(left, both), _peak(right, both)
    shift = None if peaks[0] is None or peaks[1] is None else math.dist(peaks[0], peaks[1])
    step = max(1, math.ceil(math.sqrt(left.size / max_pixels)))
    grid = (slice(step // 2, None, step),) * 2
    mask = both[grid]
    x, y = left[grid][mask].astype(np.float64), right[grid][mask].astype(np.float64)
    tops = top_mask(x), top_mask(y)
    return Similarity(
        rank=rank_correlation(x, y),
        pearson=pearson(x, y),
        iou=_jaccard(*tops),
        top_shares=(_share(tops[0]), _share(tops[1])),
        peaks=peaks,
        peak_shift=shift,
        peak_share=None if shift is None else shift / math.hypot(*left.shape),
        pixels=int(mask.sum()),
        step=step,
        undefined=_reasons(x, y),
    )


def average_ranks(values: ArrayLike) -> Vector:
    """Ranks from 1; equal values share the mean of their ranks.

    Args:
        values: Any shape; flattened.
    """
    flat = np.asarray(values, np.float64).ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: flat.size])
    ends = np.r_[starts[1:], flat.size]
    ranks = np.empty(flat.size)
    ranks[order] = np.repeat((starts + 1 + ends) / 2, ends - starts)
    return ranks


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's rank correlation with average ranks for ties; None if either is constant."""
    return pearson(average_ranks(a), average_ranks(b))


def pearson(a: ArrayLike, b: ArrayLike) -> float | None:
    """Pearson's correlation; None if either is constant or they hold less than two values."""
    x, y = (np.asarray(v, np.float64).ravel() for v in (a, b))
    if _constant(x) or _constant(y):
        return None
    x, y = _centred(x), _centred(y)
    value = float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))
    return min(1.0, max(-1.0, value))  # rounding must not make it 1.0000000000000002


def top_mask(values: ArrayLike, share: float = TOP_SHARE) -> NDArray[np.bool_] | None:
    """Pixels that belong to the top of a map.

    They are the ceil(share * n) highest. A plateau of equal values that straddles this bound is
    taken in whole, so that no order of pixels decides; but if it is the map's minimum, which is
    background, it is left out whole. So a Grad-CAM map that is zero nearly everywhere has a
    smaller top set than ``share``, and never one of arbitrary zeros.

    Args:
        values: Any shape.
        share: Between 0 and 1.

    Returns:
        A mask of the same shape; None if no value is positive, or all are equal.
    """
    array = np.asarray(values)
    if array.size == 0 or _constant(array) or not (array > 0).any():
        return None
    count = max(1, math.ceil(share * array.size - 1e-9))
    bound = np.partition(array, array.size - count, axis=None)[array.size - count]
    mask: NDArray[np.bool_] = array > bound if bound == array.min() else array >= bound
    return mask


def iou_of_top(a: ArrayLike, b: ArrayLike, share: float = TOP_SHARE) -> float | None:
    """Intersection over union of two maps' top sets; None if either has none."""
    return _jaccard(top_mask(a, share), top_mask(b, share))


def _jaccard(a: NDArray[np.bool_] | None, b: NDArray[np.bool_] | None) -> float | None:
    if a is None or b is None:
        return None
    return float((a & b).sum() / (a | b).sum())


def _share(mask: NDArray[np.bool_] | None) -> float | None:
    return None if mask is None else float(mask.mean())


def _constant(values: NDArray[Any]) -> bool:
    return values.size < 2 or bool(values.min() == values.max())


def _centred(values: Vector) -> Vector:
    """Deviations from the mean, scaled to at most 1, so that no square under- or overflows."""
    scaled = values / np.abs(values).max()
    centred: Vector = scaled - scaled.mean()
    largest = np.abs(centred).max()
    return centred / largest if largest > 0 else centred


def _peak(values: NDArray[Any], seen: NDArray[np.bool_]) -> tuple[int, int] | None:
    """The highest pixel, the first of equals; None if no value is positive."""
    shown = np.where(seen, values, -np.inf)
    if not shown.size or not shown.max() > 0:
        return None
    y, x = np.unravel_index(int(shown.argmax()), shown.shape)
    return int(y), int(x)


def _reasons(x: Vector, y: Vector) -> tuple[str, ...]:
    if x.size < 2:
        return ("the two networks saw no common part of the photo",)
    found = []
    for name, values in (("A", x), ("B", y)):
        if not (values > 0).any():
            found.append(f"{name}'s map has no positive evidence: no top, no peak")
        if _constant(values):
            found.append(f"{name}'s map is constant: no correlation, no top")
    return tuple(found)
