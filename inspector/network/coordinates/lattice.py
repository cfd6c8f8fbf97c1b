"""Lattice of a layer's cells along the axes of space of a signal or a volume.

Pictures have their own tracer (``placement``), which follows every operator.  Here each axis is
followed for itself, through convolutions, poolings, paddings, cuts and changes of size; what else
moves places is named, and nothing is drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.graph import Graph, Node
from converters.graph.activations import data_nodes
from converters.graph.operators import facts
from inspector.errors import MethodRefused
from inspector.network.coordinates.placement import Line
from inspector.network.layers import channel_axes
from inspector.network.space import space_axes

__all__ = ["Lattice", "fields", "trace"]

Array = np.ndarray[Any, Any]
_Axes = tuple[tuple[float, float, float], ...]
"""Of each axis of space the centre of cell 0, the stride and how much a cell sees, in places."""


@dataclass(frozen=True)
class Lattice:
    """How a map lies on a signal (L,) or a volume (D, H, W).

    Attributes:
        sizes: Places of the input along its axes of space.
        cells: The same of the map: (l,) or (d, h, w); ``sizes`` of a map of the input.
        lines: Cells along each axis; None where they are stretched over the whole input as usual.
    """

    sizes: tuple[int, ...]
    cells: tuple[int, ...]
    lines: tuple[Line, ...] | None = None

    def own(self, values: Array) -> Array:
        """A map as a plane, at its own shape: (l,), (d, h, w), (C, L) or (C, D, H, W)."""
        return values.reshape(*values.shape[:-2], *self.cells)

    def laid(self, values: Array) -> tuple[Array, Array]:
        """A map on the places of the input, linear between the centres of its cells.

        Args:
            values: The map, as a plane or at its own shape.

        Returns:
            The plane (H, W) of the input, NaN where no cell lies; and where one does.
        """
        found = np.asarray(values, np.float64).reshape(self.cells)
        seen = np.ones(self.sizes, np.bool_)
        for axis, (size, count) in enumerate(zip(self.sizes, self.cells, strict=True)):
            at = np.arange(size)
            if self.lines is None:
                places = (at + 0.5) * (count / size) - 0.5
            else:
                line = self.lines[axis]
                places = (at - line.offset) / line.stride
                low, high = line.hull
                inside = (at >= low - 1e-9) & (at < high - 1e-9)
                seen &= inside.reshape([-1 if i == axis else 1 for i in range(seen.ndim)])
            places = np.clip(places, 0, count - 1)
            lower = np.floor(places).astype(np.intp)
            upper = np.minimum(lower + 1, count - 1)
            part = (places - lower).reshape([-1 if i == axis else 1 for i in range(found.ndim)])
            low_values, high_values = np.take(found, lower, axis), np.take(found, upper, axis)
            found = low_values + part * (high_values - low_values)
        found[~seen] = np.nan
        rows = int(np.prod(self.sizes[:-1], dtype=np.int64))
        plane = rows, self.sizes[-1]
        return found.reshape(plane).astype(np.float32), seen.reshape(plane)


def trace(
    graph: Graph,
    source: str,
    tensor: str,
    shapes: Mapping[str, Sequence[int]],
    *,
    sizes: Sequence[int],
    cells: Sequence[int],
    last: bool = False,
) -> Lattice:
    """Where the cells of a layer lie on a signal or a volume.

    The usual stretch is taken where the cells cover every axis within half a stride, as with
    pictures; else each cell is laid at its own place.

    Args:
        graph: The network.
        source: Its input.
        tensor: The layer.
        shapes: Concrete shapes of tensors, as far as they are known.
        sizes: Places of the input along its axes of space.
        cells: The same of the layer.
        last: Whether the input's channels are its last axis.

    Raises:
        MethodRefused: A node before the layer moves places in a way that is not followed.
    """
    found = _Trace(graph, source, shapes, last=last).axes(tensor)
    lines = tuple(
        Line(offset, stride, 0, count)
        for (offset, stride, _), count in zip(found, cells, strict=True)
    )
    usual = all(line.covers(size) for line, size in zip(lines, sizes, strict=True))
    return Lattice(tuple(sizes), tuple(cells), None if usual else lines)


def fields(
    graph: Graph,
    source: str,
    shapes: Mapping[str, Sequence[int]],
    tensors: Sequence[str],
    *,
    last: bool = False,
) -> dict[str, _Axes | MethodRefused]:
    """Offset, stride and receptive field of layers along each axis, or why they are not known.

    Args:
        graph: The network.
        source: Its input.
        shapes: Concrete shapes of tensors, as far as they are known.
        tensors: The layers.
        last: Whether the input's channels are its last axis.
    """
    traced = _Trace(graph, source, shapes, last=last)
    found: dict[str, _Axes | MethodRefused] = {}
    for tensor in tensors:
        try:
            found[tensor] = traced.axes(tensor)
        except MethodRefused as error:
            found[tensor] = error
    return found


@dataclass(frozen=True)
class _Map:
    """What is known of a tensor: its cells along each axis of space, and which axes those are."""

    axes: _Axes
    where: tuple[int, ...]


class _Trace:
    def __init__(
        self, graph: Graph, source: str, shapes: Mapping[str, Sequence[int]], *, last: bool
    ) -> None:
        self.graph, self.shapes = graph, shapes
        space = space_axes(graph)
        self.first = tuple(range(2, space + 2))
        where = tuple(range(1, space + 1)) if last else self.first
        self.maps = channel_axes(graph)
        self.found: dict[str, _Map | str] = {source: _Map(((0.0, 1.0, 1.0),) * space, where)}
        for node in data_nodes(graph):
            before = [self.found[name] for name in node.inputs if name in self.found]
            known = [one for one in before if isinstance(one, _Map)]
            if before:
                lost = next((one for one in before if isinstance(one, str)), "")
                after = lost or self._step(node, known)
                self.found |= dict.fromkeys(filter(None, node.outputs), after)

    def axes(self, tensor: str) -> _Axes:
        """Offset, stride and field of each axis of a tensor.

        Raises:
            MethodRefused: They are not known.
        """
        found = self.found.get(tensor, "it does not depend on the input")
        last = self.maps.get(tensor, 1) > 1
        wanted = tuple(axis - 1 for axis in self.first) if last else self.first
        if isinstance(found, _Map) and found.where != wanted:
            found = "its axes of space are not those of the input, in their order"
        if isinstance(found, str):
            raise MethodRefused(
                f"it is not known which places of the input the layer's cells stand for: {found}",
                where=repr(tensor),
                hint="name a layer before it with --layer; gradient and occlusion need none",
            )
        return found.axes

    def _step(self, node: Node, before: Sequence[_Map]) -> _Map | str:
        """What a node makes of maps, or why it is not known."""
        first = max(before, key=lambda one: one.axes[0][2])  # the longest way sees most
        if any(one.where != first.where or not _alike(one.axes, first.axes) for one in before):
            return f"{_named(node)} joins maps whose cells lie in different places"
        if node.is_op("Transpose"):
            order = [int(axis) for axis in node.attributes.get("perm", ())]
            if not set(first.where) <= set(order):
                return f"{_named(node)} is not followed"
            return _Map(first.axes, tuple(order.index(axis) for axis in first.where))
        own = self._moved(node, first)
        return own if isinstance(own, str) else _Map(own, first.where)

    def _moved(self, node: Node, before: _Map) -> _Axes | str:
        """The axes of what a node makes of one map, which keep their order."""
        known = facts(node)
        if known.convolves or (known.pools and not node.op_type.startswith("Global")):
            here = tuple(axis - known.channels_last for axis in self.first)
            if before.where != here:
                return f"{_named(node)} slides over another axis than those of the input's space"
            return self._windows(node, before)
        moves = {
            "Resize": self._resized,
            "Upsample": self._resized,
            "Pad": self._padded,
            "Slice": self._cut,
        }
        if node.op_type in moves and not node.domain:
            return moves[node.op_type](node, before)
        if node.is_op("Concat"):
            axis = int(node.attributes.get("axis", 1)) % (len(self.first) + 2)
            return f"{_named(node)} joins along space" if axis in before.where else before.axes
        if known.keeps_axes or node.outputs[0] in self.maps:
            return before.axes
        return f"{_named(node)} is not followed"

    def _windows(self, node: Node, before: _Map) -> _Axes | str:
        kernel = self._kernel(node)
        if kernel is None:
            return f"the window of {_named(node)} is not known"
        count = len(self.first)
        steps = _numbers(node, "strides", 1, count)
        spread = _numbers(node, "dilations", 1, count)
        pads = self._pads(node, before, kernel, steps, spread)
        if pads is None:
            return f"the padding of {_named(node)} is not known"
        turned = node.is_op("ConvTranspose")
        found = []
        for at, k, s, d, pad in zip(before.axes, kernel, steps, spread, pads, strict=True):
            offset, stride, field = at
            aside = (k - 1) * d / 2 - pad
            if turned:
                seen = field + (k - 1) * stride / s
                found.append((offset - stride * aside / s, stride / s, seen))
            else:
                seen = field + (k - 1) * d * stride
                found.append((offset + stride * aside, stride * s, seen))
        return tuple(found)

    def _kernel(self, node: Node) -> list[int] | None:
        given = [int(k) for k in node.attributes.get("kernel_shape", ())]
        if given:
            return given
        known = facts(node)
        stored = None if known.weights is None else self.graph.constant(node.inputs[known.weights])
        return None if stored is None else list(stored.shape[2:])

    def _pads(
        self,
        node: Node,
        before: _Map,
        kernel: Sequence[int],
        steps: Sequence[int],
        spread: Sequence[int],
    ) -> list[float] | None:
        """Padding before the first place of each axis."""
        count = len(self.first)
        how = node.attributes.get("auto_pad", "NOTSET")
        if how in {"NOTSET", "VALID"}:
            given = node.attributes.get("pads", [0] * 2 * count)
            return [float(p) for p in given[:count]] if how == "NOTSET" else [0.0] * count
        sizes = self._sizes(node.inputs[0], before.where)
        if sizes is None or node.is_op("ConvTranspose"):
            return None
        totals = [
            max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            for size, k, s, d in zip(sizes, kernel, steps, spread, strict=True)
        ]
        return [float(-(-t // 2) if how == "SAME_LOWER" else t // 2) for t in totals]

    def _resized(self, node: Node, before: _Map) -> _Axes | str:
        old, new = (self._sizes(one, before.where) for one in (node.inputs[0], node.outputs[0]))
        if old is None or new is None:
            return f"the sizes before and behind {_named(node)} are not known"
        how = node.attributes.get("coordinate_transformation_mode", "half_pixel")
        half = 0.0 if how in {"asymmetric", "align_corners"} else 0.5
        found = []
        for (offset, stride, field), a, b in zip(before.axes, old, new, strict=True):
            ratio = (a - 1) / (b - 1) if how == "align_corners" and b > 1 else a / b
            found.append((offset + stride * (half * ratio - half), stride * ratio, field + stride))
        return tuple(found)

    def _padded(self, node: Node, before: _Map) -> _Axes | str:
        pads = node.attributes.get("pads")
        if pads is None:
            stored = self.graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
            if stored is None or (len(node.inputs) > 3 and node.inputs[3]):
                return f"the padding of {_named(node)} is computed"
            pads = stored.ravel().tolist()
        begins = [float(p) for p in pads[: len(pads) // 2]]
        if len(begins) != len(self.first) + 2:
            return f"the padding of {_named(node)} is of another rank"
        return tuple(
            (offset - stride * begins[axis], stride, field)
            for (offset, stride, field), axis in zip(before.axes, before.where, strict=True)
        )

    def _cut(self, node: Node, before: _Map) -> _Axes | str:
        named = ((1, "starts"), (3, "axes"), (4, "steps"))
        starts, cut, steps = (self._values(node, name, place) for place, name in named)
        sizes = self._sizes(node.inputs[0], before.where)
        if starts is None or sizes is None:
            return f"the cut of {_named(node)} is computed"
        cut = list(range(len(starts))) if cut is None else cut
        steps = [1] * len(starts) if steps is None else steps
        found = list(before.axes)
        for start, axis, step in zip(starts, cut, steps, strict=True):
            at = axis % (len(self.first) + 2)
            if at not in before.where:  # of channels
                continue
            if step < 1:
                return f"{_named(node)} is not followed"
            i = before.where.index(at)
            begin = min(max(start + (sizes[i] if start < 0 else 0), 0), sizes[i])
            offset, stride, field = found[i]
            found[i] = (offset + stride * begin, stride * step, field)
        return tuple(found)

    def _values(self, node: Node, name: str, place: int) -> list[int] | None:
        given = node.attributes.get(name)
        if given is None and len(node.inputs) > place and node.inputs[place]:
            stored = self.graph.constant(node.inputs[place])
            given = None if stored is None else stored.ravel().tolist()
        return None if given is None else [int(v) for v in given]

    def _sizes(self, tensor: str, where: Sequence[int]) -> list[int] | None:
        shape = self.shapes.get(tensor)
        if shape is None or len(shape) != len(self.first) + 2:
            return None
        return [int(shape[axis]) for axis in where]


def _alike(one: _Axes, other: _Axes) -> bool:
    """Whether cells lie in the same places, within half a stride."""
    pairs: Iterator[Any] = zip(one, other, strict=True)
    return all(
        abs(a[1] - b[1]) <= 1e-6 and abs(a[0] - b[0]) <= abs(a[1]) / 2 + 1e-6 for a, b in pairs
    )


def _numbers(node: Node, name: str, default: int, count: int) -> list[int]:
    return [int(v) for v in node.attributes.get(name, [default] * count)]


def _named(node: Node) -> str:
    return f"node {node.name!r} ({node.op_type})"
