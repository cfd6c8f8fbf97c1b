"""Contract of a converter of one framework: options in, an export out.

Each file of ``converters.to_onnx`` is one framework and has the same names in it:

    TITLE                             what people call the framework
    EXTRA                             the extra that brings it; empty when nothing is needed
    recognises(source) -> str | None  a text or path as the user gave it: None, or why converting
                                      it runs a program of its author's (empty: it is data)
    convert(source, draft, options)   writes ``draft``; runs in a process of its own
        -> Export
    parts(source) -> paths            where a source is more than the path that names it; optional
    SIGNATURES                        whether a source may have several functions, by name; optional

A module of ``to_onnx`` imports its framework inside ``convert`` alone, so that asking all of them
whether they recognise a path costs nothing.
"""

import contextlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConversionFailed

__all__ = [
    "LABELS",
    "PREPROCESS",
    "PREPROCESS_KEYS",
    "Export",
    "InputSpec",
    "Options",
    "apart",
    "as_path",
    "concrete",
    "lacking",
    "random_input",
    "versions",
]

Array = NDArray[Any]

LABELS = "inspector.labels"
"""Metadata key: JSON list of the class names, in the order of the scores."""
PREPROCESS = "inspector.preprocess"
"""Metadata key: JSON object that says what to do with a photo before the model sees it."""
PREPROCESS_KEYS = (
    "size",
    "resize",
    "crop_pct",
    "interpolation",
    "scale",
    "mean",
    "std",
    "channels",
    "layout",
    "pad",
)


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: As the ONNX file calls it.
        shape: Lengths of its axes, the batch first; None where one is free.
        dtype: NumPy's name of its type.
        span: Lowest and highest value that the input is made for; None where it is not known.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    span: tuple[float, float] | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """An input from plain data that was JSON."""
        span = data.get("span")
        return cls(data["name"], tuple(data["shape"]), data["dtype"], tuple(span) if span else None)


@dataclass(frozen=True)
class Options:
    """Options for a source; plain data, because they are sent to another process.

    Attributes:
        inputs: Shapes (batch first, None for a free axis) of the source's inputs, where the source
            does not say them.
        weights: File of weights for a source that is only a program.
        opset: Version of the default operator set; the exporter's choice when None.
        dynamic_batch: Leave the batch axis free where the source allows it.
        signature: Which function is read of a source that has several; the one that serves where
            empty.
    """

    inputs: tuple[tuple[int | None, ...], ...] = ()
    weights: str = ""
    opset: int | None = None
    dynamic_batch: bool = True
    signature: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Options from plain data that was JSON."""
        return cls(**{**data, "inputs": tuple(tuple(shape) for shape in data["inputs"])})


@dataclass(frozen=True, eq=False)
class Export:
    """Result of a converter.

    Attributes:
        inputs: The model's inputs, in order.
        run: The source framework itself: arrays, one an input, to arrays, one an output, in the
            order of the ONNX file's inputs and outputs.
        versions: Packages that took part.
        labels: K class names, where the source knows them.
        preprocess: What to do with a photo, in the keys of ``PREPROCESS_KEYS``,
            where the source knows it.
        quantised: Its values are rounded to integers: outputs may differ by a level, and classes
            are compared instead.
        notes: What a user should know about the result.
        kernels: The same with the framework's other implementation of its operators, where a
            quantised source has one: how far apart the two are is what rounding can do.
    """

    inputs: tuple[InputSpec, ...]
    run: Callable[[Sequence[Array]], Sequence[Array]] = field(repr=False)
    versions: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    quantised: bool = False
    notes: tuple[str, ...] = ()
    kernels: Callable[[Sequence[Array]], Sequence[Array]] | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data of everything but the functions."""
        return {
            "inputs": [asdict(spec) for spec in self.inputs],
            "versions": dict(self.versions),
            "labels": list(self.labels),
            "preprocess": dict(self.preprocess),
            "quantised": self.quantised,
            "notes": list(self.notes),
            "kernels": self.kernels is not None,
        }


def lacking(error: ImportError, title: str, extra: str, where: str = "") -> ConversionFailed:
    """The error for a framework that is not installed.

    Args:
        error: What the import said.
        title: The framework.
        extra: The extra that brings it.
        where: The source.
    """
    return ConversionFailed(
        f"{title} is needed for this and is not installed ({error})",
        where=where,
        hint=f"pip install 'onnx-inspector[{extra}]'",
    )


def apart(
    error: ImportError, title: str, commands: Sequence[str], where: str = ""
) -> ConversionFailed:
    """The error for a framework that is not installed and cannot live beside this program.

    Args:
        error: What the import said.
        title: The framework.
        commands: What brings it, in order, in an environment that is new.
        where: The source.
    """
    return ConversionFailed(
        f"{title} is needed for this and is not installed ({error})",
        where=where,
        hint="its requirements contradict ours: python -m venv apart; "
        + "; ".join(f"apart/bin/{command}" for command in commands)
        + "; then --python apart/bin/python",
    )


def versions(*packages: str) -> Mapping[str, str]:
    """Versions of the packages that took part, of those that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def concrete(shape: Sequence[int | None], batch: int, free: int = 64) -> tuple[int, ...]:
    """A shape with its free axes filled: the batch, and ``free`` for every other one."""
    first, *rest = shape
    return (batch if first is None else first, *(free if n is None else n for n in rest))


def random_input(spec: InputSpec, batch: int, generator: "np.random.Generator") -> Array:
    """Random values for an input: every value of its span or type alike, or else normal."""
    shape, dtype = concrete(spec.shape, batch), np.dtype(spec.dtype)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        low, high = max(bounds.min, -128), min(bounds.max, 255)
        return generator.integers(low, high, shape, endpoint=True).astype(dtype)
    if spec.span is not None:
        return generator.uniform(*spec.span, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def as_path(source: str) -> Path | None:
    """A source as an existing path; None when it is none."""
    try:
        path = Path(source)
        return path if path.exists() else None
    except (OSError, ValueError):
        return None
