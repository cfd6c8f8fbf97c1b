"""Large pictures made smaller without a second copy of them in memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["scaled"]

RGB8 = NDArray[np.uint8]

_LARGE = 2**22
"""4 megapixels: Pillow's own copy of an RGB picture has 4 bytes per pixel."""


def scaled(
    pixels: RGB8, size: tuple[int, int], how: Image.Resampling, *, grey: bool = False
) -> Any:
    """Pixels resampled by Pillow, one channel after another where the picture is large.

    Pillow resamples each channel by itself, so the result is the same to the bit.

    Args:
        pixels: (H, W, 3) of 8 bits.
        size: Height and width (h, w) of the result.
        how: Pillow's filter.
        grey: Turn it into grey first, as Pillow weighs the colours (ITU-R 601-2).

    Returns:
        (h, w, 3), or (h, w) where ``grey`` is asked for.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from inspector.photos.scaling import scaled
        >>> scaled(np.zeros((8, 8, 3), np.uint8), (4, 2), Image.Resampling.BOX).shape
        (4, 2, 3)
    """
    height, width = size
    if pixels.shape[0] * pixels.shape[1] <= _LARGE:
        picture = Image.fromarray(pixels)
        picture = picture.convert("L") if grey else picture
        return np.asarray(picture.resize((width, height), how))
    channels = [_grey(pixels)] if grey else (pixels[:, :, channel] for channel in range(3))
    made = [
        np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize((width, height), how))
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
