"""Products of 8-bit integers that come out exactly on every processor.

By default ONNX Runtime adds pairs of products of uint8 and int8 in 16 bits on x86 processors
without VNNI. The sums saturate where weights use all of their 8 bits: most values of a layer may be
wrong, without a word, and maps would differ from machine to machine. Products of uint8 and uint8
are exact everywhere, so there the weights are given as uint8: each level and each zero point 128
higher, which changes no value. ONNX Runtime's own option for this does not load files in which two
nodes share a zero point.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from converters.graph import Graph, Node
from converters.graph.operators import facts

__all__ = ["exact_products", "saturates"]

_OFFSET = 128
"""Between a level of int8 and the same level of uint8."""

_WEIGHTS = {
    "ConvInteger": ((1, 3),),
    "DynamicQuantizeLSTM": ((1, 9), (2, 11)),
    "DynamicQuantizeMatMul": ((1, 3),),
    "MatMulInteger": ((1, 3),),
    "MatMulIntegerToFloat": ((1, 5),),
    "QAttention": ((1, 7),),
    "QGemm": ((3, 5),),
    "QLinearConv": ((3, 5),),
    "QLinearConvTranspose": ((3, 5),),
    "QLinearMatMul": ((3, 5),),
}
"""Positions of weights and of their zero points."""

_ALWAYS_UNSIGNED = ("DynamicQuantizeLSTM", "DynamicQuantizeMatMul")
"""What quantises its data itself, to uint8."""


@cache
def saturates() -> bool:
    """Whether ONNX Runtime's sums of products of uint8 and int8 saturate on this processor."""
    import onnxruntime

    weights = np.full((8, 4), 127, np.int8)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [3, 8])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [3, 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.full((3, 8), 255, np.uint8)
    return not np.array_equal(session.run(None, {"x": x})[0], x.astype(int) @ weights.astype(int))


@contextmanager
def exact_products(graph: Graph) -> Iterator[None]:
    """Give weights of int8 as uint8 where products of integers would saturate, and only there.

    The protobuf is edited in place and restored, as in ``exposed``. Bodies of control flow stay as
    they are.

    Args:
        graph: The main graph of a model.
    """
    found = list(_signed_weights(graph))
    if not found or not saturates():
        yield
        return
    proto, before = graph.proto, len(graph.proto.initializer)
    changed: dict[int, tuple[str, ...]] = {}
    taken = set(graph.tensors) | set(graph.initialisers) | set(graph.inputs)
    given: dict[tuple[str, tuple[int, ...]], str] = {}
    try:
        for node, position, levels in found:
            inputs = proto.node[node.index].input
            changed.setdefault(node.index, tuple(inputs))
            old = inputs[position] if position < len(inputs) else ""
            key = (old, levels.shape)
            if key not in given:
                given[key] = _free(f"{old or 'zero_point'}.uint8", taken)
                raised = (levels.astype(np.int16) + _OFFSET).astype(np.uint8)
                proto.initializer.append(numpy_helper.from_array(raised, given[key]))
            inputs.extend([""] * (position + 1 - len(inputs)))
            inputs[position] = given[key]
        yield
    finally:
        del proto.initializer[before:]
        for index, inputs_before in changed.items():
            del proto.node[index].input[:]
            proto.node[index].input.extend(inputs_before)


Levels = np.ndarray[tuple[int, ...], np.dtype[np.int8]]


def _signed_weights(graph: Graph) -> Iterator[tuple[Node, int, Levels]]:
    """Node, position and levels of every int8 input that is to be raised, zero points too."""
    for node in graph.nodes:
        pairs = _WEIGHTS.get(node.op_type, ()) if node.domain in ("", "com.microsoft") else ()
        if pairs and not _takes_unsigned(graph, node):
            continue
        for weights, zero_point in pairs:
            yield from _raised(graph, node, weights, zero_point)
        if node.is_op("DequantizeLinear"):
            made = graph.producer(node.inputs[0])
            if made is not None and made.is_op("QuantizeLinear"):
                # Weights that the file keeps as floats, and quantises and dequantises.
                if graph.constant(made.inputs[0]) is not None:
                    both = [*_zero_point(graph, made), *_zero_point(graph, node)]
                    yield from both if len(both) == 2 else ()
            else:
                yield from _raised(graph, node, 0, 2)


def _raised(
    graph: Graph, node: Node, weights: int, zero_point: int
) -> Iterator[tuple[Node, int, Levels]]:
    levels = graph.constant(node.inputs[weights])
    if levels is None or levels.dtype != np.int8:
        return
    name = node.inputs[zero_point] if zero_point < len(node.inputs) else ""
    zero = graph.constant(name) if name else _no_zero_point(graph, node)
    if zero is None or zero.dtype != np.int8:
        return
    yield node, weights, levels
    yield node, zero_point, zero


def _no_zero_point(graph: Graph, node: Node) -> Levels | None:
    """Zeros in place of an omitted zero point, which has the shape of the scale in a pair."""
    if not node.is_op("DequantizeLinear"):
        return np.zeros((), np.int8)
    scale = graph.constant(node.inputs[1])
    return None if scale is None else np.zeros(scale.shape, np.int8)


def _zero_point(graph: Graph, node: Node) -> Iterator[tuple[Node, int, Levels]]:
    """Zero point of one node of a pair, where it says int8."""
    zero = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if zero is not None and zero.dtype == np.int8:
        yield node, 2, zero


def _takes_unsigned(graph: Graph, node: Node) -> bool:
    """Whether the data of a product are uint8; int8 and int8 do not saturate."""
    if node.op_type in _ALWAYS_UNSIGNED:
        return True
    tensor = node.inputs[0]
    for _ in range(len(graph.nodes) + 1):
        declared = graph.elem_type(tensor)
        if declared:
            return declared == TensorProto.UINT8
        made = graph.producer(tensor)
        if made is None:
            return False
        known = facts(made)
        if made.is_op("DynamicQuantizeLinear"):
            return True
        if made.is_op("QuantizeLinear"):
            zero = made.inputs[2] if len(made.inputs) > 2 else ""
            return not zero or graph.elem_type(zero) == TensorProto.UINT8
        if known.quantised is not None:
            position = known.quantised.scale + 1
            zero = made.inputs[position] if position < len(made.inputs) else ""
            return not zero or graph.elem_type(zero) == TensorProto.UINT8
        if known.moves or known.joins or known.pools == "max" or known.keeps_axes:
            tensor = made.inputs[0]
        else:
            return False
    return False


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
