"""The report as canonical JSON: sorted keys, no NaN, one text for equal reports."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from inspector.render import File, Result, file_format
from inspector.whole_file import write_whole

__all__ = ["dumps", "files", "plain", "write"]


@file_format("json")
def files(result: Result) -> Iterator[File]:
    """The document of a result."""
    yield File(f"{result.name}.json", lambda: dumps(result.document()).encode())


def dumps(document: object) -> str:
    """The document as JSON text, ending in a new line.

    Raises:
        ValueError: It holds NaN or an infinity, which JSON cannot say.
        TypeError: It holds something that is not data.
    """
    text = json.dumps(
        plain(document), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    # Half of a surrogate pair (a broken file name) is not UTF-8; escaped it is still JSON.
    return text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"


def write(path: str | Path, document: object) -> Path:
    """Write the document whole or not at all.

    Raises:
        UsageError: The place cannot be written to.
        ValueError: As `dumps`; nothing is written then.
    """
    return write_whole(path, dumps(document).encode())


def plain(value: object) -> Any:
    """Plain data of NumPy scalars and arrays, paths, mappings, sequences and dataclasses.

    Raises:
        ValueError: NaN or an infinity.
        TypeError: Something that is not data.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} has no place in a report")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        return value.as_posix()
    return _plain_container(value)


def _plain_container(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} is not data for a report")
