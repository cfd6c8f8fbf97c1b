"""Pascal VOC annotations: an XML file per photo."""

import codecs
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET

from converters.plain_values import whole_number
from inspector.audit.data_set.described import (
    MOST_LABEL_BYTES,
    Annotated,
    Annotations,
    Described,
    below,
    few,
    read_file,
    refuse_all,
    size_of,
)
from inspector.errors import UsageError
from inspector.photos.sources import PICTURES, list_folder
from inspector.printable import clean_text, distinct_text

__all__ = ["has_voc", "voc"]


def has_voc(folder: Path) -> bool:
    """Whether annotations of VOC lie in a folder, or beside its photos as LabelImg writes them."""
    apart = (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()
    return apart or any(_beside(folder))


def _beside(folder: Path) -> Iterator[Path]:
    """Yield annotations that lie beside a photo of the same name."""
    names = {path.stem for path in folder.iterdir() if path.suffix.lower() in PICTURES}
    found = sorted(path for path in folder.glob("*.xml") if path.stem in names and path.is_file())
    # Photos may have other files of XML beside them.
    yield from (p for p in found if b"<annotation" in read_file(p, MOST_LABEL_BYTES)[:4096])


def voc(folder: Path) -> Annotations:
    """Photos of ``JPEGImages/`` with the boxes of ``Annotations/*.xml``, pixels counted from 1.

    Both may lie in the folder itself.

    Where the photo that a file names is not there, the photo of the file's own name is meant.

    Raises:
        UsageError: A file is not such XML, declares entities, or has corners that are no box.
    """
    described, wrong = [], list[str]()
    beside = list(_beside(folder))
    room = "" if beside else "JPEGImages"
    for path in beside or sorted((folder / "Annotations").glob("*.xml")):
        root = _xml(path)
        given = root.findtext("filename")
        own = [f"{path.stem}{suffix}" for suffix in sorted(PICTURES)]
        names = [given, *own] if given else own
        places = [below(name, path) for name in names]
        name = next((n for n in places if (folder / room / n).is_file()), places[0])
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
        found = (PurePosixPath(room) / name, name)
        size = size_of(
            *(whole_number(root.findtext(f"size/{k}") or "") for k in ("height", "width"))
        )
        described.append(Described(distinct_text(str(name)), found, objects, size))
    refuse_all(wrong, folder if beside else folder / "Annotations")
    photos = list_folder(folder / room).photos
    named = {PurePosixPath(one.photo).name for one in described}
    rest = [path.name for path in photos if distinct_text(path.name) not in named]
    said = [f"photos without a file of annotations are left out: {few(rest)}"] if rest else []
    return Annotations(described, (), said)


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
