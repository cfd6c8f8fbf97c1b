"""What is to be found on each photo: objects with their classes and boxes, out of the table."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.errors import ImageRefused, UsageError
from inspector.photos.dataset import Box, class_indices, read_boxes

__all__ = ["Object", "boxed_photos", "check_inside", "objects_of"]

SLACK = 0.5
"""Pixels that a box may reach beyond its photo: tables round."""

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Object:
    """All boxes of one label on a photo.

    Attributes:
        label: As the table has it.
        classes: Classes of the model that the label means; several where it has alternatives.
        boxes: (y0, x0, y1, x1) in pixels of the upright photo.
    """

    label: str
    classes: tuple[int, ...]
    boxes: tuple[Corners, ...]


def boxed_photos(
    table: str | Path, images: Iterable[Any]
) -> tuple[list[tuple[Path, tuple[Box, ...]]], int]:
    """The photos of a table of boxes, with their boxes.

    Args:
        table: The CSV file; see ``inspector.photos.dataset``.
        images: Photos, or folders of photos; where there are some, photos elsewhere are left out.
            None: all of the table's photos, in its own folder.

    Returns:
        Each photo once, in the table's order, and how many photos of the table were left out.

    Raises:
        UsageError: No table, or one that cannot be read; a photo in memory; no photo left.
    """
    if not table:
        raise UsageError(
            "the boxes of the objects are missing",
            hint="--boxes boxes.csv, with the columns image,label,x0,y0,x1,y1",
        )
    given = []
    for image in images:
        if not isinstance(image, str | Path):
            raise UsageError("boxes belong to files", hint="give paths of photos or folders")
        given.append(Path(image))
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in given)
    found: dict[Path, list[Box]] = {}
    for box in read_boxes(Path(table), list(folders)):
        found.setdefault(box.path, []).append(box)
    chosen = {_followed(path) for path in given}
    kept = [
        (path, tuple(boxes))
        for path, boxes in found.items()
        # A photo that is missing is not left out: it is named as one that cannot be read.
        if not given
        or {_followed(path), _followed(path).parent} & chosen
        or not os.path.isfile(path)  # noqa: PTH113 - never raises
    ]
    if not kept:
        raise UsageError("has no box for any of the photos given", where=str(table))
    return kept, len(found) - len(kept)


def _followed(path: Path) -> Path:
    """Where links lead; not by Path.resolve, which raises where they form a circle."""
    return Path(os.path.realpath(path))


def objects_of(rows: Sequence[Box], names: Sequence[str], classes: int) -> tuple[Object, ...]:
    """Objects of one photo.

    Args:
        rows: Its boxes.
        names: The model's class names.
        classes: How many classes it has.

    Raises:
        ImageRefused: A label that means no class of the model, with the line of the table.
    """
    # One sigmoid unit with two names scores the second one, as everywhere (`target`).
    names = names[1:] if classes == 1 and len(names) == 2 else names
    boxes: dict[str, list[Corners]] = {}
    for row in rows:
        boxes.setdefault(row.label, []).append(row.corners)
    found = []
    for label, corners in boxes.items():
        indices = class_indices(label, names, classes)
        if not indices:
            line = next(row.row for row in rows if row.label == label)
            raise ImageRefused(
                f"line {line}: {label!r} is not a class of the model",
                where=str(rows[0].path),
                hint="" if names else "class names are not known; give them with --labels",
            )
        found.append(Object(label, indices, tuple(corners)))
    return tuple(found)


def check_inside(rows: Sequence[Box], size: tuple[int, int]) -> None:
    """Refuse a photo whose boxes are not those of the photo.

    Args:
        rows: Its boxes.
        size: Height and width of the upright photo.

    Raises:
        ImageRefused: A box reaches outside; with the line of the table.
    """
    height, width = size
    for row in rows:
        inside = min(row.x0, row.y0) >= -SLACK and (
            row.x1 <= width + SLACK and row.y1 <= height + SLACK
        )
        if not inside:
            raise ImageRefused(
                f"line {row.row}: the box {row.x0:g},{row.y0:g},{row.x1:g},{row.y1:g} reaches "
                f"outside the photo of {width}x{height}",
                where=str(row.path),
                hint="boxes are x0,y0,x1,y1 in pixels of the upright photo",
            )
