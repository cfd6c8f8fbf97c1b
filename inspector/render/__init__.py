"""Output formats, one per file: pictures, tables, arrays, the JSON report.

A format is declared once, with ``@file_format`` above a function in a module of this package; it
turns a result into files.  Adding a format is adding a module::

    @file_format("txt")
    def files(result: Result) -> Iterator[File]:
        \"\"\"The sentences as plain text.\"\"\"
        yield File(f"{result.name}.txt", lambda: "...".encode())

``save(result, folder, formats=("png", "txt"))`` then writes it beside the others.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Protocol

from PIL.Image import Image

from inspector.errors import UsageError
from inspector.heatmap import Heatmap
from inspector.whole_file import write_whole

__all__ = ["FORMATS", "File", "Result", "file_format", "formats", "save"]

FORMATS = ("png", "csv", "npz", "json")
"""Formats that a result is saved in when none are named, in the order of its files."""


class Result(Protocol):
    """What can be saved: a report on a photo, a study's findings, a comparison."""

    @property
    def name(self) -> str:
        """Name of the document's file, without a suffix."""
        ...

    def document(self) -> Mapping[str, Any]:
        """Everything but pictures and maps, as plain data."""
        ...

    def figures(self) -> Mapping[str, Callable[[], Image]]:
        """Functions that draw the pictures, by file name without a suffix."""
        ...

    def tables(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Tables as rows, by file name without a suffix."""
        ...

    def maps(self) -> Mapping[str, Heatmap]:
        """Heatmaps, by file name without a suffix."""
        ...


@dataclass(frozen=True)
class File:
    """A file that a format makes of a result.

    Attributes:
        name: The file's name, with its suffix.
        content: Makes its bytes; called when it is written.
    """

    name: str
    content: Callable[[], bytes]


Format = Callable[[Result], Iterator[File]]

_REGISTRY: dict[str, Format] = {}


def file_format(name: str) -> Callable[[Format], Format]:
    """Declare the function below as an output format; it yields the files of a result."""

    def keep(function: Format) -> Format:
        _REGISTRY[name] = function
        return function

    return keep


@cache
def formats() -> Mapping[str, Format]:
    """All output formats by name."""
    folder = importlib.import_module("inspector.render")  # its modules import this one
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    return {name: _REGISTRY[name] for name in sorted(_REGISTRY)}


def save(
    result: Result,
    folder: str | Path,
    formats: Sequence[str] = FORMATS,
    *,
    without: Sequence[str] = (),
) -> list[Path]:
    """Write a result's files, each whole or not at all.

    Args:
        result: A report, findings, or a comparison.
        folder: Made when it does not exist.
        formats: Names of formats; of each, files are made as far as the result has any.
        without: Names, without a suffix, of files to leave out.

    Returns:
        The files: those of one name together, in the formats' order; a document that stands
        alone under its name is last.

    Raises:
        UsageError: There is no such format, or the place cannot be written to.
        ValueError: The document holds NaN or an infinity.
    """
    files: dict[str, list[File]] = {}
    for name in formats:
        for file in _format(name)(result):
            files.setdefault(PurePath(file.name).stem, []).append(file)
    return [
        write_whole(Path(folder) / file.name, file.content())
        for stem, some in files.items()
        if stem not in without
        for file in some
    ]


def _format(name: str) -> Format:
    """The format of a name, of which only its own module is imported, if that has the same name."""
    folder = importlib.import_module("inspector.render")
    own = {module.name for module in pkgutil.iter_modules(folder.__path__)}
    if name not in _REGISTRY and name in own:
        importlib.import_module(f"{folder.__name__}.{name}")
    found = _REGISTRY.get(name) or formats().get(name)
    if found is None:
        raise UsageError(f"no output format {name!r}", hint="one of " + ", ".join(formats()))
    return found
