"""Keras models: ``.keras`` archives and ``.h5`` files; those of Keras 2 by tf_keras.

Both are data as long as no layer in them is a program: Lambda layers and layers that load a
SavedModel are refused by Keras' safe mode, and named here before Keras sees the file.
"""

import contextlib
import importlib
import json
import os
import shlex
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConversionFailed, first_few, reason_of, said_by
from converters.hdf5 import refuse_other_files
from converters.nearest_path import as_typed
from converters.plain_values import parse_json, whole_number
from converters.preprocessing import WHOLE
from converters.regular_file import first_bytes
from converters.source import Export, Options, as_path, concrete, lacking, versions
from converters.to_onnx.keras.precision import in_float32, layers_within

__all__ = ["EXTRA", "TITLE", "convert", "recognises"]

TITLE, EXTRA = "Keras", "keras"

Array = NDArray[Any]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PROGRAMS = frozenset({"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
_HUB = frozenset({"KerasLayer", "HubLayer"})
_TEACHABLE = "keras_model"
_TAUGHT = "read as a model of Teachable Machine, by its name and its two sequences: pixels of -1..1"
_BEFORE = frozenset({"InputLayer", "Resizing", "CenterCrop"})
"""Layers that leave pixels what they are; so do those of augmentation, Random..."""
_MOST_CONFIG = 64 << 20
_MOST_METADATA = 1 << 16
_DAMAGED = "the file is cut off or damaged: ask for it anew"


def recognises(source: str) -> str | None:
    """Whether a path is a Keras model; it is data, so no trust is needed."""
    path = as_path(source)
    if path is None or not path.is_file():
        return None
    head = first_bytes(path, 8)
    if path.suffix.lower() in {".h5", ".hdf5", ".keras"} and head == _HDF5:
        return ""
    if head.startswith(b"PK\x03\x04") and path.suffix.lower() == ".keras":
        return ""
    return None


def convert(source: str, draft: Path, options: Options) -> Export:
    """Write a Keras model as ONNX, by Keras on TensorFlow and tf2onnx.

    Args:
        source: The ``.keras`` or ``.h5`` file.
        draft: The ONNX file to write.
        options: ``inputs`` where the model leaves sizes free; ``opset``.

    Raises:
        ConversionFailed: Keras or tf2onnx is not installed; a layer is a program; the file is
            no whole model, or cannot be converted.
    """
    path = Path(source)
    _refuse_programs(path)
    try:
        refuse_other_files(path)
    except ImportError as error:
        raise lacking(error, TITLE, EXTRA, path.name) from None
    os.environ["KERAS_BACKEND"] = "tensorflow"
    legacy = _version(path) < 3
    try:
        import tensorflow as tf
        import tf2onnx

        from converters import exported
        from converters.to_onnx.tensorflow import tf2onnx as tf2onnx_export
    except ImportError as error:
        raise lacking(error, TITLE, EXTRA, path.name) from None
    model, widened = in_float32(_loaded(path, legacy=legacy))
    nested = [type(layer).__name__ for layer in model.layers][-2:] == ["Sequential"] * 2
    shapes = options.inputs or tuple(tuple(tensor.shape) for tensor in model.inputs)
    # TensorFlow computes channels first by XLA alone where there is no GPU.
    first = any(_channels_first(layer) for layer in layers_within(model))
    call = tf.function(model, jit_compile=True, autograph=False) if first else model

    def run(inputs: Sequence[Array]) -> list[Array]:
        found = call(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
        return [np.asarray(tensor) for tensor in tf.nest.flatten(found)]  # of dictionaries too

    def zeros(batch: int) -> list[Array]:
        return [
            np.zeros(concrete((None, *shape[1:]), batch), tf.as_dtype(tensor.dtype).as_numpy_dtype)
            for shape, tensor in zip(shapes, model.inputs, strict=True)
        ]

    run(zeros(1))
    batch, fixed = _batch(model, options, lambda count: run(zeros(count)))
    signature = [
        tf.TensorSpec((batch, *shape[1:]), tensor.dtype, name=_plain(tensor.name))
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    try:
        with tf2onnx_export.repaired() as handlers:
            proto, _ = tf2onnx.convert.from_keras(
                model,
                input_signature=signature,
                opset=options.opset or tf2onnx_export.OPSET,
                custom_op_handlers=handlers,
            )
    except tf.errors.OperatorNotAllowedInGraphError as error:
        raise _untraceable(error, shapes, path) from None
    exported.tidy(proto, tf2onnx_export.PREFIXES)
    exported.write(proto, draft)
    taught = legacy and path.stem == _TEACHABLE and nested
    preprocess = _teachable(shapes[0]) if taught else _preprocess(model, shapes[0], first)
    inputs = exported.specs(proto)
    if (
        "scale" in preprocess and not taught
    ):  # pixels, whose noise would hardly differ from zero otherwise
        inputs = (replace(inputs[0], span=(0.0, 255.0)), *inputs[1:])
    return Export(
        inputs=inputs,
        run=run,
        preprocess=preprocess,
        notes=tuple(filter(None, (widened, fixed, _TAUGHT if taught else ""))),
        versions=versions(
            "tf_keras" if legacy else "keras", "tensorflow", "tensorflow-cpu", "tf2onnx", "onnx"
        ),
    )


def _loaded(path: Path, *, legacy: bool) -> Any:
    """A model, built of Keras' own layers.

    Raises:
        ConversionFailed: It cannot be loaded; or Keras 2 made it, and tf_keras is not installed.
    """
    try:
        keras: Any = importlib.import_module("tf_keras" if legacy else "keras")
    except ImportError as error:
        if legacy:
            raise ConversionFailed(
                f"was saved by Keras 2, which Keras 3 does not load ({error})",
                where=path.name,
                hint="pip install tf-keras",
            ) from None
        raise lacking(error, TITLE, EXTRA, path.name) from None
    try:
        model = keras.saving.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # noqa: BLE001 - loading builds layers, which raise anything
        raise ConversionFailed(
            f"Keras does not load it: {reason_of(error) or type(error).__name__}",
            where=path.name,
            hint="where layers or functions are the author's own, in the program that has them: "
            f"model.export({path.stem!r}), and give that folder with --trust",
        ) from None
    if any("string" in str(tensor.dtype) for tensor in getattr(model, "inputs", None) or ()):
        raise ConversionFailed("takes texts, not an image", where=path.name)
    if not getattr(model, "inputs", None):
        raise ConversionFailed(
            "was never built, so the shape of its input is not known",
            where=path.name,
            hint="call model.build((None, h, w, channels)) and save it again",
        )
    if type(model).__name__ == "Sequential":
        # tf2onnx looks tensors up by names that Keras gives to functional models alone.
        return keras.Model(model.inputs, model.outputs, name=model.name)
    if isinstance(model.input, dict):  # whose tensors come in a row from here on
        return keras.Model(list(model.inputs), model.output, name=model.name)
    return model


def _untraceable(
    error: Exception, shapes: Sequence[Sequence[int | None]], path: Path
) -> ConversionFailed:
    """A layer that asks of its input what TensorFlow does not know before it runs."""
    sizes = [["?", *(224 if n is None else n for n in shape[1:])] for shape in shapes]
    given = " ".join(f"--input '{','.join(map(str, size))}'" for size in sizes)
    return ConversionFailed(
        f"Keras does not trace it ({said_by(error)})",
        where=path.name,
        hint=f"give the sizes that it leaves open, such as {given}"
        if any(None in shape[1:] for shape in shapes)
        else "",
    )


def _channels_first(layer: Any) -> bool:
    return getattr(layer, "data_format", "") == "channels_first"


def _batch(model: Any, options: Options, run: Callable[[int], object]) -> tuple[int | None, str]:
    """The batch of the file, None for a free one; and a note where the model's own has to stay."""
    own = model.inputs[0].shape[0]
    if not options.dynamic_batch:
        return own or 1, ""
    if own is None:
        return None, ""
    try:
        run(3 if own == 1 else own + 1)
    except Exception as error:  # noqa: BLE001 - layers raise anything
        return own, f"the batch stays {own}, which the model was built for: {said_by(error)}"
    return None, ""


def _version(path: Path) -> int:
    """Number before the first dot of the Keras that wrote a file; 3 where it does not say."""
    found: object = ""
    with contextlib.suppress(KeyError, ValueError, OSError):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive, archive.open("metadata.json") as entry:
                found = parse_json(entry.read(_MOST_METADATA)).get("keras_version", "")
        else:
            import h5py

            with h5py.File(path, "r") as file:
                # Files of Keras 1 and of the first tf.keras have no version.
                found = file.attrs.get("keras_version", "2")
    text = found.decode("ascii", "replace") if isinstance(found, bytes) else str(found)
    number = whole_number(text.partition(".")[0])
    return 3 if number is None else number


def _preprocess(model: Any, shape: Sequence[int | None], first: bool) -> dict[str, Any]:
    """What the model's first layers say of its input: pixel values where it rescales them.

    A classifier is fed the whole photo, as Keras' own loaders do.

    Args:
        model: The model.
        shape: Of its input, with the batch.
        first: Whether its channels come first.
    """
    if len(shape) != 4:
        return {}
    ends = model.outputs
    whole = WHOLE if len(ends) == 1 and len(ends[0].shape) == 2 else {}
    size, channels = (shape[2:], shape[1]) if first else (shape[1:3], shape[3])
    if None in size:
        return dict(whole)
    kinds = [type(layer).__name__ for layer in layers_within(model)]
    count = 1 if channels == 1 else 3
    begin = next((kind for kind in kinds if kind not in _BEFORE and "Random" not in kind), "")
    if begin in {"Rescaling", "Normalization"}:
        return {
            "size": list(size),
            "resize": "squash",
            "scale": 1.0,
            "mean": [0.0] * count,
            "std": [1.0] * count,
            "channels": "GRAY" if count == 1 else "RGB",
            "layout": "NCHW" if first else "NHWC",
        }
    return dict(whole)


def _teachable(shape: Sequence[int | None]) -> dict[str, Any]:
    """What the program that Teachable Machine gives with its models does to a photo."""
    if len(shape) != 4 or None in shape[1:3]:
        return {}
    return {
        "size": list(shape[1:3]),
        "resize": "crop",
        "crop_pct": 1.0,
        "interpolation": "lanczos",
        "scale": 127.5,
        "mean": [1.0] * (shape[3] or 3),
        "std": [1.0] * (shape[3] or 3),
        "channels": "GRAY" if shape[3] == 1 else "RGB",
        "layout": "NHWC",
    }


def _refuse_programs(path: Path) -> None:
    """Name every layer that runs a program, before Keras reads the file.

    Raises:
        ConversionFailed: There are some, or layers of TensorFlow Hub, or no configuration.
    """
    layers = list(_layers(_config(path)))
    if any(kind in _HUB for kind, _ in layers):
        raise ConversionFailed(
            "has layers of TensorFlow Hub, which Keras alone does not load",
            where=path.name,
            hint="where you trust its author: pip install tensorflow-hub tf-keras 'setuptools<81'; "
            + _hub_command(path),
        )
    found = sorted({f"{name or kind!s} ({kind})" for kind, name in layers if kind in _PROGRAMS})
    if found:
        raise ConversionFailed(
            "layers that run a program of the author's: " + first_few(found, 5),
            where=path.name,
            hint="ask for a model made of Keras' own layers; or, in the program that has it, "
            f"model.export({path.stem!r}), and give that folder with --trust",
        )


def _hub_command(path: Path) -> str:
    """What turns a model with layers of TensorFlow Hub into a SavedModel."""
    folder = path.with_suffix("")
    program = (
        "import tensorflow_hub as hub, tf_keras; tf_keras.models.load_model("
        f'{json.dumps(str(path))}, custom_objects={{"KerasLayer": hub.KerasLayer}})'
        f".export({json.dumps(str(folder))})"
    )
    return f"python -c {shlex.quote(program)}; then give {as_typed(folder)} with --trust"


def _config(path: Path) -> Any:
    """The configuration of all layers, as the file's JSON says it."""
    try:
        if zipfile.is_zipfile(path):
            from converters.to_onnx.pytorch.archive import inspect

            inspect(path)
            with zipfile.ZipFile(path) as archive:
                entry = archive.getinfo("config.json")
                if entry.file_size > _MOST_CONFIG:
                    raise ConversionFailed("a configuration of that size is none", where=path.name)
                return json.loads(archive.read(entry))
        if path.suffix == ".keras" and first_bytes(path, 8) != _HDF5:
            raise ConversionFailed(
                "is not an archive, which files of this name are", where=path.name, hint=_DAMAGED
            )
        import h5py

        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
        return json.loads(text)
    except ImportError as error:
        raise lacking(error, TITLE, EXTRA, path.name) from None
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise ConversionFailed(
            f"its data cannot be read: {reason_of(error)}", where=path.name, hint=_DAMAGED
        ) from None
    except (KeyError, TypeError):
        raise ConversionFailed(
            "holds no model that Keras could build: weights alone are not enough",
            where=path.name,
            hint="save it with model.save('model.keras')",
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConversionFailed(
            f"its configuration is not JSON ({reason_of(error)})", where=path.name, hint=_DAMAGED
        ) from None


def _layers(config: Any) -> Iterator[tuple[str, str]]:
    """Class and name of everything that a configuration builds, however deep."""
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(item.get("class_name"), str):
                inner = item.get("config")
                name = inner.get("name", "") if isinstance(inner, dict) else ""
                yield item["class_name"].rpartition(">")[2], str(name)[:80]
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _plain(name: str) -> str:
    return name.partition(":")[0].rpartition("/")[2] or "input"
