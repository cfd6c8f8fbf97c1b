"""What the measures of all networks say together, and whether it is what the paper found.

For each network, with D and G the mean edge agreement of deconvnet and guided backpropagation
over the same photos, and the bootstrap interval of D - G/2:

    works       the interval lies above 0, and so do those of D and G
    fails       the interval lies below 0, and that of G above 0
    undecided   otherwise

The paper's finding holds where the deconvnet fails in every network without max-pooling and works
in every network with it.  The half is this study's choice: the paper judged by eye.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from inspector.measures.sharpness import MEASURES
from inspector.studies.pooling.intervals import (
    RESAMPLES,
    holm,
    mcnemar,
    paired_interval,
    resamples,
    spread,
    wilson,
)
from inspector.studies.pooling.networks import Network
from inspector.studies.pooling.structure import METHODS

__all__ = ["Measured", "accuracies", "finding", "pairs"]

Array = np.ndarray[Any, Any]

SHARE = 0.5
"""Of guided backpropagation's edge agreement that a deconvnet must reach to work."""


def accuracies(right: Array) -> list[dict[str, float]]:
    """Share of photos that each network gets right, with its interval.

    Args:
        right: (M, P) whether network m is right on photo p.
    """
    found = []
    for row in right:
        low, high = wilson(int(row.sum()), len(row))
        found.append(
            {
                "right": int(row.sum()),
                "photos": len(row),
                "share": float(row.mean()),
                "low": low,
                "high": high,
            }
        )
    return found


def pairs(networks: Sequence[Network], right: Array, seed: int) -> list[dict[str, Any]]:
    """Differences between any two networks on the same photos."""
    found = []
    for a, b in combinations(range(len(networks)), 2):
        first = int((right[a] & ~right[b]).sum())
        second = int((right[b] & ~right[a]).sum())
        low, high = paired_interval(right[a], right[b], seed)
        found.append(
            {
                "networks": (networks[a].name, networks[b].name),
                "only_first_right": first,
                "only_second_right": second,
                "difference": (first - second) / right.shape[1],
                "low": low,
                "high": high,
                "mcnemar_p": mcnemar(first, second),
            }
        )
    for entry, p in zip(found, holm([entry["mcnemar_p"] for entry in found]), strict=True):
        entry["mcnemar_p_holm"] = p
    return found


@dataclass(frozen=True, eq=False)
class Measured:
    """Measures of all networks on the photos on which all of them are defined.

    Attributes:
        places: The photos.
        means: (M, methods, measures).
        low: Lower ends of the intervals, the same shape.
        high: Upper ends.
        against_share: (M, 3) mean, low and high of D - G/2.
        differences: (M, measures, 3) of guided backpropagation minus deconvnet.
    """

    places: tuple[int, ...]
    means: Array
    low: Array
    high: Array
    against_share: Array
    differences: Array

    @classmethod
    def of(
        cls, entries: Sequence[Mapping[int, Mapping[str, Any] | None]], seed: int
    ) -> "Measured | None":
        """Put the measures of each network together; None when no photo has all of them."""
        places = [place for place in entries[0] if all(_whole(e.get(place)) for e in entries)]
        if not places:
            return None
        values = np.array(
            [
                [
                    [
                        [one[place]["measures"][method][name] for place in places]  # type: ignore[index]
                        for name in MEASURES
                    ]
                    for method in METHODS
                ]
                for one in entries
            ]
        )
        chosen = resamples(len(places), seed)
        # A matrix of how often each photo is drawn: one product for all means.
        counts = np.stack([np.bincount(row, minlength=len(places)) for row in chosen])
        drawn = values @ (counts.T / len(places))  # (M, methods, measures, RESAMPLES)
        d, g = METHODS.index("deconvnet"), METHODS.index("guided-backprop")
        means = values.mean(-1)
        low, high = _ends(drawn)
        agreement = MEASURES.index("edge agreement")
        return cls(
            tuple(places),
            means,
            low,
            high,
            _with_ends(
                means[:, d, agreement] - SHARE * means[:, g, agreement],
                drawn[:, d, agreement] - SHARE * drawn[:, g, agreement],
            ),
            _with_ends(means[:, g] - means[:, d], drawn[:, g] - drawn[:, d]),
        )

    def numbers(self, network: int) -> dict[str, Any]:
        """Plain data of one network."""
        return {
            "measures": {
                method: {
                    name: dict(
                        zip(
                            ("mean", "low", "high"),
                            map(
                                float,
                                (
                                    self.means[network, i, j],
                                    self.low[network, i, j],
                                    self.high[network, i, j],
                                ),
                            ),
                            strict=True,
                        )
                    )
                    for j, name in enumerate(MEASURES)
                }
                for i, method in enumerate(METHODS)
            },
            "guided_minus_deconvnet": {
                name: _named(self.differences[network, j]) for j, name in enumerate(MEASURES)
            },
            "deconvnet_minus_half_of_guided": _named(self.against_share[network]),
            "deconvnet": self.verdict(network),
        }

    def verdict(self, network: int) -> str:
        """``works``, ``fails`` or ``undecided``."""
        agreement = MEASURES.index("edge agreement")
        low = dict(zip(METHODS, self.low[network, :, agreement], strict=True))
        _, under, over = self.against_share[network]
        if low["guided-backprop"] <= 0:
            return "undecided"  # half of nothing is no bar
        if under > 0 and low["deconvnet"] > 0:
            return "works"
        return "fails" if over < 0 else "undecided"


def finding(networks: Sequence[Network], found: Measured | None) -> dict[str, Any]:
    """Whether the paper's finding holds on these networks.

    Returns:
        ``without_max_pooling`` and ``with_max_pooling``: holds, does not, undecided, or None
        where there is no such network; ``holds`` for both together.
    """
    parts: dict[str, str | None] = {}
    for key, pooled, expected in (
        ("without_max_pooling", False, "fails"),
        ("with_max_pooling", True, "works"),
    ):
        verdicts = {
            found.verdict(place)
            for place, one in enumerate(networks)
            if found and (one.max_poolings > 0) == pooled
        }
        wrong = {"fails": "works", "works": "fails"}[expected]
        if not verdicts:
            parts[key] = None
        elif verdicts == {expected}:
            parts[key] = "holds"
        else:
            parts[key] = "does not hold" if wrong in verdicts else "undecided"
    known = [part for part in parts.values() if part is not None]
    if len(known) < 2:
        whole = "not tested"
    elif "holds" in known:
        whole = "holds" if set(known) == {"holds"} else "holds in part"
    else:
        whole = "does not hold" if "does not hold" in known else "undecided"
    return {**parts, "finding": whole, "bootstrap_samples": RESAMPLES, "share": SHARE}


def _whole(entry: Mapping[str, Any] | None) -> bool:
    return entry is not None and all(
        numbers[name] is not None for numbers in entry["measures"].values() for name in MEASURES
    )


def _ends(drawn: Array) -> tuple[Array, Array]:
    """Interval ends of bootstrapped values (..., RESAMPLES)."""
    ends = np.array([spread(row) for row in drawn.reshape(-1, drawn.shape[-1])])
    shape = drawn.shape[:-1]
    return ends[:, 0].reshape(shape), ends[:, 1].reshape(shape)


def _with_ends(means: Array, drawn: Array) -> Array:
    return np.stack([means, *_ends(drawn)], -1)


def _named(three: Array) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), map(float, three), strict=True))
