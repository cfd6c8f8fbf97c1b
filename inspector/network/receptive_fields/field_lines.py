"""Receptive fields of all tensors of a graph in one walk, wherever they are straight lines.

Through convolutions, poolings and element-wise nodes the pixels of a unit move in proportion to
its place::

    first and last row of unit (y, x)   =   stride * y + low,   stride * y + high

so two units tell the line, and the line of a tensor follows from those of the tensors just before
it. Behind what enlarges a map (Resize, ConvTranspose, DepthToSpace) neighbouring units see fields
of different sizes; such tensors have no line here, and are traced one by one.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from converters.graph import Node
from inspector.network.receptive_fields.graph_extents import GraphExtents
from inspector.network.receptive_fields.index_sets import (
    Indices,
    Reach,
    Region,
    same_place,
    step_back,
)

__all__ = [
    "FAR",
    "NOTHING",
    "FieldLines",
    "Line",
    "Lines",
    "Span",
    "Straight",
    "enlargement",
    "image_of",
    "mixes",
    "union",
]

# Far from unit 0 by a number that most resizing factors divide: 64 * 9 * 5 * 7.
FAR = 20160
# Nodes between two maps of features that are followed (a channel shuffle has 3).
_MAX_BETWEEN = 64

Span = tuple[int, int] | None
"""First and last index along an axis of the image; None stands for every index."""

NOTHING = (1 << 62, -(1 << 62))
"""The span of no index: together with any other it is the other."""


@dataclass(frozen=True)
class Line:
    """First and last index along one axis of the image, by the place of the unit.

    Attributes:
        axis: Axis of the tensor that it follows; -1 where it is the same for all units.
        stride: Pixels from one unit to the next.
        low: First index of unit 0.
        high: Last index of unit 0.
    """

    axis: int
    stride: int
    low: int
    high: int

    def span(self, region: Region) -> Span:
        """Indices of the image that a region of the tensor depends on."""
        if self.axis < 0:
            return self.low, self.high
        indices = region[self.axis]
        if indices is None:
            return None
        if not indices.size:
            return NOTHING
        ends = self.stride * int(indices.min()), self.stride * int(indices.max())
        return min(ends) + self.low, max(ends) + self.high


Lines = tuple[Line | None, ...]
"""One entry per axis of the image; None where every index is read."""


@dataclass(frozen=True)
class Straight:
    """The field of a tensor, for all its units.

    Attributes:
        lines: With whatever mixes space.
        local: With that left out; None where no way leads to the image then.
        mixing: Index of the last node that mixes space, -1 when none does.
        why: What is said of that node.
    """

    lines: Lines
    local: Lines | None
    mixing: int = -1
    why: str = ""


class _Crooked(Exception):
    """The field of a tensor is not a straight line."""


class FieldLines:
    """Fields of the tensors between an image and some tensors.

    Args:
        net: Lengths of the axes in the graph.
        tensors: Whose fields are wanted.
        source: The image input.
    """

    def __init__(self, net: GraphExtents, tensors: Iterable[str], source: str) -> None:
        """Walk over the graph once."""
        self.net, self.source = net, source
        axes = range(net.rank(source, 4))
        whole: Lines = tuple(Line(axis, 1, 0, 0) for axis in axes)
        self.known: dict[str, Straight] = {source: Straight(whole, whole)}
        self.connected = {source}
        wanted = set(tensors)
        needed = set(wanted)
        nodes = []
        for node in reversed(net.nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(name for name in node.inputs if name in net.carried)
                nodes.append(node)
        crooked: set[str] = set()
        for node in reversed(nodes):
            before = [name for name in node.inputs if name in self.connected]
            if not before:
                continue
            self.connected.update(node.outputs)
            if enlargement(net, node) > 1 or not crooked.isdisjoint(before):
                crooked.update(node.outputs)
                continue
            for name in needed.intersection(node.outputs):
                if (name in net.channels or name in wanted) and net.rank(name, 4) == 4:
                    self._learn(node, name, crooked)

    def _learn(self, node: Node, name: str, crooked: set[str]) -> None:
        try:
            self.known[name] = self._copied(node, name) or self._probed(name)
        except _Crooked:
            crooked.add(name)

    # -- one tensor -----------------------------------------------------------------------------

    def _unit_axes(self, tensor: str) -> tuple[int, int]:
        return (1, 2) if self.net.channels.get(tensor, 1) == 3 else (2, 3)

    def _copied(self, node: Node, name: str) -> Straight | None:
        """The field of an element-wise node's output, whose inputs all have the same lines."""
        axes = self._unit_axes(name)
        found: list[Straight] = []
        for source in same_place(node):
            if source not in self.connected:
                continue
            known = self.known.get(source)
            if known is None or source == self.source or self._unit_axes(source) != axes:
                return None
            if self.net.rank(source, 4) != 4 or any(
                self.net.extent(source, axis) == 1 for axis in axes
            ):
                return None  # broadcast: read at 0
            found.append(known)
        if not found:
            return None
        first = found[0]
        if any((one.lines, one.local) != (first.lines, first.local) for one in found):
            return None
        return max(found, key=lambda one: one.mixing)

    def _probed(self, name: str) -> Straight:
        """The field of a tensor by what two of its units depend on."""
        lines, mixing = self._lines(name, local=False)
        if lines is None:
            raise _Crooked
        if mixing[0] < 0:
            return Straight(lines, lines)
        return Straight(lines, self._lines(name, local=True)[0], *mixing)

    def _lines(self, name: str, *, local: bool) -> tuple[Lines | None, tuple[int, str]]:
        rows, columns = self._unit_axes(name)
        walks = []
        for y, x in ((0, 0), (FAR, FAR + 1)):
            region: list[Indices | None] = [None] * 4
            region[rows], region[columns] = np.array([y]), np.array([x])
            walks.append(_Walk(self, name, tuple(region), local=local))
        first, far = walks
        if first.image is None or far.image is None:
            if first.image is not far.image:
                raise _Crooked
            return None, first.mixing
        lines = tuple(
            _line(one, other, rows, columns)
            for one, other in zip(first.image, far.image, strict=True)
        )
        return lines, first.mixing


def _line(here: Span, far: Span, rows: int, columns: int) -> Line | None:
    """The line through the spans of units (0, 0) and (FAR, FAR + 1)."""
    if here is None or far is None:
        if here is not far:
            raise _Crooked
        return None
    if NOTHING in (here, far):
        raise _Crooked
    way = far[0] - here[0]
    if way != far[1] - here[1] or abs(way) > FAR * FAR:
        raise _Crooked
    if not way:
        return Line(-1, 0, *here)
    # The two distances have no factor in common: only one of them can divide the way.
    for axis, distance in ((rows, FAR), (columns, FAR + 1)):
        if way % distance == 0:
            return Line(axis, way // distance, *here)
    raise _Crooked


class _Walk:
    """From one unit back to the nearest tensors whose lines are known, and so to the image."""

    def __init__(self, fields: FieldLines, tensor: str, region: Region, *, local: bool) -> None:
        self.fields, self.local = fields, local
        self.image: list[Span] | None = None
        self.mixing: tuple[int, str] = (-1, "")
        self.regions: dict[str, Region] = {tensor: region}
        self.waiting: list[int] = []
        self._wait(tensor)
        last, steps = -1, 0
        while self.waiting:
            index = -heapq.heappop(self.waiting)
            if index == last:
                continue
            last, steps = index, steps + 1
            if steps > _MAX_BETWEEN:
                raise _Crooked
            self._step(fields.net.graph.nodes[index])

    def _wait(self, tensor: str) -> None:
        node = self.fields.net.graph.producer(tensor)
        if node is None:
            raise _Crooked
        heapq.heappush(self.waiting, -node.index)

    def _step(self, node: Node) -> None:
        for output in node.outputs:
            region = self.regions.get(output)
            if region is None:
                continue
            for reach in step_back(self.fields.net, node, output, region, bounded=False):
                if reach.tensor in self.fields.connected:
                    self._reached(node, reach)

    def _reached(self, node: Node, reach: Reach) -> None:
        read = reach.own if reach.mixes and self.local else reach.region
        if reach.mixes and node.index > self.mixing[0]:
            self.mixing = node.index, mixes(node)
        if read is None:
            return
        known = self.fields.known.get(reach.tensor)
        if known is None:
            self.regions[reach.tensor] = union(self.regions.get(reach.tensor), read, ends=True)
            self._wait(reach.tensor)
            return
        self.mixing = max(self.mixing, (known.mixing, known.why))
        lines = known.local if self.local else known.lines
        if lines is not None:
            self.image = image_of(lines, read, self.image)


def mixes(node: Node) -> str:
    """What is said of a node that mixes space."""
    return f"{node.op_type} node {node.name!r} reads the whole map"


def image_of(lines: Lines, region: Region, known: list[Span] | None = None) -> list[Span]:
    """Indices of the image that a region of a tensor depends on, with those known already."""
    found = [None if line is None else line.span(region) for line in lines]
    if known is None:
        return found
    return [
        None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))
        for a, b in zip(known, found, strict=True)
    ]


def enlargement(net: GraphExtents, node: Node) -> int:
    """Units of a node's output that may share a unit of its input, along one axis."""
    if node.is_op("Resize", "Upsample"):
        lengths = [net.shape(name) for name in (node.inputs[0], node.outputs[0])]
        before, after = (shape[-1] if shape else None for shape in lengths)
        factor = Fraction(after or 4, max(before or 1, 1)).limit_denominator(16)
        return max(factor.numerator, 1)
    if node.is_op("ConvTranspose"):
        return int(max(node.attributes.get("strides") or [1]))
    return int(node.attributes["blocksize"]) if node.is_op("DepthToSpace") else 1


def union(known: Region | None, other: Region, *, ends: bool) -> Region:
    """Indices that either of two regions holds.

    Args:
        known: One region; None for none.
        other: The other.
        ends: Keep the first and the last index alone.
    """
    if known is None or len(known) != len(other):
        return tuple(_ends(a) for a in other) if ends else other
    joined: list[Indices | None] = []
    for a, b in zip(known, other, strict=True):
        if a is None or b is None:
            joined.append(None)
        elif a is b:
            joined.append(a)
        elif ends:
            joined.append(np.array([min(a[0], b[0]), max(a[-1], b[-1])]))
        else:
            joined.append(np.union1d(a, b))
    return tuple(joined)


def _ends(indices: Indices | None) -> Indices | None:
    return indices[[0, -1]] if indices is not None and indices.size > 2 else indices
