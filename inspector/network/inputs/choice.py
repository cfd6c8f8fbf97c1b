"""Inputs of a model: which of them takes the picture, and constants for the others.

Models that take more than a picture are common: token ids beside the image, the image's size and
scale (detectors of PaddlePaddle), a second image, a prompt. What is fed to such an input is the
same for every photo; it becomes a constant of the graph, so that everything else reasons about a
model of one image.
"""

import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from converters.graph import Graph, Value
from converters.numpy_file import read_npy
from converters.regular_file import read_regular
from inspector.errors import UsageError
from inspector.network.space import first_convolution

__all__ = [
    "Feeds",
    "described",
    "feed_facts",
    "image_without_samples",
    "inputs_to_feed",
    "read_feeds",
]

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Any] | Sequence[str]
"""What ``read_feeds`` takes."""

_MOST_BYTES = 64 * 2**20
_SIDE = 8
"""Pixels of the shortest side that is taken for an image's."""


def described(value: Value) -> str:
    """An input with its type and shape, as ``'ids' int64 [n, 77]``."""
    shape = "of any rank" if value.shape is None else _shape_text(value.shape)
    return f"{value.name!r} {_type_name(value.elem_type)} {shape}"


def inputs_to_feed(graph: Graph, image: str) -> list[str]:
    """An option ``--feed NAME=...`` for each input but the image, with values that fit."""
    return [
        f"--feed {_quoted(value.name)}={_example(value)}"
        for value in graph.inputs.values()
        if value.name != image
    ]


def feed_facts(feeds: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """What was fed, as plain data: type, shape and hash of each array."""
    return {
        name: {
            "type": str(value.dtype),
            "shape": list(value.shape),
            "sha256": hashlib.sha256(_bytes_of(value)).hexdigest(),
        }
        for name, value in sorted(feeds.items())
    }


def _bytes_of(value: Array) -> bytes:
    if value.dtype.kind == "O":
        return repr(value.tolist()).encode()
    return np.ascontiguousarray(value).tobytes()


def read_feeds(feeds: Feeds, graph: Graph) -> dict[str, Array]:
    """Constants for inputs, in the type and of the rank that the model declares.

    Args:
        feeds: Arrays, numbers or paths of ``.npy`` files by the name of the input; or texts
            ``NAME=FILE.npy`` and ``NAME=1,2,3``. Numbers fill the declared shape, in which free
            axes are 1 unless there are more numbers.
        graph: The model's.

    Raises:
        UsageError: An input does not exist, a file cannot be read, or a value does not fit; all
            findings are named.
    """
    pairs = feeds.items() if isinstance(feeds, Mapping) else map(_pair, feeds)
    found: dict[str, Array] = {}
    wrong: list[str] = []
    for name, given in pairs:
        try:
            found[name] = _fitting(given, _declared(graph, name, found))
        except (OSError, ValueError, TypeError, OverflowError) as error:
            wrong.append(f"{name!r} {getattr(error, 'strerror', None) or error}")
    if wrong:
        raise UsageError(
            f"cannot be fed: {'; '.join(wrong)}",
            where="--feed",
            hint=f"the inputs: {', '.join(map(described, graph.inputs.values()))}",
        )
    return found


def image_without_samples(graph: Graph) -> str:
    """An input (C, H, W) or (H, W, C) that takes one image; empty where there is none.

    That it is an image is shown by what reads it: the first convolution has two axes of space and
    as many input channels.
    """
    for value in graph.inputs.values():
        if value.shape is None or len(value.shape) != 3 or not value.elem_type:
            continue
        for channels, sides in (
            (value.shape[0], value.shape[1:]),
            (value.shape[2], value.shape[:2]),
        ):
            large = all(not isinstance(side, int) or side >= _SIDE for side in sides)
            if large and first_convolution(graph, value.name) == (2, channels):
                return value.name
    return ""


def _pair(text: str) -> tuple[str, str]:
    # The last of several: names of tensors may hold anything.
    name, separator, value = text.rpartition("=")
    if not separator or not name:
        raise UsageError(
            f"{text!r} feeds nothing", where="--feed", hint="NAME=FILE.npy or NAME=640,640"
        )
    return name, value


def _declared(graph: Graph, name: str, fed: Mapping[str, Array]) -> Value:
    if name in fed:
        raise ValueError("is fed twice")
    if name not in graph.inputs:
        raise ValueError("is not an input of the model")
    value = graph.inputs[name]
    if not value.elem_type:
        raise ValueError("takes a sequence or a map, which cannot be a constant")
    return value


def _fitting(given: Any, declared: Value) -> Array:
    if isinstance(given, Path) or (isinstance(given, str) and given.endswith(".npy")):
        values, whole = _loaded(Path(given)), True
    elif isinstance(given, str):
        values, whole = _numbers(given, declared), False
    else:
        values = np.asarray(given)
        whole = values.ndim > 0
    values = _typed(values, declared)
    if not whole:
        return _filled(values, declared)
    fixed = declared.shape
    fits = fixed is None or (
        len(fixed) == values.ndim
        and all(
            not isinstance(want, int) or want == have
            for want, have in zip(fixed, values.shape, strict=True)
        )
    )
    if not fits:
        raise ValueError(f"has shape {list(values.shape)}, and the input is {described(declared)}")
    return values


def _loaded(path: Path) -> Array:
    data = read_regular(path, _MOST_BYTES)
    try:
        return read_npy(data)
    except ValueError as error:
        raise ValueError(f"{path.name} is not a NumPy array: {error}") from None


def _numbers(text: str, declared: Value) -> Array:
    pieces = [piece.strip() for piece in text.split(",")]
    kind = onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type)
    if kind.kind == "O":
        return np.array(pieces, dtype=object)
    try:
        if kind.kind in "iu":
            return np.array([int(piece) for piece in pieces], dtype=object)
        return np.array([float(piece) for piece in pieces])
    except ValueError:
        wanted = "whole numbers" if kind.kind in "iu" else "numbers"
        raise ValueError(
            f"takes {wanted} separated by commas, or a file FILE.npy, not {text[:60]!r}"
        ) from None


def _typed(values: Array, declared: Value) -> Array:
    """The values in the declared type, if it holds them."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type)
    name = _type_name(declared.elem_type)
    if kind.kind == "O":
        return values.astype(object)
    if values.dtype.kind not in "biufO":
        raise ValueError(f"holds {values.dtype}, and the input takes {name}")
    with np.errstate(all="ignore"):
        found = values.astype(kind)
    exact = kind.kind not in "biu" or np.array_equal(found.astype(object), values.astype(object))
    finite = kind.kind in "biu" or bool(np.isfinite(found.astype(np.float64)).all())
    if not exact or not finite:
        raise ValueError(f"holds numbers that {name} cannot hold")
    return found


def _filled(values: Array, declared: Value) -> Array:
    """Numbers in the declared shape: one for all, or as many as it has."""
    shape = declared.shape
    if shape is None:
        return values.reshape(()) if values.size == 1 else values
    fixed = [axis if isinstance(axis, int) else 0 for axis in shape]
    ones = [axis or 1 for axis in fixed]
    if math.prod(ones) * values.dtype.itemsize > _MOST_BYTES:
        raise ValueError(f"takes {math.prod(ones):,} numbers, more than {_MOST_BYTES >> 20} MiB")
    if values.size == 1:
        return np.full(ones, values.reshape(-1)[0], dtype=values.dtype)
    if int(np.prod(ones)) == values.size:
        return values.reshape(ones)
    if 0 in fixed:
        last = len(fixed) - 1 - fixed[::-1].index(0)  # a batch axis comes first
        ones[last] = -1
        if values.size % -int(np.prod(ones)) == 0:
            return values.reshape(ones)
    raise ValueError(f"got {values.size} numbers, and the input is {described(declared)}")


def _shape_text(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join('?' if axis is None else str(axis) for axis in shape)}]"


def _type_name(elem_type: int) -> str:
    try:
        name = str(onnx.TensorProto.DataType.Name(elem_type)).lower()
    except ValueError:
        return "of an unknown type"
    return {"float": "float32", "double": "float64"}.get(name, name)


def _example(value: Value) -> str:
    """What may be fed: numbers where the shape is small, else a file."""
    shape = value.shape
    if shape is None:
        return "FILE.npy"
    size = int(np.prod([axis if isinstance(axis, int) else 1 for axis in shape]))
    return ",".join(["1"] * size) if 1 <= size <= 4 else "FILE.npy"


def _quoted(name: str) -> str:
    return shlex.quote(name)
