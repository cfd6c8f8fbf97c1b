"""From a TFLite file's graph to an ONNX model: inputs, outputs and what they depend on.

What nobody reads is left out.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.errors import ConversionFailed
from converters.to_onnx.tflite import ops
from converters.to_onnx.tflite.graph import Graph, is_quantised
from converters.to_onnx.tflite.model import Model, Subgraph, Tensor
from converters.to_onnx.tflite.optable import OPS
from converters.to_onnx.tflite.subgraph import (
    BODIES,
    IR_VERSION,
    OPSET,
    names_read,
    needed,
    write_operators,
)

__all__ = ["write_onnx"]

OPSET_16_BITS = 21
"""The first version of the default operator set that quantises to 16 bits."""

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
    main = model.network
    _require_known(model)
    tensors = (tensor for part in _reached(model) for tensor in part.tensors)
    wide = any(is_quantised(t) and t.dtype == "int16" for t in tensors)
    least = OPSET_16_BITS if wide else OPSET
    if opset is not None and not least <= opset <= onnx.defs.onnx_opset_version():
        raise ConversionFailed(
            f"opset {opset} is not written for this file",
            hint=f"--opset {least} to {onnx.defs.onnx_opset_version()}, or none",
        )
    graph = Graph(model.subgraphs)
    for index in main.outputs:
        graph.reserve(main.tensors[index])
    inputs = [_input(graph, main.tensors[index]) for index in main.inputs]
    write_operators(graph, main)
    outputs = [_output(graph, main, index) for index in main.outputs]
    nodes = needed(graph.nodes, [value.name for value in outputs])
    read = names_read(nodes)
    made = helper.make_graph(
        nodes,
        "model",
        inputs,
        outputs,
        initializer=[tensor for name, tensor in graph.constants.items() if name in read],
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", opset or least)], ir_version=IR_VERSION
    )


_REPORT = "report it with the file, or export the network to ONNX from its own framework"
_VARIABLES = frozenset(("ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE"))
_OF_VARIABLES = (
    "it keeps its weights in variables, as files do that are trained on a device: make it again by "
    "tf.lite.TFLiteConverter.from_saved_model or from_keras_model, which write constants"
)
_OF_STATE = (
    "each run changes variables that the next one reads, and ONNX keeps nothing between runs: make "
    "a file whose function takes them as inputs, or does without them"
)
_OF_TENSORFLOW = (
    "they are TensorFlow's own (SELECT_TF_OPS): give the SavedModel or Keras model that it was "
    "made from"
)


def _advice(unknown: Sequence[str]) -> str:
    """What to do about operators without a function."""
    if any(name.startswith("Flex") for name in unknown):  # with which variables often come
        return _OF_TENSORFLOW
    if "ASSIGN_VARIABLE" in unknown:
        return _OF_STATE
    return _REPORT if _VARIABLES.isdisjoint(unknown) else _OF_VARIABLES


def _require_known(model: Model) -> None:
    """Refuse a file of operators without a function, with all of their names."""
    unknown = sorted({o.op_type for part in _reached(model) for o in part.operators} - {*OPS})
    if unknown:
        raise ConversionFailed(
            "operators that this converter does not know: " + ", ".join(map(ascii, unknown[:20])),
            hint=_advice(unknown),
        )
    main = model.network
    if not main.inputs or not main.outputs:
        raise ConversionFailed("its graph has no input or no output")


def _reached(model: Model) -> Iterator[Subgraph]:
    """The main graph, and the bodies that its operators name."""
    waiting, seen = [model.main], {model.main}
    while waiting:
        part = model.subgraphs[waiting.pop()]
        yield part
        for operator in part.operators:
            for option in BODIES.get(operator.op_type, ()):
                number = operator.option(option, 0)
                if number not in seen and 0 <= number < len(model.subgraphs):
                    seen.add(number)
                    waiting.append(number)


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
