"""Data sets: photos with what is known of them, from folders, tables and annotations.

    dog/1.jpg  site-b/cat/7.jpg        folders of classes, at any depth
    image,label,x0,y0,x1,y1,site       a table; what is not a photo, label or box is a group
    annotations.json                   COCO
    images/1.jpg  labels/1.txt         YOLO, with the class names of data.yaml or classes.txt
    JPEGImages/1.jpg  Annotations/1.xml    Pascal VOC

All of it is a stranger's: a name leads to a file below the data set's folder or is refused.
"""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from converters.nearest_path import did_you_mean
from inspector.audit.data_set.coco import coco
from inspector.audit.data_set.described import MOST_FILES, Annotations, few
from inspector.audit.data_set.entries import NOT_THERE, DataSet, Entry
from inspector.audit.data_set.table import of_table
from inspector.audit.data_set.voc import has_voc, voc
from inspector.audit.data_set.yolo import has_yolo, yolo
from inspector.errors import UsageError
from inspector.photos.dataset import spellings
from inspector.photos.sources import PICTURES, FolderListing, list_folder
from inspector.printable import clean_text, distinct_text

__all__ = ["DataSet", "Entry", "open_data_set"]

_TABLES = frozenset({".csv", ".tsv", ".parquet"})
_COCO = ("_annotations.coco.json", "annotations.json", "instances.json", "coco.json")


def open_data_set(source: Path, classes: Sequence[str] = ()) -> DataSet:
    """Find the photos of a data set and what is known of them.

    Args:
        source: A folder; a table (``.csv``, ``.tsv``, ``.parquet``); COCO annotations (``.json``).
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
        if suffix in _TABLES:
            return of_table(source)
        if suffix == ".json":
            return _annotated(source, "coco", coco(source), source.parent)
        raise UsageError(
            "is not a data set",
            where=str(source),
            hint="name the folder that holds images/ and labels/"
            if suffix in {".yaml", ".yml"}
            else "name a folder of photos, a table (.csv, .tsv, .parquet) or COCO (.json)",
        )
    found = _annotations_in(source)
    return _folder(source, classes) if found is None else replace(found, source=source)


def _annotations_in(folder: Path) -> DataSet | None:
    """The photos that a folder's annotations describe; None where it has none.

    Raises:
        UsageError: They cannot be read, or there are several.
    """
    found = _coco_files(folder)
    if found:
        if len(found) > 1:
            names = [path.relative_to(folder).as_posix() for path in found]
            raise UsageError(
                f"has several annotations: {few(names)}",
                where=str(folder),
                hint=f"name one of them: {found[0]}",
            )
        return _annotated(found[0], "coco", coco(found[0]), found[0].parent)
    if has_voc(folder):
        return _annotated(folder, "voc", voc(folder), folder)
    if has_yolo(folder):
        return _annotated(folder, "yolo", yolo(folder), folder)
    return None


def _coco_files(folder: Path) -> list[Path]:
    """Annotations of COCO where its programs write them: of several places the first."""
    places = [folder / name for name in _COCO]
    inner = _files(folder, "annotations/instances_*.json"), _files(folder, f"*/{_COCO[0]}")
    return [p for p in places if p.is_file()][:1] or next(filter(None, inner), [])


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _alike(name: str) -> str:
    """A name in small letters, composed: macOS hands out names of folders decomposed."""
    return unicodedata.normalize("NFC", name).casefold()


def _folder(source: Path, classes: Sequence[str]) -> DataSet:
    """Photos at any depth, labelled by the folders that they lie in."""
    known = {_alike(name) for name in classes}
    listing = list_folder(source, MOST_FILES)
    _refuse_deeper(source, listing.photos)
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
        label = next((part for part in reversed(folders) if _alike(part) in known), None)
        label = label or (folders[-1] if folders else None)
        shown = None if label is None else clean_text(label)
        entries.append(Entry(distinct_text(str(name)), path, shown))
    kind = "class folders" if any(entry.label is not None for entry in entries) else "photos"
    return DataSet(source, kind, tuple(entries), listing=listing, remarks=_unread(listing))


def _refuse_deeper(source: Path, photos: Sequence[Path]) -> None:
    """Refuse photos whose annotations lie deeper than they are looked for.

    Their folders would be taken for classes.

    Raises:
        UsageError: Some do.
    """
    parents = dict.fromkeys(path.parent for path in photos)
    inner = {p for one in parents for p in (one, *one.parents) if p.is_relative_to(source)}
    found = [p for p in sorted(inner - {source}) if _coco_files(p) or _has_rooms(p)]
    if found:
        names = [place.relative_to(source).as_posix() for place in found]
        raise UsageError(
            f"has annotations in a folder below: {few(names)}",
            where=str(source),
            hint=f"name that folder: {found[0]}",
        )


def _has_rooms(folder: Path) -> bool:
    """Whether a folder has one for annotations of VOC or YOLO, and one for photos beside it."""
    photos, described = ("JPEGImages", "images"), ("Annotations", "annotations", "labels")
    rooms = all(any((folder / n).is_dir() for n in names) for names in (photos, described))
    return rooms and (has_voc(folder) or has_yolo(folder))


def _unread(listing: FolderListing) -> tuple[str, ...]:
    """What is said of descriptions that a folder of classes holds, and that are not read."""
    remarks = []
    tables = [p for p in listing.skipped if p.suffix.lower() in _TABLES]
    tables = [p for p in tables if p.parent == listing.folder]
    if tables:
        named = few([path.name for path in tables])
        remarks.append(f"tables beside the photos are not read, unless one is named: {named}")
    folders = dict.fromkeys(p.parent for p in listing.skipped if p.suffix.lower() == ".xml")
    pairs = [folder for folder in folders if has_voc(folder)]
    if pairs:
        named = few([folder.relative_to(listing.folder).as_posix() for folder in pairs])
        remarks.append(
            "annotations beside photos of a folder below are read only where that folder itself "
            f"is named: {named}"
        )
    return tuple(remarks)


def _annotated(source: Path, kind: str, said: Annotations, folder: Path) -> DataSet:
    """Photos of annotations; one class on a photo is its label."""
    found: dict[Path, Entry] = {}
    missing: dict[str, str] = {}
    for one in said.photos:
        places = (folder / name for spelled in one.places for name in spellings(str(spelled)))
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
            hint=f"looked for {few(list(missing), 1)} and the others below {folder}",
        )
    shown = {o.label for entry in entries for o in entry.objects}
    unused = tuple(name for name in said.classes if name not in shown)
    return DataSet(
        source, kind, tuple(entries), missing, unused=unused, remarks=tuple(said.remarks)
    )
