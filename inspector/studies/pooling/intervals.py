"""How certain a comparison over photos is: Wilson's interval, McNemar's test, the bootstrap."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVEL", "holm", "mcnemar", "paired_interval", "resamples", "spread", "wilson"]

LEVEL = 0.95
"""Of all intervals."""

_Z = 1.959963984540054  # standard normal quantile of (1 + LEVEL) / 2

RESAMPLES = 2000
"""Bootstrap samples."""

Array = NDArray[Any]


def wilson(right: int, total: int) -> tuple[float, float]:
    """Interval of a share of photos (Wilson 1927): never empty, never beyond 0 or 1.

    Args:
        right: How many.
        total: Of how many; not 0.
    """
    share, over = right / total, _Z**2 / total
    middle = (share + over / 2) / (1 + over)
    half = _Z / (1 + over) * math.sqrt(share * (1 - share) / total + over / (4 * total))
    return middle - half if right else 0.0, middle + half if right < total else 1.0


def mcnemar(first: int, second: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): a fair coin for each photo that differs.

    Args:
        first: Photos on which only the first network is right.
        second: Only the second.
    """
    total = first + second
    ways = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
        for k in range(min(first, second) + 1)
    ]
    tail = math.fsum(math.exp(way - total * math.log(2)) for way in ways)
    return min(1.0, 2 * tail)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for how many they are (Holm 1979), in the order given."""
    found, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        found[place] = largest
    return found


def resamples(count: int, seed: int) -> NDArray[np.intp]:
    """Photos of each bootstrap sample, (RESAMPLES, count); the same for all that is compared."""
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def spread(means: Array) -> tuple[float, float]:
    """Percentile interval of (RESAMPLES,) bootstrapped values."""
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_interval(first: Array, second: Array, seed: int) -> tuple[float, float]:
    """Bootstrap interval of the difference of two networks' accuracies on the same photos.

    Args:
        first: (P,) whether the first network is right.
        second: (P,) likewise.
        seed: Of the bootstrap.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    shares = [float((difference == value).mean()) for value in (1, -1, 0)]
    # Photos of one kind are alike: drawing how many of each is drawing the photos themselves.
    drawn = np.random.default_rng(seed).multinomial(len(difference), shares, RESAMPLES)
    return spread((drawn[:, 0] - drawn[:, 1]) / len(difference))
