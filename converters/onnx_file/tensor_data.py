"""Where the values of a tensor lie, and whether they are as many as it declares.

A tensor of a stranger's file may claim terabytes, or name a file anywhere on the machine as
its data.  Both are found here without reading a value: declared dimensions against the bytes
that are present, and external files by name, kind and size alone.

Which external files are allowed::

    location                       model file        allowed
    inside the model's folder      regular or link   yes, when it is a regular file with one name
    a link that leaves the folder  regular           no
    a link into .../blobs          link into the     yes: the cache of Hugging Face
                                   same .../blobs
    absolute, or with ..           any               no
"""

import math
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from converters.graph.weights import Weights
from converters.onnx_file.external import Piece

__all__ = ["RANK", "Folder", "normalise_external", "tensor_findings"]

_KEYS = ("location", "offset", "length")
RANK = 64
"""Axes of a tensor: NumPy's own limit."""

_BITS = {
    **dict.fromkeys(("INT2", "UINT2"), 2),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("FLOAT6E2M3", "FLOAT6E3M2"), 6),
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 8),
    **dict.fromkeys(("INT16", "UINT16", "FLOAT16", "BFLOAT16"), 16),
    **dict.fromkeys(("INT32", "UINT32", "FLOAT"), 32),
    **dict.fromkeys(("INT64", "UINT64", "DOUBLE", "COMPLEX64"), 64),
    "COMPLEX128": 128,
}
# Typed fields other than int32_data, and how many of their entries make one element.
_TYPED = {
    "FLOAT": ("float_data", 1),
    "COMPLEX64": ("float_data", 2),
    "DOUBLE": ("double_data", 1),
    "COMPLEX128": ("double_data", 2),
    "INT64": ("int64_data", 1),
    "UINT32": ("uint64_data", 1),
    "UINT64": ("uint64_data", 1),
    "STRING": ("string_data", 1),
}


def _type(tensor: onnx.TensorProto) -> tuple[str, int] | None:
    """Name and bits of a tensor's element type; None when this onnx does not know it."""
    try:
        name = onnx.TensorProto.DataType.Name(tensor.data_type)
    except ValueError:
        return None
    if name == "UNDEFINED":
        return None
    return name, _BITS.get(name, 8 if name.startswith("FLOAT8") else 0)


@dataclass
class Folder:
    """The folder of a model, as the only place its external data may lie.

    Attributes:
        path: The folder as the user named it; None for a model that has none.
        model: The model file itself, whose being a link decides what links are allowed.
        data_bytes: Most bytes that all tensors of the model may declare together.
        declared: Bytes declared so far.
        files: Location as the model writes it -> resolved file, of all locations accepted.
        problems: Location -> why it is refused, so that each is examined once.
        own: What was set apart from the model file itself; see ``weights_apart``.
    """

    path: Path | None
    model: Path | None
    data_bytes: int
    declared: int = 0
    files: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    own: Weights | None = None

    def size(self, location: str) -> int | None:
        """Bytes of an external file; None, and an entry in ``problems``, when it is refused."""
        own = None if self.own is None else self.own.size(location)
        if own is not None:
            return own
        if location not in self.sizes and location not in self.problems:
            self._examine(location)
        return self.sizes.get(location)

    def _examine(self, location: str) -> None:
        try:
            problem = self._name_problem(location) or self._file_problem(location)
        except (OSError, ValueError) as error:
            problem = f"cannot be read ({type(error).__name__})"
        if problem:
            self.problems[location] = problem

    def _name_problem(self, location: str) -> str:
        if not location:
            return "has no location"
        if "_ORT_MEM_ADDR_" in location:
            # onnxruntime's mark for "the offset is an address in memory".
            return "is an address in memory"
        windows = PureWindowsPath(location)
        if PurePosixPath(location).is_absolute() or windows.drive or windows.root:
            return "is an absolute path"
        if ".." in windows.parts:
            return "leaves the model's folder by '..'"
        if self.path is None:
            return "is outside the model, which has no folder"
        return ""

    def _file_problem(self, location: str) -> str:
        folder = self.path or Path()
        named = folder / location
        if not named.exists():
            return "does not exist beside the model: keep both files together"
        resolved = named.resolve(strict=True)
        if not resolved.is_relative_to(folder.resolve()) and not self._in_cache(named, resolved):
            return "is a link out of the model's folder"
        status = resolved.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        if status.st_nlink > 1:
            return "has a second name (hard link), perhaps outside the folder: copy the file"
        self.files[location], self.sizes[location] = resolved, status.st_size
        return ""

    def _in_cache(self, named: Path, resolved: Path) -> bool:
        """Whether model and data are links into one folder ``blobs`` (Hugging Face's cache)."""
        if self.model is None or not (self.model.is_symlink() and named.is_symlink()):
            return False
        blobs = self.model.resolve().parent
        return blobs.name == "blobs" and resolved.parent == blobs


def tensor_findings(tensor: onnx.TensorProto, folder: Folder) -> Iterator[str]:
    """Find what is wrong with one tensor: type, dimensions, amount of data, external file.

    Args:
        tensor: Initialiser or attribute.
        folder: Where external data may lie; counts the bytes of all tensors.

    Yields:
        One clause for each problem.
    """
    kind = _type(tensor)
    if kind is None:
        yield f"element type {tensor.data_type} is unknown"
        return
    if len(tensor.dims) > RANK or any(dim < 0 for dim in tensor.dims):
        yield f"dimensions {list(tensor.dims[:8])} are negative or more than {RANK}"
        return
    if tensor.HasField("segment"):
        yield "is stored in segments, which no runtime reads"
        return
    name, bits = kind
    count = math.prod(tensor.dims)
    wanted = _bytes_needed(tensor, bits)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        if name == "STRING":
            yield "strings cannot be external data"
            return
        yield from _external_findings(tensor, wanted, folder)
    elif tensor.HasField("raw_data"):
        if name == "STRING":
            yield "strings cannot be raw data"
        elif len(tensor.raw_data) != wanted:
            yield f"declares {wanted:,} bytes but holds {len(tensor.raw_data):,}"
    else:
        yield from _typed_findings(tensor, name, count, bits)
    if folder.declared <= folder.data_bytes < folder.declared + wanted:
        yield f"brings the tensors to more than {folder.data_bytes:,} bytes"
    folder.declared += wanted


def _bytes_needed(tensor: onnx.TensorProto, bits: int) -> int:
    return (int(math.prod(tensor.dims)) * bits + 7) // 8


def _typed_findings(tensor: onnx.TensorProto, name: str, count: int, bits: int) -> Iterator[str]:
    source, entries = _TYPED.get(name, ("int32_data", 1))
    wanted = count * entries
    if bits in {2, 4}:
        wanted = (count * bits + 7) // 8
    present = len(getattr(tensor, source))
    if present != wanted:
        yield f"declares {count:,} elements but holds {present:,} of the {wanted:,} {source} needed"


def _external_findings(tensor: onnx.TensorProto, wanted: int, folder: Folder) -> Iterator[str]:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in entries:
            yield f"external data gives {entry.key!r} twice"
        entries[str(entry.key)] = entry.value if isinstance(entry.value, str) else ""
    numbers = {key: _number(entries.get(key)) for key in ("offset", "length")}
    offset, length = numbers["offset"], numbers["length"]
    if (offset is None and "offset" in entries) or (length is None and "length" in entries):
        yield "external data's offset and length are not whole numbers"
        return
    size = folder.size(entries.get("location", ""))
    if size is None:
        return  # said once for the location, not for each of its tensors
    if length is not None and length != wanted:
        yield f"declares {wanted:,} bytes but its external data has {length:,}"
    if (offset or 0) + wanted > size:
        yield f"its external data ends behind the end of {entries['location']!r}"


def _number(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    return int(text)


def normalise_external(
    tensors: Iterable[onnx.TensorProto], folder: Folder, base: Path
) -> list[Piece]:
    """Write each accepted location as the plain path of its file below ``base``.

    Links are resolved once, here: what was examined is what will be read.  The length is
    always written, since readers disagree on what its absence means (what the dimensions need,
    or the rest of the file).  Keys other than location, offset and length are dropped (readers
    warn of them), and a tensor without elements becomes internal.

    Returns:
        Which bytes each of the tensors has, in their order.
    """
    pieces = []
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        if folder.own is not None and folder.own.refers(tensor):
            continue
        entries = {e.key: e.value for e in tensor.external_data if e.key in _KEYS}
        kind = _type(tensor)
        length = 0 if kind is None else _bytes_needed(tensor, kind[1])
        del tensor.external_data[:]
        if not length:
            tensor.ClearField("data_location")
            tensor.raw_data = b""
            continue
        location = entries["location"]
        path = folder.files[location]
        name = path.relative_to(base).as_posix()
        pieces.append(Piece(location, path, name, int(entries.get("offset") or 0), length))
        entries["location"], entries["length"] = name, str(length)
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    return pieces
