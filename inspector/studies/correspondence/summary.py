"""What is said of each part at each layer: Delta against random places, in numbers and words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.studies.correspondence.signs import Agreement

__all__ = ["LEVEL", "Row", "adjusted"]

LEVEL = 0.05
"""Significance level, after the correction for several comparisons."""

_FEWER = 0.9
"""A part that changes fewer features than this share of random places' is said to."""


@dataclass(frozen=True, eq=False)
class Row:
    """One part at one layer.

    Attributes:
        layer: The tensor.
        part: Its name.
        photos: Names of the n photos.
        found: The part's agreement.
        random: That of each random draw.
        overlap: Mean share of the part that random places cover as well.
        corrected: p after Holm's correction over all rows; set when all are known.
    """

    layer: str
    part: str
    photos: tuple[str, ...]
    found: Agreement
    random: Sequence[Agreement]
    overlap: float = 0.0
    corrected: float = 1.0

    @property
    def below(self) -> int:
        """Random draws whose Delta is as low as the part's, or lower."""
        return sum(one.total <= self.found.total for one in self.random)

    @property
    def p(self) -> float:
        """Chance of a Delta as low as the part's among random places."""
        return (1 + self.below) / (1 + len(self.random))

    @property
    def random_deltas(self) -> list[float]:
        """Delta of each draw."""
        return [one.delta for one in self.random]

    @property
    def changed(self) -> tuple[float, float]:
        """Share of features that change: by hiding the part, and by random places on average."""
        return self.found.changed, float(np.mean([one.changed for one in self.random]))

    @property
    def contradiction(self) -> tuple[float | None, float | None]:
        """Share of opposite signs among common changes: the part's, and the mean of random ones."""
        known = [one.contradiction for one in self.random if one.contradiction is not None]
        return self.found.contradiction, float(np.mean(known)) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        deltas = self.random_deltas
        own, chance = self.contradiction
        low, high = np.quantile(deltas, [0.025, 0.975])
        return {
            "layer": self.layer,
            "part": self.part,
            "photos": list(self.photos),
            "delta": self.found.delta,
            "delta_deviation_over_pairs": self.found.deviation,
            "delta_sum": self.found.total,
            "pairs": [pair / self.found.count for pair in self.found.pairs],
            "random_delta": float(np.mean(deltas)),
            "random_delta_deviation": _deviation(deltas),
            "random_delta_95": [float(low), float(high)],
            "random_deltas": deltas,
            "random_as_low": self.below / len(self.random),
            "p": self.p,
            "p_holm": self.corrected,
            "changed": self.changed[0],
            "random_changed": self.changed[1],
            "opposite": own,
            "random_opposite": chance,
            "random_overlap": self.overlap,
        }

    def table(self) -> dict[str, Any]:
        """The numbers that fit into one line."""
        left_out = {"pairs", "random_deltas", "random_delta_95", "photos"}
        row = {key: value for key, value in self.to_dict().items() if key not in left_out}
        return {**row, "photos": len(self.photos), "draws": len(self.random)}

    def sentences(self) -> Iterator[str]:
        """In plain language."""
        spread = _deviation(self.random_deltas) or 0.0
        numbers = (
            f"{self.found.delta:.3f} against {np.mean(self.random_deltas):.3f} ± {spread:.3f} "
            f"of random places, p = {self.p:.3f}, {self.corrected:.3f} corrected"
        )
        shown = self.corrected <= LEVEL
        verdict = "correspondence" if shown else "no correspondence shown"
        yield f"{self.part} at {self.layer}: {verdict} (Delta {numbers})"
        own, chance = self.changed
        if shown and own < _FEWER * chance:
            yield (
                f"but hiding {self.part} changes fewer features ({own:.0%}) than random places do "
                f"({chance:.0%}), which lowers Delta by itself; {self._opposition()}"
            )
        if not shown and chance < _FEWER * own:
            yield (
                f"hiding {self.part} changes more features ({own:.0%}) than random places do "
                f"({chance:.0%}), which raises Delta by itself; {self._opposition()}"
            )

    def _opposition(self) -> str:
        own, chance = self.contradiction
        if own is None or chance is None:
            return "no features change in two photos at once"
        return f"of common changes {own:.0%} are opposite, {chance:.0%} with random places"


def adjusted(rows: Sequence[Row]) -> list[float]:
    """Holm's correction: p of each row, so that any false claim among all has the level."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].p)
    found, highest = [1.0] * len(rows), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(rows) - rank) * rows[index].p))
        found[index] = highest
    return found


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
