"""Error of a signal against a reference: SQNR, PSNR, cosine, mean and largest difference.

With x the reference and y the other, sums over all elements of all photos::

    SQNR = 10 log10( sum x^2 / sum (y - x)^2 )                  dB
    PSNR = 10 log10( (max x - min x)^2 / mean (y - x)^2 )       dB
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector.measures.statistics import bootstrap, wilson

__all__ = ["EQUAL_DB", "METRICS", "Sums", "error_statistics", "mean_statistic", "share_statistic"]

Array = NDArray[Any]
Statistic = dict[str, float | int | None]

EQUAL_DB = 300.0
"""Decibels of equal signals: what double precision can tell apart at most."""

METRICS = ("sqnr", "psnr", "cosine", "mse", "max_abs")
"""Names of the errors of a signal."""


@dataclass
class Sums:
    """Running sums of one tensor over images, and the errors that follow from them.

    Attributes:
        difference: Sum of the squared differences.
        reference: Sum of the squares of the reference.
        other: Sum of the squares of the other.
        product: Sum of their products.
        count: How many elements.
        largest: Largest difference.
        least: Smallest value of the reference.
        most: Its largest value.
        finite: Whether the other is finite wherever the reference is.
    """

    difference: float = 0.0
    reference: float = 0.0
    other: float = 0.0
    product: float = 0.0
    count: int = 0
    largest: float = 0.0
    least: float = math.inf
    most: float = -math.inf
    finite: bool = True

    def add(self, reference: Array, other: Array) -> None:
        """Take in one image's values, both of one shape."""
        x, y = (np.asarray(v, np.float64).ravel() for v in (reference, other))
        self.finite = self.finite and bool(np.isfinite(y).all() or not np.isfinite(x).all())
        self.count += x.size
        if not x.size:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            self.difference += float((y - x) @ (y - x))
            self.reference += float(x @ x)
            self.other += float(y @ y)
            self.product += float(x @ y)
            self.largest = max(self.largest, float(np.abs(y - x).max()))
        self.least, self.most = min(self.least, float(x.min())), max(self.most, float(x.max()))

    @property
    def relative(self) -> float | None:
        """RMS of the difference over RMS of the reference; None if that is zero or not finite."""
        if not self.finite:
            return math.inf
        if not (0 < self.reference < math.inf) or math.isnan(self.difference):
            return None
        return math.sqrt(self.difference / self.reference)

    @property
    def decibels(self) -> float | None:
        """Signal-to-noise ratio in dB; None where the relative error is undefined or zero."""
        error = self.relative
        return None if not error or math.isinf(error) else -20 * math.log10(error)

    @property
    def cosine(self) -> float | None:
        """Cosine between the two; None where either is zero or not finite."""
        if not (0 < self.reference < math.inf and 0 < self.other < math.inf):
            return None
        return max(-1.0, min(1.0, self.product / math.sqrt(self.reference * self.other)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report; an error that is not finite is null, and ``finite`` false."""
        error = self.relative
        known = error is not None and math.isfinite(error)
        return {
            "relative_error": error if known else None,
            "snr_db": self.decibels,
            "cosine": self.cosine,
            "finite": self.finite,
        }


def error_statistics(
    photos: Sequence[Sums], *, seed: int, intervals: bool = True
) -> dict[str, Any]:
    """Errors over some photos, each with its bootstrap interval over them.

    Args:
        photos: Sums of each photo.
        seed: Of the draws.
        intervals: Whether the intervals are computed, which needs SciPy; else they are None.

    Returns:
        A statistic (``value``, ``low``, ``high``, ``photos``) by the names of ``METRICS``; None
        where it is undefined. Equal signals have ``EQUAL_DB``. Of the largest difference the
        interval's upper end is never above what was seen.

    Raises:
        MissingExtra: SciPy is not installed.

    Example:
        >>> import numpy as np
        >>> from inspector.measures.signal_error import Sums, error_statistics
        >>> one = Sums()
        >>> one.add(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
        >>> found = error_statistics([one], seed=0, intervals=False)
        >>> found["sqnr"]["value"], found["max_abs"]["value"]
        (20.0, 0.5)
    """
    if not photos or not all(_usable(one) for one in photos):
        return dict.fromkeys(METRICS)
    of_photos = np.array(
        [(p.difference, p.reference, p.other, p.product, p.count, p.largest) for p in photos]
    ).T
    span = max(p.most for p in photos) - min(p.least for p in photos)

    def statistic(weights: Array) -> Array:
        difference, reference, other, product, count = of_photos[:5] @ weights.T
        largest = np.where(weights > 0, of_photos[5], 0).max(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = difference / count
            return np.stack(
                [
                    _decibels(reference, difference),
                    _decibels(np.full_like(mean, span**2), mean),
                    np.clip(product / np.sqrt(reference * other), -1, 1),
                    mean,
                    largest,
                ]
            )

    values = statistic(np.ones((1, len(photos))))[:, 0]
    ends = bootstrap(statistic, len(photos), seed=seed) if intervals else None
    return {
        name: _statistic(values[place], ends, place, len(photos))
        for place, name in enumerate(METRICS)
    }


def mean_statistic(values: Sequence[float], *, seed: int, intervals: bool = True) -> Any:
    """Mean over photos, with its bootstrap interval; None where there are none.

    Args:
        values: One per photo.
        seed: Of the draws.
        intervals: As in ``error_statistics``.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    if not len(values):
        return None
    known = np.asarray(values, np.float64)

    def statistic(weights: Array) -> Array:
        found: Array = (weights @ known / len(known))[None]
        return found

    ends = bootstrap(statistic, len(known), seed=seed) if intervals else None
    return _statistic(float(known.mean()), ends, 0, len(known))


def share_statistic(hits: int, photos: int, *, intervals: bool = True) -> Any:
    """Share of photos, with Wilson's interval; None where there are none.

    Args:
        hits: How many.
        photos: Of how many.
        intervals: As in ``error_statistics``.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    if not photos:
        return None
    low, high = wilson(hits, photos) if intervals else (None, None)
    return {"value": hits / photos, "low": low, "high": high, "photos": photos}


def _usable(one: Sums) -> bool:
    """Whether both signals were finite, and there was something of them."""
    numbers = (one.difference, one.reference, one.other, one.largest)
    return one.count > 0 and one.finite and all(map(math.isfinite, numbers))


def _decibels(signal: Array, noise: Array) -> Array:
    """10 log10 of the ratio, between plus and minus ``EQUAL_DB``."""
    found = 10 * np.log10(np.where(noise > 0, signal / np.where(noise > 0, noise, 1), np.inf))
    bounded: Array = np.clip(found, -EQUAL_DB, EQUAL_DB)
    return bounded


def _statistic(
    value: float, ends: tuple[Array, Array] | None, place: int, photos: int
) -> Mapping[str, float | int | None] | None:
    if not math.isfinite(value):
        return None
    low, high = (None, None) if ends is None else (float(end[place]) for end in ends)
    found: Statistic = {"value": float(value), "low": low, "high": high, "photos": photos}
    return found
