"""What the measures of all networks say together, and whether it is what the paper found.

For each network, with D and G the mean edge agreement of deconvnet and guided backpropagation
over the same photos, and the bootstrap interval of D - G/2:

    works       the interval lies above 0, and so do those of D and G
    fails       the interval lies below 0, and that of G above 0
    undecided   otherwise

The paper's finding holds where the deconvnet fails in every network without max-pooling and works
in every network with it.  The half is this study's choice: the paper judged by eye.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from inspector.measures.sharpness import MEASURES
from inspector.measures.statistics import RESAMPLES, bootstrap, holm, mcnemar, wilson
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
        low, high = _paired_interval(right[a], right[b], seed)
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
        d, g = METHODS.index("deconvnet"), METHODS.index("guided-backprop")
        agreement = MEASURES.index("edge agreement")

        def against_share(means: Array) -> Array:
            return means[:, d, agreement] - SHARE * means[:, g, agreement]

        def with_ends(of: Callable[[Array], Array]) -> Array:
            """A function of the means (M, methods, measures, ...), with its interval's ends."""
            ends = bootstrap(
                lambda counts: of(values @ (counts.T / len(places))), len(places), seed=seed
            )
            return np.stack([of(values.mean(-1)), *ends], -1)

        means, low, high = np.moveaxis(with_ends(lambda means: means), -1, 0)
        return cls(
            tuple(places),
            means,
            low,
            high,
            with_ends(against_share),
            with_ends(lambda means: means[:, g] - means[:, d]),
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
            return "undecided"  # half of nothing is not a threshold
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


def _paired_interval(first: Array, second: Array, seed: int) -> tuple[float, float]:
    """Bootstrap interval of the difference of two networks' accuracies on the same photos.

    Args:
        first: (P,) whether the first network is right.
        second: (P,) likewise.
        seed: Of the bootstrap.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    low, high = bootstrap(
        lambda counts: counts @ difference / len(difference), len(difference), seed=seed
    )
    return float(low), float(high)


def _named(three: Array) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), map(float, three), strict=True))
