"""Annotations of photos as their files store them, on the photos turned upright.

A camera that was held upright stores the photo lying on its side, with an EXIF orientation that
says how to turn it.  Which of the two was annotated, the size tells: COCO and Pascal VOC write the
height and width of the picture whose pixels they count.  Readers that look at the orientation
(OpenCV, detectron2, Ultralytics, browsers) have annotated the upright photo, and those that do not
(Pillow, torchvision's ``CocoDetection``) the stored one.  Where the orientation keeps the size,
the photo was turned by half or mirrored: nothing tells, and the upright photo is meant.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from inspector.audit.data_set.entries import Entry
from inspector.audit.data_set.outlines import Outline
from inspector.errors import ImageRefused
from inspector.photos.photo import STORED_ON_ITS_SIDE, orientation_of

__all__ = ["on_upright_photo"]

Size = tuple[int, int]
Corners = tuple[float, float, float, float]

# Top, left, bottom, right on the upright photo, of those in a stored picture of height h, width w.
_TURNED: dict[int, Callable[[Corners, Size], Corners]] = {
    5: lambda c, _: (c[1], c[0], c[3], c[2]),
    6: lambda c, s: (c[1], s[0] - c[2], c[3], s[0] - c[0]),
    7: lambda c, s: (s[1] - c[3], s[0] - c[2], s[1] - c[1], s[0] - c[0]),
    8: lambda c, s: (s[1] - c[3], c[0], s[1] - c[1], c[2]),
}

_SLACK = 1.0
"""Pixels that boxes may reach beyond the picture that they were drawn on."""


def on_upright_photo(entry: Entry, size: Size) -> Entry:
    """A photo's annotations in pixels of the upright photo.

    Args:
        entry: The photo; of another size where its file stores it on its side.
        size: Height and width of the upright photo.

    Raises:
        ImageRefused: Its annotations are of another size, or lie outside of the picture whose size
            they give.
    """
    entry = _with_masks_turned(entry, size)
    if entry.size is None or entry.size == size:
        return entry
    turn = _TURNED.get(orientation_of(entry.path)) if entry.size == size[::-1] else None
    (height, width), (own_height, own_width) = size, entry.size
    if turn is None:
        raise ImageRefused(
            f"it has {width}x{height} pixels, and its annotations are of {own_width}x{own_height}",
            where=entry.photo,
            hint="annotate the photo as it is, or take the size out of the annotations",
        )
    boxes = [one.corners for one in entry.objects if not one.relative]
    if any(
        bottom > own_height + _SLACK or right > own_width + _SLACK for *_, bottom, right in boxes
    ):
        raise ImageRefused(
            f"its annotations give the size of the picture that the file stores, "
            f"{own_width}x{own_height}, and reach beyond it: they are of the upright photo, which "
            f"has {width}x{height}",
            where=entry.photo,
            hint="write the upright photo's width and height into the annotations",
        )
    objects = tuple(
        one
        if one.relative
        else replace(
            one,
            corners=turn(one.corners, entry.size),
            outline=None if one.outline is None else _turned(one.outline, turn, entry.size),
        )
        for one in entry.objects
    )
    return replace(entry, objects=objects, size=size)


def _turned(outline: Outline, turn: Callable[..., Any], size: Size) -> Outline:
    """An outline whose polygons are turned; a mask's own size says whether it is."""
    return outline.moved(lambda y, x: turn((y, x, y, x), size)[:2])


def _with_masks_turned(entry: Entry, size: Size) -> Entry:
    """A photo whose masks say how they are turned upright.

    Raises:
        ImageRefused: One is of another size than the photo, upright and as stored.
    """
    others = {o.outline.size for o in entry.objects if o.outline and o.outline.runs} - {size}
    if not others:
        return entry
    orientation = orientation_of(entry.path)
    if others != {size[::-1]} or orientation not in STORED_ON_ITS_SIDE:
        height, width = next(iter(others - {size[::-1]}), size[::-1])
        raise ImageRefused(
            f"it has {size[1]}x{size[0]} pixels, and a mask of its annotations {width}x{height}",
            where=entry.photo,
            hint="annotate the photo as it is",
        )
    objects = tuple(
        replace(o, outline=replace(o.outline, orientation=orientation))
        if o.outline and o.outline.runs and o.outline.size != size
        else o
        for o in entry.objects
    )
    return replace(entry, objects=objects)
