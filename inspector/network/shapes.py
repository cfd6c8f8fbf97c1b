"""Shapes of inner tensors, as far as the file tells them: declared, or read off the weights.

Deliberately small: no native shape inference runs on a stranger's file.  What is not known is
None; a caller that has run the model passes the concrete shapes and they win.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from converters.graph import Graph, Node
from converters.graph.operators import facts

__all__ = ["Shape", "Shapes", "merge"]

Shape = tuple[int | None, ...]

_MAX_DEPTH = 40


def _broadcast(first: Shape, second: Shape) -> Shape:
    """Shape that two tensors broadcast to; aligned at the last axis."""
    if len(second) > len(first):
        first, second = second, first
    second = (*(1 for _ in first[len(second) :]), *second)
    return tuple(
        b if a == 1 else a if b == 1 else (a if a is not None else b)
        for a, b in zip(first, second, strict=True)
    )


class Shapes:
    """Looks up the shape of any tensor of a graph.

    Args:
        graph: The graph.
        concrete: Shapes measured by running the model; they win over what the file declares.
    """

    def __init__(self, graph: Graph, concrete: Mapping[str, Sequence[int]] | None = None) -> None:
        """Read the declarations once."""
        self._graph = graph
        self._concrete = {name: tuple(shape) for name, shape in (concrete or {}).items()}
        self._declared: dict[str, Shape] = {}
        proto = graph.proto
        for value in (*proto.value_info, *proto.input, *proto.output):
            tensor = value.type.tensor_type
            if value.type.WhichOneof("value") == "tensor_type" and tensor.HasField("shape"):
                self._declared[value.name] = tuple(_dim(d) for d in tensor.shape.dim)
        self._known: dict[str, Shape | None] = {}
        self.measured = frozenset(self._concrete)

    def of(self, tensor: str) -> Shape | None:
        """Shape of a tensor, one entry per axis; None where unknown, or as a whole."""
        return self._of(tensor, _MAX_DEPTH)

    def _of(self, tensor: str, depth: int) -> Shape | None:
        if tensor in self._concrete:
            return self._concrete[tensor]
        if tensor not in self._known:
            constant = self._graph.constant(tensor)
            if constant is not None:
                return constant.shape
            declared = self._declared.get(tensor)
            if declared is not None and None not in declared[1:]:
                self._known[tensor] = declared
            elif depth <= 0:
                return declared
            else:
                try:
                    derived = self._derived(tensor, depth - 1)
                except (ArithmeticError, LookupError, TypeError, ValueError):
                    derived = None  # attributes that make no sense: nothing follows from them
                self._known[tensor] = merge(declared, derived)
        return self._known[tensor]

    def _derived(self, tensor: str, depth: int) -> Shape | None:
        node = self._graph.producer(tensor)
        if node is None or node.domain or not node.inputs or tensor != node.outputs[0]:
            return None
        if node.is_op("Gemm", "MatMul", "Conv"):
            return self._linear(node, depth)
        known = facts(node)
        if known.elementwise == "all" and not known.keeps_shape:
            return self._broadcast(node, depth)
        first = self._of(node.inputs[0], depth)
        return first if known.keeps_shape else self._moved(node, first)

    def _moved(self, node: Node, first: Shape | None) -> Shape | None:
        """Shape after an operator that pools or rearranges its one input."""
        if node.is_op("Reshape"):
            return self._reshaped(node, first)
        if node.is_op("Flatten") and node.attributes.get("axis", 1) == 1:
            rest = [d for d in (first or ())[1:] if d is not None]
            known = first is not None and len(rest) == len(first) - 1
            return (first[0] if first else None, int(np.prod(rest)) if known else None)
        if first is None:
            return None
        if node.is_op("GlobalAveragePool", "GlobalMaxPool"):
            return (*first[:2], *(1 for _ in first[2:]))
        if node.is_op("Transpose"):
            perm = node.attributes.get("perm", list(range(len(first)))[::-1])
            return tuple(first[i] for i in perm) if len(perm) == len(first) else None
        return None

    def _linear(self, node: Node, depth: int) -> Shape | None:
        first = self._of(node.inputs[0], depth)
        weights = self._of(node.inputs[1], depth)
        if node.is_op("Gemm"):
            batch = None if first is None or node.attributes.get("transA", 0) else first[0]
            width = None
            if weights is not None and len(weights) == 2:
                width = weights[0 if node.attributes.get("transB", 0) else 1]
            return (batch, width)
        if node.is_op("MatMul"):
            if first is None or weights is None or len(weights) != 2:
                return None
            return (*first[:-1], weights[1])
        if weights is None:
            return None
        same = (
            [d if d == 1 and weights[i + 2] == 1 else None for i, d in enumerate(first[2:])]
            if (first is not None and len(first) == len(weights))
            else [None] * (len(weights) - 2)
        )
        return (first[0] if first else None, weights[0], *same)

    def _broadcast(self, node: Node, depth: int) -> Shape | None:
        """Shape of an elementwise operator on several inputs."""
        found = [self._of(name, depth) for name in node.inputs if name]
        known = [shape for shape in found if shape is not None]
        return functools.reduce(_broadcast, known) if known and len(known) == len(found) else None

    def _reshaped(self, node: Node, first: Shape | None) -> Shape | None:
        target = node.attributes.get("shape")
        if target is None and len(node.inputs) > 1:
            constant = self._graph.constant(node.inputs[1])
            target = None if constant is None else constant.ravel().tolist()
        if target is None:
            return None
        dims: list[int | None] = []
        for axis, size in enumerate(target):
            if size == 0 and not node.attributes.get("allowzero", 0):
                dims.append(first[axis] if first is not None and axis < len(first) else None)
            else:
                dims.append(int(size) if size > 0 else None)
        return tuple(dims)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    # Exporters write 0 and -1 for "free" where they should write a name.
    return dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else None


def merge(declared: Shape | None, derived: Shape | None) -> Shape | None:
    """What two sources tell of one shape; the first wins where both speak."""
    if declared is None or derived is None or len(declared) != len(derived):
        return derived if declared is None else declared
    return tuple(b if a is None else a for a, b in zip(declared, derived, strict=True))
