"""TFLite files, float and quantised.

A quantised file that takes and gives integers becomes an ONNX file that takes and gives the
numbers they stand for: a quantiser at its input, a dequantiser at its outputs, so that everybody
reads it like the float model that it was made from.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConversionFailed
from converters.regular_file import first_bytes
from converters.source import Export, Options, as_path, lacking, versions

if TYPE_CHECKING:
    import onnx

__all__ = ["EXTRA", "TITLE", "convert", "recognises"]

TITLE, EXTRA = "TFLite", "tflite"

Array = NDArray[Any]

_MAGIC = b"TFL3"


def recognises(source: str) -> str | None:
    """Whether a path is a TFLite file, by its mark; it is data."""
    path = as_path(source)
    if path is None or not path.is_file():
        return None
    return "" if first_bytes(path, 8)[4:] == _MAGIC else None


def convert(source: str, draft: Path, options: Options) -> Export:
    """Write a TFLite file as ONNX, by tf2onnx.

    Args:
        source: The file.
        draft: The ONNX file to write.
        options: ``opset``; ``dynamic_batch``.

    Raises:
        ConversionFailed: TensorFlow or tf2onnx is not installed, the file is broken, or it has
            operators that ONNX does not have.
    """
    path = Path(source)
    try:
        import tensorflow as tf
        import tf2onnx

        from converters import exported
        from converters.free_batch import free_batch
        from converters.to_onnx.tensorflow import tf2onnx as tf2onnx_export
        from converters.to_onnx.tensorflow.tflite_metadata import preprocess_of_span, read_metadata
    except ImportError as error:
        raise lacking(error, TITLE, EXTRA, path.name) from None
    with tf2onnx_export.repaired() as handlers:
        interpreter = _interpreter(tf, path)
        try:
            proto, _ = tf2onnx.convert.from_tflite(
                str(path), opset=options.opset or tf2onnx_export.OPSET, custom_op_handlers=handlers
            )
        except Exception as error:  # noqa: BLE001 - tf2onnx raises anything
            raise ConversionFailed(
                f"tf2onnx cannot convert it: {type(error).__name__}: {str(error)[:200]}",
                where=path.name,
            ) from None
    details = interpreter.get_input_details(), interpreter.get_output_details()
    fixed = free_batch(proto) if options.dynamic_batch else ""
    quantised = _as_floats(proto, *details)
    exported.tidy(proto, tf2onnx_export.PREFIXES)
    exported.write(proto, draft)

    def runner(interpreter: Any) -> Callable[[Sequence[Array]], list[Array]]:
        def single(image: Array) -> list[Array]:
            interpreter.set_tensor(details[0][0]["index"], _encoded(image, details[0][0]))
            interpreter.invoke()
            return [_decoded(interpreter.get_tensor(d["index"]), d) for d in details[1]]

        return lambda inputs: exported.one_by_one(single, inputs[0])

    said, inputs = read_metadata(path), exported.specs(proto)
    image = len(inputs[0].shape) == 4 and inputs[0].shape[3] in (1, 3)
    channels = inputs[0].shape[3] or 0 if image else 0
    preprocess = said.preprocess(channels) if image else {}
    if image and not preprocess:
        preprocess = preprocess_of_span(inputs[0].span, channels)
    if preprocess:
        preprocess["channels"] = "GRAY" if channels == 1 else "RGB"
    rounded = quantised or any(n.op_type in _ROUNDING for n in proto.graph.node)
    reference = _reference_kernels(tf, path) if rounded else None
    notes = [f"the batch stays 1: {fixed}"] if fixed else []
    notes += ["its integers are read as the numbers that they stand for"] if quantised else []
    return Export(
        inputs=inputs,
        run=runner(interpreter),
        labels=said.labels,
        preprocess=preprocess,
        quantised=rounded,
        kernels=runner(reference) if reference else None,
        notes=tuple(notes),
        versions=versions("tensorflow", "tensorflow-cpu", "tf2onnx", "onnx"),
    )


_ROUNDING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def _interpreter(tf: Any, path: Path) -> Any:
    """TFLite's own interpreter, one sample at a time."""
    try:
        interpreter = tf.lite.Interpreter(str(path))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ConversionFailed(f"TFLite does not load it: {text}", where=path.name) from None
    if len(interpreter.get_input_details()) != 1:
        raise ConversionFailed("takes more than one input", where=path.name)
    return interpreter


def _reference_kernels(tf: Any, path: Path) -> Any:
    """TFLite's interpreter with its plain kernels, which round otherwise than its fast ones."""
    kind = tf.lite.experimental.OpResolverType.BUILTIN_REF
    try:
        interpreter = tf.lite.Interpreter(str(path), experimental_op_resolver_type=kind)
        interpreter.allocate_tensors()
        interpreter.invoke()
    except (ValueError, RuntimeError):
        return None  # not every operator has a plain kernel
    return interpreter


def _scale(detail: Any) -> tuple[np.float32, int] | None:
    """Step and zero point of a tensor of integers; None for one of floats."""
    scale, zero = detail["quantization"]
    integer = np.dtype(detail["dtype"]).kind in "iu"
    return (np.float32(scale), int(zero)) if integer and scale else None


def _encoded(image: Array, detail: Any) -> Array:
    known = _scale(detail)
    if known is None:
        return image.astype(detail["dtype"])
    bounds = np.iinfo(detail["dtype"])
    levels = np.rint(image.astype(np.float32) / known[0]) + known[1]
    rounded: Array = np.clip(levels, bounds.min, bounds.max).astype(detail["dtype"])
    return rounded


def _decoded(levels: Array, detail: Any) -> Array:
    known = _scale(detail)
    return levels if known is None else (levels.astype(np.float32) - known[1]) * known[0]


def _as_floats(proto: "onnx.ModelProto", inputs: Any, outputs: Any) -> bool:
    """Put quantisers at inputs and dequantisers at outputs of integers; whether there were any."""
    from onnx import TensorProto, helper, numpy_helper

    graph, done = proto.graph, False
    for values, details, op_type in (
        (graph.input, inputs, "QuantizeLinear"),
        (graph.output, outputs, "DequantizeLinear"),
    ):
        for value, detail in zip(values, details, strict=True):
            known = _scale(detail)
            if known is None:
                continue
            inner, outer = value.name, f"{value.name.partition(':')[0]}_float"
            names = [f"{outer}_scale", f"{outer}_zero_point"]
            zero = np.array(known[1], detail["dtype"])
            graph.initializer.extend(
                [
                    numpy_helper.from_array(np.array(known[0], np.float32), names[0]),
                    numpy_helper.from_array(zero, names[1]),
                ]
            )
            ends = [outer, inner] if op_type == "QuantizeLinear" else [inner, outer]
            node = helper.make_node(op_type, [ends[0], *names], [ends[1]], name=f"{outer}_node")
            graph.node.insert(0 if op_type == "QuantizeLinear" else len(graph.node), node)
            value.name = outer
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            done = True
    with contextlib.suppress(ValueError):
        del graph.value_info[:]
    return done
