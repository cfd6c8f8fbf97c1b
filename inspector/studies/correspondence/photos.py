"""Annotated photos in the network's own pixels: where each part lies, and which are cut off."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.passes.batches import batches
from inspector.photos.occluder import Box
from inspector.printable import clean_text
from inspector.studies.correspondence.annotations import Annotated, Corners, complain

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.photos.geometry import Geometry
    from inspector.photos.photo import Photo

__all__ = ["Box", "Marked", "open_marked", "overlap", "random_boxes"]

Array = np.ndarray[Any, Any]
MEMORY = 512 << 20
"""Bytes of network inputs that are held: a handful of photos with boxes drawn by hand."""


@dataclass(frozen=True, eq=False)
class Marked:
    """A photo with its parts.

    Attributes:
        place: Position in the list of parts.
        name: Its name.
        sha256: Its hash.
        tensor: (C, H, W), preprocessed.
        parts: Boxes by the part's name; those that the network sees whole.
        region: Where random boxes go: the object, or all that the network sees of the photo.
        has_object: Whether the object's box was given.
        cut: Parts that the crop cuts off.
    """

    place: int
    name: str
    sha256: str
    tensor: Array
    parts: dict[str, Box]
    region: Box
    has_object: bool
    cut: tuple[str, ...]


def open_marked(
    model: "Opened",
    found: Sequence[Annotated],
    sources: Sequence[Any],
    *,
    refused: list[ImageRefused],
    table: Path,
) -> list[Marked]:
    """Open the photos and lay their boxes onto the network's input.

    Raises:
        UsageError: Boxes that reach beyond their photo, all in one error; too many photos for
            an input of this size.
    """
    height, width = model.size(*model.preprocessing.preprocess.size)
    if len(found) * model.input.channels * height * width * 4 > MEMORY:
        raise UsageError(
            f"{len(found)} photos of {height}x{width} pixels at once",
            where=str(table),
            hint="leave some of them out",
        )
    findings: list[str] = []
    photos = []
    for batch in batches(model, sources, refused):
        for row, place in enumerate(batch.places):
            one, photo = found[place], batch.photos[row]
            wrong = list(_beyond(one, photo.size))
            findings += wrong
            if not wrong:
                photos.append(_marked(one, photo, place, batch.tensors[row], batch.geometries[row]))
    complain(findings, table)
    return photos


def _beyond(one: Annotated, size: tuple[int, int]) -> Iterator[str]:
    """Boxes that are not on the photo."""
    height, width = size
    for part, (x0, y0, x1, y1) in one.boxes:
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            name = clean_text(str(one.image))
            yield f"{name}, {part}: the box reaches beyond the photo of {width}x{height} pixels"


def _marked(
    one: Annotated, photo: "Photo", place: int, tensor: Array, geometry: "Geometry"
) -> Marked:
    parts, cut = {}, []
    for part, corners in one.parts.items():
        box = _laid(corners, geometry)
        if _clipped(box, geometry.input) == box:
            parts[part] = box
        else:
            cut.append(part)
    height, width = photo.size
    seen = _clipped(_laid((0, 0, width, height), geometry), geometry.input)
    inside = _clipped(_laid(one.whole, geometry), geometry.input) if one.whole else seen
    fits = inside[0] < inside[2] and inside[1] < inside[3]
    return Marked(
        place=place,
        name=photo.name,
        sha256=photo.sha256,
        tensor=tensor,
        parts=parts,
        region=inside if fits else seen,
        has_object=one.whole is not None and fits,
        cut=tuple(cut),
    )


def _laid(corners: Corners, geometry: "Geometry") -> Box:
    """A photo's box in whole pixels of the input, at least one wide; may reach beyond it."""
    x0, y0, x1, y1 = corners
    # Edges lie half a pixel before the centres that a geometry speaks of.
    rows, columns = geometry.to_input([y0 - 0.5, y1 - 0.5], [x0 - 0.5, x1 - 0.5])
    top, bottom = (int(v) for v in np.rint(rows + 0.5))
    left, right = (int(v) for v in np.rint(columns + 0.5))
    return top, left, max(bottom, top + 1), max(right, left + 1)


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    top, left, bottom, right = box
    return max(top, 0), max(left, 0), min(bottom, size[0]), min(right, size[1])


def random_boxes(photo: Marked, part: str, draws: int, seed: int) -> list[Box]:
    """Boxes of the part's size at random places, all places alike.

    They lie inside of the photo's region where the part fits into it, else anywhere on the input.
    The same seed, photo and part give the same boxes, whatever else is asked for.
    """
    top, left, bottom, right = photo.parts[part]
    height, width = bottom - top, right - left
    y0, x0, y1, x1 = photo.region
    if height > y1 - y0 or width > x1 - x0:
        y0, x0, (y1, x1) = 0, 0, photo.tensor.shape[1:]
    words = [seed, zlib.crc32(part.encode()), int(photo.sha256[:8], 16), photo.place]
    chance = np.random.default_rng(words)
    # Row and column of one place after the other: fewer draws are the first of more.
    ends = y1 - height, x1 - width
    places = chance.integers((y0, x0), ends, (draws, 2), endpoint=True)
    return [(y, x, y + height, x + width) for y, x in places.tolist()]


def overlap(box: Box, others: Sequence[Box]) -> float:
    """Mean share of a box that the others cover."""
    top, left, bottom, right = box
    every = np.asarray(others)
    heights = np.minimum(every[:, 2], bottom) - np.maximum(every[:, 0], top)
    widths = np.minimum(every[:, 3], right) - np.maximum(every[:, 1], left)
    area = np.clip(heights, 0, None) * np.clip(widths, 0, None)
    return float(area.mean()) / ((bottom - top) * (right - left))
