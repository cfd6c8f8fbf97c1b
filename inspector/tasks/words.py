"""The words that name an item: a class, the n-th of its kind, a box, a point, a mask."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from converters.plain_values import whole_number
from inspector.errors import UnknownTarget, nearest
from inspector.printable import clean_text

__all__ = ["Words", "class_of", "pieces", "read_words"]

_FARTHEST = 1e9
_NUMBER = r"\s*[+-]?\d+(?:\.\d+)?\s*"
_BOX = re.compile(rf"box:({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER})", re.ASCII)
_POINT = re.compile(rf"(?P<name>.*)@({_NUMBER}),({_NUMBER})", re.ASCII | re.DOTALL)
_RANK = re.compile(r"(?P<name>.*)#(?P<rank>\d{1,6})", re.ASCII | re.DOTALL)
_TOP = re.compile(r"top(\d{1,6})", re.ASCII | re.IGNORECASE)
_MASK = re.compile(r"mask:(?P<file>.+)", re.DOTALL)
_PIECE = re.compile(
    rf"-?{_BOX.pattern}|[^,\[\]]*@{_NUMBER},{_NUMBER}|(?:[^,\[]|\[[^\]]*\])+", re.ASCII
)


@dataclass(frozen=True)
class Words:
    """What a user asks for, taken apart.

    Attributes:
        name: A class by its name or number; empty for any.
        top: The k most certain; None where something else is asked for.
        rank: The n-th of its kind, from 1; None for all.
        box: Left, top, right, bottom in pixels of the photo.
        point: Column and row, in pixels of the photo.
        mask: A file with a mask of the photo.
    """

    name: str = ""
    top: int | None = None
    rank: int | None = None
    box: tuple[float, float, float, float] | None = None
    point: tuple[float, float] | None = None
    mask: str = ""


def pieces(text: str) -> Iterator[str]:
    """Parts of a list with commas; those of a box, a point or an index do not part it."""
    for found in _PIECE.finditer(text):
        if found[0].strip():
            yield found[0].strip()


def read_words(text: str) -> Words:
    """Take one piece apart.

    Raises:
        UnknownTarget: A box without extent, a rank of 0.
    """
    if found := _TOP.fullmatch(text):
        return Words(top=int(found[1]))
    if found := _BOX.fullmatch(text):
        left, top, right, bottom = (_pixels(found[i], text) for i in range(1, 5))
        if right <= left or bottom <= top:
            raise UnknownTarget(
                f"{clean_text(text)!r} is not a box", hint="write box:LEFT,TOP,RIGHT,BOTTOM"
            )
        return Words(box=(left, top, right, bottom))
    if found := _MASK.fullmatch(text):
        return Words(mask=found["file"])
    if found := _POINT.fullmatch(text):
        point = (_pixels(found[2], text), _pixels(found[3], text))
        return Words(name=found["name"].strip(), point=point)
    if (found := _RANK.fullmatch(text)) and int(found["rank"]) > 0:
        return Words(name=found["name"].strip(), rank=int(found["rank"]))
    return Words(name=text)


def _pixels(number: str, text: str) -> float:
    """A number of a box or a point; photos have far fewer pixels than the largest."""
    found = float(number)
    if abs(found) > _FARTHEST:
        raise UnknownTarget(f"{clean_text(text)!r} lies outside of any photo")
    return found


def class_of(name: str, labels: Sequence[str], count: int | None) -> int:
    """Number of the class that a name or a number means.

    Args:
        name: The user's word; letters of either case.
        labels: Names of the classes; empty when unknown.
        count: Number of the classes; None when unknown.

    Raises:
        UnknownTarget: There is no such class, or several.
    """
    wanted = " ".join(name.casefold().split())
    keys = [" ".join(label.casefold().split()) for label in labels]
    for found in (
        [i for i, key in enumerate(keys) if key == wanted],
        [i for i, key in enumerate(keys) if wanted and wanted in key],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(f"{i} ({labels[i]})" for i in found[:5])
            raise UnknownTarget(f"{clean_text(name)!r} names several classes: {shown}")
    number = whole_number(wanted.removeprefix("class "))  # as it is printed without a name
    if number is not None and number >= 0 and (count is None or number < count):
        return number
    if number is not None:
        raise UnknownTarget(f"there is no class {wanted}", hint=f"classes run from 0 to {count}-1")
    raise UnknownTarget(
        f"no class is called {clean_text(name)!r}",
        hint=nearest(name, labels)
        or ("the class names are not known; give an index, or names with --labels" * (not labels))
        or "classes: " + ", ".join(map(clean_text, labels[:12])),
    )
