"""YOLO annotations: a text file of boxes or polygons beside each photo's folder."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from converters.plain_values import parse_yaml, whole_number
from inspector.audit.data_set.described import (
    Annotated,
    Described,
    text_of,
    unnamed,
)
from inspector.errors import UsageError, require
from inspector.photos.sources import list_folder
from inspector.printable import clean_text, distinct_text

__all__ = ["yolo"]


def yolo(folder: Path) -> list[Described]:
    """Photos below ``images/`` with their lines ``class x y width height`` below ``labels/``.

    The numbers are shares of the photo; names come from ``data.yaml`` or ``classes.txt``.

    Raises:
        UsageError: A file of labels cannot be read.
    """
    names = _yolo_names(folder)
    described = []
    for path in sorted(list_folder(folder / "images").photos):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        own = folder / "labels" / path.relative_to(folder / "images").with_suffix(".txt")
        objects = _yolo_objects(own, names) if own.is_file() else []
        described.append(Described(distinct_text(str(name)), (name,), objects))
    return described


def _yolo_objects(path: Path, names: Mapping[int, str]) -> list[Annotated]:
    """Objects of one file: boxes, with or without a confidence, or polygons.

    Raises:
        UsageError: A line is neither.
    """
    objects = []
    lines = text_of(path).splitlines()
    for at, line in enumerate(lines):
        words = line.split()
        if not words:
            continue
        index = whole_number(words[0])
        try:
            numbers = [float(word) for word in words[1:]]
        except ValueError:
            numbers = []
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
            objects.append(Annotated(names.get(index, unnamed(index)), corners, relative=True))
    return objects


def _yolo_names(folder: Path) -> dict[int, str]:
    listed = folder / "classes.txt"
    if listed.is_file():
        lines = text_of(listed).splitlines()
        return {i: clean_text(line.strip()) for i, line in enumerate(lines) if line.strip()}
    described = next((p for p in sorted(folder.glob("*.y*ml")) if p.is_file()), None)
    if described is None:
        return {}
    return _names_of_yaml(described)


def _names_of_yaml(path: Path) -> dict[int, str]:
    """The list or mapping ``names`` of a data.yaml.

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
        return {}
    numbered = ((whole_number(str(i)), name) for i, name in names.items())
    return {i: clean_text(str(name)) for i, name in numbered if i is not None}
