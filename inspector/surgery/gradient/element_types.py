"""Element types of the tensors of a graph, from the operators alone."""

from collections.abc import Mapping

import onnx

from converters.graph import Graph, Node

__all__ = ["NOT_FLOAT32", "element_types"]

TYPES = onnx.TensorProto

NOT_FLOAT32 = frozenset(
    (
        TYPES.DOUBLE,
        TYPES.FLOAT16,
        TYPES.BFLOAT16,
        TYPES.INT8,
        TYPES.UINT8,
        TYPES.INT16,
        TYPES.UINT16,
        TYPES.INT32,
        TYPES.INT64,
        TYPES.BOOL,
    )
)
"""Types that are cast before they meet a signal."""

_INT64 = ("Shape", "Size", "NonZero", "ArgMax", "ArgMin")
_BOOL = (
    "Greater",
    "Less",
    "Equal",
    "GreaterOrEqual",
    "LessOrEqual",
    "And",
    "Or",
    "Xor",
    "Not",
    "IsNaN",
    "IsInf",
)
_OF_INPUT = {"Where": 1, "OneHot": 2, "DequantizeLinear": 1, "CastLike": 1, "QLinearConcat": 1}
_ZERO_POINT = {"QuantizeLinear": 2, "QLinearConv": 7, "QLinearMatMul": 7, "QGemm": 8}


def element_types(graph: Graph) -> Mapping[str, int]:
    """Element type of each tensor, as far as it is known; most operators keep that of an input."""
    found = {name: value.elem_type for name, value in graph.inputs.items()}
    for name in graph.initialisers:
        tensor = graph.initialiser(name)
        found[name] = 0 if tensor is None else int(tensor.data_type)
    for node in graph.nodes:
        kind = _kind(node, found, graph)
        for position, name in enumerate(node.outputs):
            if name:
                found[name] = _other_output(node, position) or kind
    return found


def _other_output(node: Node, position: int) -> int:
    if position and node.op_type in {"MaxPool", "TopK"}:
        return TYPES.INT64
    if node.op_type == "DynamicQuantizeLinear":
        return TYPES.FLOAT if position == 1 else TYPES.UINT8
    return 0


def _kind(node: Node, found: Mapping[str, int], graph: Graph) -> int:
    op_type, inputs = node.op_type, node.inputs
    if op_type == "Cast":
        return int(node.attributes.get("to", 0))
    if op_type == "Constant":
        return graph.elem_type(node.outputs[0]) or TYPES.FLOAT
    if op_type == "ConstantOfShape":
        value = node.attributes.get("value")
        return TYPES.FLOAT if value is None else int(value.data_type)
    if op_type in _INT64:
        return TYPES.INT64
    if op_type in _BOOL:
        return TYPES.BOOL
    if op_type in {"ConvInteger", "MatMulInteger"}:
        return TYPES.INT32
    if op_type in _ZERO_POINT:
        position = _ZERO_POINT[op_type]
        given = inputs[position] if position < len(inputs) else ""
        if op_type == "QGemm" and not given:
            return TYPES.FLOAT
        return found.get(given, 0) if given else TYPES.UINT8
    position = _OF_INPUT.get(op_type, 0)
    return found.get(inputs[position], 0) if position < len(inputs) else 0
