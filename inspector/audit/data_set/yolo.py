"""YOLO annotations: a text file of boxes or polygons beside each photo's folder."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from converters.plain_values import parse_yaml, whole_number
from inspector.audit.data_set.described import (
    Annotated,
    Annotations,
    Described,
    few,
    text_of,
    unnamed,
    without_outline,
)
from inspector.audit.data_set.outlines import of_points
from inspector.errors import UsageError, require
from inspector.photos.sources import PICTURES, list_folder
from inspector.printable import clean_text, distinct_text

__all__ = ["has_yolo", "yolo"]

_LISTED = "classes.txt"
_LINE = re.compile(r"\d+(?:\.0*)?(\s+-?[\d.]+(e-?\d+)?){4,}", re.IGNORECASE)


def has_yolo(folder: Path) -> bool:
    """Whether photos and labels of YOLO lie in a folder, or in folders of it such as ``train``."""
    return bool(_parts(folder))


def _parts(folder: Path) -> list[tuple[Path, Path]]:
    """Folders of photos and of their labels.

    ``images/`` and ``labels/`` of the folder itself, or of those in it; or both in one, as Darknet
    and LabelImg write them.
    """
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for places in ([folder], inner):
        apart = [(_inner(one, "images"), _inner(one, "labels")) for one in places]
        if pairs := [(photos, labels) for photos, labels in apart if photos and labels]:
            return pairs
        beside = [(one, one) for one in places if _beside(one)]
        if beside:
            return beside
    return []


def _inner(folder: Path, name: str) -> Path | None:
    """A folder in another one, with a name in any case: elsewhere ``Images`` is ``images``."""
    exact = folder / name
    if exact.is_dir():
        return exact
    with os.scandir(folder) as found:
        others = sorted(e.name for e in found if e.name.lower() == name and e.is_dir())
    return folder / others[0] if others else None


def _beside(folder: Path) -> bool:
    """Whether files beside photos of the same names hold boxes, and not other words on them."""
    names = {path.stem for path in folder.iterdir() if path.suffix.lower() in PICTURES}
    found = sorted(p for p in folder.glob("*.txt") if p.stem in names and p.is_file())
    lines = (line for path in found for line in text_of(path).splitlines() if line.strip())
    return _LINE.fullmatch(next(lines, "").strip()) is not None


def yolo(folder: Path) -> Annotations:
    """Photos below ``images/`` with their lines ``class x y width height`` below ``labels/``.

    The numbers are shares of the photo; names come from ``data.yaml`` or ``classes.txt``.

    Raises:
        UsageError: A file of labels cannot be read.
    """
    names, points = _yolo_names(folder)
    described, without, used = [], list[str](), set[Path]()
    for images, labels in _parts(folder):
        listing = list_folder(images)
        for path in sorted(listing.photos):
            name = PurePosixPath(path.relative_to(folder).as_posix())
            own = labels / path.relative_to(images).with_suffix(".txt")
            objects = _yolo_objects(own, names, points) if own.is_file() else []
            used.add(own)
            described.append(Described(distinct_text(str(name)), (name,), objects))
        # Beside photos there are other texts, too.
        listed = sorted(labels.rglob("*.txt")) if labels != images else []
        without += [
            path.relative_to(folder).as_posix()
            for path in listed
            if path not in used and path.name != _LISTED and not path.name.startswith(".")
        ]
    remarks = without_outline(one for photo in described for one in photo.objects)
    if without:
        remarks.append(f"labels of which the photo is not there: {few(without)}")
    if not names and any(one.objects for one in described):
        remarks.append("classes have numbers alone: there is no data.yaml and no classes.txt")
    return Annotations(described, list(dict.fromkeys(names.values())), remarks)


def _yolo_objects(path: Path, names: Mapping[int, str], points: int) -> list[Annotated]:
    """Objects of one file: boxes, with or without a confidence, or polygons.

    Args:
        path: The file.
        names: Class names by number.
        points: Numbers of key points that follow each box.

    Raises:
        UsageError: A line is neither.
    """
    objects = []
    lines = text_of(path).splitlines()
    for at, line in enumerate(lines):
        words = line.split()
        if not words:
            continue
        index = whole_number(re.sub(r"\.0*$", "", words[0]))  # 3.0, as NumPy writes a row
        try:
            numbers = [float(word) for word in words[1:]]
        except ValueError:
            numbers = []
        if points and len(numbers) == 4 + points:
            numbers = numbers[:4]
        outline = len(numbers) >= 6 and len(numbers) % 2 == 0
        shares = numbers if outline else numbers[:4]
        if (
            index is None
            or index < 0
            or not (outline or len(numbers) in {4, 5})
            or not all(-1 <= n <= 2 for n in shares)
        ):
            raise UsageError(
                f"line {at + 1} is not `class x y width height`, or a polygon, in shares of the "
                "photo",
                where=str(path),
            )
        if outline:
            corners = min(numbers[1::2]), min(numbers[0::2]), max(numbers[1::2]), max(numbers[::2])
        else:
            x, y, width, height = shares
            corners = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
        if corners[0] < corners[2] and corners[1] < corners[3]:
            label = names.get(index, unnamed(index))
            shape = of_points([numbers]) if outline else None
            objects.append(Annotated(label, corners, relative=True, outline=shape))
    return objects


def _yolo_names(folder: Path) -> tuple[dict[int, str], int]:
    """Names by number, of the first file that holds some, and how many numbers key points have."""
    for listed in (folder / _LISTED, folder / "labels" / _LISTED):
        if listed.is_file():
            lines = text_of(listed).splitlines()
            named = enumerate(line.strip() for line in lines)
            return {i: clean_text(name) for i, name in named if name}, 0
    every = sorted(p for p in folder.glob("*.y*ml") if p.is_file())
    every.sort(key=lambda path: path.stem not in {"data", "dataset"})
    return next((found for found in map(_names_of_yaml, every) if found[0]), ({}, 0))


def _names_of_yaml(path: Path) -> tuple[dict[int, str], int]:
    """The list or mapping ``names`` of a data.yaml, and the product of its ``kpt_shape``.

    Raises:
        MissingExtra: PyYAML is not installed.
        UsageError: It is not YAML.
    """
    require("yaml", "reading data.yaml", "audit")
    try:
        found = parse_yaml(text_of(path))
    except ValueError as error:
        raise UsageError(f"is not YAML ({clean_text(str(error))})", where=str(path)) from None
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}, 0
    numbered = ((whole_number(str(i)), name) for i, name in names.items())
    shape = found.get("kpt_shape") if isinstance(found, dict) else None
    sizes = [size for size in shape if isinstance(size, int)] if isinstance(shape, list) else []
    points = sizes[0] * sizes[1] if len(sizes) == 2 else 0
    return {i: clean_text(str(name)) for i, name in numbered if i is not None}, points
