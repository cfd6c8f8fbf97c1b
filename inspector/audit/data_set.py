"""Data sets: photos with what is known of them, from folders, tables and annotations.

    dog/1.jpg  site-b/cat/7.jpg        folders of classes, at any depth
    image,label,x0,y0,x1,y1,site       a table; what is no photo, label or box is a group
    annotations.json                   COCO
    images/1.jpg  labels/1.txt         YOLO, with the class names of data.yaml or classes.txt
    JPEGImages/1.jpg  Annotations/1.xml    Pascal VOC

All of it is a stranger's: a name leads to a file below the data set's folder or is refused.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from converters.nearest_path import did_you_mean
from converters.plain_values import finite_number
from converters.regular_file import open_regular
from inspector.audit import annotations
from inspector.errors import UsageError, require
from inspector.photos.dataset import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    MOST_ROWS,
    PICTURES,
    check_heading,
    column_of,
    photo_of_row,
    read_table,
)
from inspector.photos.sources import FolderListing, list_folder
from inspector.printable import clean_text

__all__ = ["DataSet", "Entry", "open_data_set"]

_MOST_FILES = 10_000_000
_CORNERS = ("x0", "y0", "x1", "y1")
_MASK = ("mask", "mask_file")
_INDEX = re.compile(r"__index_level_\d+__")
_NOT_THERE = "the file is not there"
_MOST_VALUES = 50
"""Different values of a column beyond which it does not name groups."""


@dataclass(frozen=True)
class Entry:
    """A photo and what is known of it.

    Attributes:
        photo: Its name in the report: the path below the data set's folder, with ``/``.
        path: The file.
        label: The class that it is said to show; None where nothing says so.
        objects: What lies on it where.
        mask: A file whose pixels other than 0 are the object; None without one.
        groups: Values of the other columns of its row.
        size: Height and width that annotations say it has; None where they do not.
    """

    photo: str
    path: Path
    label: str | None = None
    objects: tuple[annotations.Annotated, ...] = ()
    mask: Path | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class DataSet:
    """Photos in their order.

    Attributes:
        source: The folder or file that was named.
        kind: "class folders", "photos", "table", "coco", "yolo" or "voc".
        entries: The photos.
        missing: Photos that cannot be audited since there is no file, with the reason.
        renamed: Columns whose groups are called otherwise than in the table, with that name.
        listing: What lies in the folder, of which the photos are the entries; None of others.
    """

    source: Path
    kind: str
    entries: tuple[Entry, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    listing: FolderListing | None = None

    @cached_property
    def classes(self) -> Mapping[str, int]:
        """Photos per label, the labels in their order."""
        counted = Counter(entry.label for entry in self.entries if entry.label is not None)
        return dict(sorted(counted.items()))

    @cached_property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Values by column that names groups."""
        found: dict[str, set[str]] = {}
        for entry in self.entries:
            for name, value in entry.groups.items():
                found.setdefault(name, set()).add(value)
        return {name: tuple(sorted(values)) for name, values in found.items()}

    def named(self, name_of: Callable[[str], str]) -> "DataSet":
        """The same data set with labels and objects called as a model calls its classes."""
        entries = tuple(
            replace(
                entry,
                label=None if entry.label is None else name_of(entry.label),
                objects=tuple(
                    replace(o, label=None if o.label is None else name_of(o.label))
                    for o in entry.objects
                ),
            )
            for entry in self.entries
        )
        return replace(self, entries=entries)

    def without(self, failed: Mapping[str, str]) -> "DataSet":
        """The same data set with the reasons why some photos' files are not there.

        Args:
            failed: Reasons by the file's name below the data set's folder.
        """
        why = {clean_text(name): reason for name, reason in failed.items()}
        missing = {
            photo: next((r for n, r in why.items() if f"/{n}".endswith(f"/{photo}")), reason)
            for photo, reason in self.missing.items()
        }
        if self.kind in {"photos", "class folders", "yolo"}:  # others name their photos
            there = {entry.photo for entry in self.entries}
            missing |= {name: reason for name, reason in why.items() if name not in there}
        return replace(self, missing=missing)

    def with_groups_beside(self, taken: Collection[str]) -> "DataSet":
        """The same data set whose groups have other names than the columns of a report's rows.

        A column ``method`` of the table is the group ``data_method``.

        Args:
            taken: Names that groups may not have.
        """
        used, renamed = {*taken, *self.groups}, {}
        for name in self.groups:
            if name in taken:
                other = f"data_{name}"
                while other in used:
                    other = f"data_{other}"
                used.add(other)
                renamed[name] = other
        if not renamed:
            return self
        entries = tuple(
            replace(e, groups={renamed.get(name, name): v for name, v in e.groups.items()})
            for e in self.entries
        )
        return replace(self, entries=entries, renamed=renamed)

    def facts(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {
            "source": self.source.name or str(self.source),
            "kind": self.kind,
            "photos": len(self.entries) + len(self.missing),
            "labelled": sum(entry.label is not None for entry in self.entries),
            "boxed": sum(bool(entry.objects) for entry in self.entries),
            "masked": sum(entry.mask is not None for entry in self.entries),
            "groups": sorted(self.groups),
            "classes": dict(self.classes),
        }


def open_data_set(source: Path, classes: Sequence[str] = ()) -> DataSet:
    """Find the photos of a data set and what is known of them.

    Args:
        source: A folder; a table (``.csv``, ``.parquet``); COCO annotations (``.json``).
        classes: Class names of the model; a folder that is named like one is a label at any
            depth.

    Raises:
        UsageError: There is no photo, or what describes them cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from inspector.audit.data_set import open_data_set
        >>> found = open_data_set(Path("sample_models/images"))
        >>> found.kind, found.entries[0].photo
        ('photos', 'airplane_1.png')
    """
    if not source.exists():
        raise UsageError("does not exist", where=str(source), hint=did_you_mean(source))
    if not source.is_dir():
        suffix = source.suffix.lower()
        if suffix in {".csv", ".parquet"}:
            return _table(source)
        if suffix == ".json":
            return _annotated(source, "coco", annotations.coco(source), source.parent)
        raise UsageError(
            "is not a data set",
            where=str(source),
            hint="name a folder of photos, a table (.csv, .parquet) or COCO annotations (.json)",
        )
    found = annotations.of_folder(source)
    if found is not None:
        kind, described = found
        return _annotated(source, kind, described, source)
    return _folder(source, classes)


def _folder(source: Path, classes: Sequence[str]) -> DataSet:
    """Photos at any depth, labelled by the folders that they lie in."""
    known = {name.casefold() for name in classes}
    listing = list_folder(source, _MOST_FILES)
    if not listing.photos:
        raise UsageError(
            "no photos in the folder",
            where=str(source),
            hint="pictures are told by their suffix: " + " ".join(sorted(PICTURES)),
        )
    entries = []
    for path in listing.photos:
        name = PurePosixPath(path.relative_to(source).as_posix())
        folders = name.parts[:-1]
        label = next((part for part in reversed(folders) if part.casefold() in known), None)
        label = label or (folders[-1] if folders else None)
        shown = None if label is None else clean_text(label)
        entries.append(Entry(clean_text(str(name)), path, shown))
    kind = "class folders" if any(entry.label is not None for entry in entries) else "photos"
    return DataSet(source, kind, tuple(entries), listing=listing)


def _table(source: Path) -> DataSet:
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
    objects: dict[str, list[annotations.Annotated]] = {}
    missing: dict[str, str] = {}
    wrong = []
    for at, row in rows:
        path = photo_of_row(source, [], row[image], at)
        name = clean_text(PurePosixPath(Path(row[image]).as_posix()).as_posix())
        if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for long names
            missing[name] = _NOT_THERE
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
            objects[name].append(annotations.Annotated(own, (top, left, bottom, right)))
    annotations.refuse_all(wrong, source, "columns x0,y0,x1,y1 for boxes, one label per photo")
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
    require("pyarrow.parquet", "reading Parquet tables", "audit")
    from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]

    try:
        with open_regular(source) as stream:
            file = parquet.ParquetFile(stream)
            if file.metadata.num_rows > MOST_ROWS:
                raise UsageError(f"more than {MOST_ROWS} rows", where=str(source))
            table = file.read()
    except (ArrowException, OSError) as error:
        reason = clean_text(str(error), limit=200)
        raise UsageError(f"is not a Parquet table ({reason})", where=str(source)) from None
    names = [name.strip().lower() for name in table.column_names]
    check_heading(source, names)
    texts = {
        name: [_cell(value) for value in column.to_pylist()]
        for name, column in zip(names, table.columns, strict=True)
        if not _INDEX.fullmatch(name)
    }
    return [
        (at + 1, {name: values[at] for name, values in texts.items()})
        for at in range(table.num_rows)
    ]


def _cell(value: object) -> str:
    """A value as a CSV table would hold it; nothing for one that is missing."""
    if value is None or value != value:  # noqa: PLR0124 - a float that is no number
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _annotated(
    source: Path, kind: str, described: Sequence[annotations.Described], folder: Path
) -> DataSet:
    """Photos of annotations; one class on a photo is its label."""
    found: dict[Path, Entry] = {}
    missing: dict[str, str] = {}
    for one in described:
        places = (folder / name for name in one.places)
        path = next((p for p in places if os.path.isfile(p)), None)  # noqa: PTH113 - never raises
        if path is None:
            missing[one.photo] = _NOT_THERE
            continue
        entry = found.get(path, Entry(one.photo, path, size=one.size))
        # A photo that is described twice has all of its objects.
        found[path] = replace(entry, objects=(*entry.objects, *one.objects))
    entries = []
    for entry in found.values():
        names = dict.fromkeys(o.label for o in entry.objects if o.label is not None)
        label = next(iter(names)) if len(names) == 1 else None
        entries.append(replace(entry, label=label))
    if not entries:
        raise UsageError(
            f"none of its {len(missing)} photos is there" if missing else "names no photos",
            where=str(source),
        )
    return DataSet(source, kind, tuple(entries), missing)
