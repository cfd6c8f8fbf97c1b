"""Data sets: photos with what is known of them, from folders, tables and annotations.

    dog/1.jpg  site-b/cat/7.jpg        folders of classes, at any depth
    image,label,x0,y0,x1,y1,site       a table; what is no photo, label or box is a group
    annotations.json                   COCO
    images/1.jpg  labels/1.txt         YOLO, with the class names of data.yaml or classes.txt
    JPEGImages/1.jpg  Annotations/1.xml    Pascal VOC

All of it is a stranger's: a name leads to a file below the data set's folder or is refused.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from converters.nearest_path import did_you_mean
from inspector.audit.data_set.coco import coco
from inspector.audit.data_set.described import Described
from inspector.audit.data_set.entries import NOT_THERE, DataSet, Entry
from inspector.audit.data_set.table import of_table
from inspector.audit.data_set.voc import voc
from inspector.audit.data_set.yolo import yolo
from inspector.errors import UsageError
from inspector.photos.sources import PICTURES, list_folder
from inspector.printable import clean_text, distinct_text

__all__ = ["DataSet", "Entry", "open_data_set"]

_MOST_FILES = 10_000_000
_COCO = ("_annotations.coco.json", "annotations.json", "instances.json", "coco.json")


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
            return of_table(source)
        if suffix == ".json":
            return _annotated(source, "coco", coco(source), source.parent)
        raise UsageError(
            "is not a data set",
            where=str(source),
            hint="name a folder of photos, a table (.csv, .parquet) or COCO annotations (.json)",
        )
    found = _annotations_in(source)
    if found is not None:
        kind, described = found
        return _annotated(source, kind, described, source)
    return _folder(source, classes)


def _annotations_in(folder: Path) -> tuple[str, Sequence[Described]] | None:
    """The kind of a folder's annotations, and what they say; None where it has none.

    Raises:
        UsageError: They cannot be read.
    """
    for name in _COCO:
        if (folder / name).is_file():
            return "coco", coco(folder / name)
    if (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir():
        return "voc", voc(folder)
    if (folder / "labels").is_dir() and (folder / "images").is_dir():
        return "yolo", yolo(folder)
    return None


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
        entries.append(Entry(distinct_text(str(name)), path, shown))
    kind = "class folders" if any(entry.label is not None for entry in entries) else "photos"
    return DataSet(source, kind, tuple(entries), listing=listing)


def _annotated(source: Path, kind: str, described: Sequence[Described], folder: Path) -> DataSet:
    """Photos of annotations; one class on a photo is its label."""
    found: dict[Path, Entry] = {}
    missing: dict[str, str] = {}
    for one in described:
        places = (folder / name for name in one.places)
        path = next((p for p in places if os.path.isfile(p)), None)  # noqa: PTH113 - never raises
        if path is None:
            missing[one.photo] = NOT_THERE
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
