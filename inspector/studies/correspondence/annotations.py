"""Boxes of parts on photos, from a JSON file.

    {"photos": [
        {"image": "dog_1.png",
         "object": [1, 0, 27, 32],
         "parts": {"head": [8, 2, 24, 21]}}
    ]}

Boxes are left, top, right, bottom in pixels of the upright photo; 0 is its own edge.  ``object``
may be left out.  The file is a stranger's: it names photos of its own folder and nothing outside.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from converters.errors import first_few
from converters.plain_values import finite_number, parse_json
from converters.regular_file import read_regular
from inspector.errors import UsageError
from inspector.printable import clean_text

__all__ = ["Annotated", "Corners", "complain", "read_parts", "sources_of"]

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom."""

MOST_PHOTOS, MOST_PARTS = 64, 16
_MAX_BYTES = 4 << 20
_MAX_NAME = 48
_SHAPE = 'write {"photos": [{"image": "a.png", "parts": {"nose": [x0, y0, x1, y1]}}]}'


@dataclass(frozen=True)
class Annotated:
    """A photo and where its parts are.

    Attributes:
        image: The file, relative to the folder.
        parts: Boxes by the part's name.
        whole: The object's box; None when it is not given.
    """

    image: Path
    parts: Mapping[str, Corners] = field(default_factory=dict)
    whole: Corners | None = None

    @property
    def boxes(self) -> "Iterator[tuple[str, Corners]]":
        """All boxes, the object's among them."""
        yield from self.parts.items()
        if self.whole is not None:
            yield "object", self.whole


def complain(findings: Sequence[str], where: Path) -> None:
    """Raise one error of all findings, if there are any.

    Raises:
        UsageError: There are.
    """
    if findings:
        raise UsageError(first_few(findings, 8, "; "), where=str(where), hint=_SHAPE)


def read_parts(path: Path) -> tuple[Annotated, ...]:
    """Read and check the file.

    Raises:
        UsageError: It cannot be read, or something in it cannot be used; all findings in one
            error.
    """
    document = _json(path)
    photos = document.get("photos") if isinstance(document, dict) else None
    if not isinstance(photos, list) or not photos:
        raise UsageError("holds no list of photos", where=str(path), hint=_SHAPE)
    if len(photos) > MOST_PHOTOS:
        raise UsageError(f"{len(photos)} photos", where=str(path), hint=f"at most {MOST_PHOTOS}")
    findings = [f"unknown key {clean_text(str(k))!r}" for k in document if k != "photos"]
    found = [_photo(entry, at, findings) for at, entry in enumerate(photos, 1)]
    good = [one for one in found if one is not None]
    names = [one.image for one in good]
    findings += [
        f"{clean_text(str(name))} stands in it more than once"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    parts = list(dict.fromkeys(part for one in good for part in one.parts))
    if len(parts) > MOST_PARTS:
        findings.append(f"{len(parts)} parts: at most {MOST_PARTS}")
    for part in parts:
        if sum(part in one.parts for one in good) < 2 and not findings:
            findings.append(f"{part!r} is marked on one photo only: two are compared at least")
    complain(findings, path)
    return tuple(good)


def sources_of(
    found: Sequence[Annotated], images: Sequence[Any], table: Path
) -> tuple[list[Any], int]:
    """The photos that are meant.

    Args:
        found: What was read.
        images: Photos that the user gave, of which the file's names are the last parts; the
            file's own folder is looked into when there are none.
        table: The file.

    Returns:
        One source a photo, and how many photos were given that the file does not name.

    Raises:
        UsageError: Names that no photo, or more than one, bears.
    """
    if not images:
        return [table.parent / one.image for one in found], 0
    chosen, findings = [], []
    for one in found:
        bearing = [source for source in images if _bears(source, one.image)]
        if len(bearing) != 1:
            many = "is not among the photos" if not bearing else f"are {len(bearing)} of the photos"
            findings.append(f"{clean_text(str(one.image))} {many} given")
        chosen += bearing[:1]
    complain(findings, table)
    return chosen, len(images) - len(chosen)


def _bears(source: Any, name: Path) -> bool:
    if isinstance(source, str | Path):
        return Path(source).parts[-len(name.parts) :] == name.parts
    return getattr(source, "name", None) == str(name)


def _json(path: Path) -> Any:
    try:
        data = read_regular(path, _MAX_BYTES)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot be read ({reason})", where=str(path)) from None
    try:
        return parse_json(data, pairs=_once)
    except UnicodeDecodeError:
        raise UsageError("is not UTF-8 text", where=str(path)) from None
    except ValueError as error:
        raise UsageError(f"is not JSON ({clean_text(str(error))})", where=str(path)) from None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand in it once: of two boxes of a part one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice[:_MAX_NAME]!r} stands twice in one object")
    return found


def _photo(entry: object, at: int, findings: list[str]) -> Annotated | None:
    """One photo of the list; what is wrong goes to the findings."""
    if not isinstance(entry, dict):
        findings.append(f"photo {at} is not an object")
        return None
    name = entry.get("image")
    image = _plain_name(name)
    shown = f"photo {at}" + (f" ({clean_text(name)[:_MAX_NAME]})" if isinstance(name, str) else "")
    if image is None:
        findings.append(f"{shown}: image is not the plain name of a file in the folder")
    unknown = [key for key in entry if key not in {"image", "object", "parts"}]
    findings += [f"{shown}: unknown key {clean_text(key)!r}" for key in unknown]
    parts = entry.get("parts")
    if not isinstance(parts, dict) or not parts:
        findings.append(f"{shown}: parts is not an object of boxes")
        return None
    boxes: dict[str, Corners] = {}
    for key, value in parts.items():
        label = clean_text(key)[:_MAX_NAME].strip()
        corners = _corners(value)
        if not label or label in boxes:
            findings.append(f"{shown}: a part without a name of its own")
        elif corners is None:
            findings.append(f"{shown}, {label}: {_WRONG}")
        else:
            boxes[label] = corners
    whole = _corners(entry["object"]) if "object" in entry else None
    if "object" in entry and whole is None:
        findings.append(f"{shown}, object: {_WRONG}")
    return Annotated(image, boxes, whole) if image is not None else None


_WRONG = "no four numbers left < right, top < bottom"


def _plain_name(name: object) -> Path | None:
    """A relative path that stays in the folder, on any system; None for all else."""
    if not isinstance(name, str) or not name.strip() or "\0" in name or len(name) > 1024:
        return None
    foreign = PureWindowsPath(name)
    if foreign.drive or foreign.root or ".." in foreign.parts or Path(name).is_absolute():
        return None
    relative = Path(name)
    return relative if relative.parts else None


def _corners(value: object) -> Corners | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    x0, y0, x1, y1 = (finite_number(v) for v in value)
    if x0 is None or y0 is None or x1 is None or y1 is None:
        return None
    if max(map(abs, (x0, y0, x1, y1))) >= 1e9:
        return None
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
