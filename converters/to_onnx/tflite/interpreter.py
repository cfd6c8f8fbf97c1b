"""TFLite's own interpreter, which the result is compared with.

That of LiteRT (``ai-edge-litert``); TensorFlow's, which is announced to go, where only it is there.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConversionFailed, reason_of
from converters.source import lacking
from converters.to_onnx.tflite.model import Model, Signature, Subgraph

__all__ = ["Interpreter", "opened", "tensor_shapes", "with_reference_kernels"]

Array = NDArray[Any]
Shapes = Sequence[tuple[int, ...]]

_PACKAGES = (("ai_edge_litert.interpreter", "ai-edge-litert"), ("tensorflow.lite", "tensorflow"))


@dataclass(frozen=True, eq=False)
class Interpreter:
    """A loaded file.

    Attributes:
        package: The package whose interpreter it is.
        run: One array per input, of one sample each, to one per output; integers that stand for
            other numbers are given and taken as those.
    """

    package: str
    run: Callable[[Sequence[Array]], list[Array]]


def opened(path: Path, title: str, extra: str, model: Model, shapes: Shapes = ()) -> Interpreter:
    """Load a file.

    Args:
        path: The file.
        title: What people call the framework, for messages.
        extra: The extra that brings it.
        model: What was read of the file, with the function to run.
        shapes: Of the inputs, where the file leaves them open.

    Raises:
        ConversionFailed: There is no interpreter, or it does not load the file.
    """
    module, package = _module(title, extra, path.name)
    try:
        loaded = module.Interpreter(str(path))
        _allocate(loaded, shapes)
    except (ValueError, RuntimeError) as error:
        raise ConversionFailed(
            f"TFLite's own interpreter does not load it: {reason_of(error)[:200]}",
            where=path.name,
        ) from None
    return _running(loaded, package, model)


def with_reference_kernels(
    path: Path, title: str, extra: str, model: Model, shapes: Shapes = ()
) -> Interpreter | None:
    """Load a file with the plain kernels, which round otherwise than the fast ones.

    Args:
        path: As for `opened`.
        title: Likewise.
        extra: Likewise.
        model: Likewise.
        shapes: Likewise.

    Returns:
        None where an operator has no plain kernel.
    """
    module, package = _module(title, extra, path.name)
    kinds = module.experimental if package == "tensorflow" else module
    try:
        loaded = module.Interpreter(
            str(path), experimental_op_resolver_type=kinds.OpResolverType.BUILTIN_REF
        )
        _allocate(loaded, shapes)
        loaded.invoke()
    except (ValueError, RuntimeError):
        return None
    return _running(loaded, package, model)


def tensor_shapes(
    path: Path, title: str, extra: str, shapes: Shapes
) -> Mapping[int, tuple[int, ...]]:
    """Shapes of all tensors of a network, by their numbers, for inputs of these shapes.

    Args:
        path: As for `opened`.
        title: Likewise.
        extra: Likewise.
        shapes: Of the inputs.

    Raises:
        ConversionFailed: The network does not work on such inputs.
    """
    module, package = _module(title, extra, path.name)
    kinds = module.experimental if package == "tensorflow" else module
    try:
        # What runs as one piece elsewhere does not say the shapes in between.
        loaded = module.Interpreter(
            str(path),
            experimental_op_resolver_type=kinds.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        _allocate(loaded, shapes)
        loaded.invoke()  # some shapes are known then alone
    except (ValueError, RuntimeError) as error:
        said = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise ConversionFailed(
            f"TFLite's own interpreter does not take an input of {said}: {reason_of(error)}",
            where=path.name,
            hint="another --input",
        ) from None
    return {d["index"]: tuple(map(int, d["shape"])) for d in loaded.get_tensor_details()}


def _allocate(loaded: Any, shapes: Shapes) -> None:
    for detail, shape in zip(loaded.get_input_details(), shapes, strict=bool(shapes)):
        loaded.resize_tensor_input(detail["index"], [*shape])
    loaded.allocate_tensors()


def _running(loaded: Any, package: str, model: Model) -> Interpreter:
    """A loaded file as a function of arrays."""
    if model.signature is not None:
        return _running_signature(loaded, package, model.signature, model.network)
    inputs, outputs = loaded.get_input_details(), loaded.get_output_details()

    def run(arrays: Sequence[Array]) -> list[Array]:
        for detail, array in zip(inputs, arrays, strict=True):
            loaded.set_tensor(detail["index"], _encoded(array, detail))
        loaded.invoke()
        return [_decoded(loaded.get_tensor(d["index"]), d) for d in outputs]

    return Interpreter(package, run)


def _running_signature(
    loaded: Any, package: str, signature: Signature, network: Subgraph
) -> Interpreter:
    """A function of a loaded file that is not its first graph, as a function of arrays."""
    call = loaded.get_signature_runner(signature.name)
    takes, gives = call.get_input_details(), call.get_output_details()
    inputs = [signature.inputs[index] for index in network.inputs]
    outputs = [signature.outputs[index] for index in network.outputs]

    def run(arrays: Sequence[Array]) -> list[Array]:
        given = zip(inputs, arrays, strict=True)
        found = call(**{name: _encoded(array, takes[name]) for name, array in given})
        return [_decoded(found[name], gives[name]) for name in outputs]

    return Interpreter(package, run)


def _module(title: str, extra: str, where: str) -> tuple[Any, str]:
    first: ImportError | None = None
    for module, package in _PACKAGES:
        try:
            if package == "tensorflow":
                import tensorflow as tf

                return tf.lite, package
            return importlib.import_module(module), package
        except ImportError as error:
            first = first or error
    raise lacking(first or ImportError("no interpreter"), title, extra, where)


def _steps(detail: Any) -> tuple[np.float32, int] | None:
    """Step and zero point of a tensor of integers; None for one of floats."""
    scale, zero = detail["quantization"]
    integer = np.dtype(detail["dtype"]).kind in "iu"
    return (np.float32(scale), int(zero)) if integer and scale else None


def _encoded(array: Array, detail: Any) -> Array:
    known = _steps(detail)
    if known is None:
        return array.astype(detail["dtype"])
    bounds = np.iinfo(detail["dtype"])
    levels = np.rint(array.astype(np.float32) / known[0]) + known[1]
    rounded: Array = np.clip(levels, bounds.min, bounds.max).astype(detail["dtype"])
    return rounded


def _decoded(levels: Array, detail: Any) -> Array:
    known = _steps(detail)
    return levels if known is None else (levels.astype(np.float32) - known[1]) * known[0]
