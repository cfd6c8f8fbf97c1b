"""How selective units are, and which few of a layer are shown."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from inspector.studies.layers.measurements import Units

__all__ = ["RULE", "Selectivity", "chosen_units", "selectivities"]

Array = np.ndarray[Any, Any]

RULE = (
    "the most selective of the units whose strongest activation is at least that of the layer's "
    "median active unit, each from another photo as far as there are enough; then the others of "
    "them, then weaker units; of equal ones the lower channel; never one that is not active"
)


@dataclass(frozen=True)
class Selectivity:
    """The units of a layer that are ever active, by quartile; None where there are none."""

    lower_quartile: float | None
    median: float | None
    upper_quartile: float | None

    @classmethod
    def of(cls, values: Array) -> "Selectivity":
        """Summary of all units' selectivities, in which units that are never active are NaN."""
        known = values[~np.isnan(values)]
        if not known.size:
            return cls(None, None, None)
        return cls(*np.quantile(known, (0.25, 0.5, 0.75)).tolist())


def selectivities(units: "Units") -> Array:
    """Strongest activation over the photos, relative to the mean of the strongest on each.

    1 for a unit that is excited alike by all photos, and the number of photos for one that is
    active on a single one.

    Returns:
        (C,), NaN for units that are never active.
    """
    found: Array = np.full(len(units.peaks), np.nan)
    np.divide(units.peaks, units.means, out=found, where=units.peaks > 0)
    return found


def chosen_units(units: "Units", count: int) -> tuple[int, ...]:
    """Choose a layer's units by ``RULE``.

    A weak unit that hardly any photo excites is as selective as can be and yet means little to
    the layers behind: therefore the stronger half comes first.

    Args:
        units: The layer's units over all photos.
        count: How many; fewer are returned where fewer are active.

    Returns:
        Channels, the most selective first.
    """
    values = selectivities(units)
    alive = np.flatnonzero(units.peaks > 0)
    if not alive.size:
        return ()
    strong = units.peaks >= np.median(units.peaks[alive])
    order = sorted(alive.tolist(), key=lambda unit: (not strong[unit], -values[unit], unit))
    fresh, again, seen = list[int](), list[int](), set[int]()
    for unit in order:
        new = strong[unit] and int(units.places[unit]) not in seen
        (fresh if new else again).append(unit)
        seen.add(int(units.places[unit]))
    return tuple(sorted([*fresh, *again][:count], key=lambda unit: (-values[unit], unit)))
