"""Placement of a layer's grid on the network's input: where each cell lies.

The usual stretch over the whole input is right where a grid is upright and covers it.  Of any
other (mirrored, transposed, cropped, unpadded, cut into tiles that are rows of the batch) the
cells are laid one by one, each at its own centre with the size of one stride.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.graph import Graph
from converters.graph.operators import facts
from inspector.errors import MethodRefused
from inspector.network.coordinates.traced import Coordinates, image_places
from inspector.network.coordinates.units import Lost, Placed, apart, cell_size, merged
from inspector.network.receptive_fields.graph_extents import GraphExtents
from inspector.network.tokens.grid import Tokens

__all__ = ["Grid", "Line", "Placement", "Tracer"]

Array = np.ndarray[Any, np.dtype[np.float64]]

_PIECES = 4
"""Runs of cells that one axis may consist of."""

_UNEVEN = 0.6
"""Cells that a centre may lie aside of even steps."""


@dataclass(frozen=True)
class Line:
    """Cells along one axis of a grid, in even steps.

    Attributes:
        offset: Centre of cell 0 in input pixels; 0 is the centre of the first pixel.
        stride: Input pixels from one cell to the next; negative where the axis is mirrored.
        start: First cell of these steps.
        stop: First cell behind them.
    """

    offset: float
    stride: float
    start: int
    stop: int

    @property
    def hull(self) -> tuple[float, float]:
        """First and last position that a cell covers, half a stride beyond the outer centres."""
        ends = [self.offset + self.stride * (at - 0.5) for at in (self.start, self.stop)]
        return min(ends), max(ends)

    def covers(self, length: int) -> bool:
        """Whether the cells run upwards over an axis of the input, within half a stride."""
        slack = abs(self.stride) / 2 + 0.5 + 1e-6
        low, high = self.hull
        return self.stride > 0 and abs(low + 0.5) <= slack and abs(high - length + 0.5) <= slack


@dataclass(frozen=True)
class Grid:
    """One grid of cells on the input.

    Attributes:
        index: Which of the layer's grids; 0 unless rows of the batch are parts of one image.
        rows: Cells along the input's rows.
        columns: Cells along its columns.
        swapped: The layer's first axis follows the input's columns.
    """

    index: int
    rows: Line
    columns: Line
    swapped: bool = False


@dataclass(frozen=True)
class Placement:
    """Grids of a layer whose map is not stretched over the whole input.

    Attributes:
        grids: The grids; where they overlap, contributions add.
        count: Number of grids T that the layer's map (T, h, w) has; None for one map (h, w).
    """

    grids: tuple[Grid, ...]
    count: int | None = None

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain data: of each grid the cells along rows and columns, in input pixels."""
        return [
            {
                "grid": grid.index,
                "axes_swapped": grid.swapped,
                **{
                    name: {
                        "offset": round(line.offset, 6),
                        "stride": round(line.stride, 6),
                        "cells": [line.start, line.stop],
                    }
                    for name, line in (("rows", grid.rows), ("columns", grid.columns))
                },
            }
            for grid in self.grids
        ]


class Tracer:
    """Placements of a graph's layers for an input of one size, each found once.

    Args:
        graph: The graph.
        source: The image input.
        size: Height and width of the input.
        measure: Measures concrete shapes of tensors by a forward pass; asked where the file alone
            does not tell enough.
        channels_last: The input is (N, H, W, C).
        batch: Images that the graph takes at once.
    """

    def __init__(
        self,
        graph: Graph,
        source: str,
        size: tuple[int, int],
        measure: Callable[[], Mapping[str, Sequence[int]]],
        *,
        channels_last: bool = False,
        batch: int = 1,
    ) -> None:
        """Trace nothing yet."""
        self._graph, self._source, self._size, self._measure = graph, source, size, measure
        self._last = channels_last
        declared = graph.inputs[source].shape or (None,) * 4
        channels = declared[3 if channels_last else 1]
        many = channels if isinstance(channels, int) else 3
        self._shape = (batch, *size, many) if channels_last else (batch, many, *size)
        self._coordinates = self._started({source: self._shape})
        self._measured = False
        self._found: dict[tuple[str, int, bool], Placement | MethodRefused | None] = {}
        self._own: dict[str, Callable[[Array], Array] | None] = {}

    def state(self, tensor: str) -> Placed | Lost | None:
        """Places of a tensor's units; None where it does not depend on the image."""
        state = self._coordinates.of(tensor)
        if not isinstance(state, Placed) and not self._measured:
            self._measured = True
            self._coordinates = self._started(self._measure())
            state = self._coordinates.of(tensor)
        return state

    def placement(
        self,
        tensor: str,
        *,
        channel: int = 1,
        folded: bool = False,
        tokens: Tokens | None = None,
        own: Callable[[Array], Array] | None = None,
    ) -> Placement | None:
        """Where the cells of a layer lie on the input.

        Args:
            tensor: The layer, (N, C, h, w) or (N, h, w, C).
            channel: Axis of its channels.
            folded: Rows of its batch are parts of one image.
            tokens: The grid that its tokens form; its channels are axis 1 then.
            own: Picks the rows of the first image from those of a batch; the first row, or all
                that are folded, when None.

        Returns:
            None where the grid is stretched over the whole input as usual.

        Raises:
            MethodRefused: The cells have no place that fits, or none that is known.
        """
        key = tensor, channel, folded
        self._own[tensor] = own
        if key not in self._found:
            try:
                self._found[key] = self._placement(*key, tokens)
            except MethodRefused as refused:
                self._found[key] = refused
        found = self._found[key]
        if isinstance(found, MethodRefused):
            raise found
        return found

    def _started(self, shapes: Mapping[str, Sequence[int]]) -> Coordinates:
        space = (1, 2) if self._last else (2, 3)
        net = GraphExtents(self._graph, shapes)
        return Coordinates(net, image_places(self._source, self._shape, space))

    def _placement(
        self, tensor: str, channel: int, folded: bool, tokens: Tokens | None
    ) -> Placement | None:
        state = self.state(tensor)
        if tokens is not None and isinstance(state, Placed):
            state = tokens.laid(state)
        if isinstance(state, Lost) and state.scattered:
            raise _refused(state)
        grids = None
        if isinstance(state, Placed) and len(state.shape) == 4:
            grids = self._grids(tensor, state, channel)
        if grids is None:
            self._require_upright(tensor, state, folded=folded)
            return None
        if not folded and len(grids) == 1 and self._usual(grids[0]):
            return None
        count = len(self._rows(tensor, state)) if folded and isinstance(state, Placed) else None
        return Placement(tuple(grids), count)

    def _rows(self, tensor: str, state: Placed) -> list[int]:
        """Rows of a tensor that are of the first image."""
        own, rows = self._own.get(tensor), np.arange(state.shape[0], dtype=np.float64)
        return [int(row) for row in (rows if own is None or len(rows) == 1 else own(rows))]

    def _usual(self, grid: Grid) -> bool:
        height, width = self._size
        return not grid.swapped and grid.rows.covers(height) and grid.columns.covers(width)

    def _grids(self, tensor: str, state: Placed, channel: int) -> list[Grid]:
        """The grids of a placed tensor.

        Raises:
            MethodRefused: Its cells have no place, or their places are not a grid.
        """
        places = []
        for coordinate in (state.rows, state.columns):
            middle = coordinate
            if coordinate.shape[channel + 1] > 1:
                middle = merged(coordinate, (channel + 1,))
                if apart(coordinate[:1], middle[:1], cell_size(middle) or cell_size(coordinate)):
                    raise MethodRefused(
                        "the layer's channels look at places that lie apart",
                        where=repr(tensor),
                        hint="gradient and occlusion need no layer",
                    )
            places.append(np.squeeze(middle, channel + 1))  # (3, T, h, w), 1 where nothing varies
        height, width = (n for axis, n in enumerate(state.shape) if axis not in {0, channel})
        grids: list[Grid] = []
        for index, row in enumerate(self._rows(tensor, state)):
            rows, columns = (p[:, min(row, p.shape[1] - 1)] for p in places)
            grids += self._grid(tensor, index, rows, columns, (height, width))
        return grids

    def _grid(
        self, tensor: str, index: int, rows: Array, columns: Array, size: tuple[int, int]
    ) -> list[Grid]:
        along = [[axis for axis in (0, 1) if p.shape[axis + 1] > 1] for p in (rows, columns)]
        if any(len(axes) > 1 for axes in along) or (along[0] and along[0] == along[1]):
            raise self._no_grid(tensor)
        swapped = along[0] == [1] or along[1] == [0]
        lengths = size[::-1] if swapped else size
        pieces = []
        for axis, (coordinate, length) in enumerate(zip((rows, columns), lengths, strict=True)):
            line = coordinate.reshape(3, -1)
            if line.shape[1] == 1 and length > 1:
                raise self._no_place(tensor, axis)
            found = list(_lines(line))
            if not found:
                raise self._no_grid(tensor)
            pieces.append(found)
        return [Grid(index, r, c, swapped) for r, c in itertools.product(*pieces)]

    def _no_grid(self, tensor: str) -> MethodRefused:
        """The refusal of places that fit no grid, with the node that made them."""
        culprit = None
        for node, state in self._coordinates.before(tensor):
            if isinstance(state, Placed) and not _even(state):
                culprit = node
                break
        where = f"{culprit.op_type} node {culprit.name!r}" if culprit is not None else repr(tensor)
        return MethodRefused(
            "the layer's cells cannot be laid on the image: they follow no even steps behind "
            "this node",
            where=where,
            hint="gradient and occlusion need no layer",
        )

    def _no_place(self, tensor: str, axis: int) -> MethodRefused:
        """The refusal of cells that all see the same rows (axis 0) or columns (axis 1)."""
        node = self._coordinates.mixing(tensor, axis)
        return MethodRefused(
            "the layer's cells have no place on the image: behind this node each reads "
            f"all {('rows', 'columns')[axis]} of the image",
            where=f"{node.op_type} node {node.name!r}" if node is not None else repr(tensor),
            hint="choose a layer before it; gradient and occlusion need none",
        )

    def _require_upright(self, tensor: str, state: Placed | Lost | None, *, folded: bool) -> None:
        """Allow a grid that cannot be traced to be stretched: nothing in the graph moves space.

        Raises:
            MethodRefused: Something does, or rows of the batch have no place.
        """
        lost = state if isinstance(state, Lost) else None
        if folded:
            raise _refused(lost) if lost else self._no_grid(tensor)
        for node, before in self._coordinates.before(tensor):
            moved = isinstance(before, Lost) and node is before.node and _moves(before)
            if isinstance(before, Placed) and len(before.shape) == 4:
                moved = not self._upright(before)
            if moved:
                raise MethodRefused(
                    "where the layer's cells lie on the image is not known: this node moves them"
                    + (f", and {lost.node.op_type} {lost.node.name!r} {lost.why}" if lost else ""),
                    where=f"{node.op_type} node {node.name!r}",
                    hint="choose a layer before it; gradient and occlusion need none",
                )

    def _upright(self, state: Placed) -> bool:
        """Whether a tensor is an upright grid over the whole input, or no grid."""
        axes = [
            [axis for axis in range(1, 5) if c.shape[axis] > 1] for c in (state.rows, state.columns)
        ]
        if any(len(a) != 1 for a in axes):
            return True
        if axes[0] > axes[1]:
            return False
        for coordinate, length in zip((state.rows, state.columns), self._size, strict=True):
            lines = list(_lines(coordinate.reshape(3, -1)))
            if len(lines) != 1 or not lines[0].covers(length):
                return False
        return True


_MOVERS = (
    *("GridSample", "AffineGrid", "RoiAlign", "MaxRoiPool", "DeformConv", "Col2Im", "Einsum"),
    *("Scatter", "ScatterElements", "ScatterND", "TopK", "Unique", "NonZero"),
)


def _moves(lost: Lost) -> bool:
    """Whether a node of unknown places is of a kind that moves space."""
    known = facts(lost.node)
    reshapes = known.reshapes or lost.node.op_type in ("Expand", "Tile", "Transpose")
    return lost.node.op_type in _MOVERS or known.sequences or (known.moves and not reshapes)


def _refused(lost: Lost) -> MethodRefused:
    return MethodRefused(
        f"where the layer's cells lie on the image is not known: this node {lost.why}",
        where=f"{lost.node.op_type} node {lost.node.name!r}",
        hint="choose a layer before it; gradient and occlusion need none",
    )


def _even(state: Placed) -> bool:
    """Whether each coordinate varies along one axis, in even steps."""
    for coordinate in (state.rows, state.columns):
        if coordinate[0].size == 1:
            continue
        if sum(n > 1 for n in coordinate.shape[1:]) > 1:
            return False
        if len(list(_lines(coordinate.reshape(3, -1)))) != 1:
            return False
    return True


def _lines(places: Array) -> Iterator[Line]:
    """Runs of even steps; nothing where the cells follow none.

    Args:
        places: (3, n): centre, first and last pixel of each cell along one axis.
    """
    known = np.flatnonzero(np.isfinite(places[0]))
    if not known.size or np.any(np.diff(known) != 1):
        return
    first, centres = int(known[0]), places[0, known]
    if len(centres) == 1:
        low, high = places[1, first], places[2, first]
        low, high = (low, high) if np.isfinite(low) else (centres[0], centres[0])
        size = max(float(high - low + 1), 1.0)
        yield Line(float(low + high) / 2 - first * size, size, first, first + 1)
        return
    whole = _fit(centres)
    if whole is not None:
        yield Line(whole[0] - whole[1] * first, whole[1], first, first + len(centres))
        return
    steps = np.diff(centres)
    usual = float(np.median(np.abs(steps)))
    cuts = [0, *(_cuts(steps, usual)), len(centres)]
    runs = list(itertools.pairwise(cuts))
    if len(runs) > _PIECES or any(stop - start < 2 for start, stop in runs):
        return
    fits = [_fit(centres[start:stop]) for start, stop in runs]
    if any(fit is None for fit in fits):
        return
    for (start, stop), fit in zip(runs, fits, strict=True):
        if fit is not None:
            at = first + start
            yield Line(fit[0] - fit[1] * at, fit[1], at, first + stop)


def _cuts(steps: Array, usual: float) -> list[int]:
    """Cells at which a new run begins."""
    found: list[int] = []
    begin = 0
    for at, step in enumerate(steps):
        inside = at > begin
        expected = steps[begin] if inside else np.sign(step) * usual
        if abs(step - expected) > _UNEVEN * max(usual, 1e-9):
            found.append(at + 1)
            begin = at + 1
    return found


def _fit(centres: Array) -> tuple[float, float] | None:
    """Offset of the first and step of cells in even steps; None where they are not even."""
    steps = np.diff(centres)
    if np.ptp(steps) < 1e-6 and steps[0] != 0:
        return float(centres[0]), float(steps[0])
    moving = np.abs(steps[np.abs(steps) > 1e-9])
    if not moving.size:
        return None
    at = np.arange(len(centres), dtype=np.float64)
    slope = float(np.polyfit(at, centres, 1)[0])
    if not np.any(np.abs(steps) < 1e-9):
        offset = float(np.mean(centres) - slope * np.mean(at))
    else:  # steps of several cells each: their middles count
        starts = np.flatnonzero(np.concatenate([[True], np.abs(steps) > 1e-9]))
        lengths = np.diff([*starts, len(centres)])
        if len(starts) < 2 or np.ptp(lengths):
            return None
        middles = starts + (lengths - 1) / 2
        slope, offset = (float(v) for v in np.polyfit(middles, centres[starts], 1))
        moving = moving / lengths[0]
        at, centres = middles, centres[starts]
    uneven = np.abs(centres - offset - slope * at).max()
    return (offset, slope) if uneven <= _UNEVEN * float(np.median(moving)) and slope else None
