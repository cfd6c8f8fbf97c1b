"""Large initialisers cut out of the bytes of a model before they are parsed; see ``Weights``."""

import math
import secrets
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from converters.graph.weights import TYPES, Weights
from converters.onnx_file.wire import read_varint, skip

__all__ = ["set_apart"]

LEAST = 1 << 16
"""Bytes from which a tensor is set apart."""

_SHARE = 2
"""They are set apart where they are at least one part in so many of a file."""

_ALIGNMENT = 64
"""Bytes of which each tensor begins at a multiple."""

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALISER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_PLAIN = {"dims", "data_type", "name", "doc_string"}
"""What a tensor has beside its data, where there is nothing odd about it."""


def set_apart(data: bytes) -> tuple[bytes, Weights | None]:
    """Cut the large initialisers of the main graph out of a serialised model.

    What is odd about a tensor (amount of data, type, two values) is left for the preflight to find.

    Args:
        data: The whole file, after ``wire.scan``.

    Returns:
        The bytes to parse, with references in their place, and what those refer to; the bytes as
        they are, and None, where little would be cut out.
    """
    if sys.byteorder != "little" or len(data) < LEAST:
        return data, None
    graphs = [part for part in _parts(data, 0, len(data)) if part.number == _GRAPH]
    if len(graphs) != 1 or not _plainly_headed(data, graphs[0]):
        return data, None
    graph = graphs[0]
    location = f"weights-{secrets.token_hex(16)}"  # a name that no file can know
    view, kept = memoryview(data), graph.inside
    body: list[bytes | memoryview] = []
    cut: list[memoryview] = []
    place = 0
    for part in _parts(data, graph.inside, graph.end):
        if part.number != _INITIALISER or part.end - part.inside < LEAST:
            continue
        if not _plainly_headed(data, part):
            continue
        found = _without_values(data, part)
        if found is None:
            continue
        tensor, values = found
        tensor.data_location = TensorProto.EXTERNAL
        size = values.end - values.inside
        entries = {"location": location, "offset": str(place), "length": str(size)}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        body += [view[kept : part.begin], _field(_INITIALISER, tensor.SerializeToString())]
        kept = part.end
        cut.append(view[values.inside : values.end])
        place += _aligned(size)
    if place * _SHARE < len(data):
        return data, None
    body.append(view[kept : graph.end])
    whole = (view[: graph.begin], _field(_GRAPH, b"".join(body)), view[graph.end :])
    return b"".join(whole), Weights({location: _side_by_side(cut, place)})


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _side_by_side(values: Sequence[memoryview], size: int) -> memoryview:
    """A copy in which each tensor begins where processors read numbers from: in a file few do."""
    held = np.empty(size + _ALIGNMENT, np.uint8)
    first = -held.ctypes.data % _ALIGNMENT
    held = held[first : first + size]
    place = 0
    for value in values:
        held[place : place + len(value)] = np.frombuffer(value, np.uint8)
        place += _aligned(len(value))
    return held.data.toreadonly()


class _Part(NamedTuple):
    """A field of a message: where it begins, its content and its end."""

    number: int
    nested: bool
    begin: int
    inside: int
    end: int


def _parts(data: bytes, start: int, stop: int) -> Iterator[_Part]:
    position = start
    while position < stop:
        begin = position
        tag, position = read_varint(data, position)
        inside, nested = position, tag & 7 == 2
        if nested:
            size, inside = read_varint(data, position)
            position = inside + size
        else:
            position = skip(data, position, tag & 7)
        yield _Part(tag >> 3, nested, begin, inside, position)


def _without_values(data: bytes, part: _Part) -> tuple[TensorProto, _Part] | None:
    """A tensor without its values, and where these lie; None of one to leave alone."""
    fields = list(_parts(data, part.inside, part.end))
    values = [field for field in fields if field.number == _RAW and field.nested]
    if len(values) != 1 or not _plainly_headed(data, values[0]):
        return None
    others = b"".join(data[f.begin : f.end] for f in fields if f is not values[0])
    try:
        tensor = TensorProto.FromString(others)
    except DecodeError:
        return None
    kind, size = TYPES.get(tensor.data_type), values[0].end - values[0].inside
    plain = all(field.name in _PLAIN for field, _ in tensor.ListFields())
    if not plain or kind is None or size < LEAST or any(dim < 0 for dim in tensor.dims):
        return None
    if math.prod(tensor.dims) * kind.itemsize != size:
        return None
    return tensor, values[0]


def _plainly_headed(data: bytes, part: _Part) -> bool:
    """Whether a field's number and length are written as every writer does, as short as can be.

    Only such heads are written anew: whether protobuf takes a longer one is for it to say.
    """
    head = data[part.begin : part.inside]
    return part.nested and head == _head(part.number, part.end - part.inside)


def _field(number: int, content: bytes) -> bytes:
    return _head(number, len(content)) + content


def _head(number: int, size: int) -> bytes:
    return _varint(number << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
