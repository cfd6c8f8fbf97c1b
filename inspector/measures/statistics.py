"""Intervals and tests over photos, by SciPy: Wilson, McNemar, the bootstrap; and Holm's correction.

SciPy comes with the extra ``studies``.  It is imported when it is needed; whoever does long work
first calls `require_scipy` before it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector.errors import MissingExtra, require

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "bootstrap",
    "has_scipy",
    "holm",
    "mcnemar",
    "mean_interval",
    "require_scipy",
    "wald_difference",
    "wilson",
]

LEVEL = 0.95
"""Of all intervals."""

RESAMPLES = 2000
"""Bootstrap samples."""

CHUNK = 4_000_000
"""Weights of photos that are held at a time."""

Z = 1.959963984540054
"""Standard normal quantile of (1 + LEVEL) / 2."""

Array = NDArray[Any]


def require_scipy(extra: str = "studies") -> None:
    """Refuse to go on where SciPy is not installed.

    Args:
        extra: The extra that brings all that the caller needs.

    Raises:
        MissingExtra: It is not.
    """
    require("scipy.stats", "statistics over photos", extra)


def has_scipy() -> bool:
    """Whether SciPy is installed, for whoever can do without intervals."""
    try:
        require_scipy()
    except MissingExtra:
        return False
    return True


def wilson(right: int, total: int) -> tuple[float, float]:
    """Interval of a share of photos (Wilson 1927): never empty, never beyond 0 or 1.

    The photos count as independent draws.

    Args:
        right: How many.
        total: Of how many; not 0.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    require_scipy()
    from scipy import stats  # type: ignore[import-untyped]

    found = stats.binomtest(right, total).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def mcnemar(first: int, second: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): a fair coin per photo that differs.

    Args:
        first: Photos on which only the first network is right.
        second: Only the second.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    require_scipy()
    from scipy import stats

    if first + second == 0:
        return 1.0
    return float(stats.binomtest(first, first + second).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given."""
    found, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        found[place] = largest
    return found


def wald_difference(right: Array, other: Array) -> tuple[float, float, float]:
    """Difference of two accuracies on the same photos, and its 95 % interval (paired, Wald).

    Args:
        right: (N,) whether one classifier is right.
        other: (N,) whether the other is.
    """
    total = len(right)
    gained, lost = int((right & ~other).sum()), int((~right & other).sum())
    found = (gained - lost) / total
    variance = max(gained + lost - (gained - lost) ** 2 / total, 0.0)
    half = Z * float(np.sqrt(variance)) / total
    return found, found - half, found + half


def mean_interval(values: Array, alone: float) -> tuple[float, float, float]:
    """Mean of independent values (N,) and its 95 % interval, by the normal distribution.

    Args:
        values: The values, at least one.
        alone: Half the interval's width where there is one value, which has no spread.
    """
    mean = float(values.mean())
    half = alone
    if values.size > 1:
        half = Z * float(values.std(ddof=1) / np.sqrt(values.size))
    return mean, mean - half, mean + half


def bootstrap(
    statistic: Callable[[Array], Array],
    photos: int,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[Array, Array]:
    """Percentile bootstrap intervals over photos (Efron 1979), by ``scipy.stats.bootstrap``.

    The same photos are drawn for all values of the statistic, so that differences are of pairs.

    Args:
        statistic: Takes (B, photos), how often each photo is drawn in each of B samples (each row
            sums to ``photos``); returns (..., B).
        photos: How many there are; the interval of one photo has no width.
        seed: Of the draws.
        resamples: How many samples are drawn.

    Returns:
        Lower and upper ends, (...).

    Raises:
        MissingExtra: SciPy is not installed.
    """
    require_scipy()
    from scipy import stats

    def of_indices(indices: Array, axis: int = -1) -> Array:
        del axis  # the last one
        rows = np.atleast_2d(indices)
        places = rows + photos * np.arange(len(rows))[:, None]
        drawn = np.bincount(places.ravel(), minlength=rows.size).reshape(rows.shape)
        found = statistic(drawn.astype(float))
        return found if np.ndim(indices) > 1 else found[..., 0]

    if photos < 2:
        value = np.asarray(statistic(np.ones((1, photos))))[..., 0]
        return value, value
    interval = stats.bootstrap(
        (np.arange(photos),),
        of_indices,
        n_resamples=resamples,
        batch=max(1, min(resamples, CHUNK // photos)),
        vectorized=True,
        axis=-1,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)
