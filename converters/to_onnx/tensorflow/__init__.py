"""TensorFlow SavedModel folders.

The graph in a SavedModel is a program: it can read and write files when it runs.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConversionFailed, reason_of
from converters.source import Export, Options, as_path, lacking, versions

__all__ = ["EXTRA", "SIGNATURES", "TITLE", "convert", "parts", "recognises"]

TITLE, EXTRA = "TensorFlow SavedModel", "tensorflow"
SIGNATURES = True

Array = NDArray[Any]

_SIGNATURES = ("serving_default", "serve")


def recognises(source: str) -> str | None:
    """Whether a path is a SavedModel; comparing it runs its graph."""
    path = as_path(source)
    if path is not None and path.name == "saved_model.pb":
        path = path.parent
    if path is None or not (path / "saved_model.pb").is_file():
        return None
    return "its graph can read and write files when it is run, and it is run to compare the result"


def parts(source: str) -> tuple[str, ...]:
    """The folder, whichever file of it was named; see ``converters.source``."""
    return (str(Path(source) if Path(source).is_dir() else Path(source).parent),)


def convert(source: str, draft: Path, options: Options) -> Export:
    """Write the serving signature of a SavedModel as ONNX, by tf2onnx.

    Args:
        source: The folder.
        draft: The ONNX file to write.
        options: ``inputs`` to fix free sizes; ``opset``; ``dynamic_batch``; ``signature``, where
            it has several functions.

    Raises:
        ConversionFailed: TensorFlow or tf2onnx is not installed; there is no serving signature;
            operators that ONNX does not have.
    """
    folder = Path(*parts(source))
    try:
        import tensorflow as tf
        import tf2onnx  # noqa: F401 - the child has it, or says so

        from converters import exported
        from converters.free_batch import free_batch
        from converters.to_onnx.tensorflow import tf2onnx as tf2onnx_export
    except ImportError as error:
        raise lacking(error, TITLE, EXTRA, folder.name) from None
    loaded = _loaded(tf, folder)
    serving, several = _signature(loaded, folder, options.signature)
    declared = list(serving.structured_input_signature[1].items())
    _require_pixels(loaded, serving, folder)
    shapes = options.inputs or _shapes(declared, folder)
    static = all(shape and shape[0] is not None for shape in shapes)
    signature = [
        tf.TensorSpec(shape, spec.dtype, name=name)
        for (name, spec), shape in zip(declared, shapes, strict=True)
    ]
    names = [name for name, _ in declared]
    outputs, texts = _outputs(serving, folder)

    def call(*tensors: Any) -> list[Any]:
        found = serving(**dict(zip(names, tensors, strict=True)))
        return [found[name] for name in outputs]

    with tf2onnx_export.repaired() as handlers:
        proto = tf2onnx_export.from_function(
            tf.function(call), signature, handlers, options.opset or tf2onnx_export.OPSET
        )
    fixed = ""
    if static and options.dynamic_batch and len(shapes) == 1 and shapes[0][0] == 1:
        fixed = free_batch(proto)
    exported.tidy(proto, tf2onnx_export.PREFIXES, outputs)
    exported.write(proto, draft)

    def run(inputs: Sequence[Array]) -> list[Array]:
        def single(image: Array) -> list[Array]:
            return [np.asarray(t) for t in call(tf.constant(image))]

        if static and len(inputs) == 1:
            return exported.one_by_one(single, inputs[0])
        return [np.asarray(t) for t in call(*map(tf.constant, inputs))]

    return Export(
        inputs=exported.specs(proto),
        run=run,
        notes=tuple(filter(None, (several, texts, fixed and f"the batch stays 1: {fixed}"))),
        versions=versions("tensorflow", "tensorflow-cpu", "tf2onnx", "onnx"),
    )


def _loaded(tf: Any, folder: Path) -> Any:
    """What TensorFlow makes of the folder.

    Raises:
        ConversionFailed: It does not load it.
    """
    try:
        return tf.saved_model.load(str(folder))
    except Exception as error:  # noqa: BLE001 - TensorFlow's errors have no other root
        raise ConversionFailed(
            f"TensorFlow does not load it: {reason_of(error) or type(error).__name__}",
            where=folder.name,
            hint="a SavedModel is saved_model.pb with the folder variables beside it: ask for "
            "both anew where one is missing or damaged",
        ) from None


def _signature(loaded: Any, folder: Path, wanted: str) -> tuple[Any, str]:
    """The function that is wanted, that serves, or the only one; and a note where it has others.

    Raises:
        ConversionFailed: There is no function of that name, or none that serves.
    """
    known = dict(loaded.signatures)
    listed = ", ".join(map(ascii, sorted(known)))[:200]
    serving = next((name for name in _SIGNATURES if name in known), "")
    if wanted and wanted not in known:
        raise ConversionFailed(
            f"has no signature {wanted!r}",
            where=folder.name,
            hint=f"--signature chooses one of {listed}" if known else "leave --signature out",
        )
    name = wanted or serving or (next(iter(known)) if len(known) == 1 else "")
    if not name and known:
        raise ConversionFailed(
            f"has no serving signature (it has: {listed})",
            where=folder.name,
            hint=f"--signature chooses one, such as --signature {shlex.quote(min(known))}",
        )
    if not name:
        raise ConversionFailed(
            "has no serving signature (it has: none)",
            where=folder.name,
            hint="save it with model.export(folder), or with signatures=...",
        )
    others = ", ".join(ascii(other) for other in sorted(known) if other != name)
    note = f"its signature {name!r} is read; --signature chooses another: {others}"
    return known[name], note if others else ""


def _require_pixels(loaded: Any, serving: Any, folder: Path) -> None:
    """Refuse a function that takes texts, such as files of pictures that it decodes itself.

    Raises:
        ConversionFailed: It does; says which other function takes numbers.
    """
    texts = _texts(serving)
    if not texts:
        return
    others = [name for name, other in sorted(loaded.signatures.items()) if not _texts(other)]
    raise ConversionFailed(
        f"takes texts ({', '.join(map(ascii, texts))[:80]}), such as files of pictures, which ONNX "
        "does not decode",
        where=folder.name,
        hint=f"choose a signature that takes numbers: --signature {shlex.quote(others[0])}"
        if others
        else "save it with a signature that takes pixels, in the program that has the network: "
        "tf.saved_model.save(module, folder, signatures=...)",
    )


def _texts(function: Any) -> list[str]:
    """Names of a function's inputs that are strings."""
    inputs = function.structured_input_signature[1]
    return [name for name, spec in inputs.items() if spec.dtype.name == "string"]


def _shapes(declared: Sequence[tuple[str, Any]], folder: Path) -> tuple[Any, ...]:
    """Shapes of the inputs, batch first.

    Raises:
        ConversionFailed: One says not even how many axes it has.
    """
    unknown = [name for name, spec in declared if spec.shape.rank is None]
    if unknown:
        raise ConversionFailed(
            f"says no shape of its input {unknown[0][:80]!a}",
            where=folder.name,
            hint="give it, batch first, such as --input '?,224,224,3'"
            + (", an option for each input" if len(declared) > 1 else ""),
        )
    return tuple(tuple(spec.shape) for _, spec in declared)


def _outputs(serving: Any, folder: Path) -> tuple[list[str], str]:
    """Names of the outputs that are numbers, in order, and a note on those that are texts.

    Raises:
        ConversionFailed: There are texts alone.
    """
    known = serving.structured_outputs
    texts = [name for name in sorted(known) if known[name].dtype.name == "string"]
    numbers = [name for name in sorted(known) if name not in texts]
    if not numbers:
        raise ConversionFailed(
            "computes texts and no numbers",
            where=folder.name,
            hint="save it with a signature that gives its scores",
        )
    named = ", ".join(map(ascii, texts))[:80]
    return numbers, f"outputs that are texts are left out: {named}" if texts else ""
