"""Signs of feature changes, and how much they differ from photo to photo.

    eps_i = x_i - x~_i              features of the original minus those of the occluded photo
    Delta = sum over i != j of H(sign eps_i, sign eps_j)

(Zeiler & Fergus 2014, section 4.4.)  H counts the elements in which two vectors of signs differ;
a sign is -1, 0 or 1.  Signs are kept as two bits an element.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ROUNDING", "Agreement", "Signs", "agreement", "signs_of"]

Array = np.ndarray[Any, Any]

ROUNDING = 1e-5
"""Changes up to this share of a photo's largest feature are rounding, and count as none."""


@dataclass(frozen=True, eq=False)
class Signs:
    """Signs of F elements.

    Attributes:
        raised: Bits where the change is positive, (F / 8,) bytes.
        lowered: Bits where it is negative.
        count: F.
    """

    raised: Array
    lowered: Array
    count: int

    @property
    def changed(self) -> int:
        """Elements that are not 0."""
        return _bits(self.raised | self.lowered)


def signs_of(original: Array, occluded: Array) -> list[Signs]:
    """Signs of eps for each occlusion of one photo.

    Args:
        original: (F,).
        occluded: (P, F).
    """
    start = original.astype(np.float64)
    least = ROUNDING * float(np.abs(start).max(initial=0))
    found = []
    for row in occluded:
        change = start - row.astype(np.float64)
        bits = np.packbits(change > least), np.packbits(change < -least)
        found.append(Signs(*bits, count=len(start)))
    return found


@dataclass(frozen=True)
class Agreement:
    """How n photos' signs differ.

    Attributes:
        pairs: Hamming distance of each pair i < j, in elements.
        opposite: Elements of all pairs with one sign raised and one lowered.
        both: Elements of all pairs that changed in both photos.
        changed: Mean share of the elements that changed at all.
        count: F.
    """

    pairs: tuple[int, ...]
    opposite: int
    both: int
    changed: float
    count: int

    @property
    def total(self) -> int:
        """Delta as the paper sums it, over ordered pairs."""
        return 2 * sum(self.pairs)

    @property
    def delta(self) -> float:
        """Delta over ordered pairs and elements, n (n - 1) F."""
        return self.total / (2 * len(self.pairs) * self.count)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the pairs' shares; None for a single pair."""
        if len(self.pairs) < 2:
            return None
        return float(np.std(np.asarray(self.pairs) / self.count, ddof=1))

    @property
    def contradiction(self) -> float | None:
        """Of the elements that changed in both photos of a pair, the share of opposite signs."""
        return self.opposite / self.both if self.both else None


def agreement(photos: Sequence[Signs]) -> Agreement:
    """Compare the signs of n >= 2 photos with one another."""
    pairs, opposite, both = [], 0, 0
    for i, one in enumerate(photos):
        for other in photos[i + 1 :]:
            pairs.append(_bits((one.raised ^ other.raised) | (one.lowered ^ other.lowered)))
            opposite += _bits((one.raised & other.lowered) | (one.lowered & other.raised))
            both += _bits((one.raised | one.lowered) & (other.raised | other.lowered))
    count = photos[0].count
    changed = float(np.mean([one.changed / count for one in photos]))
    return Agreement(tuple(pairs), opposite, both, changed, count)


def _bits(packed: Array) -> int:
    return int(np.bitwise_count(packed).sum(dtype=np.int64))
