"""Photos as annotations describe them, and what readers of all kinds of annotations share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from converters.errors import first_few
from converters.plain_values import finite_number
from converters.regular_file import open_regular, read_regular
from inspector.audit.data_set.outlines import Outline
from inspector.errors import UsageError
from inspector.printable import clean_text

__all__ = [
    "MOST_FILES",
    "MOST_LABEL_BYTES",
    "Annotated",
    "Annotations",
    "Described",
    "beginning_of",
    "below",
    "few",
    "mappings_in",
    "read_file",
    "refuse_all",
    "size_of",
    "text_of",
    "unnamed",
    "without_outline",
]

MOST_BYTES = 1 << 30
MOST_FILES = 10_000_000
"""Files of a data set's folder that are looked at."""

MOST_LABEL_BYTES = 4 << 20


@dataclass(frozen=True)
class Annotated:
    """An object on a photo.

    Attributes:
        label: Its class; None where nothing says it.
        corners: Top, left, bottom, right in pixels of the upright photo.
        relative: Whether the corners are shares of the photo's height and width instead.
        outline: What it covers of them; None where only its box is known.
    """

    label: str | None
    corners: tuple[float, float, float, float]
    relative: bool = False
    outline: Outline | None = None

    def described(self) -> dict[str, Any]:
        """Plain data that tells it from others."""
        box = {"label": self.label, "corners": self.corners, "relative": self.relative}
        outline = self.outline
        return box if outline is None else {**box, "outline": outline.described()}


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


@dataclass(frozen=True)
class Annotations:
    """What annotations say.

    Attributes:
        photos: The photos that they name.
        classes: The classes that they name, in their order, whether a photo shows them or not.
        remarks: What has to be said of how they were read.
    """

    photos: Sequence[Described]
    classes: Sequence[str] = ()
    remarks: Sequence[str] = ()


def read_file(path: Path, limit: int = MOST_BYTES) -> bytes:
    """Bytes of a file of annotations.

    Raises:
        UsageError: It cannot be read, or is larger than the limit.
    """
    try:
        return read_regular(path, limit)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror or error})", where=str(path)) from None


def beginning_of(path: Path, count: int) -> bytes:
    """The first bytes of a file of any size.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        with open_regular(path) as stream:
            return stream.read(count)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror or error})", where=str(path)) from None


def below(name: object, path: Path) -> PurePosixPath:
    """A photo's name as a path below the data set's folder.

    Args:
        name: What annotations say: such a path, or a whole one that leads there.
        path: The file of annotations.

    Raises:
        UsageError: It leads outside.
    """
    found = PurePosixPath(str(name).replace("\\", "/"))
    folder = path.parent.parent if path.parent.name == "annotations" else path.parent
    if found.is_relative_to(folder.absolute().as_posix()):
        found = found.relative_to(folder.absolute().as_posix())
    if not str(name) or "\0" in str(name) or found.is_absolute() or ".." in found.parts:
        raise UsageError(
            f"names a file outside the folder: {clean_text(str(name), limit=80)}",
            where=str(path),
            hint="names of photos are paths below the folder of the data set",
        )
    return found


def text_of(path: Path) -> str:
    """Text of a small file, without a byte order mark."""
    return read_file(path, MOST_LABEL_BYTES).decode("utf-8-sig", "replace")


def unnamed(index: object) -> str:
    """The label of a class that has a number alone, which is not the model's own number."""
    return f"id {clean_text(str(index), limit=40)}"


def without_outline(objects: Iterable[Annotated]) -> list[str]:
    """What is said of objects of which only the box is known, where others have an outline."""
    known = [one.outline is not None for one in objects]
    if all(known) or not any(known):
        return []
    count = len(known) - sum(known)
    return [f"{count} of {len(known)} objects have no outline: their boxes count in masks"]


def refuse_all(wrong: Sequence[str], where: Path, hint: str = "") -> None:
    """Refuse everything that is wrong with some annotations, in one error.

    Raises:
        UsageError: Something is.
    """
    if wrong:
        raise UsageError(
            first_few([clean_text(one) for one in wrong], 5, "; "), where=str(where), hint=hint
        )


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """Height and width where both are numbers above 0."""
    found = [finite_number(one) for one in (height, width)]
    if any(one is None or one <= 0 for one in found):
        return None
    return int(found[0] or 0), int(found[1] or 0)


def mappings_in(values: object) -> list[Mapping[str, Any]]:
    """The mappings of a list; none where a stranger wrote something else."""
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    return first_few([clean_text(name) for name in names], most)
