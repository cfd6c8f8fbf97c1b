"""Bytes that claim to be a model, looked at before any parser sees them.

Two questions, both answered in pure Python and in one pass: what is this file if it is no
model (:func:`foreign`), and is it protobuf whose shape a parser can afford (:func:`scan`)?
An empty message costs two bytes in a file and some hundred in memory, so counting has to come
before parsing.  The scan keeps its own stack: a hostile file cannot exhaust Python's.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import onnx

from converters.errors import NotAModel, UnsafeModel

__all__ = ["HEAD_BYTES", "foreign", "not_a_model", "read_varint", "scan", "skip"]

HEAD_BYTES = 4096

_CONVERT = "convert it first: inspector convert SOURCE -o MODEL.onnx"
_UNPACK = "unpack it and give the .onnx file inside"
_OTHER = "give the .onnx file; other formats go through: inspector convert SOURCE -o MODEL.onnx"

# (offset, magic bytes, what it is, hint)
_SIGNATURES = (
    (
        0,
        b"version https://git-lfs",
        "a git-lfs pointer, not the model it points to",
        "fetch the model itself: git lfs pull",
    ),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras .h5)", _CONVERT),
    (4, b"TFL3", "a TFLite flatbuffer", _CONVERT),
    (4, b"ORTM", "a model in onnxruntime's own .ort format", "give the .onnx file it was made of"),
    (0, b"GGUF", "a GGUF file of a language model", "only ONNX image models are read"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", "the model comes first, then the images"),
    (0, b"\xff\xd8\xff", "a JPEG image", "the model comes first, then the images"),
    (0, b"\x1f\x8b\x08", "a gzip archive", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x93NUMPY", "a NumPy array", _OTHER),
    (0, b"\x7fELF", "a compiled program", _OTHER),
    (0, b"%PDF-", "a PDF document", _OTHER),
)
# Member names that tell one zip from another; they stand in clear in the local headers.
_ZIPS = (
    (b"data.pkl", "a zip archive of PyTorch (.pt, .pth, TorchScript)", _CONVERT),
    (b"model.weights.h5", "a zip archive of Keras (.keras)", _CONVERT),
    (b".npy", "a zip archive of NumPy arrays (.npz)", _OTHER),
    (b".onnx", "a zip archive with an .onnx file inside", _UNPACK),
    (b"config.json", "a zip archive, perhaps of Keras (.keras)", _CONVERT),
)


def foreign(head: bytes) -> tuple[str, str] | None:
    """Name a file that carries the mark of another format.

    Args:
        head: The first ``HEAD_BYTES`` bytes.

    Returns:
        What it is and what to do; None when no known mark is there.
    """
    if not head:
        return "an empty file", "the download or export did not finish: get the model again"
    for offset, magic, what, hint in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return what, hint
    return _zip(head) if head.startswith(b"PK\x03\x04") else _pattern(head)


def _zip(head: bytes) -> tuple[str, str]:
    kinds = ((what, hint) for mark, what, hint in _ZIPS if mark in head)
    return next(kinds, ("a zip archive (.keras and .pt files are zips too)", _CONVERT))


def _pattern(head: bytes) -> tuple[str, str] | None:
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)", head, re.IGNORECASE):
        return "an HTML page", "the download brought a web page: use the link to the raw file"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30:
        return "a safetensors file: weights without a network", _CONVERT
    if re.match(rb"\x80[\x02-\x05](\x95|[c}\](]|\x8a)", head):
        return "a Python pickle (old PyTorch file)", _CONVERT + "; never unpickle a stranger's file"
    return None


def _text(head: bytes) -> tuple[str, str] | None:
    """Name plain text; only for bytes that are known to be no model."""
    try:
        text = head.decode("utf-8", "strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    if any(not (c.isprintable() or c in "\t\r\n") for c in text):
        return None
    if text.lstrip().startswith("<"):
        return "an XML file", _OTHER
    return "plain text", _OTHER


def not_a_model(data: bytes, reason: str, where: str) -> NotAModel:
    """Build the error for bytes that failed as protobuf, with the best explanation there is.

    Args:
        data: The whole file.
        reason: Why it is not a model, for when nothing more telling is known.
        where: The file.
    """
    head = data[:HEAD_BYTES]
    named = foreign(head) or _text(head)
    if named:
        return NotAModel(f"is not an ONNX model but {named[0]}", where=where, hint=named[1])
    return NotAModel(f"is not an ONNX model: {reason}", where=where, hint=_OTHER)


# Exporters put local-encoding text into these, and nothing depends on it.
_FREE_TEXT = {"doc_string", "key", "value", "producer_name", "producer_version"}
# Stands where a field is text that must be UTF-8.
_TEXT = object()


@cache
def _fields(message: Any) -> Mapping[int, Any]:
    """Field number -> descriptor of the message in it, or ``_TEXT``."""
    table: dict[int, Any] = {}
    for field in message.fields:
        if field.message_type is not None:
            table[field.number] = field.message_type
        elif field.type == field.TYPE_STRING and field.name not in _FREE_TEXT:
            table[field.number] = _TEXT
    return table


class _Malformed(Exception):
    """The bytes break protobuf's grammar."""


def read_varint(data: bytes, pos: int) -> tuple[int, int]:
    """A number of variable length, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, pos
        shift += 7
        if shift > 63:
            raise _Malformed(f"a number longer than 64 bits at byte {pos}")


def skip(data: bytes, pos: int, wire_type: int) -> int:
    """Position behind a scalar."""
    if wire_type == 0:
        return read_varint(data, pos)[1]
    if wire_type == 1:
        return pos + 8
    if wire_type == 5:
        return pos + 4
    raise _Malformed(f"an impossible field type at byte {pos}")


def scan(data: bytes, *, fields: int, nesting: int, name_bytes: int, where: str = "") -> int:
    """Walk through a serialised ``ModelProto`` without building anything.

    Args:
        data: The whole file.
        fields: Most protobuf fields (scalars, strings and messages) allowed.
        nesting: Most bodies (of If, Loop, Scan) inside one another.
        name_bytes: Longest name allowed.
        where: Named in the errors.

    Returns:
        The number of fields.

    Raises:
        NotAModel: Truncated, or no protobuf.
        UnsafeModel: More fields, deeper nesting or longer names than allowed.
    """
    try:
        return _walk(data, fields=fields, nesting=nesting, name_bytes=name_bytes, where=where)
    except IndexError:
        raise not_a_model(data, "the file ends in the middle of a field", where) from None
    except _Malformed as error:
        raise not_a_model(data, str(error), where) from None


def _walk(data: bytes, *, fields: int, nesting: int, name_bytes: int, where: str) -> int:
    graph = onnx.GraphProto.DESCRIPTOR
    # A body is graph -> node -> attribute -> graph; the rest leaves room for nested types.
    deepest = 3 * nesting + 24
    pos = count = bodies = 0
    stack = [(len(data), onnx.ModelProto.DESCRIPTOR)]
    while stack:
        end, message = stack[-1]
        if pos >= end:
            if pos > end:
                raise _Malformed(f"a field that crosses its message's end at byte {pos}")
            bodies -= message is graph
            stack.pop()
            continue
        count += 1
        if count > fields:
            raise UnsafeModel([f"more than {fields:,} protobuf fields"], where=where)
        tag, pos = read_varint(data, pos)
        if tag & 7 != 2:
            pos = skip(data, pos, tag & 7)
            continue
        size, pos = read_varint(data, pos)
        if pos + size > end:
            raise _overrun(data, pos, size, end)
        kind = _fields(message).get(tag >> 3)
        if kind is not None and kind is not _TEXT:
            bodies += kind is graph
            stack.append((pos + size, kind))
            # The main graph is the first.
            if bodies > nesting + 1 or len(stack) > deepest:
                raise UnsafeModel([f"bodies nested deeper than {nesting}"], where=where)
            continue
        if kind is _TEXT:
            _check_text(data[pos : pos + min(size, name_bytes + 1)], name_bytes, pos, where)
        pos += size
    return count


def _overrun(data: bytes, pos: int, size: int, end: int) -> _Malformed:
    if end == len(data):
        return _Malformed(
            f"the file is cut off: {size:,} bytes announced at byte {pos:,}, {end - pos:,} left"
        )
    return _Malformed(f"a field that crosses its message's end at byte {pos}")


def _check_text(text: bytes, name_bytes: int, pos: int, where: str) -> None:
    if len(text) > name_bytes:
        raise UnsafeModel([f"a name longer than {name_bytes:,} bytes at byte {pos}"], where=where)
    try:
        text.decode()
    except UnicodeDecodeError:
        raise _Malformed(f"a name that is not UTF-8 at byte {pos}") from None
