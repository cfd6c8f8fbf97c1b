"""Numbers as a table that a spreadsheet reads."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inspector.render import File, Result, file_format
from inspector.render.json import plain
from inspector.whole_file import write_whole

__all__ = ["dumps", "files", "write"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@file_format("csv")
def files(result: Result) -> Iterator[File]:
    """Each table of a result."""
    for name, rows in result.tables().items():
        yield File(f"{name}.csv", partial(_encoded, rows))


def dumps(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, a heading first; columns in the order in which rows bring them up.

    Raises:
        ValueError: NaN or an infinity.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writerow({key: _cell(key) for key in columns})  # groups are called as in a table
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def write(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the table whole or not at all.

    Raises:
        UsageError: The place cannot be written to.
        ValueError: As `dumps`; nothing is written then.
    """
    return write_whole(path, _encoded(rows))


def _encoded(rows: Sequence[Mapping[str, Any]]) -> bytes:
    # Half of a surrogate pair (a broken file name) is not UTF-8; escaped it is.
    return dumps(rows).encode("utf-8", "backslashreplace")


def _cell(value: object) -> object:
    """A value as it stands in a cell; a text that a spreadsheet would compute is quoted."""
    value = "" if value is None else plain(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
