"""Which nodes do the same everywhere on a map, so that they may run on a crop of it."""

from collections.abc import Sequence

from converters.graph import Node
from converters.graph.operators import facts
from inspector.network.receptive_fields.graph_extents import GraphExtents

__all__ = ["Axes", "ShiftInvariance"]

Ends = tuple[int, int]
"""Two numbers, for the first end of an axis and for the last."""

Axes = tuple[int, int]
"""Axes of a tensor of four along the rows and the columns of the image."""

_RANK = 4
_FIRST: Axes = (2, 3)
"""The axes of space where channels come first."""

_SOFTMAX_ALONG_ONE_AXIS = 13
"""Opset from which softmax goes along one axis, not along all behind it."""


class ShiftInvariance:
    """Follows an image through nodes, in order, as long as each of them does the same everywhere.

    What a node does at the border of the map (padding) counts as the same: a crop that ends with
    the picture is padded as the picture is.

    Args:
        net: Lengths of the axes in the graph.
        source: The image input.
        axes: Its axes along rows and columns.

    Attributes:
        axes: Axes of space of the tensors that were followed.
        removed: Pixels that were cut off before and behind, along rows and columns. A crop loses
            as many at its own ends, although the whole map has values there.
    """

    def __init__(self, net: GraphExtents, source: str, axes: Axes) -> None:
        self.net, self.graph = net, net.graph
        self.axes: dict[str, Axes] = {source: axes}
        self.removed: dict[str, tuple[Ends, Ends]] = {source: ((0, 0), (0, 0))}
        self._strides: dict[str, tuple[int, int]] = {source: (1, 1)}
        self._variable = _depending_on_inputs(net)

    def follow(self, node: Node) -> bool:
        """Whether the node does the same everywhere; its outputs are known from then on."""
        data = [name for name in node.inputs if name in self.axes]
        others = [name for name in node.inputs if name and name not in self.axes]
        known = facts(node)
        if not data or known.bodies or any(name in self._variable for name in others):
            return False
        if any(self.net.rank(name, 0) != _RANK for name in data):
            return False
        outputs = [name for name in node.outputs if name]
        used = [name for name in outputs if self.graph.consumers(name)]
        if len(outputs) > 1 and used != outputs[:1] and not node.is_op("Split"):
            return False
        space = self.axes[data[0]]
        if any(self.axes[name] != space or not self._same(name, data[0]) for name in data):
            return False
        if node.is_op("Transpose"):
            perm = node.attributes.get("perm") or list(range(_RANK))[::-1]
            if perm[0] != 0:
                return False
            space = perm.index(space[0]), perm.index(space[1])
        elif not self._everywhere(node, data, others, space):
            return False
        self.axes.update(dict.fromkeys(outputs, space))
        self._measure(node, data, outputs)
        return True

    def _measure(self, node: Node, data: Sequence[str], outputs: Sequence[str]) -> None:
        """Pixels from place to place of a node's outputs, and pixels that were cut off."""
        stride, space = self._strides[data[0]], self.axes[data[0]]
        removed, steps = [], []
        for at, axis in enumerate(space):
            first, last, step = self._cut_off(node, at, axis)
            before, behind = zip(*(self.removed[name][at] for name in data), strict=True)
            removed.append((max(before) + first * stride[at], max(behind) + last * stride[at]))
            steps.append(stride[at] * step)
        self.removed.update(dict.fromkeys(outputs, (removed[0], removed[1])))
        self._strides.update(dict.fromkeys(outputs, (steps[0], steps[1])))

    def _cut_off(self, node: Node, at: int, axis: int) -> tuple[int, int, int]:
        """Places that a node cuts off before and behind, and places from one of its to the next."""
        known = facts(node)
        if node.is_op("Pad"):
            pads = self.net.ints(node, 1, "pads") or [0] * (2 * _RANK)
            return max(0, -pads[axis]), max(0, -pads[axis + _RANK]), 1
        if node.is_op("Slice"):
            start, end, step = self._bounds(node).get(axis, (0, 0, 1))
            return start, max(0, -end), step
        if node.is_op("SpaceToDepth"):
            return 0, 0, int(node.attributes["blocksize"])
        if known.convolves or known.pools:
            return 0, 0, int((node.attributes.get("strides") or (1, 1))[at])
        return 0, 0, 1

    def _same(self, tensor: str, other: str) -> bool:
        return all(
            self.net.extent(tensor, axis) == self.net.extent(other, axis)
            for axis in self.axes[tensor]
        )

    def _everywhere(
        self, node: Node, data: Sequence[str], others: Sequence[str], space: Axes
    ) -> bool:
        known = facts(node)
        if known.carries or known.elementwise == "first":
            return all(self._along(node, name, space) for name in others)
        if known.elementwise == "all":
            return all(self._broadcasts(name, space) for name in others)
        if known.convolves or (known.pools and not known.whole):
            moves = node.is_op("Conv", "QLinearConv") or bool(known.pools)
            last = known.channels_last or node.attributes.get("channels_last", 0)
            return moves and space == _FIRST and len(data) == 1 and not last
        if known.joins:
            levels = not node.is_op("Concat") and all(self._single(name) for name in others)
            return self._along_channels(node, space) and (not others or levels)
        if node.is_op("MatMul"):
            return data[0] == node.inputs[0] and _RANK - 1 not in space and self._matrix(others)
        return self._by_channels(node, space) or self._moves(node, space)

    def _by_channels(self, node: Node, space: Axes) -> bool:
        """Whether it acts on the channels of each place."""
        known = facts(node)
        if known.normalises in {"constants", "neighbours"}:
            return space == _FIRST and not node.attributes.get("training_mode", 0)
        if known.softmax:
            one = self.graph.opset() >= _SOFTMAX_ALONG_ONE_AXIS
            return one and self._along_channels(node, space, -1)
        if node.is_op("LayerNormalization"):
            last = node.attributes.get("axis", -1) in {-1, _RANK - 1}
            return last and _RANK - 1 not in space
        return known.reduces and self._reduces(node, space)

    def _moves(self, node: Node, space: Axes) -> bool:
        """Whether it moves values, or adds some, alike everywhere."""
        if node.is_op("Split"):
            return self._along_channels(node, space, 0)
        if node.is_op("Pad"):
            return self._pads(node, space)
        if node.is_op("Slice"):
            return self._slices(node, space)
        return node.is_op("SpaceToDepth") and space == _FIRST

    # -- parameters ------------------------------------------------------------------------------

    def _shape(self, tensor: str) -> tuple[int | None, ...] | None:
        raw = self.graph.initialiser(tensor)
        return tuple(raw.dims) if raw is not None else self.net.shape(tensor)

    def _single(self, tensor: str) -> bool:
        shape = self._shape(tensor)
        return shape is not None and all(size == 1 for size in shape)

    def _along(self, node: Node, tensor: str, space: Axes) -> bool:
        """Whether a parameter is one number, or one per channel."""
        shape = self._shape(tensor)
        if shape is None or self._single(tensor):
            return shape is not None
        axis = node.attributes.get("axis", 1) % _RANK
        return facts(node).rounds and len(shape) == 1 and axis not in (0, *space)

    def _broadcasts(self, tensor: str, space: Axes) -> bool:
        """Whether a constant has the same values everywhere on the map."""
        shape = self._shape(tensor)
        if shape is None or len(shape) > _RANK:
            return False
        full = (*[1] * (_RANK - len(shape)), *shape)
        return full[0] == 1 and all(full[axis] == 1 for axis in space)

    def _matrix(self, others: Sequence[str]) -> bool:
        shape = self._shape(others[0]) if len(others) == 1 else None
        return shape is not None and len(shape) == 2

    def _along_channels(self, node: Node, space: Axes, default: int = 1) -> bool:
        axis: int = node.attributes.get("axis", default) % _RANK
        return axis not in (0, *space)

    def _reduces(self, node: Node, space: Axes) -> bool:
        axes = self.net.ints(node, 1, "axes")
        if not axes or not node.attributes.get("keepdims", 1) or node.op_type.startswith("Arg"):
            return False
        return all(axis % _RANK not in (0, *space) for axis in axes)

    def _pads(self, node: Node, space: Axes) -> bool:
        pads = self.net.ints(node, 1, "pads")
        if pads is None or len(pads) != 2 * _RANK or any(node.inputs[3:]):
            return False
        still = [axis for axis in range(_RANK) if axis not in space]
        ends = all(pads[axis] == 0 and pads[axis + _RANK] == 0 for axis in still)
        # The other modes read what lies inside, as far away as the padding is wide.
        return ends and node.attributes.get("mode", "constant") == "constant"

    def _slices(self, node: Node, space: Axes) -> bool:
        """Whether what is left out is counted from the border at which it lies."""
        bounds = self._bounds(node)
        if not bounds or 0 in bounds:
            return False
        for axis in space:
            start, end, step = bounds.get(axis, (0, -1, 1))
            length = self.net.extent(node.inputs[0], axis) or 0
            if start < 0 or step < 1 or 0 <= end < length:
                return False
        return True

    def _bounds(self, node: Node) -> dict[int, tuple[int, int, int]]:
        """Start, end and step of a Slice by axis; nothing where they are not known."""
        starts, ends = (self.net.ints(node, 1, "starts"), self.net.ints(node, 2, "ends"))
        if starts is None or ends is None or len(starts) != len(ends):
            return {}
        axes = self.net.ints(node, 3, "axes") or list(range(len(starts)))
        steps = self.net.ints(node, 4, "steps") or [1] * len(starts)
        if len(axes) != len(starts) or len(steps) != len(starts):
            return {}
        rows = zip(axes, starts, ends, steps, strict=True)
        return {axis % _RANK: (start, end, step) for axis, start, end, step in rows}


def _depending_on_inputs(net: GraphExtents) -> frozenset[str]:
    """Tensors that change with the inputs or with their shapes."""
    variable = set(net.graph.inputs)
    for node in net.graph.nodes:
        if not variable.isdisjoint(net.graph.reads(node)):
            variable.update(filter(None, node.outputs))
    return frozenset(variable)
