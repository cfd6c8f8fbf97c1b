"""Free batch axis of a file that fixes one sample, where the graph proves which axis it is.

Followed from the input to the outputs is the axis of samples of every tensor.  A node through
which it cannot be followed (the axis was taken away, two tensors have it in different places, a
constant of one sample is laid beside it) ends the proof, and the file keeps its batch of one.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from converters.graph.operators import Facts, facts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["free_batch"]

_FIRST = frozenset(
    {
        *("LRN", "InstanceNormalization", "GroupNormalization", "DepthToSpace", "SpaceToDepth"),
        *("BatchNormalization", "QLinearConv", "ConvInteger", "Dropout"),
    }
)
_ALL = 2**31 - 1
"""Ends of slices that exporters write for "to the end"."""
_ONE_AXIS = frozenset({"ArgMax", "ArgMin"})


class _LostError(Exception):
    """The axis of samples cannot be followed through a node."""


def free_batch(model: onnx.ModelProto) -> str:
    """Leave the first axis of a model's input and outputs free, if it is proved to be the samples'.

    Args:
        model: One input, whose first axis is 1. Changed in place, or not at all.

    Returns:
        Empty when the axis is free; else why the batch stays 1, in a clause.
    """
    try:
        proof = _Proof(model)
    except _LostError as error:
        return str(error)
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        dims[0].Clear()
        dims[0].dim_param = "batch"
    del model.graph.value_info[:]
    for index, target in proof.targets.items():
        node = model.graph.node[index]
        name = f"{node.input[1]}_free_{index}"
        model.graph.initializer.append(numpy_helper.from_array(target, name))
        node.input[1] = name
    return ""


class _Proof:
    """Axis of samples of every tensor, and the targets of `Reshape` that have to name it.

    Attributes:
        targets: New targets by index of their node.

    Raises:
        _LostError: There is no such axis in a tensor that depends on the input.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Follow the axis through all nodes."""
        graph = model.graph
        if len(graph.input) != 1:
            raise _LostError("there are several inputs")
        self.targets: dict[int, NDArray[np.int64]] = {}
        self._constants = {t.name: t for t in graph.initializer}
        self._shapes = _shapes(model)
        self._axes = {graph.input[0].name: 0}
        if self._shape(graph.input[0].name)[:1] != (1,):
            raise _LostError("the batch of the input is not 1")
        for index, node in enumerate(graph.node):
            if node.op_type == "Constant":
                self._keep(node)
            elif any(name in self._axes for name in node.input):
                for name, axis in zip(node.output, self._through(index, node), strict=False):
                    if name:
                        self._axes[name] = axis
        for value in graph.output:
            if self._axes.get(value.name) != 0:
                raise _LostError(f"output {value.name} does not begin with the axis of samples")

    def _keep(self, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if attribute.name == "value":
                self._constants[node.output[0]] = attribute.t

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise _LostError(f"the shape of {name} is not known")
        return self._shapes[name]

    def _constant(self, node: onnx.NodeProto, position: int) -> list[int] | None:
        """Whole numbers of an input; None when there is no such input."""
        if len(node.input) <= position or not node.input[position]:
            return None
        if node.input[position] not in self._constants:
            raise _lost(node)
        return [
            int(n) for n in np.ravel(numpy_helper.to_array(self._constants[node.input[position]]))
        ]

    def _through(self, index: int, node: onnx.NodeProto) -> list[int]:
        """Axis of samples of each output of a node."""
        known, name = facts_of(node.domain, node.op_type), node.op_type
        if node.domain or known.bodies:
            raise _lost(node)
        if name in {"Concat", "MatMul"} or known.elementwise == "all":
            find = {"Concat": self._concat, "MatMul": self._matmul}.get(name, self._broadcast)
            return [find(node)]
        if [position for position, x in enumerate(node.input) if x in self._axes] != [0]:
            raise _lost(node)
        if name in _RULES:
            rule: Callable[[int, onnx.NodeProto], int] = getattr(self, f"_{name.lower()}")
            return [rule(index, node)] * len(node.output)
        return [self._kept(node, known)] * len(node.output)

    def _kept(self, node: onnx.NodeProto, known: Facts) -> int:
        """The axis of a node that keeps the order of axes, by the facts of its operator."""
        axis, name = self._axes[node.input[0]], node.op_type
        if known.elementwise or known.copies or known.rounds:
            return axis
        if known.softmax or name == "LpNormalization":
            return self._apart(node, axis, [_attribute(node, "axis", -1)])
        if known.reduces or name in _ONE_AXIS:
            return self._reduced(node, axis)
        if axis == 0 and (known.convolves or known.pools or name in _FIRST):
            return 0
        raise _lost(node)

    def _apart(self, node: onnx.NodeProto, axis: int, worked: Sequence[int]) -> int:
        """The axis, if the node does not work along it."""
        rank = len(self._shape(node.input[0]))
        if axis in [n % rank for n in worked]:
            raise _lost(node)
        return axis

    def _broadcast(self, node: onnx.NodeProto) -> int:
        """The axis where shapes are aligned at their ends."""
        rank = max(len(self._shape(name)) for name in node.input if name)
        places = set()
        for name in filter(None, node.input):
            if name in self._axes:
                places.add(self._axes[name] + rank - len(self._shape(name)))
        if len(places) != 1:
            raise _lost(node)
        place = places.pop()
        for name in filter(None, node.input):
            own = place - rank + len(self._shape(name))
            if name not in self._axes and own >= 0 and self._shape(name)[own] != 1:
                raise _lost(node)
        return place

    def _reduced(self, node: onnx.NodeProto, axis: int) -> int:
        axes = _attribute(node, "axes", None)
        axes = self._constant(node, 1) if axes is None else list(axes)
        if node.op_type in _ONE_AXIS:
            axes = [_attribute(node, "axis", 0)]
        if not axes:
            raise _lost(node)
        self._apart(node, axis, axes)
        rank = len(self._shape(node.input[0]))
        gone = 0 if _attribute(node, "keepdims", 1) else sum(n % rank < axis for n in axes)
        return axis - gone

    def _transpose(self, _: int, node: onnx.NodeProto) -> int:
        rank = len(self._shape(node.input[0]))
        order = list(_attribute(node, "perm", range(rank)[::-1]))
        return int(order.index(self._axes[node.input[0]]))

    def _reshape(self, index: int, node: onnx.NodeProto) -> int:
        """What stands before the axis has as many elements as before, and it is 1 itself."""
        axis, target = self._axes[node.input[0]], self._constant(node, 1)
        if target is None or _attribute(node, "allowzero", 0):
            raise _lost(node)
        old, new = self._shape(node.input[0]), self._shape(node.output[0])
        places = [
            n for n, length in enumerate(new) if length == 1 and prod(new[:n]) == prod(old[:axis])
        ]
        if not places or len(target) != len(new):
            raise _lost(node)
        place = next((n for n in (0, axis) if n in places), places[0])
        wanted = 0 if place == axis else -1
        if target[place] not in (-1, wanted):
            if wanted == -1 and -1 in target:
                raise _lost(node)
            target[place] = wanted
            self.targets[index] = np.array(target, np.int64)
        return place

    def _flatten(self, _: int, node: onnx.NodeProto) -> int:
        if self._axes[node.input[0]] != 0 or _attribute(node, "axis", 1) != 1:
            raise _lost(node)
        return 0

    def _squeeze(self, _: int, node: onnx.NodeProto) -> int:
        axis, rank = self._axes[node.input[0]], len(self._shape(node.input[0]))
        axes: list[int] = list(_attribute(node, "axes", None) or self._constant(node, 1) or ())
        if not axes:
            raise _lost(node)
        self._apart(node, axis, axes)
        return axis - sum(n % rank < axis for n in axes)

    def _unsqueeze(self, _: int, node: onnx.NodeProto) -> int:
        axes = list(_attribute(node, "axes", None) or self._constant(node, 1) or ())
        rank = len(self._shape(node.input[0])) + len(axes)
        added = {n % rank for n in axes}
        kept = [n for n in range(rank) if n not in added]
        return kept[self._axes[node.input[0]]]

    def _concat(self, node: onnx.NodeProto) -> int:
        axes = {self._axes.get(name) for name in node.input}
        axis = axes.pop()
        if axes or axis is None:
            raise _lost(node)  # a constant beside it has one sample for ever
        return self._apart(node, axis, [_attribute(node, "axis", 0)])

    def _split(self, _: int, node: onnx.NodeProto) -> int:
        return self._apart(node, self._axes[node.input[0]], [_attribute(node, "axis", 0)])

    def _slice(self, _: int, node: onnx.NodeProto) -> int:
        starts, ends = self._constant(node, 1) or [], self._constant(node, 2) or []
        axes = self._constant(node, 3) or list(range(len(starts)))
        steps = self._constant(node, 4) or [1] * len(starts)
        cut = zip(axes, starts, ends, steps, strict=True)
        # An end beyond every length keeps all samples; an end of 1 may mean the first one.
        kept = [axis for axis, *rest in cut if rest[0] != 0 or rest[1] < _ALL or rest[2] != 1]
        return self._apart(node, self._axes[node.input[0]], kept)

    def _gather(self, _: int, node: onnx.NodeProto) -> int:
        axis = self._axes[node.input[0]]
        along = _attribute(node, "axis", 0) % len(self._shape(node.input[0]))
        self._apart(node, axis, [along])
        return axis + (len(self._shape(node.input[1])) - 1 if along < axis else 0)

    def _pad(self, _: int, node: onnx.NodeProto) -> int:
        axis, rank = self._axes[node.input[0]], len(self._shape(node.input[0]))
        pads = _attribute(node, "pads", None) or self._constant(node, 1)
        if pads is None or len(pads) != 2 * rank or pads[axis] or pads[axis + rank]:
            raise _lost(node)
        return axis

    def _resize(self, _: int, node: onnx.NodeProto) -> int:
        """Scales leave the number of samples open; sizes name it."""
        axis = self._axes[node.input[0]]
        scales = self._constant(node, 2)
        if not scales or len(scales) <= axis or scales[axis] != 1:
            raise _lost(node)
        return axis

    def _tile(self, _: int, node: onnx.NodeProto) -> int:
        axis, repeats = self._axes[node.input[0]], self._constant(node, 1)
        if repeats is None or repeats[axis] != 1:
            raise _lost(node)
        return axis

    def _expand(self, _: int, node: onnx.NodeProto) -> int:
        axis, target = self._axes[node.input[0]], self._constant(node, 1) or []
        place = axis + max(0, len(target) - len(self._shape(node.input[0])))
        own = place - max(len(target), len(self._shape(node.input[0]))) + len(target)
        if own >= 0 and target[own] != 1:
            raise _lost(node)
        return place

    def _matmul(self, node: onnx.NodeProto) -> int:
        """Leading axes broadcast; the rows of the first factor may be samples too."""
        ranks = [len(self._shape(name)) for name in node.input[:2]]
        rank, places = max(ranks), set()
        if min(ranks) < 2:
            raise _lost(node)
        for position, (name, own) in enumerate(zip(node.input[:2], ranks, strict=True)):
            if name in self._axes:
                axis = self._axes[name]
                if axis >= own - (1 if position == 0 else 2):
                    raise _lost(node)
                places.add(axis + rank - own)
        if len(places) != 1:
            raise _lost(node)
        place = places.pop()
        for name, own in zip(node.input[:2], ranks, strict=True):
            at = place - rank + own
            if name not in self._axes and 0 <= at < own - 2 and self._shape(name)[at] != 1:
                raise _lost(node)
            if name in self._axes and place == rank - 2 and node.input[1] in self._axes:
                raise _lost(node)
        return place

    def _gemm(self, _: int, node: onnx.NodeProto) -> int:
        if self._axes[node.input[0]] != 0 or _attribute(node, "transA", 0):
            raise _lost(node)
        if len(node.input) > 2 and node.input[2]:
            bias = self._shape(node.input[2])
            if len(bias) == 2 and bias[0] != 1:
                raise _lost(node)
        return 0


_RULES = frozenset(
    {
        *("Expand", "Flatten", "Gather", "Gemm", "Pad", "Reshape", "Resize"),
        *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operators with a method of their own in the proof, which is called like them."""


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of the file as it is, with one sample."""
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except (ValueError, RuntimeError, shape_inference.InferenceError) as error:
        raise _LostError(f"shapes cannot be inferred ({str(error)[:80]})") from None
    found = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            found[value.name] = tuple(d.dim_value for d in dims)
    return found


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next(
        (onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default
    )


def _lost(node: onnx.NodeProto) -> _LostError:
    return _LostError(
        f"{node.op_type} {node.name or node.output[0]} has no axis of samples of its own"
    )
