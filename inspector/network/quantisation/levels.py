"""Levels of a quantised network: the scale and zero point by which integers stand for numbers.

    value = (level - zero point) * scale,        least level <= level <= greatest level

Read off the graph, without running anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx

from converters.graph import Graph, Node
from converters.graph.operators import Facts, facts

__all__ = [
    "Levels",
    "copies_of",
    "is_quantised",
    "levels_of",
    "quantiser_behind",
    "saturation_note",
]

Array = np.ndarray[Any, Any]

_QUANTISED: WeakKeyDictionary[Graph, bool] = WeakKeyDictionary()

_LIMITS = {
    "uint2": (0, 3),
    "int2": (-2, 1),
    "uint4": (0, 15),
    "int4": (-8, 7),
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
}


@dataclass(frozen=True, eq=False)
class Levels:
    """What the numbers of a quantised tensor stand for.

    Attributes:
        node: The node that quantises.
        scale: One value, or one for each index of ``axis``.
        zero_point: The level that stands for 0; as many as scales.
        low: Least level of the type.
        high: Greatest level of the type.
        axis: What several scales belong to.
        dtype: Type of the levels.
    """

    node: Node
    scale: Array
    zero_point: Array
    low: int
    high: int
    axis: int = 1
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))

    @property
    def at_floor(self) -> bool:
        """Whether the least level stands for 0, so that no value is negative."""
        return bool(np.all(self.zero_point == self.low))

    @property
    def top(self) -> float:
        """The largest value that can be held."""
        return float(np.max(self.scale * (self.high - self.zero_point)))

    def steps(self, rank: int) -> Array:
        """The scale, in a shape that broadcasts to a tensor with ``rank`` axes."""
        return _along(self.scale, rank, self.axis)

    def read(self, levels: Array) -> Array:
        """Real numbers, float32, that levels stand for."""
        zero = _along(self.zero_point, levels.ndim, self.axis)
        found = (levels.astype(np.float64) - zero) * self.steps(levels.ndim)
        return found.astype(np.float32)

    def write(self, real: Array) -> Array:
        """The nearest levels, ties to even, cut off at the ends of the type."""
        zero = _along(self.zero_point, real.ndim, self.axis)
        found = np.rint(real.astype(np.float64) / self.steps(real.ndim)) + zero
        levels: Array = np.clip(found, self.low, self.high).astype(self.dtype)
        return levels

    def same(self, other: "Levels") -> bool:
        """Whether both quantise alike."""
        return (
            (self.low, self.high) == (other.low, other.high)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


def _along(parameter: Array, rank: int, axis: int) -> Array:
    if parameter.size == 1:
        return parameter.reshape([1] * rank)
    shape = [1] * rank
    shape[axis] = -1
    return parameter.reshape(shape)


def is_quantised(graph: Graph) -> bool:
    """Whether a network calculates with quantised activations, by fixed or dynamic ranges.

    Every map asks: it is looked for once per graph.
    """
    known = _QUANTISED.get(graph)
    if known is None:
        known = _QUANTISED[graph] = any(facts(node).levels for node in graph.nodes)
    return known


def levels_of(graph: Graph, tensor: str) -> Levels | None:
    """What a quantised tensor stands for.

    Args:
        graph: The network.
        tensor: Its name.

    Returns:
        The scale and the zero point of the node that quantised it, which may lie before nodes
        that only move numbers about; None for a tensor that is not quantised, or not by constant
        parameters that one reads off the file.
    """
    node, moved = graph.producer(tensor), False
    while node is not None and _passes_levels(node):
        moved = moved or not _keeps_channels(node)
        node = graph.producer(node.inputs[0])
    quantised = None if node is None else facts(node).quantised
    if node is None or quantised is None:
        return None
    position = quantised.scale
    if len(node.inputs) <= position:
        return None  # a QGemm whose result is a float
    scale = _constant(graph, node.inputs[position])
    named = len(node.inputs) > position + 1 and node.inputs[position + 1] != ""
    zero = _constant(graph, node.inputs[position + 1]) if named else None
    if scale is None or (named and zero is None) or node.attributes.get("block_size"):
        return None
    dtype = _dtype(node, zero)
    limits = None if dtype is None else _LIMITS.get(dtype.name)
    if dtype is None or limits is None or not np.all(scale > 0) or (scale.size > 1 and moved):
        return None
    levels = np.zeros(scale.shape) if zero is None else zero.astype(np.float64)
    axis = int(node.attributes.get("axis", 1))
    return Levels(node, scale.astype(np.float64), levels, *limits, axis=axis, dtype=dtype)


def _passes_levels(node: Node) -> bool:
    """Whether a node hands on quantised numbers as they are, wherever to."""
    known = facts(node)
    return (known.copies and not known.retypes) or known.moves or known.pads or _selects(known)


def _keeps_channels(node: Node) -> bool:
    """Whether each channel of what a node hands on is where it was, so that its scale is known."""
    known = facts(node)
    return known.copies or known.reshapes or _selects(known)


def _selects(known: Facts) -> bool:
    """Whether an operator picks the greatest of several levels, which is one of them."""
    return known.pools == "max" and known.quantised is None


def _dtype(node: Node, zero_point: Array | None) -> np.dtype[Any] | None:
    """Type of the levels that a node makes; None where the file names one that does not exist."""
    if zero_point is not None:
        return np.dtype(zero_point.dtype)
    stated = int(node.attributes.get("output_dtype", 0)) or onnx.TensorProto.UINT8
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(stated))
    except KeyError:
        return None


def _constant(graph: Graph, tensor: str) -> Array | None:
    """A constant, also behind operators that give it another shape."""
    value = graph.constant(tensor)
    node = graph.producer(tensor)
    if value is None and node is not None and node.is_op("Reshape", "Squeeze", "Unsqueeze"):
        return _constant(graph, node.inputs[0])
    return value


def quantiser_behind(graph: Graph, tensor: str) -> Levels | None:
    """The quantisation that a tensor's values go through next, or have just come from."""
    for user in graph.consumers(tensor):
        if user.op_type == "QuantizeLinear" and user.inputs[0] == tensor:
            return levels_of(graph, user.outputs[0])
    node = graph.producer(tensor)
    if node is not None and node.op_type == "DequantizeLinear":
        return levels_of(graph, node.inputs[0])
    return levels_of(graph, tensor)


def saturation_note(graph: Graph, tensor: str, values: Array) -> str:
    """Say so when a score lies at the end of its quantiser's range.

    Args:
        graph: The network.
        tensor: The tensor that the target is read from.
        values: The target's score or scores.

    Returns:
        A sentence; empty when nothing is cut off.
    """
    found = quantiser_behind(graph, tensor)
    if found is None or found.scale.size != 1:
        return ""
    scale, zero = float(found.scale.reshape(-1)[0]), float(found.zero_point.reshape(-1)[0])
    exact = values.astype(np.float64)
    levels = exact if values.dtype.kind in "iu" else np.round(exact / scale) + zero
    if np.any(levels >= found.high):
        end, level = "largest", found.high
    elif np.any(levels <= found.low):
        end, level = "smallest", found.low
    else:
        return ""
    return (
        f"the target's score saturates its quantiser (node {found.node.name!r}): it lies at the "
        f"{end} value that can be held, {(level - zero) * scale:.4g}, so the score may be cut off "
        "and a stronger one would look alike"
    )


def copies_of(graph: Graph, tensor: str) -> tuple[str, ...]:
    """All tensors that hold the same values as the output of a ``DequantizeLinear``.

    Quantisers give each consumer a ``DequantizeLinear`` of its own, some also a
    ``QuantizeLinear``.  What depends on a layer then depends on all of them.

    Args:
        graph: The network.
        tensor: Its name.

    Returns:
        The names, the given one first; only that one when it has no copies.
    """
    node = graph.producer(tensor)
    if node is None or node.op_type != "DequantizeLinear":
        return (tensor,)
    found = {tensor: None}
    for quantised in _same_levels(graph, node.inputs[0]):
        for user in graph.consumers(quantised):
            if user.op_type == "DequantizeLinear" and _alike(graph, node, user):
                found[user.outputs[0]] = None
    return tuple(found)


def _alike(graph: Graph, one: Node, other: Node) -> bool:
    """Whether two nodes scale alike, wherever their parameters are kept."""
    mine, yours = _parameters(graph, one), _parameters(graph, other)
    return len(mine) == len(yours) and all(map(np.array_equal, mine, yours))


def _parameters(graph: Graph, node: Node) -> list[Any]:
    found = [node.attributes.get("axis", 1), node.attributes.get("block_size", 0)]
    for name in node.inputs[1:]:
        value = _constant(graph, name) if name else None
        found.append(name if value is None else value)
    return found


def _same_levels(graph: Graph, quantised: str) -> Iterator[str]:
    """Tensors with the same levels: quantised from the same tensor in the same way, or copied."""
    path = [quantised]  # from the DequantizeLinear up to the first quantised tensor
    node = graph.producer(quantised)
    while node is not None and node.is_op("Identity", "Cast"):
        path.append(node.inputs[0])
        node = graph.producer(node.inputs[0])
    sources = [path[-1]]
    if node is not None and node.op_type == "QuantizeLinear":
        sources += [
            user.outputs[0]
            for user in graph.consumers(node.inputs[0])
            if user.op_type == "QuantizeLinear" and _alike(graph, node, user)
        ]
    steps = [graph.producer(name) for name in reversed(path[:-1])]
    for source in dict.fromkeys(sources):
        level = [source]
        for step in steps:
            level = [
                user.outputs[0]
                for name in level
                for user in graph.consumers(name)
                if step is not None
                and user.op_type == step.op_type
                and user.attributes == step.attributes
            ]
        yield from level
