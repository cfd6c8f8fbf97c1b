"""Annotations of data sets: COCO, YOLO and Pascal VOC, read as a stranger's text."""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree as ET

from converters.plain_values import finite_number, parse_json, whole_number
from converters.regular_file import read_regular
from inspector.errors import UsageError, require
from inspector.photos.sources import PICTURES, list_folder
from inspector.printable import clean_text

__all__ = ["Annotated", "Described", "coco", "of_folder", "refuse_all", "voc", "yolo"]

MOST_BYTES = 1 << 30
_MOST_LABEL_BYTES = 4 << 20
Identity = int | float | str | None
"""What tells images and categories of COCO apart."""

_COCO = ("_annotations.coco.json", "annotations.json", "instances.json", "coco.json")


@dataclass(frozen=True)
class Annotated:
    """An object on a photo.

    Attributes:
        label: Its class; None where nothing says it.
        corners: Top, left, bottom, right in pixels of the upright photo.
        relative: Whether the corners are shares of the photo's height and width instead.
    """

    label: str | None
    corners: tuple[float, float, float, float]
    relative: bool = False


@dataclass(frozen=True)
class Described:
    """A photo that annotations name.

    Attributes:
        photo: Its name.
        places: Where it may lie below the data set's folder.
        objects: What lies on it.
        size: Height and width that the annotations say it has; None where they do not.
    """

    photo: str
    places: tuple[PurePosixPath, ...]
    objects: Sequence[Annotated]
    size: tuple[int, int] | None = None


def of_folder(folder: Path) -> tuple[str, Sequence[Described]] | None:
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


def _read(path: Path, limit: int = MOST_BYTES) -> bytes:
    try:
        return read_regular(path, limit)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror or error})", where=str(path)) from None


def _below(name: object, path: Path) -> PurePosixPath:
    """A photo's name as a path below the data set's folder.

    Raises:
        UsageError: It leads outside.
    """
    found = PurePosixPath(str(name).replace("\\", "/"))
    if not str(name) or "\0" in str(name) or found.is_absolute() or ".." in found.parts:
        raise UsageError(
            f"names a file outside the folder: {clean_text(str(name), limit=80)}",
            where=str(path),
        )
    return found


def coco(path: Path) -> list[Described]:
    """Photos of COCO annotations: ``images``, ``annotations`` and ``categories``.

    Raises:
        UsageError: It is not COCO, or names files outside its folder.
    """
    try:
        found = parse_json(_read(path))
    except ValueError as error:
        raise UsageError(f"is not JSON ({error})", where=str(path)) from None
    parts = found if isinstance(found, dict) else {}
    images, boxes = parts.get("images"), parts.get("annotations", [])
    if not isinstance(images, list) or not isinstance(boxes, list):
        raise UsageError(
            "is not COCO: it has no list `images`",
            where=str(path),
            hint="COCO has the lists images, annotations and categories",
        )
    wrong: list[str] = []
    named = _by_id(_objects(parts.get("categories", [])), "categories", wrong)
    known = _by_id(_objects(images), "images", wrong)
    objects: dict[Identity, list[Annotated]] = {}
    for number, box in enumerate(_objects(boxes)):
        if box.get("iscrowd") == 1:  # a region of many objects, which no evaluation counts
            continue
        numbers = _box_of(box)
        if numbers is None:  # key points, or a region as run lengths
            continue
        called = f"annotation {clean_text(str(box.get('id', number)), limit=40)}"
        if numbers == []:
            wrong.append(f"{called}: bbox is not left, top, width, height")
            continue
        identity, category = _identity(box.get("image_id")), _identity(box.get("category_id"))
        said = clean_text(str(named.get(category, {}).get("name") or "")).strip()
        label = said or (None if category is None else _unnamed(category))
        if numbers[2] > 0 and numbers[3] > 0:  # COCO itself has boxes without an area
            left, top = numbers[:2]
            corners = (top, left, top + numbers[3], left + numbers[2])
            objects.setdefault(identity, []).append(Annotated(label, corners))
    if objects and not set(objects) & set(known):
        wrong.append("no annotation has the id of an image: image_id and id differ in type?")
    refuse_all(wrong, path)
    described = []
    for image in _objects(images):
        name = _below(image.get("file_name", ""), path)
        places = (name, PurePosixPath("images") / name, PurePosixPath(name.name))
        own = objects.get(_identity(image.get("id")), [])
        size = image.get("height"), image.get("width")
        described.append(Described(clean_text(str(name)), places, own, _size(*size)))
    return described


def _identity(value: object) -> Identity:
    """What tells images and categories apart; None of what can be no identity."""
    return value if isinstance(value, int | float | str) else None


def _by_id(
    found: Sequence[Mapping[str, Any]], what: str, wrong: list[str]
) -> dict[Identity, Mapping[str, Any]]:
    """Images or categories by their identity; two different ones of the same are wrong."""
    known: dict[Identity, Mapping[str, Any]] = {}
    key = "file_name" if what == "images" else "name"
    for one in found:
        other = known.setdefault(_identity(one.get("id")), one)
        if other is not one and other.get(key) != one.get(key):
            wrong.append(f"two {what} have the id {clean_text(str(one.get('id')), limit=40)}")
    return known


def _box_of(annotation: Mapping[str, Any]) -> list[float] | None:
    """Left, top, width, height; empty where that is no box, None where there is none.

    Without ``bbox`` it is what the polygons of ``segmentation`` reach.
    """
    numbers = annotation.get("bbox")
    if numbers is not None:
        given = list(numbers) if isinstance(numbers, list) else []
        found = [finite_number(one) for one in given]
        right = len(found) == 4 and None not in found
        box = [float(one or 0) for one in found]
        return box if right and box[2] >= 0 and box[3] >= 0 else []
    parts = annotation.get("segmentation")
    if not isinstance(parts, list) or not parts or not all(isinstance(p, list) for p in parts):
        return None
    points = [finite_number(value) for part in parts for value in part]
    if None in points or not points or any(len(part) % 2 for part in parts):
        return []
    places = [float(one or 0) for one in points]
    across, down = places[0::2], places[1::2]
    left, top = min(across), min(down)
    return [left, top, max(across) - left, max(down) - top]


def _unnamed(index: object) -> str:
    """The label of a class that has a number alone, which is not the model's own number."""
    return f"id {clean_text(str(index), limit=40)}"


def refuse_all(wrong: Sequence[str], where: Path, hint: str = "") -> None:
    """Refuse everything that is wrong with some annotations, in one error.

    Raises:
        UsageError: Something is.
    """
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UsageError(clean_text("; ".join(wrong[:5])) + more, where=str(where), hint=hint)


def _size(height: object, width: object) -> tuple[int, int] | None:
    """Height and width where both are numbers above 0."""
    found = [finite_number(one) for one in (height, width)]
    if any(one is None or one <= 0 for one in found):
        return None
    return int(found[0] or 0), int(found[1] or 0)


def _objects(values: object) -> list[Mapping[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


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
        described.append(Described(clean_text(str(name)), (name,), objects))
    return described


def _yolo_objects(path: Path, names: Mapping[int, str]) -> list[Annotated]:
    """Objects of one file: boxes, with or without a confidence, or polygons.

    Raises:
        UsageError: A line is neither.
    """
    objects = []
    lines = _text(path).splitlines()
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
            objects.append(Annotated(names.get(index, _unnamed(index)), corners, relative=True))
    return objects


def _text(path: Path) -> str:
    """Text of a small file, without a byte order mark."""
    return _read(path, _MOST_LABEL_BYTES).decode("utf-8-sig", "replace")


def _yolo_names(folder: Path) -> dict[int, str]:
    listed = folder / "classes.txt"
    if listed.is_file():
        lines = _text(listed).splitlines()
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
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.safe_load(_read(path, _MOST_LABEL_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise UsageError(f"is not YAML ({clean_text(first)})", where=str(path)) from None
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    numbered = ((whole_number(str(i)), name) for i, name in names.items())
    return {i: clean_text(str(name)) for i, name in numbered if i is not None}


def _xml(path: Path) -> ET.Element:
    """An XML file that declares nothing.

    Raises:
        UsageError: It is not XML, or declares entities: also in an encoding that hides that.
    """
    data = _read(path, _MOST_LABEL_BYTES)
    try:
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text: str | bytes = data.decode("utf-16") if wide else data
        plain = text.encode() if isinstance(text, str) else text
        if b"\0" in plain:
            raise UsageError("is not UTF-8 text", where=str(path))
        if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
            raise UsageError("declares entities, which no annotation needs", where=str(path))
        return ET.fromstring(text)  # noqa: S314 - without declarations, see above
    except (ET.ParseError, ValueError, LookupError) as error:
        reason = clean_text(str(error), limit=100)
        raise UsageError(f"is not XML ({reason})", where=str(path)) from None


def voc(folder: Path) -> list[Described]:
    """Photos of ``JPEGImages/`` with the boxes of ``Annotations/*.xml``, pixels counted from 1.

    Raises:
        UsageError: A file is not such XML, declares entities, or has corners that are no box.
    """
    described, wrong = [], list[str]()
    for path in sorted((folder / "Annotations").glob("*.xml")):
        root = _xml(path)
        given = root.findtext("filename")
        names = [given] if given else [f"{path.stem}{suffix}" for suffix in sorted(PICTURES)]
        below = [_below(name, path) for name in names]
        name = next((n for n in below if (folder / "JPEGImages" / n).is_file()), below[0])
        objects = []
        for one in root.iter("object"):
            texts = [one.findtext(f"bndbox/{key}") for key in ("ymin", "xmin", "ymax", "xmax")]
            try:
                top, left, bottom, right = (float(text or "") for text in texts)
            except ValueError:
                top, left, bottom, right = 1.0, 1.0, 0.0, 0.0
            if not (top <= bottom and left <= right):
                wrong.append(f"{path.name}: corners that are not numbers, or the wrong way round")
                continue
            label = clean_text((one.findtext("name") or "").strip()) or None
            objects.append(Annotated(label, (top - 1, left - 1, bottom, right)))
        places = (PurePosixPath("JPEGImages") / name, name)
        size = _size(*(whole_number(root.findtext(f"size/{k}") or "") for k in ("height", "width")))
        described.append(Described(clean_text(str(name)), places, objects, size))
    refuse_all(wrong, folder / "Annotations")
    return described
