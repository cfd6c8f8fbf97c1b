"""The operators of a graph of a TFLite file, written one by one, and those of its bodies.

What is computed from small constants alone is computed at once, so that shapes and axes are known
to the operators that need them.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.dilations import with_dilated_convolutions
from converters.to_onnx.tflite.graph import Graph
from converters.to_onnx.tflite.model import Operator, Subgraph, Tensor
from converters.to_onnx.tflite.optable import OPS

__all__ = ["BODIES", "IR_VERSION", "OPSET", "names_read", "needed", "write_operators"]

OPSET = 20
"""Version of the default operator set that is written where the file asks for no other."""

IR_VERSION = 10

BODIES = {
    "IF": ("then_subgraph_index", "else_subgraph_index"),
    "WHILE": ("cond_subgraph_index", "body_subgraph_index"),
}
"""Options of operators of control flow that name a graph of the file."""

_MOST_FOLDED = 1 << 16  # elements of what is computed while writing
_MOST_PRODUCT = 1 << 22  # elements that broadcasting or gathering can make of them
_FOLDED = frozenset(
    {
        *("ADD", "SUB", "MUL", "DIV", "FLOOR_DIV", "FLOOR_MOD", "MAXIMUM", "MINIMUM", "POW"),
        *("ABS", "NEG", "EXP", "LOG", "SQRT", "RSQRT", "SQUARE", "CEIL", "FLOOR", "ROUND", "CAST"),
        *("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_NOT"),
        *("LOGICAL_AND", "LOGICAL_OR", "SELECT", "SELECT_V2", "SUM", "REDUCE_PROD", "REDUCE_MAX"),
        *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "CONCATENATION", "PACK", "UNPACK"),
        *("SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE", "GATHER", "QUANTIZE", "DEQUANTIZE"),
    }
)
"""Operators computed while writing: their results are no larger than their inputs let expect."""
_MOST_STATES = 1 << 24  # elements of what a recurrent network begins with


def write_operators(graph: Graph, part: Subgraph) -> None:
    """Write all operators of a graph whose inputs have their values.

    Args:
        graph: Where to.
        part: The file's graph, or a body of control flow.

    Raises:
        ConversionFailed: An operator contradicts itself, with its name.
    """
    for tensor in part.tensors:
        if tensor.data is not None and not graph.knows(tensor):
            graph.keep(tensor, tensor.data)
        elif tensor.variable and not graph.knows(tensor):
            _keep_zeros(graph, tensor)
    for operator in with_dilated_convolutions(part).operators:
        _written(graph, part, operator)


def needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that outputs depend on, in order."""
    read, kept = set(outputs), []
    for node in reversed(nodes):
        if read.intersection(node.output):
            kept.append(node)
            read |= names_read([node])
    return kept[::-1]


def names_read(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names of tensors that nodes, or the bodies in them, read."""
    found: set[str] = set()
    for node in nodes:
        found.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found |= names_read(attribute.g.node)
                found.update(value.name for value in attribute.g.output)
    return found


def _keep_zeros(graph: Graph, tensor: Tensor) -> None:
    """Take a state for zeros: every photo is the first one."""
    if int(np.prod(tensor.shape, dtype=np.int64)) > _MOST_STATES:
        raise ConversionFailed(f"a state of {list(tensor.shape)}", where=tensor.name)
    graph.keep(tensor, np.zeros(tensor.shape, tensor.dtype))


def _written(graph: Graph, part: Subgraph, operator: Operator) -> None:
    """Write one operator, with its name in every error."""
    outputs = [part.tensors[n] for n in operator.outputs if n >= 0]
    where = f"{operator.op_type} {operator.index}"
    if outputs:
        where += f" ({outputs[0].name})"
    try:
        graph.count_operator()
        inputs = [None if n < 0 else part.tensors[n] for n in operator.inputs]
        _require_order(graph, inputs, outputs)
        if _folded(graph, operator, inputs, outputs):
            return
        OPS.write(graph, operator, inputs, outputs)
    except ConversionFailed as error:
        inner = ": ".join(filter(None, (where, error.where)))  # a body's operator in its own
        raise ConversionFailed(error.what, where=inner, hint=error.hint) from None
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        text = " ".join(str(error).split())[:150]
        raise ConversionFailed(f"contradicts itself ({text})", where=where) from None


def _require_order(
    graph: Graph, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
) -> None:
    """Refuse an operator that reads what is not there yet, or writes what is."""
    for tensor in inputs:
        if tensor is not None and not graph.knows(tensor):
            raise ConversionFailed(f"reads {tensor.name or tensor.index} before it is computed")
    for tensor in outputs:
        if graph.knows(tensor):
            raise ConversionFailed(f"writes {tensor.name or tensor.index} a second time")
    if not outputs:
        raise ConversionFailed("has no output")


def _folded(
    graph: Graph, operator: Operator, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
) -> bool:
    """Compute an operator of small constants at once; whether it was."""
    given = [tensor for tensor in inputs if tensor is not None]
    sizes = [graph.stored(t).size for t in given if graph.is_constant(t)]
    if operator.op_type not in _FOLDED or not given or len(sizes) < len(given):
        return False
    if sum(sizes) > _MOST_FOLDED:
        return False
    if operator.op_type not in {"CONCATENATION", "PACK"} and math.prod(sizes) > _MOST_PRODUCT:
        return False
    if sum(int(np.prod(t.shape, dtype=np.int64)) for t in outputs) > _MOST_FOLDED:
        return False
    part = Graph()
    for tensor in given:
        part.keep(tensor, graph.stored(tensor))
    OPS.write(part, operator, [*inputs], [*outputs])
    names = [part.last(tensor) for tensor in outputs]
    made = helper.make_graph(
        part.nodes,
        "constants",
        [],
        [helper.make_value_info(name, onnx.TypeProto()) for name in names],
        initializer=[*part.constants.values()],
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    try:
        values = ReferenceEvaluator(model).run(names, {})
    except Exception:  # noqa: BLE001 - what is not evaluated is written
        return False
    for tensor, value in zip(outputs, values, strict=True):
        graph.keep(tensor, np.asarray(value))
    return True
