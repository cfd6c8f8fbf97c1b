"""Parquet tables that a stranger may have written: rows as plain values, within limits.

A value that stands once in a file may stand in a million rows of it, and pyarrow makes each of them
anew; its errors are of many types (a date of the year 300,000, text that is not UTF-8).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from inspector.errors import UsageError, require
from inspector.photos.dataset import MOST_ROWS
from inspector.printable import clean_text

__all__ = ["ParquetTable", "read_parquet"]

MOST_CHARACTERS = 1 << 29
"""Of all values together, as text; a value takes eight at least."""

_ROWS = 1024  # that are decoded at a time
_LEAST = 8


@dataclass(frozen=True)
class ParquetTable:
    """A table in memory.

    Attributes:
        names: Its columns; two may have one name.
        rows: Values in the columns' order.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def read_parquet(stream: BinaryIO, where: str) -> ParquetTable:
    """Read a Parquet file.

    Args:
        stream: The file, opened.
        where: Its name, for messages.

    Raises:
        MissingExtra: PyArrow is not installed.
        UsageError: It is not such a table, has more than a million rows, or values of more than
            half a thousand million characters together.
    """
    require("pyarrow.parquet", "reading Parquet tables", "audit")
    try:
        return _read(stream, where)
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - see above
        reason = clean_text(str(error), limit=200) or type(error).__name__
        raise UsageError(f"is not a Parquet table ({reason})", where=where) from None


def _read(stream: BinaryIO, where: str) -> ParquetTable:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    schema = parquet.ParquetFile(stream).schema_arrow
    texts = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_binary(field.type)
    ]
    stream.seek(0)
    # Text that stands once in the file stays so, until it is asked for.
    file = parquet.ParquetFile(stream, read_dictionary=texts)
    if file.metadata.num_rows > MOST_ROWS:
        raise UsageError(f"more than {MOST_ROWS} rows", where=where)
    rows: list[tuple[Any, ...]] = []
    left = MOST_CHARACTERS
    for batch in file.iter_batches(_ROWS):
        columns = [_values(column) for column in batch.columns]
        for _ in range(batch.num_rows):
            row = []
            for column in columns:
                value = next(column)
                row.append(value)
                left -= _size(value)
                if left < 0:
                    raise UsageError(
                        f"values of more than {MOST_CHARACTERS:,} characters", where=where
                    )
            rows.append(tuple(row))
    return ParquetTable(tuple(schema.names), tuple(rows))


def _values(column: Any) -> Iterator[Any]:
    """Values of a column, each made when it is asked for."""
    return (scalar.as_py() for scalar in column)


def _size(value: Any) -> int:
    """About how many characters a value is."""
    if isinstance(value, str | bytes):
        return _LEAST + len(value)
    return _LEAST + (len(str(value)) if isinstance(value, list | dict | tuple) else 0)
