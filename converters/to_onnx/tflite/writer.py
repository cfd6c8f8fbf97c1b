"""From a TFLite file's graph to an ONNX model, operator by operator.

What is computed from constants alone is computed while the graph is written, so that shapes and
axes are known to the operators that need them; what nobody reads is left out.
"""

import importlib
import math
import pkgutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from converters.errors import ConversionFailed
from converters.to_onnx.tflite import ops
from converters.to_onnx.tflite.graph import Graph, is_quantised
from converters.to_onnx.tflite.model import Model, Operator, Subgraph, Tensor
from converters.to_onnx.tflite.optable import OPS

__all__ = ["OPSET", "write_onnx"]

Array = NDArray[Any]

OPSET, OPSET_16_BITS = 20, 21
"""Versions of the default operator set: the usual one, and the first that quantises to 16 bits."""

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
_IR_VERSION = 10

for _module in pkgutil.iter_modules(ops.__path__, f"{ops.__name__}."):
    importlib.import_module(_module.name)


def write_onnx(model: Model, opset: int | None = None) -> onnx.ModelProto:
    """The ONNX model that computes what a TFLite file computes, on one sample.

    Inputs and outputs have the file's names and layout.  Those of quantised integers become the
    numbers that they stand for, behind a quantiser.

    Args:
        model: The file.
        opset: Version of the default operator set, 20 or newer, and 21 or newer for a file that
            quantises to 16 bits; the oldest of them where None.

    Raises:
        ConversionFailed: Operators that there is no function for, all of them; or the first one
            that contradicts itself.
    """
    main = model.subgraphs[0]
    _require_known(main)
    wide = any(is_quantised(t) and t.dtype == "int16" for t in main.tensors)
    least = OPSET_16_BITS if wide else OPSET
    if opset is not None and not least <= opset <= onnx.defs.onnx_opset_version():
        raise ConversionFailed(
            f"opset {opset} is not written for this file",
            hint=f"--opset {least} to {onnx.defs.onnx_opset_version()}, or none",
        )
    graph = Graph()
    for index in main.outputs:
        graph.reserve(main.tensors[index])
    inputs = [_input(graph, main.tensors[index]) for index in main.inputs]
    for tensor in main.tensors:
        if tensor.data is not None:
            graph.keep(tensor, tensor.data)
        elif tensor.variable and not graph.knows(tensor):
            _keep_zeros(graph, tensor)
    for operator in main.operators:
        _written(graph, main, operator)
    outputs = [_output(graph, main, index) for index in main.outputs]
    nodes = _needed(graph.nodes, [value.name for value in outputs])
    read = {name for node in nodes for name in node.input}
    made = helper.make_graph(
        nodes,
        "model",
        inputs,
        outputs,
        initializer=[tensor for name, tensor in graph.constants.items() if name in read],
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", opset or least)], ir_version=_IR_VERSION
    )


def _keep_zeros(graph: Graph, tensor: Tensor) -> None:
    """Take a state for zeros: every photo is the first one."""
    if int(np.prod(tensor.shape, dtype=np.int64)) > _MOST_STATES:
        raise ConversionFailed(f"a state of {list(tensor.shape)}", where=tensor.name)
    graph.keep(tensor, np.zeros(tensor.shape, tensor.dtype))


def _require_known(main: Subgraph) -> None:
    """Refuse a graph of operators without a function, with all of their names."""
    unknown = sorted({o.op_type for o in main.operators if o.op_type not in OPS})
    if unknown:
        raise ConversionFailed(
            "operators that this converter does not know: " + ", ".join(map(ascii, unknown[:20])),
            hint="report it with the file, or export the network to ONNX from its own framework",
        )
    if not main.inputs or not main.outputs:
        raise ConversionFailed("its graph has no input or no output")


def _written(graph: Graph, main: Subgraph, operator: Operator) -> None:
    """Write one operator, with its name in every error."""
    outputs = [main.tensors[n] for n in operator.outputs if n >= 0]
    where = f"{operator.op_type} {operator.index}"
    if outputs:
        where += f" ({outputs[0].name})"
    try:
        inputs = [None if n < 0 else main.tensors[n] for n in operator.inputs]
        _require_order(graph, inputs, outputs)
        if _folded(graph, operator, inputs, outputs):
            return
        OPS.write(graph, operator, inputs, outputs)
    except ConversionFailed as error:
        raise ConversionFailed(error.what, where=where, hint=error.hint) from None
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
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION
    )
    try:
        values = ReferenceEvaluator(model).run(names, {})
    except Exception:  # noqa: BLE001 - what is not evaluated is written
        return False
    for tensor, value in zip(outputs, values, strict=True):
        graph.keep(tensor, np.asarray(value))
    return True


def _input(graph: Graph, tensor: Tensor) -> onnx.ValueInfoProto:
    """Declare an input, with its quantiser."""
    if tensor.data is not None or graph.knows(tensor):
        raise ConversionFailed(f"input {tensor.name or tensor.index} is a constant, or named twice")
    name, known = graph.name(tensor.name or "input"), tensor.quantisation
    value = helper.make_tensor_value_info(name, _kind(tensor), tensor.shape)
    if known is not None and is_quantised(tensor):
        levels = graph.quantise(name, tensor.dtype, known, name)
        hint = f"{name}_rounded"
        name = graph.dequantise(levels, tensor.dtype, known, hint, known.axis)
    elif tensor.dtype == "float16":
        name = graph.emit("Cast", [name], f"{name}_wide", to=TensorProto.FLOAT)
    graph.place(tensor, name)
    return value


def _output(graph: Graph, main: Subgraph, index: int) -> onnx.ValueInfoProto:
    """Declare an output under the file's name, in the file's layout."""
    if index < 0 or not graph.knows(main.tensors[index]):
        raise ConversionFailed(f"output {index} is never computed")
    tensor = main.tensors[index]
    name = graph.ended(tensor)
    return helper.make_tensor_value_info(name, _kind(tensor), tensor.shape)


def _kind(tensor: Tensor) -> int:
    """ONNX's number of the type of an input or output."""
    try:
        dtype = np.dtype("float32" if is_quantised(tensor) else tensor.dtype)
        return helper.np_dtype_to_tensor_dtype(dtype)
    except (TypeError, KeyError):
        raise ConversionFailed(f"{tensor.name or tensor.index} is of {tensor.dtype}") from None


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that outputs depend on, in order."""
    read, kept = set(outputs), []
    for node in reversed(nodes):
        if read.intersection(node.output):
            kept.append(node)
            read.update(node.input)
    return kept[::-1]
