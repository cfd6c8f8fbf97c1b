"""Traces that processing leaves in a whole photo: blur, JPEG compression, a frame.

Each is one number per photo that hardly depends on what the photo shows:

    sharpness      sum of squared second differences of the luma over that of its first differences,
                   along rows and columns: white noise has 3, a Gaussian blur of s pixels comes
                   near 1.5 / s^2
    jpeg quality   lowest quality (1 to 95) of the IJG's tables whose steps the photo's DCT
                   coefficients are multiples of (``inspector.measures.jpeg_traces``); 100 without
    frame          rows and columns of one colour on all four sides, as a share of the shorter side

The traces of JPEG are those of its 8x8 grid: they are gone where a photo was scaled, turned by
an angle or cut off the grid after it was compressed.  Two compressions leave those of the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.measures.jpeg_traces import jpeg_qualities

__all__ = [
    "Traces",
    "frame_of",
    "luma_of",
    "sharpness",
    "traces_of",
    "traces_of_all",
]

Array = np.ndarray[Any, Any]

_LUMA = np.array([0.299, 0.587, 0.114])
_SIDE = 256
"""Side of the middle part of a large photo that is measured, in pixels."""

_TOGETHER = 2**16
"""Pixels that are measured together: few enough to stay in the processor's own memory."""

_SAME = 6.0
"""Grey levels within which a line of a frame has one colour; JPEG moves it so far."""

_WIDEST = 0.25
"""Share of the shorter side above which an even margin is background, not a frame."""


@dataclass(frozen=True)
class Traces:
    """What processing left in one photo.

    Attributes:
        sharpness: Second over first differences, 0 to about 3; None of a photo of one colour.
        jpeg_quality: 1 to 95, or 100 of a photo without traces of compression.
        frame: Width of the frame as a share of the shorter side; 0 without one.
        colour: RGB of the frame, 0 to 255; None without one.
    """

    sharpness: float | None
    jpeg_quality: int
    frame: float
    colour: tuple[int, int, int] | None


def traces_of(pixels: Array) -> Traces:
    """Traces of one photo.

    Args:
        pixels: (H, W, 3), 0 to 255.

    Example:
        >>> import numpy as np
        >>> photo = np.random.default_rng(0).integers(0, 200, (64, 48, 3))
        >>> photo[:4] = photo[-4:] = photo[:, :4] = photo[:, -4:] = 255
        >>> found = traces_of(photo)
        >>> found.jpeg_quality, round(found.frame, 3), found.colour
        (100, 0.083, (255, 255, 255))
    """
    return traces_of_all([pixels])[0]


def traces_of_all(photos: Sequence[Array]) -> list[Traces]:
    """Traces of some photos; small ones of one size are measured together.

    Args:
        photos: (H, W, 3) each, 0 to 255.
    """
    frames = [frame_of(pixels) for pixels in photos]
    lumas = [luma_of(pixels, width) for pixels, (width, _) in zip(photos, frames, strict=True)]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, luma in enumerate(lumas):
        sizes.setdefault(luma.shape, []).append(place)
    measured: dict[int, tuple[float | None, int]] = {}
    for (height, width), alike in sizes.items():
        count = max(1, _TOGETHER // (height * width))
        for places in (alike[at : at + count] for at in range(0, len(alike), count)):
            planes = np.stack([lumas[place] for place in places])
            pairs = zip(_sharpnesses(planes), jpeg_qualities(planes), strict=True)
            measured |= zip(places, pairs, strict=True)
    return [
        Traces(measured[place][0], measured[place][1], width / min(pixels.shape[:2]), colour)
        for place, (pixels, (width, colour)) in enumerate(zip(photos, frames, strict=True))
    ]


def luma_of(pixels: Array, frame: int = 0) -> Array:
    """Luma of at most _SIDE x _SIDE pixels from the middle, cut on the 8x8 grid, without the frame.

    Args:
        pixels: (H, W, 3), 0 to 255.
        frame: Width of the frame in pixels.
    """
    cut = []
    for length in pixels.shape[:2]:
        first = -(-max((length - _SIDE) // 2, frame) // 8) * 8
        last = min(first + _SIDE, length - frame)
        cut.append(slice(first, last) if last - first >= 8 else slice(None))
    return np.asarray(np.asarray(pixels[cut[0], cut[1]], np.float64) @ _LUMA)


def sharpness(luma: Array) -> float | None:
    """Squared second differences over squared first differences of a plane (H, W).

    None where it has no differences, or is smaller than 3x3.
    """
    return _sharpnesses(luma[None])[0]


def _sharpnesses(planes: Array) -> list[float | None]:
    """Sharpness of planes of one size (N, H, W)."""
    first, second = np.zeros((2, len(planes)))
    for axis in (1, 2):
        one = np.diff(planes, axis=axis)
        two = np.diff(one, axis=axis)
        if two.size:
            first += np.square(one).reshape(len(planes), -1).mean(1)
            second += np.square(two).reshape(len(planes), -1).mean(1)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return [above / below if below > 0 else None for below, above in pairs]


def frame_of(pixels: Array) -> tuple[int, tuple[int, int, int] | None]:
    """Width in pixels and colour of a frame of one colour on all four sides; (0, None) without.

    An even background that reaches further than a quarter of the shorter side is not a frame.

    Args:
        pixels: (H, W, 3), 0 to 255.
    """
    height, width = pixels.shape[:2]
    corner = np.asarray(pixels[0, 0], np.float64)
    # Most photos have none, and their own corners show it.
    ends = np.asarray(pixels[:: max(height - 1, 1), :: max(width - 1, 1)], np.float64)
    if np.abs(ends - corner).max() > _SAME:
        return 0, None
    most = int(_WIDEST * min(height, width))
    depth = 0
    while depth <= most:
        inner = pixels[depth : height - depth, depth : width - depth]
        if min(inner.shape[:2]) < 1:
            break
        lines = (inner[0], inner[-1], inner[:, 0], inner[:, -1])
        if any(np.abs(line - corner).max() > _SAME for line in lines):
            break
        depth += 1
    if not 0 < depth <= most:
        return 0, None
    ring = np.concatenate([pixels[:depth].reshape(-1, 3), pixels[-depth:].reshape(-1, 3)])
    red, green, blue = (int(v) for v in np.rint(np.median(ring, axis=0)))
    return depth, (red, green, blue)
