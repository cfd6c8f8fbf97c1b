"""The one place that reads an ONNX model from disk.

    bytes -> wire.scan -> parse -> preflight.survey -> inline local functions -> OnnxFile

No native code but protobuf's parser sees a file before the preflight is through with it, and
the parser sees it after its fields are counted.  External data is examined, never read, here.
"""

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import (  # type: ignore[import-untyped]
    DecodeError,
    EncodeError,
)

from converters.errors import NotAModel, UnsafeModel, out_of_memory
from converters.graph import Graph
from converters.graph.weights import Weights
from converters.nearest_path import did_you_mean
from converters.onnx_file import scopes as scoping
from converters.onnx_file.channels_first import move_channels_first
from converters.onnx_file.defuse import split_fused_activations
from converters.onnx_file.external import ExternalData
from converters.onnx_file.preflight import Limits, Survey, survey
from converters.onnx_file.scopes import quote
from converters.onnx_file.tensor_data import Folder, normalise_external
from converters.onnx_file.unread import drop_uncalled_functions, drop_unread_initialisers
from converters.onnx_file.weights_apart import set_apart
from converters.onnx_file.wire import HEAD_BYTES, foreign, not_a_model, scan
from converters.regular_file import NotRegular, open_regular

__all__ = ["Facts", "Limits", "OnnxFile", "from_bytes", "from_proto", "read"]

IN_MEMORY = 1 << 30
"""Bytes of external data up to which ONNX Runtime is given what was hashed, not the files."""

_LONGEST_WORD = 200  # characters of a program's name or version
_SHOWN = 12
_IN_MEMORY = Path("in-memory-model")


@dataclass(frozen=True)
class Facts:
    """What the preflight learned, for people to read.

    Attributes:
        file_bytes: Size of the file, external data apart.
        fields: Protobuf fields in it.
        nodes: Nodes, bodies included, after local functions are expanded.
        nesting: Bodies inside one another.
        functions: Names of the local functions that were inlined.
        initialisers: Stored tensors of the main graph.
        data_bytes: Bytes that all tensors declare, external data included.
        opsets: Domain -> version imported.
        unused_domains: Imported, but no node is of them.
        sorted_nodes: Whether nodes had to be put into an order of execution.
    """

    file_bytes: int
    fields: int
    nodes: int
    nesting: int
    functions: tuple[str, ...]
    initialisers: int
    data_bytes: int
    opsets: Mapping[str, int]
    unused_domains: tuple[str, ...]
    sorted_nodes: bool


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A model that passed the preflight.

    Attributes:
        path: The file, as it was asked for.
        model: Without local functions; external data is named, not loaded, each location being
            the plain path of a regular file below ``folder``.
        folder: Where external data lies, links resolved (the cache of Hugging Face keeps it
            apart from ``path``).
        external: The external files, in the order of their names.
        facts: What the preflight learned.
        metadata: The file's ``metadata_props``.
        on_disk: Whether ``path`` is a file; False of a model that was handed over in memory, or
            whose file is gone by now: nothing lies beside it.
        weights: Values of large initialisers, which ``model`` refers to; None where all are in it.
    """

    path: Path
    model: onnx.ModelProto = field(repr=False)
    folder: Path
    external: tuple[Path, ...]
    facts: Facts = field(repr=False)
    metadata: Mapping[str, str] = field(repr=False)
    on_disk: bool = True
    weights: Weights | None = field(repr=False, default=None)
    _digest: str = field(repr=False, default="")
    _data: ExternalData = field(repr=False, default_factory=ExternalData)

    @property
    def ir_version(self) -> int:
        """Version of the file format."""
        return self.model.ir_version

    @property
    def exporter(self) -> str:
        """Name of the program that wrote the file; empty when it does not say."""
        return _text(self.model.producer_name)[:_LONGEST_WORD]

    @property
    def producer(self) -> str:
        """Name and version of the program that wrote the file."""
        return f"{self.exporter} {_text(self.model.producer_version)[:_LONGEST_WORD]}".strip()

    @cached_property
    def graph(self) -> Graph:
        """The main graph."""
        return Graph(
            self.model,
            folder=self.folder,
            unchanged=self.require_unchanged,
            weights=self.weights,
        )

    @property
    def bytes_written(self) -> int:
        """Bytes of ``whole_model`` when it is serialised."""
        apart = 0 if self.weights is None else self.weights.missing(self.model)
        return int(self.model.ByteSize()) + apart

    def whole_model(self) -> onnx.ModelProto:
        """The model with the values of ``weights`` inside, to be written or handed on."""
        return self.model if self.weights is None else self.weights.completed(self.model)

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that the model consists of, as lower-case hexadecimal.

        Without external data the plain SHA-256 of the bytes that were parsed (of the
        deterministic serialisation, for a model built in memory), whatever became of the file
        since.  With it, the SHA-256 of that in hexadecimal on one line, then a line per external
        tensor in the order of the model: its location, offset, length and the SHA-256 of its
        bytes, separated by NUL.

        Raises:
            UnsafeModel: External data changed since it was examined.
        """
        return self._data.digest(self._digest)

    def require_unchanged(self) -> None:
        """Refuse external data that is not what was examined; the model itself is in memory.

        Raises:
            UnsafeModel: A file changed since it was examined.
        """
        self._data.require_unchanged()

    def external_contents(self, most: int = IN_MEMORY) -> dict[str, bytes] | None:
        """External files by the locations in ``model``, proved to be those of ``sha256``.

        Args:
            most: Bytes beyond which they are not read.

        Returns:
            None without external data, and where it is larger.

        Raises:
            UnsafeModel: A file changed since it was examined.
        """
        if not self.external:
            return None
        return self._data.contents(self._digest, self.sha256, most)


def read(
    path: str | os.PathLike[str], *, limits: Limits | None = None, weights_apart: bool = False
) -> OnnxFile:
    """Open a model file that nobody vouches for.

    Args:
        path: The ``.onnx`` file; external data must lie in its folder.
        limits: How much it may ask for; the defaults of :class:`Limits` when None.
        weights_apart: Whether large weights are held beside the parsed message; see ``weights`` of
            :class:`OnnxFile`.

    Returns:
        The model, with local functions inlined and external data not loaded.

    Raises:
        NotAModel: No such file, or one that is not an ONNX model; says what it is instead.
        UnsafeModel: It passes a limit, reaches out of its folder, uses operators nobody knows
            or contradicts itself; lists every finding.

    Example:
        >>> from converters import onnx_file
        >>> file = onnx_file.read("sample_models/resnet20.onnx")
        >>> file.facts.nodes, file.facts.opsets
        (51, {'ai.onnx': 20})
    """
    limits = limits or Limits()
    path = Path(path)
    data = _load(path, limits)
    folder = Folder(path.parent, path, limits.data_bytes)
    return _open(data, path, folder, limits, weights_apart=weights_apart)


def from_proto(
    model: onnx.ModelProto,
    folder: Path | None = None,
    *,
    limits: Limits | None = None,
    weights_apart: bool = False,
) -> OnnxFile:
    """Pass a model built in memory through the same preflight.

    Args:
        model: Left as it is; the result holds a copy.
        folder: Where its external data lies; None when it has none.
        limits: How much it may ask for; the defaults of :class:`Limits` when None.
        weights_apart: As for :func:`read`.

    Raises:
        NotAModel: The message holds no graph.
        UnsafeModel: As for :func:`read`.
    """
    limits = limits or Limits()
    try:
        data = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        reason = f"cannot be serialised, too large or too deeply nested ({error})"
        raise UnsafeModel([reason], where=str(_IN_MEMORY)) from None
    if len(data) > limits.file_bytes:
        raise UnsafeModel([_too_large(len(data), limits)], where=str(_IN_MEMORY))
    place = Folder(folder, None, limits.data_bytes)
    found = _open(data, _IN_MEMORY, place, limits, weights_apart=weights_apart)
    return replace(found, on_disk=False)


def from_bytes(
    data: bytes,
    name: str = "",
    *,
    limits: Limits | None = None,
    sha256: str = "",
    weights_apart: bool = False,
) -> OnnxFile:
    """Open the bytes of a model file, as :func:`read` does those on disk.

    Args:
        data: The bytes; the model may have no external data.
        name: What reports call it.
        limits: How much it may ask for; the defaults of :class:`Limits` when None.
        sha256: What identifies the model, where the bytes were written anew since; their own hash
            when empty.
        weights_apart: As for :func:`read`.

    Raises:
        NotAModel: The bytes are not an ONNX model; says what they are instead.
        UnsafeModel: As for :func:`read`.
    """
    limits = limits or Limits()
    path = Path(name) if name else _IN_MEMORY
    where = str(path)
    if named := foreign(data[:HEAD_BYTES]):
        what = f"is not an ONNX model but {named[0]}" if data else f"is {named[0]}"
        raise NotAModel(what, where=where, hint=named[1])
    if len(data) > limits.file_bytes:
        raise UnsafeModel([_too_large(len(data), limits)], where=where)
    folder = Folder(None, None, limits.data_bytes)
    found = _open(data, path, folder, limits, weights_apart=weights_apart)
    found = replace(found, on_disk=False)
    return replace(found, _digest=sha256) if sha256 else found


def _too_large(size: int, limits: Limits) -> str:
    return f"{size:,} bytes (limit {limits.file_bytes:,})"


def _load(path: Path, limits: Limits) -> bytes:
    """Read a regular file whole."""
    where = str(path)
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(min(HEAD_BYTES, size))
            named = foreign(head)
            if named:
                raise NotAModel(
                    f"is not an ONNX model but {named[0]}" if head else f"is {named[0]}",
                    where=where,
                    hint=named[1],
                )
            if size > limits.file_bytes:
                raise UnsafeModel([_too_large(size, limits)], where=where)
            # What it holds and no more: `read` allocates what it is asked for.
            stream.seek(0)
            return stream.read(size)
    except FileNotFoundError:
        hint = did_you_mean(path) or "look at the path"
        raise NotAModel("does not exist", where=where, hint=hint) from None
    except IsADirectoryError:
        raise NotAModel("is a folder", where=where, hint=_folder_hint(path)) from None
    except NotRegular:
        hint = "copy it to a file first"
        raise NotAModel("is not a regular file", where=where, hint=hint) from None
    except OSError as error:
        raise NotAModel(f"cannot be read: {error.strerror or error}", where=where) from None


def _folder_hint(path: Path) -> str:
    if (path / "saved_model.pb").exists():
        return "a TensorFlow SavedModel: convert it first: inspector convert SOURCE -o MODEL.onnx"
    inside = sorted(quote(p.name) for p in path.glob("*.onnx"))[:3]
    return f"in it: {', '.join(inside)}" if inside else "give the .onnx file itself"


def _parse(
    data: bytes, limits: Limits, where: str, *, weights_apart: bool
) -> tuple[onnx.ModelProto, int, Weights | None]:
    count = scan(
        data,
        fields=limits.fields,
        nesting=limits.nesting,
        name_bytes=limits.name_bytes,
        where=where,
    )
    light, weights = set_apart(data) if weights_apart else (data, None)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(light)
    except DecodeError as error:
        raise not_a_model(data, str(error), where) from None
    if not model.HasField("graph"):
        raise not_a_model(data, "protobuf without an ONNX graph", where)
    return model, count, weights


def _open(
    data: bytes,
    path: Path,
    folder: Folder,
    limits: Limits,
    *,
    weights_apart: bool,
) -> OnnxFile:
    where = str(path)
    model, fields, folder.own = _parse(data, limits, where, weights_apart=weights_apart)
    seen = survey(model, folder, limits)
    base, apart = _base(folder)
    _refuse([*seen.findings, *apart], where)
    _sort(seen)
    tensors = (tensor for _, tensor in scoping.tensors(_scopes(model, seen)))
    data_apart = ExternalData(normalise_external(tensors, folder, base))
    functions = tuple(f.name for f in model.functions)
    initialisers = len(model.graph.initializer)
    drop_uncalled_functions(model)
    if model.functions:
        model = _inline(model, where)
    drop_unread_initialisers(model.graph)
    split_fused_activations(model)
    move_channels_first(model)
    return OnnxFile(
        path=path,
        model=model,
        folder=base,
        external=tuple(sorted(set(folder.files.values()))),
        facts=_facts(model, seen, (functions, initialisers), (len(data), fields)),
        metadata={_text(entry.key): _text(entry.value) for entry in model.metadata_props},
        _digest=hashlib.sha256(data).hexdigest(),
        weights=folder.own,
        _data=data_apart,
    )


def _refuse(findings: list[str], where: str) -> None:
    if not findings:
        return
    more = len(findings) - _SHOWN
    shown = [*findings[:_SHOWN], f"and {more} more"] if more > 1 else findings
    raise UnsafeModel(shown, where=where)


def _base(folder: Folder) -> tuple[Path, list[str]]:
    """Resolved folder that all external files lie in."""
    own = (folder.path or Path()).resolve()
    files = folder.files.values()
    if all(file.is_relative_to(own) for file in files):
        return own, []
    parents = {file.parent for file in files}
    if len(parents) == 1:
        return parents.pop(), []
    return own, ["external data lies partly in the model's folder, partly in blobs"]


def _sort(seen: Survey) -> None:
    """Put nodes into an order of execution, inner bodies before those around them."""
    for scope, order in reversed(seen.unsorted):
        nodes = list(scope.proto.node)
        del scope.proto.node[:]
        scope.proto.node.extend(nodes[index] for index in order)


def _scopes(model: onnx.ModelProto, seen: Survey) -> list[scoping.Scope]:
    """All scopes of a model as it stands now: sorting has put copies in the place of nodes."""
    if not seen.unsorted:
        return seen.scopes
    return [scope for root in (model.graph, *model.functions) for scope in scoping.scopes(root)]


def _inline(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Replace calls of local functions by their bodies; tensors of the main graph keep names."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inlined = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # onnx's own checks have errors of their own
        if out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200]
        reason = f"its local functions cannot be inlined ({type(error).__name__}: {quote(said)})"
        raise UnsafeModel([reason], where=where) from None
    found = scoping.scopes(inlined.graph)
    findings = list(scoping.name_findings(found))
    left = [
        f"function {quote(function.name)} could not be inlined" for function in inlined.functions
    ]
    _refuse([*left, *findings], where)
    return inlined


def _facts(
    model: onnx.ModelProto,
    seen: Survey,
    before: tuple[tuple[str, ...], int],
    size: tuple[int, int],
) -> Facts:
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    used = {node.domain or "ai.onnx" for s in scoping.scopes(model.graph) for node in s.proto.node}
    return Facts(
        file_bytes=size[0],
        fields=size[1],
        nodes=seen.nodes,
        nesting=seen.nesting,
        functions=before[0],
        initialisers=before[1],
        data_bytes=seen.folder.declared,
        opsets=opsets,
        unused_domains=tuple(sorted(opsets.keys() - used)),
        sorted_nodes=bool(seen.unsorted),
    )


def _text(value: str | bytes) -> str:
    """Text of a field that some exporters fill in a local encoding."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
