"""Pictures scaled by Pillow without more memory than the result needs."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Window", "resampled", "scaled"]

RGB8 = NDArray[np.uint8]

Window = tuple[int, int, int, int]
"""Part of a scaled picture: top, left, bottom, right (exclusive)."""

_LARGE = 2**22
"""4 megapixels: Pillow's own copy of an RGB picture has 4 bytes per pixel."""

_REACH = 3
"""Pixels to each side that the widest of Pillow's filters weighs (Lanczos), before scaling down."""


def resampled(
    picture: Image.Image,
    size: tuple[int, int],
    how: Image.Resampling,
    window: Window | None = None,
) -> Image.Image:
    """A picture scaled by Pillow, or a window of it, for which the rest is never made.

    Args:
        picture: Of any mode that Pillow scales.
        size: Height and width (h, w) of the whole result.
        how: Pillow's filter.
        window: The part of the result that is wanted; it differs from that of the whole by
            rounding alone. None: all of it.

    Returns:
        The window, or the whole.

    Example:
        >>> from PIL import Image
        >>> from inspector.photos.scaling import resampled
        >>> line, how = Image.new("L", (1, 30_000)), Image.Resampling.BILINEAR
        >>> resampled(line, (7_680_000, 256), how, (3_839_888, 16, 3_840_112, 240)).size
        (224, 224)
    """
    if window is None:
        return picture.resize((size[1], size[0]), how)
    top, left, bottom, right = window
    rows, y = _source(picture.height, size[0], top, bottom)
    columns, x = _source(picture.width, size[1], left, right)
    # Cropped first: Pillow keeps places as floats of 32 bits, too coarse for pixel 30,000.
    part = picture.crop((columns[0], rows[0], columns[1], rows[1]))
    return part.resize((right - left, bottom - top), how, (x[0], y[0], x[1], y[1]))


def _source(
    length: int, made: int, first: int, last: int
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Pixels of an axis that are read for a part of the scaled one, and the part's place in them.

    Args:
        length: Pixels of the axis.
        made: Pixels of the scaled one.
        first: Where the part begins on the scaled one.
        last: Where it ends.
    """
    step = length / made
    margin = _REACH * max(step, 1.0) + 1
    low = max(0, math.floor(first * step - margin))
    high = min(length, math.ceil(last * step + margin))
    return (low, high), (first * step - low, min(last * step, length) - low)


def scaled(
    pixels: RGB8,
    size: tuple[int, int],
    how: Image.Resampling,
    *,
    grey: bool = False,
    window: Window | None = None,
) -> Any:
    """Pixels resampled by Pillow, one channel after another where the picture is large.

    Pillow resamples each channel by itself, so the result is the same to the bit.

    Args:
        pixels: (H, W, 3) of 8 bits.
        size: Height and width (h, w) of the whole result.
        how: Pillow's filter.
        grey: Turn it into grey first, as Pillow weighs the colours (ITU-R 601-2).
        window: The part of the result that is wanted; see :func:`resampled`.

    Returns:
        (h, w, 3), or (h, w) where ``grey`` is asked for; of the window, where there is one.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from inspector.photos.scaling import scaled
        >>> scaled(np.zeros((8, 8, 3), np.uint8), (4, 2), Image.Resampling.BOX).shape
        (4, 2, 3)
    """
    if pixels.shape[0] * pixels.shape[1] <= _LARGE:
        picture = Image.fromarray(pixels)
        picture = picture.convert("L") if grey else picture
        return np.asarray(resampled(picture, size, how, window))
    channels = [_grey(pixels)] if grey else (pixels[:, :, channel] for channel in range(3))
    made = [
        np.asarray(resampled(Image.fromarray(np.ascontiguousarray(channel)), size, how, window))
        for channel in channels
    ]
    return made[0] if grey else np.stack(made, 2)


def _grey(pixels: RGB8) -> RGB8:
    """Luma (H, W) in strips."""
    height, width = pixels.shape[:2]
    found = np.empty((height, width), np.uint8)
    step = max(1, (1 << 20) // width)
    for top in range(0, height, step):
        band = Image.fromarray(np.ascontiguousarray(pixels[top : top + step]))
        found[top : top + step] = np.asarray(band.convert("L"))
    return found
