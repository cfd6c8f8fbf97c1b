"""State of the installation, from the records of the installer; nothing is imported.

Every distribution of ONNX Runtime writes the same folder.  pip installs the second over the first
without a word, and takes the folder away from both when either is uninstalled; what its records
list and what lies there is then no longer the same.
"""

import base64
import csv
import hashlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from converters.plain_values import whole_number

__all__ = [
    "Framework",
    "Runtime",
    "features",
    "fixes",
    "frameworks",
    "problems",
    "runtimes",
    "sandbox",
    "statistics",
]

_PACKAGE = "onnxruntime"
_HASHED = 1 << 20
"""Larger files are compared by their sizes: a gigabyte of CUDA would take its time."""
_WITH_CUDA = ("linux x86_64", "windows amd64")
"""Where onnx-inspector asks for the distribution with CUDA."""

_TENSORFLOW = "tensorflow|tensorflow-cpu"
_KINDS = (  # title, extra, distributions; alternatives stand beside one another
    ("PyTorch", "pytorch", ("torch", "onnxscript", "safetensors")),
    ("timm", "timm", ("timm", "onnxscript", "safetensors")),
    ("Hugging Face", "huggingface", ("transformers", "onnxscript", "safetensors")),
    ("Keras", "keras", ("keras", _TENSORFLOW, "tf2onnx")),
    ("TensorFlow", "tensorflow", (_TENSORFLOW, "tf2onnx")),
    ("TFLite", "tflite", ("tflite", "flatbuffers", f"ai-edge-litert|{_TENSORFLOW}")),
    ("JAX / Flax", "jax", ("jax", "flax", "jax2onnx")),
    ("PaddlePaddle", "", ("paddlepaddle|paddlepaddle-gpu", "paddle2onnx")),
)
_FEATURES = (  # what an extra is for, the extra, distributions
    ("studies", "studies", ("matplotlib", "scikit-learn", "scipy")),
    ("audits", "audit", ("jinja2", "pyarrow", "pyyaml", "scikit-learn", "scipy")),
    ("audits on Ray", "ray", ("ray",)),
    ("remote data sets", "remote", ("fsspec", "gcsfs", "huggingface_hub", "s3fs")),
    ("export to ViRelAy", "virelay", ("h5py", "pyyaml")),
    ("tables of pandas", "dataframe", ("pandas",)),
    ("HEIC photos", "heif", ("pillow-heif",)),
    ("DICOM files", "dicom", ("pydicom",)),
    ("videos", "video", ("av",)),
    ("TIFF of bands", "tiff", ("tifffile",)),
)
_APART = ("jax", "")
"""Extras of frameworks whose requirements contradict ours."""


@dataclass(frozen=True)
class Runtime:
    """A distribution that claims the folder ``onnxruntime``.

    Attributes:
        name: As pip calls it.
        version: Of the distribution.
        files: How many files it recorded there.
        missing: How many of them are gone.
        changed: How many of them are another's by now.
    """

    name: str
    version: str
    files: int
    missing: int
    changed: int


@dataclass(frozen=True)
class Framework:
    """A framework that ``inspector convert`` reads, or a feature that an extra brings.

    Attributes:
        title: What people call it.
        extra: The extra that brings it; empty where none can.
        found: Version by distribution.
        lacking: Distributions that are not installed.
    """

    title: str
    extra: str
    found: dict[str, str]
    lacking: tuple[str, ...]

    def __str__(self) -> str:
        """Versions, or how to install it."""
        if not self.lacking:
            return ", ".join(f"{name} {version}" for name, version in self.found.items())
        command = f"pip install 'onnx-inspector[{self.extra}]'"
        if self.extra in _APART:
            command = "give it an environment of its own, and name its Python with --python"
        lacks = f"{', '.join(self.lacking)} " if self.found else ""
        return f"{lacks}not installed: {command}"


def statistics() -> str:
    """Whether ONNX Runtime sends statistics of its use from this process."""
    found = os.environ.get("ORT_DISABLE_TELEMETRY", "")
    state = "off" if found == "1" else "as its ORT_DISABLE_TELEMETRY says"
    return f"{state} (ORT_DISABLE_TELEMETRY={found})"


def sandbox() -> list[tuple[str, str]]:
    """What a command's child processes may not do on this machine, each tried: name and answer."""
    from converters import rights

    if not rights.wanted():
        return [("child processes", "have all your rights (INSPECTOR_SANDBOX=off)")]
    version = rights.landlock_version()
    kernel = f"Landlock {version}" if version else "this system has no Landlock"
    said = {True: "refused", False: "allowed", None: "could not be tried"}
    return [
        (f"child: {name}", f"{said[holds]} ({kernel})") for name, holds in rights.held().items()
    ]


def frameworks() -> list[Framework]:
    """The frameworks that can be converted from; none is imported."""
    return _looked_up(_KINDS)


def features() -> list[Framework]:
    """What else needs optional packages; none is imported."""
    return _looked_up(_FEATURES)


def _looked_up(kinds: Sequence[tuple[str, str, tuple[str, ...]]]) -> list[Framework]:
    """Versions of the distributions of each kind."""
    found = []
    for title, extra, wanted in kinds:
        there: dict[str, str] = {}
        lacking = []
        for alternatives in wanted:
            name = next((n for n in alternatives.split("|") if _version(n)), "")
            if name:
                there[name] = _version(name)
            else:
                lacking.append(alternatives.partition("|")[0])
        found.append(Framework(title, extra, there, tuple(lacking)))
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def runtimes() -> list[Runtime]:
    """Every distribution of ONNX Runtime, by name."""
    found: dict[str, Runtime] = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if not name.startswith(_PACKAGE) or name in found:
            continue
        recorded = list(_recorded(distribution))
        if not recorded and name != _PACKAGE:
            continue  # its extensions have folders of their own
        states = [_state(record) for record in recorded]
        found[name] = Runtime(
            name,
            distribution.version,
            len(states),
            states.count("missing"),
            states.count("changed"),
        )
    return [found[name] for name in sorted(found)]


@dataclass(frozen=True)
class _Record:
    """A file that an installer recorded: its place, its hash as ``sha256=...`` and its bytes."""

    path: Path
    hash: str
    size: int | None


def _recorded(distribution: importlib.metadata.Distribution) -> Iterator[_Record]:
    """Files that a distribution recorded in the package; bytecode comes and goes.

    RECORD is read here: since Python 3.12, ``Distribution.files`` leaves out what is missing.
    """
    for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        name, digest, size = [*row, "", "", ""][:3]
        entry = PurePosixPath(name)
        if entry.parts[:1] == (_PACKAGE,) and entry.suffix != ".pyc":
            place = Path(str(distribution.locate_file(name)))
            yield _Record(place, digest, whole_number(size))


def _state(record: _Record) -> str:
    """``missing``, ``changed`` or nothing."""
    try:
        size = record.path.stat().st_size
        if record.size is not None and size != record.size:
            return "changed"
        kind, _, value = record.hash.partition("=")
        if kind != "sha256" or size > _HASHED:
            return ""
        digest = base64.urlsafe_b64encode(hashlib.sha256(record.path.read_bytes()).digest())
    except OSError:
        return "missing"
    return "" if digest.rstrip(b"=").decode() == value else "changed"


def problems(found: list[Runtime]) -> list[str]:
    """Problems of the installed distributions of ONNX Runtime, one sentence each.

    Args:
        found: What :func:`runtimes` gives.
    """
    if not found:
        return ["no distribution of ONNX Runtime is installed"]
    said = []
    if len(found) > 1:
        names = " and ".join(f"{r.name} {r.version}" for r in found)
        said.append(f"{names} are installed into one folder and overwrite each other's files")
    for runtime in found:
        name = f"{runtime.name} {runtime.version}"
        if runtime.missing:
            why = "" if len(found) > 1 else ": uninstalling another distribution took them along"
            said.append(f"{name} lacks {runtime.missing} of its {runtime.files} files{why}")
        if runtime.changed:
            why = "" if len(found) > 1 else ": another distribution was installed over it"
            said.append(
                f"{runtime.changed} of the {runtime.files} files of {name} are not its own{why}"
            )
    return said


def fixes(found: list[Runtime]) -> list[str]:
    """Commands that leave one whole distribution of ONNX Runtime, in order.

    Args:
        found: What :func:`runtimes` gives.
    """
    if not found:
        machine = f"{platform.system()} {platform.machine()}".lower()
        return ["pip install " + ("onnxruntime-gpu" if machine in _WITH_CUDA else _PACKAGE)]
    # The plain one is the one that other packages bring along; what was chosen stays.
    kept = next((runtime for runtime in found if runtime.name != _PACKAGE), found[0])
    return [
        "pip uninstall -y " + " ".join(runtime.name for runtime in found),
        f"pip install {kept.name}=={kept.version}",
    ]
