"""Coordinates of a tensor's units: which place of the image each looks at.

Rows and columns of the image are carried separately, as arrays that have length 1 along every axis
on which they do not vary.  An ordinary convolution works on a few hundred numbers.

    image (1, 3, 224, 224)    rows (1, 1, 224, 1)     columns (1, 1, 1, 224)
    Conv 7x7 stride 2         rows (1, 1, 112, 1)     0.5, 2.5, 4.5, ...
    Transpose (0, 1, 3, 2)    rows (1, 1, 1, 112)
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.graph import Node
from inspector.network.receptive_fields.graph_extents import GraphExtents

__all__ = [
    "LARGEST",
    "Array",
    "Lost",
    "Placed",
    "State",
    "Step",
    "aligned",
    "alike",
    "apart",
    "cell_size",
    "joined",
    "median",
    "merged",
    "over_windows",
    "reduced",
    "reshaped",
    "squeezed",
]

Array = np.ndarray[Any, np.dtype[np.float64]]

LARGEST = 1 << 22
"""Numbers that one coordinate of a tensor may need before it is given up."""

_APART = 2.0
"""Cells that two sources of one unit may lie from their mean and still be one place."""


class Lost(Exception):
    """A tensor whose units have no place that is known.

    Attributes:
        node: The node behind which they have none.
        why: What it does.
        scattered: The units are known to look at several places that lie apart.
    """

    def __init__(self, node: Node, why: str, *, scattered: bool = False) -> None:
        super().__init__(why)
        self.node, self.why, self.scattered = node, why, scattered


@dataclass(frozen=True, eq=False)
class Placed:
    """Places of the units of one tensor.

    Attributes:
        shape: The tensor's shape.
        rows: Image rows in pixel centres: (3, ...) of the centre, the first and the last pixel,
            one axis per axis of the tensor, of length 1 where they do not vary.
        columns: Image columns alike.
    """

    shape: tuple[int, ...]
    rows: Array
    columns: Array

    def map(self, shape: Sequence[int], change: Callable[[Array], Array]) -> "Placed":
        """The same change of rows and of columns."""
        return Placed(tuple(shape), change(self.rows), change(self.columns))


State = Placed | Lost


@dataclass(frozen=True, eq=False)
class Step:
    """One node, and the places of its inputs that have any."""

    net: GraphExtents
    node: Node
    states: Mapping[str, State]

    @property
    def first(self) -> Placed:
        """Places of the first input.

        Raises:
            Lost: It has none.
        """
        return self.require(self.node.inputs[0])

    def require(self, name: str) -> Placed:
        """Places of an input.

        Raises:
            Lost: It has none.
        """
        state = self.states.get(name)
        if isinstance(state, Placed):
            return state
        raise state if state is not None else self.lost("computes places")

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute of the node."""
        return self.node.attributes.get(name, default)

    def lost(self, why: str, *, scattered: bool = False) -> Lost:
        """The refusal to say where this node's results lie."""
        return Lost(self.node, why, scattered=scattered)

    def measured(self, position: int = 0) -> tuple[int, ...]:
        """Shape of an output that a forward pass or the file tells.

        Raises:
            Lost: It is not known.
        """
        shape = self.net.shape(self.node.outputs[position])
        if shape is None or None in shape[1:]:
            raise self.lost("has a result whose shape is not known")
        return tuple(n if n is not None else 1 for n in shape)

    def ints(self, position: int, attribute: str) -> list[int] | None:
        """A list that is an attribute or an input, also one computed from shapes."""
        return self.net.ints(self.node, position, attribute)


def cell_size(coordinate: Array) -> float:
    """Distance between neighbouring units, in pixels; 0 where nothing varies."""
    steps = []
    for axis in range(1, coordinate.ndim):
        if coordinate.shape[axis] > 1:
            found = np.abs(np.diff(coordinate[0], axis=axis - 1))
            found = found[np.isfinite(found) & (found > 0)]
            if found.size:
                steps.append(median(found))
    return min(steps, default=0.0)


def median(values: Array) -> float:
    """As NumPy's, which would import its masked arrays: a tenth of what a trace takes."""
    ordered, half = np.sort(values, axis=None), values.size // 2
    return float(ordered[half] if values.size % 2 else (ordered[half - 1] + ordered[half]) / 2)


def squeezed(coordinate: Array) -> Array:
    """The array with length 1 along axes on which it does not vary."""
    for axis in range(1, coordinate.ndim):
        if coordinate.shape[axis] > 1:
            centre = coordinate[0]
            first = centre.take([0], axis - 1)
            if bool(((centre == first) | (np.isnan(centre) & np.isnan(first))).all()):
                low = np.fmin.reduce(coordinate[1], axis=axis - 1, keepdims=True)
                high = np.fmax.reduce(coordinate[2], axis=axis - 1, keepdims=True)
                coordinate = np.stack([first, low, high])
    return coordinate


def alike(parts: Sequence[Array]) -> Array | None:
    """One of coordinates whose centres are equal, with all pixels; None where they differ."""
    first = parts[0]
    if not all(p is first or np.array_equal(p[0], first[0], equal_nan=True) for p in parts):
        return None
    low, high = (fold.reduce([p[i] for p in parts]) for i, fold in ((1, np.fmin), (2, np.fmax)))
    return np.stack([first[0], low, high])


def moved(coordinate: Array, axis: int, positions: Array) -> Array:
    """Values at fractional positions along an axis, going on beyond its ends."""
    length = coordinate.shape[axis + 1]
    if length == 1:
        return coordinate
    low = np.clip(np.floor(positions).astype(np.intp), 0, length - 2)
    part = (positions - low).reshape([-1] + [1] * (coordinate.ndim - axis - 2))
    lower, upper = coordinate.take(low, axis + 1), coordinate.take(low + 1, axis + 1)
    # A place that is none (NaN) must not spoil its neighbours at whole positions.
    moved = np.where(part == 0, lower, np.where(part == 1, upper, lower + part * (upper - lower)))
    return np.asarray(moved, np.float64)


def over_windows(coordinate: Array, axis: int, centres: Array, taps: Array) -> Array:
    """Centres at fractional positions; first and last pixel over the taps (O, k) of each."""
    length = coordinate.shape[axis + 1]
    if length == 1:
        return coordinate
    found = moved(coordinate, axis, centres)
    ends = np.clip(taps, 0, length - 1).astype(np.intp)
    outer = coordinate.take(ends.ravel(), axis + 1)
    shape = (*outer.shape[: axis + 1], *ends.shape, *outer.shape[axis + 2 :])
    outer = outer.reshape(shape)
    found[1] = np.fmin.reduce(outer[1], axis=axis + 1)
    found[2] = np.fmax.reduce(outer[2], axis=axis + 1)
    return found


def reduced(step: Step, coordinate: Array, axes: Sequence[int]) -> Array:
    """One place for all units along some axes.

    Raises:
        Lost: They lie apart, and what remains still varies: several places in one unit.
    """
    along = tuple(axis + 1 for axis in axes if coordinate.shape[axis + 1] > 1)
    if not along:
        return coordinate
    found = merged(coordinate, along)
    varies = any(n > 1 for axis, n in enumerate(coordinate.shape) if axis and axis not in along)
    if varies and apart(coordinate[:1], found[:1], cell_size(found) or cell_size(coordinate)):
        raise step.lost("mixes places that lie apart into one unit", scattered=True)
    return squeezed(found)


def merged(coordinate: Array, along: tuple[int, ...]) -> Array:
    """Mean centre, first and last pixel along some axes of the array, kept with length 1."""
    centre = _mean(coordinate[:1], along)
    low = np.fmin.reduce(coordinate[1:2], axis=along, keepdims=True)
    high = np.fmax.reduce(coordinate[2:3], axis=along, keepdims=True)
    return np.concatenate([centre, low, high])


def _mean(values: Array, axis: tuple[int, ...]) -> Array:
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis, keepdims=True)
    count = known.sum(axis, keepdims=True)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def apart(values: Array, centre: Array, cell: float) -> bool:
    """Whether places lie further from their common centre than a few cells."""
    distances = np.abs(values - centre)
    return bool(np.any(distances[np.isfinite(distances)] > _APART * cell + 1e-6))


def joined(step: Step, parts: Sequence[Array]) -> Array:
    """One place for units that several tensors are combined in.

    A tensor that is the same everywhere (a gate) does not move the others.

    Raises:
        Lost: The places lie apart.
    """
    varying = [part for part in parts if part[0].size > 1] or list(parts)
    same = alike(varying)
    if same is not None:
        return same
    dims = np.broadcast_shapes(*(part.shape for part in varying))
    if math.prod(dims) > LARGEST:
        raise step.lost("joins too many different places")
    every = np.stack([np.broadcast_to(part, dims) for part in varying])
    centre = _mean(every[:, :1], (0,))[0]
    cell = cell_size(centre) or cell_size(varying[0])
    if cell and apart(every[:, :1], centre[None], cell):
        raise step.lost("combines places that lie apart", scattered=True)
    low, high = np.fmin.reduce(every[:, 1:2]), np.fmax.reduce(every[:, 2:3])
    return squeezed(np.concatenate([centre, low, high]))


def aligned(coordinate: Array, rank: int) -> Array:
    """Axes of length 1 in front, as broadcasting adds them."""
    more = rank + 1 - coordinate.ndim
    return coordinate.reshape(3, *[1] * more, *coordinate.shape[1:])


def reshaped(step: Step, coordinate: Array, old: Sequence[int], new: Sequence[int]) -> Array:
    """A change of shape that keeps short what does not vary.

    Axes are split to the common factors of both shapes, then joined.
    """
    if math.prod(old) != math.prod(new):
        raise step.lost("has shapes that do not fit")
    factors = _common_factors(old, new)
    if factors is None:  # nothing is common: everything is written out
        return squeezed(_wide(step, coordinate, old).reshape(3, *new))
    split: list[int] = []
    for axis, parts in enumerate(_shared_out(factors, old)):
        split += parts if coordinate.shape[axis + 1] > 1 else [1] * len(parts)
    apart = squeezed(coordinate.reshape(3, *split))
    dims, wide, start = [], [], 0
    for length, parts in zip(new, _shared_out(factors, new), strict=True):
        varies = max(apart.shape[start + 1 : start + 1 + len(parts)], default=1) > 1
        wide += parts if varies else [1] * len(parts)
        dims.append(length if varies else 1)
        start += len(parts)
    return squeezed(_wide(step, apart, wide).reshape(3, *dims))


def _wide(step: Step, coordinate: Array, dims: Sequence[int]) -> Array:
    if math.prod(dims) > LARGEST:
        raise step.lost("reshapes too many places")
    return np.broadcast_to(coordinate, (3, *dims))


def _common_factors(old: Sequence[int], new: Sequence[int]) -> list[int] | None:
    """Lengths whose runs multiply to the axes of both shapes; None where there are none."""
    ends = sorted({*np.cumprod([1, *old]).tolist(), *np.cumprod([1, *new]).tolist()})
    pairs = list(itertools.pairwise(ends))
    return None if any(a == 0 or b % a for a, b in pairs) else [b // a for a, b in pairs]


def _shared_out(factors: Sequence[int], shape: Sequence[int]) -> Iterator[list[int]]:
    """The factors that each axis of a shape consists of."""
    rest = iter(factors)
    for length in shape:
        parts: list[int] = []
        while math.prod(parts) < length:
            parts.append(next(rest))
        yield parts
