"""What the grid of units and snapshots says: jumps, and by when layers have converged."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.studies.evolution.grid import Cell, Row, same_photo, settled_at
from inspector.studies.evolution.passes import Run

if TYPE_CHECKING:
    from inspector.studies.evolution.snapshots import Training

__all__ = ["Evolved", "depth_correlation", "evolved", "label_of", "sentences_of", "summary_of"]

CLEAR = 0.3
"""Rank correlation from which on depth is said to matter."""


@dataclass(frozen=True, eq=False)
class Evolved:
    """One unit along the training.

    Attributes:
        row: Which unit.
        cells: (S,) what it is at each snapshot.
        jumps: (S,) whether another photo won than at the snapshot before; None where there is no
            winner at either, and at the first.
        settled: Place of the snapshot from which on it is as at the end; None if it is not
            active at the end.
    """

    row: Row
    cells: list[Cell]
    jumps: list[bool | None]
    settled: int | None

    def to_dict(self, run: Run, course: "Training") -> dict[str, Any]:
        """Plain data."""
        last = len(self.cells) - 1
        return {
            "layer": run.layers[self.row.slot].tensor,
            "unit": self.row.unit,
            "jumps": sum(bool(jump) for jump in self.jumps),
            "stable_from": label_of(course, self.settled),
            "stable_before_the_last": self.settled is not None and self.settled < last,
            "snapshots": [
                {"snapshot": one.label, "epoch": one.epoch, **self._at(place)}
                for place, one in enumerate(course.snapshots)
            ],
        }

    def _at(self, place: int) -> dict[str, Any]:
        cell, peak = self.cells[place], self.cells[place].peak
        if peak is None or peak.value is None:
            return {"state": "never active" if peak is None else "not finite"}
        y0, x0, y1, x1 = cell.box
        before = self.cells[place - 1].peak if place else None
        stays = self.jumps[place] is False and before is not None
        return {
            "state": "active",
            "activation": peak.value,
            "image": {"name": peak.name, "place": peak.place, "sha256": peak.sha256},
            "at": {"y": peak.y, "x": peak.x},
            "patch": {"top": y0, "left": x0, "bottom": y1, "right": x1},
            "largest_in_projection": cell.largest,
            "jump": self.jumps[place],
            "moved": (before.y, before.x) != (peak.y, peak.x) if stays and before else None,
            "cosine_with_previous": cell.previous,
            "cosine_with_last": cell.last,
        }

    def table(self, run: Run, course: "Training") -> list[dict[str, Any]]:
        """A row for each snapshot."""
        rows = []
        for place, one in enumerate(course.snapshots):
            found = self._at(place)
            rows.append(
                {
                    "layer": run.layers[self.row.slot].tensor,
                    "unit": self.row.unit,
                    course.word: one.label,
                    "state": found["state"],
                    "activation": found.get("activation"),
                    "image": found.get("image", {}).get("name"),
                    **found.get("at", {"y": None, "x": None}),
                    **{
                        key: found.get(key)
                        for key in ("jump", "cosine_with_previous", "cosine_with_last")
                    },
                }
            )
        return rows


def evolved(row: Row, cells: list[Cell], stable: float) -> Evolved:
    """Where a unit's winners jump, and where it settles.

    Args:
        row: The unit.
        cells: (S,) what it is at each snapshot.
        stable: Cosine with the last projection that counts as settled.
    """
    jumps: list[bool | None] = [None]
    for before, cell in pairwise(cells):
        both = before.active and cell.active
        jumps.append(not same_photo(before, cell) if both else None)
    return Evolved(row, cells, jumps, settled_at([cell.last for cell in cells], stable))


def label_of(course: "Training", place: int | None) -> str | None:
    """The snapshot at a place, as a word."""
    return None if place is None else course.snapshots[place].label


def depth_correlation(found: Sequence[Evolved]) -> float | None:
    """Spearman's rank correlation of a unit's layer and the snapshot that it settles at.

    Args:
        found: The units; those that are not active at the end are left out.

    Returns:
        -1 to 1; None where all units are of one layer, or all settle at one snapshot.
    """
    known = [(one.row.slot, one.settled) for one in found if one.settled is not None]
    if not known:
        return None
    depths, places = (_ranks(np.array(column)) for column in zip(*known, strict=True))
    if np.ptp(depths) == 0 or np.ptp(places) == 0:
        return None
    return float(np.corrcoef(depths, places)[0, 1])


def _ranks(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Ranks; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts - 1) / 2
    ranks: np.ndarray[Any, Any] = means[which]
    return ranks


def summary_of(run: Run, slot: int, units: Sequence[Evolved], course: "Training") -> dict[str, Any]:
    """A layer: its middle unit, and how often winners jump."""
    layer, size = run.layers[slot], len(course.snapshots)
    settled = sorted(one.settled for one in units if one.settled is not None)
    # The upper one of two middle units: more than half of the units have settled by then.
    middle = settled[len(settled) // 2] if settled else None
    early = middle is not None and middle < size - 1
    steps = [jump for one in units for jump in one.jumps if jump is not None]
    likeness: list[float | None] = []
    for place in range(size):
        found = [one.cells[place].last for one in units]
        known = [value for value in found if value is not None]
        likeness.append(statistics.median(known) if known else None)
    return {
        "layer": layer.tensor,
        "index": layer.index,
        "shape": run.model.shape_of(layer.tensor)[1:],
        "receptive_field": {"size": run.fields[slot].size, "stride": run.fields[slot].stride},
        "units": [one.row.unit for one in units],
        "active_at_the_end": len(settled),
        "converged_by": label_of(course, middle) if early else None,
        "settled_share": [
            sum(one <= place for one in settled) / len(settled) if settled else None
            for place in range(size)
        ],
        "converged_at": middle if early else None,
        "jumps": sum(steps),
        "steps": len(steps),
        "jump_share": sum(steps) / len(steps) if steps else None,
        "median_cosine_with_last": likeness,
    }


def sentences_of(
    found: Sequence[Evolved],
    summary: Sequence[Mapping[str, Any]],
    course: "Training",
    *,
    used: int,
    stable: float,
) -> tuple[str, ...]:
    """The result in plain language.

    Args:
        found: The units.
        summary: The layers, from ``summary_of``.
        course: The snapshots.
        used: How many photos.
        stable: Cosine that counts as settled.
    """
    ends = f"{course.snapshots[0].label} to {course.snapshots[-1].label}"
    what = f"{len(found)} unit(s) of {len(summary)} layer(s) at {len(course.snapshots)} snapshots"
    lines = [f"{what} ({course.word} {ends}), strongest over {used} photo(s)"]
    for layer in summary:
        if layer["active_at_the_end"]:
            many = f"{len(layer['units'])} unit(s)"
            by = layer["converged_by"]
            when = (
                f"converges by {course.word} {by}"
                if by is not None
                else "has not converged before the last snapshot"
            )
            steps = f"{layer['jumps']} jump(s) in {layer['steps']} step(s)"
            lines.append(
                f"{layer['layer']} {when} (median of {many}, cosine >= {stable:g}); {steps}"
            )
    rho = depth_correlation(found)
    if rho is not None:
        later = "the higher the layer, the later its units settle"
        told = (
            f"{later}, as the paper found"
            if rho >= CLEAR
            else f"it does not hold here that {later}"
        )
        lines.append(f"{told} (rank correlation {rho:.2f})")
    for state, text in (("never active", "never active"), ("not finite", "no finite activation")):
        blank = [
            one
            for one in found
            for cell in one.cells
            if not cell.active and (cell.peak is None) == (state == "never active")
        ]
        if blank:
            lines.append(f"{text}: {len(blank)} cell(s), of {len(set(map(id, blank)))} unit(s)")
    return tuple(lines)
