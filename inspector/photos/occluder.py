"""The occluder: windows that cover an image, the colour in them, and means over them.

Zeiler & Fergus 2014, section 4.2: a grey square slides over the image.  Here every pixel is
covered, the last row and column too: windows at the border are partial, and both borders alike.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from converters.plain_values import quoted, real_number
from inspector.errors import UsageError
from inspector.photos.preprocess import Preprocess

__all__ = [
    "Box",
    "average_over_windows",
    "covered",
    "fill_colour",
    "inside_of",
    "patched",
    "window_and_stride",
    "windows",
    "windows_of",
]

Array = np.ndarray[Any, Any]
Box = tuple[int, int, int, int]
"""Top, left, bottom, right in input pixels, the last two exclusive."""


def window_and_stride(window: int, stride: int, *sizes: int, where: str = "") -> tuple[int, int]:
    """Side of the square and step, in input pixels.

    Args:
        window: The side; 0 stands for a seventh of the short side.
        stride: The step; 0 stands for half a window.
        sizes: Of the input along its axes of space: height and width of a picture.
        where: What is configured, for messages.

    Raises:
        UsageError: A square that does not fit, or steps that would leave pixels uncovered.
    """
    short = min(sizes)
    window = window or max(1, round(short / 7))
    stride = stride or max(1, window // 2)
    if not 1 <= window <= short:
        raise UsageError(
            f"window {window} does not fit an input of {'x'.join(map(str, sizes))}", where=where
        )
    if not 1 <= stride <= window:
        raise UsageError(
            f"stride {stride} would leave pixels uncovered", where=where, hint=f"1 to {window}"
        )
    return window, stride


def windows(height: int, width: int, window: int, stride: int) -> Iterator[Box]:
    """Windows of a sweep, row by row; those at the border are clipped, both borders alike."""
    for box in windows_of((height, width), window, stride):
        yield box[0], box[1], box[2], box[3]


def windows_of(sizes: Sequence[int], window: int, stride: int) -> Iterator[tuple[int, ...]]:
    """Windows of a sweep over any axes of space: spans of a signal, cubes of a volume.

    Yields:
        The first place along each axis, and then one past the last along each.
    """
    for spans in product(*(_positions(size, window, stride) for size in sizes)):
        starts, stops = zip(*spans, strict=True)
        yield *starts, *stops


def _positions(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Clipped intervals that cover an axis, laid out symmetrically about its centre."""
    count = max(0, -(-(length - window) // stride)) + 1
    start = (length - window - (count - 1) * stride) // 2
    spans = ((start + i * stride, start + i * stride + window) for i in range(count))
    return [(max(0, a), min(length, b)) for a, b in spans]


def fill_colour(
    preprocess: Preprocess, fill: str, image: Array | None = None, *, where: str = ""
) -> Array:
    """Network values (C,) of the occluder's colour, which is named in pixel space.

    Args:
        preprocess: How pixels become network values.
        fill: ``mean`` (the data set's, where the preprocessing knows it, else mid-grey),
            ``grey`` (127.5), or a number from 0 to 255. Of bands, which are not pixels, ``mean`` is
            that of each band over the sample itself where no mean is known, and a number one in
            the file's own unit.
        image: The sample (C, H, W), as network values.
        where: What is configured, for messages.

    Raises:
        UsageError: Neither ``mean``, ``grey`` nor a number from 0 to 255.
    """
    if preprocess.bands:
        return _fill_bands(preprocess, fill, image, where)
    if fill == "mean":
        return np.asarray(preprocess.fill(), dtype=np.float32)
    try:
        level = 127.5 if fill == "grey" else float(fill)
    except ValueError:
        raise UsageError(f"fill is mean, grey or a number, not {fill!r}", where=where) from None
    if not 0 <= level <= 255:
        raise UsageError(f"fill is a pixel value from 0 to 255, not {level:g}", where=where)
    return np.asarray(preprocess.encode((level,) * 3), dtype=np.float32)


def _fill_bands(preprocess: Preprocess, fill: str, image: Array | None, where: str) -> Array:
    if fill in {"mean", "grey"}:
        if image is None or any(preprocess.mean):
            return np.asarray(preprocess.fill(), dtype=np.float32)
        return np.asarray(image.mean(axis=(1, 2)), dtype=np.float32)
    level = real_number(fill)
    if level is None:
        raise UsageError(f"fill is mean or a number, not {quoted(fill)}", where=where)
    return np.asarray(preprocess.encode((level,) * 3), dtype=np.float32)


def covered(image: Array, boxes: Sequence[tuple[int, ...]], colour: Array) -> Array:
    """Copies of an image (C, *sizes), each with one box of the colour (C,): (P, C, *sizes)."""
    return patched(image, boxes, [colour.reshape(-1, *[1] * (image.ndim - 1))] * len(boxes))


def patched(image: Array, boxes: Sequence[tuple[int, ...]], patches: Sequence[Array]) -> Array:
    """Copies of an image (C, *sizes), each with one box that holds a patch: (P, C, *sizes).

    Args:
        image: The image.
        boxes: P of them.
        patches: For each what stands in it, (C, *sizes of the box), or (C, 1, ...).
    """
    copies = np.repeat(image[None], len(boxes), axis=0)
    for copy, box, patch in zip(copies, boxes, patches, strict=True):
        copy[(slice(None), *inside_of(box))] = patch
    return copies


def average_over_windows(
    values: Array, boxes: Sequence[tuple[int, ...]], size: tuple[int, ...]
) -> Array:
    """Mean over the windows that cover each place: values (P,) of P boxes to (H, W), or (*size)."""
    total, count = np.zeros(size), np.zeros(size)
    for value, box in zip(values, boxes, strict=True):
        total[inside_of(box)] += value
        count[inside_of(box)] += 1
    return total / np.maximum(count, 1)


def inside_of(box: Sequence[int]) -> tuple[slice, ...]:
    """The places of a box, axis by axis."""
    half = len(box) // 2
    return tuple(slice(a, b) for a, b in zip(box[:half], box[half:], strict=True))
