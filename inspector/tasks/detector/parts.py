"""Outputs of one level of a pyramid as rows of its cells, and the layout that a head makes of them.

Outputs are rows (A, C) of all cells, maps (C, h, w) or (h, w, C), of n anchors (n, h, w, C),
(n, C, h, w) or (h, w, n, C), or with the anchors side by side in the channels, (n C, h, w).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from inspector.tasks import Outputs
from inspector.tasks.detector.rows import (
    Array,
    Layout,
    Rows,
    best_of,
    looks_like_shares,
    probabilities,
)

__all__ = ["ORDERS", "UNKNOWN_ANCHORS", "Head", "Level", "Part", "Step", "cell_itself", "layout_of"]

UNKNOWN_ANCHORS = (
    "the sizes of this head's anchors are not in the file, so its boxes cannot be decoded: what is "
    "drawn is the cell of the score"
)

ORDERS: Mapping[str, tuple[int, slice]] = {
    "planes": (3, slice(1, 3)),
    "last": (3, slice(0, 2)),
    "anchored": (4, slice(1, 3)),
    "cells": (4, slice(0, 2)),
    "split": (4, slice(2, 4)),
}
"""Number of axes of one sample of a map, and which of them are its height and width."""

_CHANNEL = {"planes": 0, "split": 1}
"""Axis of the numbers of a cell, where it is not the last one."""

Step = int | Array
"""Pixels from one cell to the next, or those of a box's four edges."""


@dataclass(frozen=True)
class Part:
    """One output of one level, seen as rows of its cells.

    Attributes:
        name: The output.
        shape: Shape of one sample of it.
        grid: Height and width of the level.
        order: Where the axes lie: ``rows`` (A, C), ``planes`` (C, h, w), ``last`` (h, w, C),
            ``anchored`` (n, h, w, C), ``cells`` (h, w, n, C) or ``split`` (n, C, h, w).
        folded: Anchors of one cell that lie side by side among the channels of a map.
    """

    name: str
    shape: tuple[int, ...]
    grid: tuple[int, ...]
    order: str
    folded: int = 1

    @property
    def width(self) -> int:
        """Numbers in a row."""
        if self.order == "rows":
            return self.shape[1] if len(self.shape) > 1 else 1
        return self.shape[_CHANNEL.get(self.order, -1)] // self.folded

    @property
    def anchors(self) -> int:
        """Rows of one cell."""
        return prod(self.shape) // self.width // prod(self.grid)

    def rows(self, values: Mapping[str, Array]) -> Array:
        """(A, C) of one sample's outputs."""
        value = values[self.name].astype(np.float64)
        value = np.moveaxis(value, _CHANNEL[self.order], -1) if self.order in _CHANNEL else value
        return value.reshape(-1, self.width)  # of folded anchors place by place

    def index(self, row: int, column: int) -> tuple[int, ...]:
        """Where in one sample an element of those rows lies."""
        if self.order == "rows":
            return (row, column) if len(self.shape) > 1 else (row,)
        channel = _CHANNEL.get(self.order, len(self.shape) - 1)
        lead = [length for axis, length in enumerate(self.shape) if axis != channel]
        place = [int(i) for i in np.unravel_index(row // self.folded, lead)]
        place.insert(channel, column + row % self.folded * self.width)
        return tuple(place)

    def cells(self) -> Array:
        """Column and row of the cell of every row, (A, 2)."""
        rows, columns = np.mgrid[: self.grid[0], : self.grid[1]]
        found = np.stack([columns.ravel(), rows.ravel()], axis=1)
        if self.order in {"anchored", "split"}:
            return np.tile(found, (self.anchors, 1))
        return np.repeat(found, self.anchors, axis=0)


Level = tuple[Step, tuple[Part, ...]]
"""Its stride and its outputs in the file's order."""


@dataclass(frozen=True)
class Head:
    """What the outputs of every level hold.

    Attributes:
        key: Its name as typed.
        name: What it is called.
        classes: Number of classes.
        roles: Output and first column of ``scores``, ``boxes`` and ``objectness``, by place among
            a level's outputs.
        decode: From rows of a box, cells, stride and number of levels to left, top, right, bottom.
        joined: From objectness (A, 1) and class scores (A, K) to scores.
        caution: What must be known of its boxes.
        anchors: Boxes of one cell that lie side by side among the channels, of every level; one
            number for all of them.
        softmax: Whether the class scores become probabilities together, and not each on its own.
        background: Whether the first column of the class scores is "nothing there".
        doubt: What else the outputs can be; empty where nothing.
    """

    key: str
    name: str
    classes: int
    roles: Mapping[str, tuple[int, int]]
    decode: Callable[[Array, Array, Step, int], Array]
    joined: Callable[[Array, Array], Array] = np.multiply
    caution: str = ""
    anchors: tuple[int, ...] = (1,)
    softmax: bool = False
    background: bool = False
    doubt: str = ""


def layout_of(
    head: Head, levels: Sequence[Level], outputs: Outputs, values: Mapping[str, Array]
) -> Layout:
    """The layout of a head whose levels are known.

    Args:
        head: What the outputs of every level hold.
        levels: The levels, the finest first.
        outputs: What is known of the outputs.
        values: Outputs on a probe image, without the axis of samples.
    """
    levels = _unfolded(levels, head)
    columns_of = {"scores": head.classes + head.background, "objectness": 1}

    def taken(role: str, found: Mapping[str, Array]) -> list[Array]:
        place, first = head.roles[role]
        return [parts[place].rows(found)[:, first:] for _, parts in levels]

    def columns(role: str, found: Mapping[str, Array]) -> Array:
        count = columns_of[role]
        return np.concatenate([rows[:, :count] for rows in taken(role, found)])

    kinds = {
        role: "none" if looks_like_shares(columns(role, values)) else "sigmoid"
        for role in columns_of
        if role in head.roles
    }
    if head.softmax and kinds["scores"] != "none":
        kinds["scores"] = "softmax"
    bounds = np.cumsum(
        [0, *(parts[head.roles["scores"][0]].rows(values).shape[0] for _, parts in levels)]
    )
    one = head.classes == 1 and "objectness" in head.roles

    def read(found: Mapping[str, Array]) -> Rows:
        boxes = [
            head.decode(rows, parts[head.roles["boxes"][0]].cells(), stride, len(levels))
            for rows, (stride, parts) in zip(taken("boxes", found), levels, strict=True)
        ]
        table = probabilities(columns("scores", found), kinds["scores"])
        table = table[:, int(head.background) :]
        sure = None
        if "objectness" in head.roles:
            own = probabilities(columns("objectness", found), kinds["objectness"])
            table, sure = head.joined(own, table), own[:, 0]
        return best_of(np.concatenate(boxes), table, outputs.size, sure)

    def element(row: int, number: int) -> tuple[str, tuple[int, ...]]:
        level = int(np.searchsorted(bounds, row, side="right")) - 1
        # The one class of a head with an objectness is not told from others; see YOLOv5.
        place, first = head.roles["objectness" if one else "scores"]
        part = levels[level][1][place]
        column = first + number + int(head.background)
        return part.name, part.index(row - int(bounds[level]), column)

    used = sorted({place for place, _ in head.roles.values()})
    names = tuple(parts[place].name for _, parts in levels for place in used)
    what = f"{head.name} head, {_said(levels)}"
    if max(head.anchors) > 1:
        what += f", {', '.join(str(n) for n in head.anchors)} anchors per cell"
    return Layout(
        head.key, what, names, head.classes, False, read, element, int(bounds[-1]),
        caution=head.caution, doubt=head.doubt,
    )  # fmt: skip


def cell_itself(rows: Array, cells: Array, stride: Step, levels: int) -> Array:
    """The cell, where boxes cannot be decoded."""
    del rows, levels
    return np.asarray(np.hstack([cells, cells + 1]) * np.asarray(stride, np.float64))


def _said(levels: Sequence[Level]) -> str:
    """The levels in words: by their strides, or by their sizes where strides are not whole ones."""
    if all(isinstance(stride, int) for stride, _ in levels):
        shown = "stride " + ", ".join(str(stride) for stride, _ in levels)
    else:
        shown = ", ".join("x".join(map(str, parts[0].grid)) for _, parts in levels)
    return f"level{'s' if len(levels) > 1 else ''} of {shown}"


def _unfolded(levels: Sequence[Level], head: Head) -> list[Level]:
    """The levels, with the anchors of a cell as rows of their own."""
    used = {place for place, _ in head.roles.values()}
    counts = head.anchors * len(levels) if len(head.anchors) == 1 else head.anchors
    return [
        (
            stride,
            tuple(
                replace(part, folded=count) if place in used else part
                for place, part in enumerate(parts)
            ),
        )
        for (stride, parts), count in zip(levels, counts, strict=True)
    ]
