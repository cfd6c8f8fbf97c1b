"""TFLite files, float and quantised, read by this project's own reader.

A quantised file that takes and gives integers becomes an ONNX file that takes and gives the
numbers they stand for: a quantiser at its input, a dequantiser at its outputs, so that everybody
reads it like the float model that it was made from.

model         the flatbuffer as plain data, within bounds
sparse        sparse weights, written out
graph         the ONNX graph in the making: names, layouts, quantisation
optable, ops  one function per operator
dilations     convolutions of shuffled places, as the dilated ones that they are
subgraph      operator by operator, constants computed at once; bodies of control flow too
writer        the model: inputs, outputs, and the version of ONNX's operators
interpreter   TFLite's own, for the comparison
metadata      class names and normalisation
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from converters.errors import ConversionFailed
from converters.preprocessing import WHOLE
from converters.regular_file import first_bytes, read_regular
from converters.source import Export, InputSpec, Options, as_path, lacking, versions

if TYPE_CHECKING:
    from converters.to_onnx.tflite.interpreter import Interpreter
    from converters.to_onnx.tflite.metadata import TFLiteMetadata
    from converters.to_onnx.tflite.model import Model, Subgraph, Tensor

__all__ = ["EXTRA", "SIGNATURES", "TITLE", "convert", "recognises"]

TITLE, EXTRA = "TFLite", "tflite"
SIGNATURES = True

Array = NDArray[Any]

_MAGIC = b"TFL3"
_MOST_BYTES = 4 << 30
_PREFIXES = ("serving_default_", "serve_", "StatefulPartitionedCall:")
"""What TensorFlow puts before the names of inputs and outputs."""
_ELSEWHERE = "export the network to ONNX from the framework that it was trained in"
_USUAL = 224
"""Height and width of an example."""
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


def recognises(source: str) -> str | None:
    """Whether a path is a TFLite file, by its mark; it is data."""
    path = as_path(source)
    if path is None or not path.is_file():
        return None
    return "" if first_bytes(path, 8)[4:] == _MAGIC else None


def convert(source: str, draft: Path, options: Options) -> Export:
    """Write a TFLite file as ONNX.

    Args:
        source: The file.
        draft: The ONNX file to write.
        options: ``opset``, 20 or newer; ``dynamic_batch``; ``inputs``, where the file leaves sizes
            open; ``signature``, where it has several functions.

    Raises:
        ConversionFailed: The packages that read it are not installed, the file is broken, or it
            has operators that this converter does not know.
    """
    path = Path(source)
    try:
        import flatbuffers  # noqa: F401 - the reader's, or it says so
        import tflite  # noqa: F401 - as above
    except ImportError as error:
        raise lacking(error, TITLE, EXTRA, path.name) from None
    from converters import exported
    from converters.free_batch import free_batch
    from converters.to_onnx.tflite.interpreter import (
        opened,
        tensor_shapes,
        with_reference_kernels,
    )
    from converters.to_onnx.tflite.metadata import metadata_of
    from converters.to_onnx.tflite.model import chosen, read_model, resized
    from converters.to_onnx.tflite.writer import write_onnx

    data = read_regular(path, _MOST_BYTES)
    try:
        model, several = chosen(read_model(data), options.signature)
        shapes = _shapes(model, options) or _computed(model)
        if shapes:
            model = resized(model, tensor_shapes(path, TITLE, EXTRA, shapes))
        proto = write_onnx(model, options.opset)
    except ConversionFailed as error:
        where = ": ".join(dict.fromkeys(filter(None, (path.name, error.where))))
        raise ConversionFailed(error.what, where=where, hint=error.hint or _ELSEWHERE) from None
    single = len(proto.graph.input) == 1
    fixed = free_batch(proto) if options.dynamic_batch and single else ""
    exported.tidy(proto, _PREFIXES)
    exported.write(proto, draft)
    interpreter = opened(path, TITLE, EXTRA, model, shapes)
    rounded = any(node.op_type in _ROUNDING for node in proto.graph.node)
    reference = with_reference_kernels(path, TITLE, EXTRA, model, shapes) if rounded else None
    main, inputs = model.network, exported.specs(proto)
    ends = [main.tensors[index] for index in (*main.inputs, *main.outputs)]
    said = metadata_of(model, data)
    batch = main.tensors[main.inputs[0]].shape[:1] if main.inputs else ()
    notes = [several] if several else []
    notes += [f"the batch stays {batch[0] if batch else 1}: {fixed}"] if fixed else []
    if any(tensor.quantisation is not None for tensor in ends):
        notes.append("its integers are read as the numbers that they stand for")
    return Export(
        inputs=inputs,
        run=_runner(interpreter, main),
        labels=said.labels,
        preprocess=_preprocess(said, inputs[0], main) if single else {},
        quantised=rounded,
        kernels=_runner(reference, main) if reference else None,
        notes=tuple(notes),
        versions=versions(interpreter.package, f"{interpreter.package}-cpu", "tflite", "onnx"),
    )


def _preprocess(said: "TFLiteMetadata", image: InputSpec, main: "Subgraph") -> dict[str, Any]:
    """What the file says of its input; TFLite's programs feed a classifier the whole photo."""
    classifies = [len(main.tensors[index].shape) for index in main.outputs] == [2]
    whole = WHOLE if classifies and len(image.shape) == 4 and image.shape[3] in (1, 3) else {}
    return {**whole, **said.preprocess_of(image)}


def _shapes(model: "Model", options: Options) -> tuple[tuple[int, ...], ...]:
    """Shapes of the inputs that the user gives; none where the file says them all.

    Raises:
        ConversionFailed: They are needed, or contradict the file.
    """
    main, signature = model.network, model.signature
    inputs = [main.tensors[index] for index in main.inputs if index >= 0]
    if signature is not None and any({*tensor.free} - {0} for tensor in inputs):
        raise ConversionFailed(
            f"leaves sizes open in its signature {signature.name!r}, which is not its first graph",
            hint="export that function alone",
        )
    if not options.inputs:
        for tensor in inputs:
            if any(tensor.free):  # a free batch, axis 0, is one sample
                sizes = _said(tensor, str(_USUAL)).replace(" ", "")
                raise ConversionFailed(
                    f"leaves the size of its input {tensor.name} open ({_said(tensor, '?')})",
                    hint=f"say the size, such as --input '{sizes}'",
                )
        return ()
    if len(options.inputs) != len(inputs):
        raise ConversionFailed(
            f"has {len(inputs)} inputs, and --input gives {len(options.inputs)} shapes"
        )
    found = []
    for tensor, shape in zip(inputs, options.inputs, strict=True):
        pairs = zip(shape, tensor.shape, strict=False)
        wanted = [1 if not n and 0 in tensor.free else m or 0 for n, (m, _) in enumerate(pairs)]
        fixed = [n for n in range(len(tensor.shape)) if n not in tensor.free]
        if len(shape) != len(tensor.shape) or any(wanted[n] != tensor.shape[n] for n in fixed):
            raise ConversionFailed(
                f"its input {tensor.name} is ({_said(tensor, '?')}), and --input says {shape}"
            )
        found.append(tuple(wanted))
    if min((n for shape in found for n in shape), default=1) < 1:
        raise ConversionFailed(f"--input leaves a size open: {options.inputs}")
    opens = signature is None and any(tensor.free for tensor in inputs)
    return tuple(found) if opens else ()


def _computed(model: "Model") -> tuple[tuple[int, ...], ...]:
    """The file's own shapes of its inputs, where others follow from them when it runs alone.

    A dense layer over tokens is such a case: the file says (1, 1) of what becomes (tokens, width).
    """
    from converters.to_onnx.tflite.optable import OPS

    main = model.network
    names = {operator.op_type for operator in main.operators}
    if model.signature is not None or "SHAPE" not in names or not names <= {*OPS}:
        return ()
    return tuple(main.tensors[index].shape for index in main.inputs if index >= 0)


def _said(tensor: "Tensor", free: str) -> str:
    """Shape of an input, with a word for what is free."""
    return ", ".join(
        str(length) if axis not in tensor.free else free if axis else "?"
        for axis, length in enumerate(tensor.shape)
    )


def _runner(
    interpreter: "Interpreter", main: "Subgraph"
) -> Callable[[Sequence[Array]], list[Array]]:
    """The interpreter, sample by sample where there is one input whose batch is not of several."""
    from converters.exported import one_by_one

    shapes = [main.tensors[index].shape for index in main.inputs if index >= 0]
    batched = bool(shapes) and len(shapes[0]) > 0 and shapes[0][0] > 1

    def single(arrays: Sequence[Array]) -> list[Array]:
        return _listed(main, interpreter.run(arrays))

    def run(inputs: Sequence[Array]) -> list[Array]:
        if len(inputs) != 1 or batched:
            return single(inputs)
        return one_by_one(lambda image: single([image]), inputs[0])

    return run


def _listed(main: "Subgraph", outputs: list[Array]) -> list[Array]:
    """Outputs with zeros behind the last detection, where the interpreter leaves what was there."""
    for operator in main.operators:
        ends = [main.outputs.index(n) for n in operator.outputs if n in main.outputs]
        if operator.op_type == "TFLite_Detection_PostProcess" and len(ends) == 4:
            count = int(outputs[ends[3]].reshape(-1)[0])
            for place in ends[:3]:
                outputs[place] = outputs[place].copy()
                outputs[place][:, max(count, 0) :] = 0
    return outputs
