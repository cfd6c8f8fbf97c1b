"""Planes of numbers: points and masks of the photo on them, and the bottleneck before them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inspector.errors import ImageRefused
from inspector.photos.geometry import Geometry
from inspector.photos.photo import (
    STORED_ON_ITS_SIDE,
    Photo,
    indices_of,
    orientation_of,
    upright,
)

__all__ = ["bottleneck", "cell_of", "connected", "is_halved", "mask_on_grid", "point_not_seen"]

Array = np.ndarray[Any, Any]
Size = tuple[int, ...]

_VOID = 255
"""Number of pixels of which Pascal VOC's masks say nothing, the borders of objects; and white."""

_WHITE = 127
"""Grey value above which a pixel of a mask is inside."""


def bottleneck(maps: Mapping[str, tuple[int, ...]], size: Sequence[int]) -> tuple[str, str] | None:
    """The smallest map before the first upsampling, the last one of that size; and why.

    Args:
        maps: Shapes (N, C, h, w) of the layers on the way, in graph order.
        size: Height and width of the input.
    """
    among = {n: s for n, s in maps.items() if is_halved(s[2:], size)} or maps
    if not among:
        return None
    least = min(s[2] * s[3] for s in among.values())
    name = [n for n, s in among.items() if s[2] * s[3] == least][-1]
    shape = among[name]
    return name, (
        f"the bottleneck: the last of the smallest maps on the way, {shape[1]} maps of "
        f"{shape[2]}x{shape[3]} (Vinogradova et al. 2020)"
    )


def cell_of(point: tuple[float, float], geometry: Geometry, shape: Size) -> tuple[int, int] | None:
    """The cell of a map (h, w) over the whole input in which a point of the photo lies.

    Args:
        point: Column and row in pixels of the photo.
        geometry: How the photo and the input lie on each other.
        shape: Height and width of the map.

    Returns:
        Row and column; None where the network does not see the point.
    """
    at = geometry.to_input(point[1], point[0])
    places = [
        int(np.floor((float(v) + 0.5) / whole * count))
        for v, whole, count in zip(at, geometry.input, shape, strict=True)
    ]
    inside = all(0 <= place < count for place, count in zip(places, shape, strict=True))
    return (places[0], places[1]) if inside else None


def point_not_seen(point: tuple[float, float], geometry: Geometry, photo: str) -> ImageRefused:
    """The refusal of a point that the network does not see.

    Args:
        point: Column and row in pixels of the photo.
        geometry: How the photo and the input lie on each other.
        photo: The photo's name.
    """
    (height, width), (top, left, bottom, right) = geometry.photo, geometry.seen_box
    at = f"{point[0]:g},{point[1]:g}"
    if not (0 <= point[0] < width and 0 <= point[1] < height):
        return ImageRefused(
            f"the point {at} lies outside of the photo, which has {width}x{height} pixels",
            where=photo,
            hint=f"@X,Y: X from 0 to {width - 1}, Y from 0 to {height - 1}",
        )
    return ImageRefused(
        f"the network does not see the point {at}: it sees {left},{top} to {right - 1},{bottom - 1}"
        f" of the photo's {width}x{height} pixels",
        where=photo,
        hint="--set resize=letterbox or resize=squash shows it all",
    )


def mask_on_grid(
    file: str, geometry: Geometry, shape: Size, name: str, photo: Path | None = None
) -> Array:
    """A mask file of the photo's size on a map (h, w) over the whole input.

    Of a photo that its file stores on its side (EXIF), a mask may have the size of the stored
    picture, and is turned with it.  Where both have the same size, the upright photo is meant.

    Args:
        file: A picture; white is inside.  Of one that is dark everywhere, or has a palette from
            black on, every pixel but 0 is: it holds numbers of classes.
        geometry: How the photo and the input lie on each other.
        shape: Height and width of the map.
        name: The photo's name, for messages.
        photo: The photo's file; None where there is none.

    Raises:
        ImageRefused: The mask cannot be read, or has another size than the photo.
    """
    mask = Photo.open(Path(file))
    swapped = mask.size == geometry.photo[::-1] and mask.size != geometry.photo
    orientation = orientation_of(photo) if swapped and photo is not None else 1
    if mask.size != geometry.photo and orientation not in STORED_ON_ITS_SIDE:
        height, width = mask.size
        raise ImageRefused(
            f"the mask has {width}x{height} pixels and the photo "
            f"{geometry.photo[1]}x{geometry.photo[0]}",
            where=name,
            hint="a mask has the size of its photo; white is inside",
        )
    if any(note.startswith("alpha") for note in mask.notes):
        raise ImageRefused(
            "the mask is transparent in places, which could be inside as well as outside",
            where=Path(file).name,
            hint="save it in black and white, without transparency",
        )
    inside = upright(_inside(mask, Path(file)), orientation)
    centres = [
        (np.arange(count) + 0.5) / count * whole - 0.5
        for count, whole in zip(shape, geometry.input, strict=True)
    ]
    at = [np.rint(v).astype(int) for v in geometry.to_photo(*centres)]
    seen = [(v >= 0) & (v < n) for v, n in zip(at, geometry.photo, strict=True)]
    clipped = [np.clip(v, 0, n - 1) for v, n in zip(at, geometry.photo, strict=True)]
    return np.asarray(inside[np.ix_(*clipped)] & seen[0][:, None] & seen[1][None, :])


def _inside(mask: Photo, file: Path) -> Array:
    """Which pixels (H, W) of a mask are inside."""
    numbers = indices_of(file)
    grey = np.asarray(Image.fromarray(mask.rgb8).convert("L"))
    if numbers is not None and numbers.shape == mask.size:
        return np.asarray((numbers > 0) & ((numbers != _VOID) | (grey == _VOID)))
    return grey > (_WHITE if grey.max() > _WHITE else 0)


def connected(mask: Array, place: tuple[int, int]) -> Array:
    """The connected part of a mask that holds a place, grown step by step."""
    found = np.zeros_like(mask)
    found[place] = True
    while True:
        grown = found.copy()
        grown[1:] |= found[:-1]
        grown[:-1] |= found[1:]
        grown[:, 1:] |= found[:, :-1]
        grown[:, :-1] |= found[:, 1:]
        grown &= mask
        if np.array_equal(grown, found):
            return found
        found = grown


def is_halved(size: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether a map has the size of an input that was halved some times over.

    Maps that are pooled to a few cells on the way (pyramid pooling) have not.
    """
    for power in range(8):
        low = [length // 2**power for length in whole]
        high = [-(-length // 2**power) for length in whole]
        if all(a <= n <= b + 1 for a, n, b in zip(low, size, high, strict=True)):
            return True
    return False
