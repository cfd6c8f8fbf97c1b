"""Tables of photos: CSV or Parquet, a row per photo or per object on it."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from converters.plain_values import quoted
from converters.regular_file import open_regular
from inspector.audit.data_set.boxes import OF_BOXES, Boxes
from inspector.audit.data_set.described import MOST_FILES, Annotated, few, refuse_all
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
from inspector.photos.sources import list_folder
from inspector.printable import clean_text, distinct_text

__all__ = ["of_table"]

_MASK = ("mask", "mask_file")
_IN_ONE = ("bbox", "box", "boxes", "bboxes", "bounding_box")
_INDEX = re.compile(r"__index_level_\d+__")
_MOST_VALUES = 50
"""Different values of a column beyond which it does not name groups."""


def of_table(source: Path) -> DataSet:
    """Photos of a table; several rows of one photo are several objects on it.

    Raises:
        UsageError: It cannot be read, has no column of photos, boxes that are none, two labels of
            one photo, or none of its photos is there.
    """
    rows = read_table(source) if source.suffix.lower() != ".parquet" else _parquet(source)
    if not rows:
        raise UsageError("has no rows", where=str(source), hint="a row per photo below the heading")
    image = column_of(source, rows, IMAGE_COLUMNS)
    heading = list(rows[0][1])
    label = next((name for name in LABEL_COLUMNS if name in heading), None)
    mask = next((name for name in _MASK if name in heading), None)
    boxes = Boxes.of(source, rows)
    entries: dict[str, Entry] = {}
    objects: dict[str, list[Annotated]] = {}
    of_photo: dict[str, list[Mapping[str, str]]] = {}
    missing: dict[str, str] = {}
    wrong = []
    for at, row in rows:
        path = photo_of_row(source, [], row[image], at)
        called = _below(row[image], source).as_posix()
        name = distinct_text(called if "\\" in str(path) else called.replace("\\", "/"))
        if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for long names
            missing[name] = NOT_THERE
            continue
        own = clean_text(row[label]) if label and row[label] else None
        of_photo.setdefault(name, []).append(row)
        file = photo_of_row(source, [], row[mask], at) if mask and row[mask] else None
        if name not in entries:
            entries[name] = Entry(name, path, own, (), file)
            objects[name] = []
        boxed = boxes.given(row)
        if file not in {None, entries[name].mask}:
            wrong.append(f"line {at}: {name} has another mask above, or none")
        if not boxed and own != entries[name].label:
            wrong.append(f"line {at}: {name} has another label above")
        if boxed:
            corners = boxes.corners(row)
            if corners is None:
                wrong.append(f"line {at}: corners that are not numbers, or the wrong way round")
                continue
            objects[name].append(Annotated(own, corners, boxes.relative))
    refuse_all(wrong, source, "columns x0,y0,x1,y1 for boxes, one label and one mask per photo")
    if not entries:
        raise UsageError(
            f"none of its {len(missing)} photos is there",
            where=str(source),
            hint=_where_photos_lie(source, next(iter(missing))),
        )
    known = {image, label, mask, *boxes.columns, *(OF_BOXES if boxes.columns else ())}
    others = [n for n in heading if n not in known]
    given = [n for n in others if any(row[n] for _, row in rows)]
    few = [n for n in given if len({row[n] for _, row in rows}) <= _MOST_VALUES]
    groups = [n for n in few if all(len({r[n] for r in own}) == 1 for own in of_photo.values())]
    found = tuple(
        replace(
            entry,
            objects=tuple(objects[name]),
            groups={group: clean_text(of_photo[name][0][group]) for group in groups},
        )
        for name, entry in entries.items()
    )
    remarks = [*boxes.remarks, *_of_objects([n for n in few if n not in groups])]
    unread = [name for name in _IN_ONE if name in given and not boxes.columns]
    remarks += [
        f"boxes in the one column {name!r} are not read: x0,y0,x1,y1 or left,top,width,height are "
        "a column each"
        for name in unread
    ]
    return DataSet(source, "table", found, missing, remarks=tuple(remarks))


def _where_photos_lie(source: Path, name: str) -> str:
    """What to do about a table none of whose photos is there, by the first one's name."""
    usual = "photos are looked for below the table's own folder"
    called = PurePosixPath(name).name
    photos = list_folder(source.parent, MOST_FILES).photos
    like = next((path for path in photos if called in {path.name, path.stem}), None)
    if like is None:
        return usual
    there = like.relative_to(source.parent).as_posix()
    return f"{usual}, by their whole names: {quoted(name)} may be {quoted(there)}"


def _below(name: str, source: Path) -> PurePosixPath:
    """A photo's name below the table's folder, though the row has its whole path."""
    path, folder = Path(name), source.parent.absolute()
    return PurePosixPath((path.relative_to(folder) if folder in path.parents else path).as_posix())


def _of_objects(names: list[str]) -> list[str]:
    """What is said of columns that name no groups, since rows of one photo differ in them."""
    if not names:
        return []
    return [f"columns that differ between rows of one photo name no groups: {few(names, 5)}"]


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
    pictures = [place for place, name in enumerate(names) if name in IMAGE_COLUMNS]
    if any(_is_picture(row[place], source.parent) for row in table.rows for place in pictures):
        raise UsageError(
            "holds the photos themselves, and an audit reads files",
            where=str(source),
            hint="write them beside it, and their names into the column: with the library "
            "`datasets`, for i, row in enumerate(data): row['image'].save(f'{i}.png')",
        )
    kept = [place for place, name in enumerate(names) if not _INDEX.fullmatch(name)]
    return [
        (at + 1, {names[place]: _cell(row[place]) for place in kept})
        for at, row in enumerate(table.rows)
    ]


def _is_picture(value: object, folder: Path) -> bool:
    """Whether a cell holds a photo's bytes, of which no file lies beside the table."""
    if isinstance(value, dict):  # as the library `datasets` keeps it
        name = str(value.get("path") or "")
        return bool(value.get("bytes")) and not (name and os.path.isfile(folder / name))  # noqa: PTH113
    return isinstance(value, bytes) and b"\0" in value


def _cell(value: object) -> str:
    """A value as a CSV table would hold it; nothing for one that is missing.

    Several values of one cell are alternatives, as several labels of one photo are.
    """
    if value is None or value != value:  # noqa: PLR0124 - a float that is not a number
        return ""
    if isinstance(value, list):
        return "|".join(filter(None, map(_cell, value)))
    if isinstance(value, dict):
        # A picture as the library `datasets` keeps it: its bytes, and where they came from.
        return _cell(value.get("path"))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
