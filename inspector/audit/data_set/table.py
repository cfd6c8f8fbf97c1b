"""Tables of photos: CSV or Parquet, a row per photo or per object on it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from converters.plain_values import finite_number
from converters.regular_file import open_regular
from inspector.audit.data_set.described import Annotated, refuse_all
from inspector.audit.data_set.entries import NOT_THERE, DataSet, Entry
from inspector.audit.data_set.parquet_file import read_parquet
from inspector.errors import UsageError
from inspector.photos.dataset import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    check_heading,
    column_of,
    photo_of_row,
    read_table,
)
from inspector.printable import clean_text, distinct_text

__all__ = ["of_table"]

_CORNERS = ("x0", "y0", "x1", "y1")
_MASK = ("mask", "mask_file")
_INDEX = re.compile(r"__index_level_\d+__")
_MOST_VALUES = 50
"""Different values of a column beyond which it does not name groups."""


def of_table(source: Path) -> DataSet:
    """Photos of a table; several rows of one photo are several objects on it."""
    rows = read_table(source) if source.suffix.lower() == ".csv" else _parquet(source)
    if not rows:
        raise UsageError("has no rows", where=str(source), hint="a row per photo below the heading")
    image = column_of(source, rows, IMAGE_COLUMNS)
    heading = list(rows[0][1])
    label = next((name for name in LABEL_COLUMNS if name in heading), None)
    mask = next((name for name in _MASK if name in heading), None)
    others = [n for n in heading if n not in {image, label, mask, *_CORNERS}]
    groups = [n for n in others if len({row[n] for _, row in rows}) <= _MOST_VALUES]
    entries: dict[str, Entry] = {}
    objects: dict[str, list[Annotated]] = {}
    missing: dict[str, str] = {}
    wrong = []
    for at, row in rows:
        path = photo_of_row(source, [], row[image], at)
        name = distinct_text(PurePosixPath(Path(row[image]).as_posix()).as_posix())
        if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for long names
            missing[name] = NOT_THERE
            continue
        own = clean_text(row[label]) if label and row[label] else None
        if name not in entries:
            values = {group: clean_text(row[group]) for group in groups}
            file = photo_of_row(source, [], row[mask], at) if mask and row[mask] else None
            entries[name] = Entry(name, path, own, (), file, values)
            objects[name] = []
        given = [bool(row.get(key)) for key in _CORNERS]
        boxed = any(given)
        if not boxed and own != entries[name].label:
            wrong.append(f"line {at}: {name} has another label above")
        if boxed:
            corners = [finite_number(_number(row.get(key, ""))) for key in _CORNERS]
            if None in corners or not (corners[0] < corners[2] and corners[1] < corners[3]):  # type: ignore[operator]
                wrong.append(f"line {at}: corners that are not numbers, or the wrong way round")
                continue
            left, top, right, bottom = (float(c or 0) for c in corners)
            objects[name].append(Annotated(own, (top, left, bottom, right)))
    refuse_all(wrong, source, "columns x0,y0,x1,y1 for boxes, one label per photo")
    if not entries:
        raise UsageError(
            f"none of its {len(missing)} photos is there",
            where=str(source),
            hint="photos are looked for below the table's own folder",
        )
    found = tuple(
        Entry(e.photo, e.path, e.label, tuple(objects[name]), e.mask, e.groups)
        for name, e in entries.items()
    )
    return DataSet(source, "table", found, missing)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _parquet(source: Path) -> list[tuple[int, Mapping[str, str]]]:
    """Rows of a Parquet table as text, like those of a CSV table, without the index of pandas."""
    try:
        with open_regular(source) as stream:
            table = read_parquet(stream, str(source))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot be read ({reason})", where=str(source)) from None
    names = [name.strip().lower() for name in table.names]
    check_heading(source, names)
    kept = [place for place, name in enumerate(names) if not _INDEX.fullmatch(name)]
    return [
        (at + 1, {names[place]: _cell(row[place]) for place in kept})
        for at, row in enumerate(table.rows)
    ]


def _cell(value: object) -> str:
    """A value as a CSV table would hold it; nothing for one that is missing."""
    if value is None or value != value:  # noqa: PLR0124 - a float that is no number
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
