"""The occluder: windows that cover an image, the colour in them, and means over them.

Zeiler & Fergus 2014, section 4.2: a grey square slides over the image.  Here every pixel is
covered, the last row and column too: windows at the border are partial, and both borders alike.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from inspector.errors import UsageError
from inspector.photos.preprocess import Preprocess

__all__ = [
    "Box",
    "average_over_windows",
    "covered",
    "fill_colour",
    "window_and_stride",
    "windows",
]

Array = np.ndarray[Any, Any]
Box = tuple[int, int, int, int]
"""Top, left, bottom, right in input pixels, the last two exclusive."""


def window_and_stride(
    window: int, stride: int, height: int, width: int, *, where: str = ""
) -> tuple[int, int]:
    """Side of the square and step, in input pixels.

    Args:
        window: The side; 0 stands for a seventh of the short side.
        stride: The step; 0 stands for half a window.
        height: Of the input.
        width: Of the input.
        where: What is configured, for messages.

    Raises:
        UsageError: A square that does not fit, or steps that would leave pixels uncovered.
    """
    short = min(height, width)
    window = window or max(1, round(short / 7))
    stride = stride or max(1, window // 2)
    if not 1 <= window <= short:
        raise UsageError(f"window {window} does not fit an input of {height}x{width}", where=where)
    if not 1 <= stride <= window:
        raise UsageError(
            f"stride {stride} would leave pixels uncovered", where=where, hint=f"1 to {window}"
        )
    return window, stride


def windows(height: int, width: int, window: int, stride: int) -> Iterator[Box]:
    """Windows of a sweep, row by row; those at the border are clipped, both borders alike."""
    for (y0, y1), (x0, x1) in product(
        _positions(height, window, stride), _positions(width, window, stride)
    ):
        yield y0, x0, y1, x1


def _positions(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Clipped intervals that cover an axis, laid out symmetrically about its centre."""
    count = max(0, -(-(length - window) // stride)) + 1
    start = (length - window - (count - 1) * stride) // 2
    spans = ((start + i * stride, start + i * stride + window) for i in range(count))
    return [(max(0, a), min(length, b)) for a, b in spans]


def fill_colour(preprocess: Preprocess, fill: str, *, where: str = "") -> Array:
    """Network values (C,) of the occluder's colour, which is named in pixel space.

    Args:
        preprocess: How pixels become network values.
        fill: ``mean`` (the data set's, where the preprocessing knows it, else mid-grey),
            ``grey`` (127.5), or a number from 0 to 255.
        where: What is configured, for messages.

    Raises:
        UsageError: Neither ``mean``, ``grey`` nor a number from 0 to 255.
    """
    if fill == "mean":
        return np.asarray(preprocess.fill(), dtype=np.float32)
    try:
        level = 127.5 if fill == "grey" else float(fill)
    except ValueError:
        raise UsageError(f"fill is mean, grey or a number, not {fill!r}", where=where) from None
    if not 0 <= level <= 255:
        raise UsageError(f"fill is a pixel value from 0 to 255, not {level:g}", where=where)
    return np.asarray(preprocess.encode((level,) * 3), dtype=np.float32)


def covered(image: Array, boxes: Sequence[Box], colour: Array) -> Array:
    """Copies of an image (C, H, W), each with one box of the colour (C,): (P, C, H, W)."""
    copies = np.repeat(image[None], len(boxes), axis=0)
    for copy, (y0, x0, y1, x1) in zip(copies, boxes, strict=True):
        copy[:, y0:y1, x0:x1] = colour[:, None, None]
    return copies


def average_over_windows(values: Array, boxes: Sequence[Box], size: tuple[int, int]) -> Array:
    """Mean over the windows that cover each pixel: values (P,) of P boxes to (H, W)."""
    total, count = np.zeros(size), np.zeros(size)
    for value, (y0, x0, y1, x1) in zip(values, boxes, strict=True):
        total[y0:y1, x0:x1] += value
        count[y0:y1, x0:x1] += 1
    return total / np.maximum(count, 1)
