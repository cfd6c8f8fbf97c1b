"""What to open, and how: an ONNX file, a module in memory, or a model of another framework.

A source is converted once, in a process of its own, and the result is kept in the user's cache
folder under the hash of the source's content: the same source opens at once the next time.
"""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from onnx import ModelProto

from converters import onnx_file
from converters.errors import NotAModel, NotWritten
from converters.source import InputSpec, Options, as_path
from converters.work_folder import work_folder
from inspector.cache_folder import cache_folder, read_entry, usable_folder, write_entry
from inspector.errors import ExplainedError, InspectorWarning, UsageError, require
from inspector.network.inputs.choice import Feeds
from inspector.opened import Opened
from inspector.photos.photo import Photo, load_photo
from inspector.photos.preprocess_choice import Preprocess, PreprocessChoice
from inspector.versions import versions

__all__ = ["InMemory", "Opening", "is_module", "open_module", "open_source", "photo_inputs"]

_read = partial(onnx_file.read, weights_apart=True)

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
Array = np.ndarray[Any, Any]
Kind = TypeVar("Kind", bound=Opened)


@dataclass(frozen=True)
class InMemory:
    """A model without a file, as a pickle holds it.

    Attributes:
        content: The model, serialised.
        name: What reports call it.
        sha256: What identifies it.
    """

    content: bytes
    name: str
    sha256: str

    @classmethod
    def of(cls, file: onnx_file.OnnxFile) -> "InMemory":
        """An opened model."""
        content = file.whole_model().SerializeToString(deterministic=True)
        return cls(content, file.path.name, file.sha256)


@dataclass(frozen=True)
class Opening:
    """A path and every option that decides what is opened: plain data, which can be pickled.

    Another process opens the same model from it.  See ``inspector.load`` for the options.

    Attributes:
        path: The file or source; the bytes of a file, an ``onnx.ModelProto`` or `InMemory`; a
            ``torch.nn.Module`` for this process alone.
        example: Input of such a module, (N, C, H, W).
    """

    path: Any
    example: Any = None
    device: str = "auto"
    preprocess: PreprocessChoice | None = None
    overrides: tuple[str, ...] = ()
    labels: str | Path | Sequence[str] | None = None
    unverified: bool = False
    engine: str = "auto"
    trust: bool = False
    options: Options | None = None
    python: str = ""
    limits: onnx_file.Limits | None = None
    feed: Feeds = ()

    @classmethod
    def of(cls, opened: Opened) -> "Opening":
        """What opens the same model again: its file with the settings it was opened with."""
        return cls(opened.path, device=opened.device, **opened.settings)

    def open(self, kind: type[Kind]) -> Kind:
        """Open the model.

        Args:
            kind: ``Opened``, or what is built on it.

        Raises:
            ConverterError: The source is not a model, or not safe to open.
            ModelRefused: It takes no image.
            UsageError: Preprocessing or labels that cannot be read.
        """
        file = self._file()
        found = kind(
            file,
            device=self.device,
            preprocess=self.preprocess,
            overrides=self.overrides,
            labels=self.labels,
            unverified=self.unverified,
            engine=self.engine,
            feed=self.feed,
            source=as_path(str(self.path)) if isinstance(self.path, str | Path) else None,
        )
        found.limits = self.limits
        return found

    def _file(self) -> onnx_file.OnnxFile:
        """The model's file, converted if it has to be.

        Raises:
            UsageError: The value is nothing that a model can be opened from.
        """
        given = self.path
        if isinstance(given, str | Path):
            return open_source(
                given,
                trust=self.trust,
                options=self.options,
                limits=self.limits,
                python=self.python,
            )
        if isinstance(given, InMemory):
            return onnx_file.from_bytes(
                given.content,
                given.name,
                limits=self.limits,
                sha256=given.sha256,
                weights_apart=True,
            )
        if isinstance(given, bytes | bytearray | memoryview):
            return onnx_file.from_bytes(bytes(given), limits=self.limits, weights_apart=True)
        if isinstance(given, ModelProto):
            return onnx_file.from_proto(given, limits=self.limits, weights_apart=True)
        if is_module(given):
            return open_module(given, self.example, limits=self.limits)
        raise UsageError(
            f"a value of type {type(given).__name__} is not a model",
            hint="give a path, the bytes of an .onnx file, an onnx.ModelProto or a torch.nn.Module",
        )


def open_source(
    path: str | Path,
    *,
    trust: bool = False,
    options: Options | None = None,
    limits: onnx_file.Limits | None = None,
    memory: int | None = None,
    python: str = "",
) -> onnx_file.OnnxFile:
    """Open an ONNX file, or convert what is none.

    Args:
        path: The ``.onnx`` file, a folder that holds one below ``onnx/`` (as the hub's
            onnx-community lays them out), or a model of another framework.
        trust: Whether a program in such a source may run.
        options: What such a source does not say of itself.
        limits: What a stranger's ONNX file may demand.
        memory: Bytes that a conversion may allocate.
        python: The Python of an environment that holds the source's framework.

    Raises:
        NotAModel: Neither an ONNX file nor a source that a converter knows.
        UsageError: Shapes or weights for an ONNX file.
        NotTrusted: The source is a program, and ``trust`` is off.
        ConverterError: It is not safe to open, or cannot be converted.
    """
    text = str(_file_of_layout(Path(path)) or path)
    limits = limits or onnx_file.Limits()
    if Path(text).suffix.lower() == ".onnx":
        if options is not None and (options.inputs or options.weights or options.signature):
            raise UsageError(
                "is an ONNX file, which says its inputs and has its weights",
                where=text,
                hint="--input, --weights and --signature are for sources of other frameworks",
            )
        return _read(Path(text), limits=limits)
    from converters import conversion  # what an ONNX file has no need of

    found = conversion.recognise(text)
    if found is None:
        return _read(Path(path), limits=limits)  # says what it is instead
    if not trust:
        found.require_data(text)
    options = options or Options()
    name = _name(found.parts, options, python)
    place = usable_folder(*name.split("/")) if name else None

    def make(folder: Path) -> Path:
        output = folder / f"{_stem(text)}.onnx"
        conversion.convert(text, output, options=options, trust=trust, memory=memory, python=python)
        return output

    if place is None:
        return _through(make, limits)
    kept = _kept(f"{name}/seal.json", place / f"{_stem(text)}.onnx", limits)
    if kept is None:
        try:
            kept = _read(make(place), limits=limits)
        except NotWritten:  # the cache's disk is full; the work may fit elsewhere
            return _through(make, limits)
        write_entry(f"{name}/seal.json", {"sha256": kept.sha256})
    return kept


def _file_of_layout(folder: Path) -> Path | None:
    """The ONNX file of a folder of weights for the web: ``config.json``, ``onnx/model.onnx``.

    The plain file is taken before its quantised versions; with weights of another framework beside
    them, which are converted, none is.
    """
    inner = folder / "onnx"
    if not (folder / "config.json").is_file() or not inner.is_dir():
        return None
    if any((folder / name).exists() for name in _WEIGHTS):
        return None
    files = sorted(inner.glob("*.onnx"), key=lambda path: (len(path.name), path.name))
    return next((path for path in files if path.is_file()), None)


def is_module(model: object) -> bool:
    """Whether an object is a ``torch.nn.Module``, found out without importing torch."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    return "torch.nn.modules.module.Module" in names


def open_module(
    module: Any,
    example: Any,
    *,
    limits: onnx_file.Limits | None = None,
) -> onnx_file.OnnxFile:
    """Convert a ``torch.nn.Module`` that is in memory.

    Args:
        module: The network.
        example: Its input (N, C, H, W), as one would call it.
        limits: What the file may demand.

    Raises:
        UsageError: There is no example.
        MissingExtra: PyTorch's exporter is not installed.
        ConversionFailed: It cannot be exported, or the file computes something else.
    """
    if example is None:
        raise UsageError(
            "a torch module needs an example of its input",
            hint="inspector.load(module, torch.zeros(1, 3, 224, 224))",
        )
    require("onnxscript", "explaining a torch module", "pytorch")
    from converters.to_onnx.pytorch.module import module_to_file

    return _through(
        lambda folder: module_to_file(module, example, folder), limits or onnx_file.Limits()
    )


def photo_inputs(
    photos: Sequence[str | Path], preprocess: Preprocess | None = None
) -> Callable[[InputSpec, Mapping[str, Any]], Array]:
    """Real inputs for the comparison of a conversion.

    Args:
        photos: Files.
        preprocess: What the user says of the input; what the source says when None.

    Returns:
        Makes arrays in an input's shape and layout, a photo a sample.
    """
    opened = [load_photo(path) for path in photos]

    def make(spec: InputSpec, known: Mapping[str, Any]) -> Array:
        return _inputs(opened, preprocess or Preprocess().changed(dict(known)), spec)

    return make


def _inputs(photos: Sequence[Photo], preprocess: Preprocess, spec: InputSpec) -> Array:
    if len(spec.shape) != 4:
        raise UsageError(f"photos do not fit an input of shape {list(spec.shape)}")
    last = spec.shape[3] in (1, 3) and spec.shape[1] not in (1, 3)
    channels, *size = (spec.shape[3], *spec.shape[1:3]) if last else spec.shape[1:]
    wanted = tuple(int(n or own) for n, own in zip(size, preprocess.size, strict=True))
    changes: dict[str, Any] = {"size": wanted}
    if channels == 1:
        changes["channels"] = "GRAY"
    arrays = np.stack([preprocess.changed(changes).apply(photo)[0] for photo in photos])
    if spec.shape[0] is not None:
        arrays = arrays[: spec.shape[0]]
    kind = np.dtype(spec.dtype)
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        arrays = np.clip(np.rint(arrays), bounds.min, bounds.max)
    return np.ascontiguousarray(arrays.transpose(0, 2, 3, 1) if last else arrays).astype(kind)


def _through(make: Callable[[Path], Path], limits: onnx_file.Limits) -> onnx_file.OnnxFile:
    """Open a file that is gone again: the model is in memory, and its hash is taken."""
    with work_folder(Path(tempfile.gettempdir())) as folder:
        file = _read(make(folder), limits=limits)
        if file.external:
            raise NotAModel(
                "weights of more than 2 GiB do not fit into one file",
                where=file.path.name,
                hint="convert it with `inspector convert`, and open the result",
            )
        _ = file.sha256
        return replace(file, on_disk=False)


def _kept(seal: str, path: Path, limits: onnx_file.Limits) -> onnx_file.OnnxFile | None:
    """A file that was converted before; None where there is none that its seal vouches for."""
    if not path.is_file():
        return None
    known = read_entry(seal)
    try:
        file = _read(path, limits=limits)
        if isinstance(known, dict) and known.get("sha256") == file.sha256:
            return file
    except ExplainedError:
        pass
    warnings.warn(
        f"{path} in the cache is not what the source was converted to; it is converted anew",
        InspectorWarning,
        stacklevel=2,
    )
    return None


def _name(parts: Sequence[str], options: Options, python: str) -> str:
    """Folder in the cache for what a source becomes; empty where there is no cache."""
    if cache_folder() is None:
        return ""
    from converters import conversion

    content = conversion.content_hash(*parts, options.weights)
    if not content:
        return ""
    facts = {
        "content": content,
        "options": options.to_dict(),
        "versions": versions(),
        "python": python,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"converted/{digest[:32]}"


def _stem(source: str) -> str:
    """A file name for what a source becomes."""
    name = Path(source).name or "model"
    stem = Path(name).stem if Path(source).is_file() else name
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in stem)[:80] or "model"
