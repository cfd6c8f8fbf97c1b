"""Pascal VOC annotations: an XML file per photo."""

import codecs
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from xml.etree import ElementTree as ET

import numpy as np

from converters.plain_values import real_number, whole_number
from inspector.audit.data_set.described import (
    MOST_LABEL_BYTES,
    Annotated,
    Annotations,
    Described,
    beginning_of,
    below,
    few,
    read_file,
    refuse_all,
    size_of,
)
from inspector.audit.data_set.outlines import Outline, of_points
from inspector.errors import UsageError
from inspector.photos.sources import PICTURES, list_folder
from inspector.printable import clean_text, distinct_text

__all__ = ["has_voc", "voc"]


_FILES = ("Annotations", "annotations")
_ROOMS = ("JPEGImages", "images", "Images", "")
"""Folders that photos of ``Annotations/`` may lie in; in some data sets the whole folder."""

_MASKS = {"SegmentationClass", "SegmentationObject"}
"""Folders of pictures that are not photos."""

_BEGINNING = 4096

_CORNERS = ("ymin", "xmin", "ymax", "xmax")


def has_voc(folder: Path) -> bool:
    """Whether annotations of VOC lie in a folder, or beside its photos as LabelImg writes them."""
    apart = _apart(folder)
    if apart is None:
        return any(_beside(folder))
    return (folder / "JPEGImages").is_dir() or any(map(_is_annotation, apart.glob("*.xml")))


def _apart(folder: Path) -> Path | None:
    """The folder of annotations that lie apart from their photos."""
    return next((folder / name for name in _FILES if (folder / name).is_dir()), None)


def _beside(folder: Path) -> Iterator[Path]:
    """Yield annotations that lie beside a photo of the same name."""
    names = {path.stem for path in folder.iterdir() if path.suffix.lower() in PICTURES}
    found = sorted(path for path in folder.glob("*.xml") if path.stem in names and path.is_file())
    # Photos may have other files of XML beside them.
    yield from filter(_is_annotation, found)


def _is_annotation(path: Path) -> bool:
    """Whether an XML file begins as an annotation, in letters of one byte or of two."""
    return b"<annotation" in beginning_of(path, _BEGINNING).replace(b"\0", b"")


def voc(folder: Path) -> Annotations:
    """Photos of ``JPEGImages/`` with the boxes of ``Annotations/*.xml``, pixels counted from 1.

    Photos may also lie in ``images/``, or in the folder itself; and pairs of a photo and its XML
    in the folder itself, all of which are read.  Where the photo that a file names is not there,
    the photo of the file's own name is meant.

    Raises:
        UsageError: A file is not such XML, declares entities, or has corners that are not a box.
    """
    wrong: list[str] = []
    beside, apart = list(_beside(folder)), _apart(folder)
    described = [_described(path, folder, ("",), wrong) for path in beside]
    pairs = {one.photo for one in described}
    for path in sorted(apart.glob("*.xml")) if apart is not None else ():
        one = _described(path, folder, _ROOMS, wrong)
        # A photo of the same name lies in the folder itself.
        called = distinct_text(str(one.places[0])) if one.photo in pairs else one.photo
        described.append(replace(one, photo=called))
    refuse_all(wrong, folder if beside or apart is None else apart)
    return Annotations(described, (), _left_out(folder, described))


def _left_out(folder: Path, described: Sequence[Described]) -> list[str]:
    """What is said of photos without annotations."""
    named = {one.places[0].name for one in described}
    listed = (path.relative_to(folder) for path in list_folder(folder).photos)
    rest = [p.name for p in listed if p.name not in named and p.parts[0] not in _MASKS]
    return [f"photos without a file of annotations are left out: {few(rest)}"] if rest else []


def _described(path: Path, folder: Path, rooms: Sequence[str], wrong: list[str]) -> Described:
    """The photo of one file, looked for in some folders of the data set.

    Raises:
        UsageError: The file is not such XML, or names a photo outside.
    """
    root = _xml(path)
    given = _without_place((root.findtext("filename") or "").strip())
    own = [f"{path.stem}{suffix}" for suffix in sorted(PICTURES)]
    names = [below(name, path) for name in ([given, *own] if given else own)]
    places = [(room, name) for name in names for room in rooms]
    there = ((room, n) for room, n in places if os.path.isfile(folder / room / n))  # noqa: PTH113
    room, name = next(there, places[0])
    objects = []
    for one in root.iter("object"):
        label = clean_text((one.findtext("name") or "").strip()) or None
        try:
            outline = _outline(one)
        except ValueError as error:
            wrong.append(f"{path.name}: {error}")
            continue
        corners = None if outline is None else outline.corners
        if one.find("bndbox") is not None or corners is None:
            top, left, bottom, right = _numbers(one.findtext(f"bndbox/{key}") for key in _CORNERS)
            if not (top <= bottom and left <= right):
                wrong.append(f"{path.name}: corners that are not numbers, or the wrong way round")
                continue
            corners = top - 1, left - 1, bottom, right
        objects.append(Annotated(label, corners, outline=outline))
    size = size_of(*(whole_number(root.findtext(f"size/{k}") or "") for k in ("height", "width")))
    found = (PurePosixPath(room) / name, name)
    return Described(distinct_text(str(name)), found, objects, size)


def _outline(described: ET.Element) -> Outline | None:
    """Outline of an object: a polygon, or the box of roLabelImg, turned by an angle in radians.

    Raises:
        ValueError: Its numbers are none.
    """
    turned, drawn = described.find("robndbox"), described.find("polygon")
    if turned is not None:
        x, y, width, height, angle = _numbers(map(turned.findtext, ("cx", "cy", "w", "h", "angle")))
        across = np.array([-1, 1, 1, -1]) * width / 2
        down = np.array([-1, -1, 1, 1]) * height / 2
        columns = x + across * math.cos(angle) - down * math.sin(angle)
        rows = y + across * math.sin(angle) + down * math.cos(angle)
        points = np.stack([columns, rows], 1).ravel().tolist()
    elif drawn is not None:  # <x1/><y1/><x2/><y2/> ..., or <pt><x/><y/></pt> ...
        points = _numbers(one.text for one in drawn.iter() if re.fullmatch(r"[xy]\d*", one.tag))
    else:
        return None
    if not all(map(math.isfinite, points)) or len(points) % 2:
        raise ValueError("a polygon or turned box whose numbers are not pairs of x and y")
    return of_points([points])


def _numbers(texts: Iterable[str | None]) -> list[float]:
    """Numbers out of texts; NaN where there is none."""
    found = (real_number(text or "") for text in texts)
    return [math.nan if one is None else one for one in found]


def _without_place(name: str) -> str:
    """The file's own name where a program wrote its whole path on the machine that it ran on."""
    windows = PureWindowsPath(name)
    return windows.name if windows.root or windows.drive else name


def _xml(path: Path) -> ET.Element:
    """An XML file that declares nothing.

    Raises:
        UsageError: It is not XML, or declares entities: also in an encoding that hides that.
    """
    data = read_file(path, MOST_LABEL_BYTES)
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
