"""Relation between the pixels of a photo and of the network's input, in both directions.

Scaling, cropping and padding are one axis-aligned affine relation between pixel *centres*::

    x_input + 1/2 = scale * (x_photo + 1/2) + shift

Pure NumPy; the photo is upright (`inspector.photos.photo`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Geometry", "sample_bilinear"]

Array = NDArray[np.float64]

_BLOCK = 64  # rows


@dataclass(frozen=True)
class Geometry:
    """The relation between a photo and the network input made of it.

    Attributes:
        photo: Height and width of the upright photo.
        input: Height and width (H, W) of the network's input.
        scale: Input pixels per photo pixel, vertically and horizontally.
        shift: Input position of the photo's top left corner, in input pixels: negative when the
            photo is cropped there, positive when it is padded.
    """

    photo: tuple[int, int]
    input: tuple[int, int]
    scale: tuple[float, float]
    shift: tuple[float, float]

    @classmethod
    def identity(cls, size: tuple[int, int]) -> "Geometry":
        """The photo is the input."""
        return cls(size, size, (1.0, 1.0), (0.0, 0.0))

    def to_input(self, y: ArrayLike, x: ArrayLike) -> tuple[Array, Array]:
        """Input coordinates of photo coordinates; whole numbers are pixel centres."""
        (sy, sx), (ty, tx) = self.scale, self.shift
        rows = sy * (np.asarray(y, np.float64) + 0.5) + ty - 0.5
        columns = sx * (np.asarray(x, np.float64) + 0.5) + tx - 0.5
        return rows, columns

    def to_photo(self, y: ArrayLike, x: ArrayLike) -> tuple[Array, Array]:
        """Photo coordinates of input coordinates; whole numbers are pixel centres."""
        (sy, sx), (ty, tx) = self.scale, self.shift
        rows = (np.asarray(y, np.float64) + 0.5 - ty) / sy - 0.5
        columns = (np.asarray(x, np.float64) + 0.5 - tx) / sx - 0.5
        return rows, columns

    @property
    def seen_box(self) -> tuple[int, int, int, int]:
        """Photo pixels whose centres the network saw: top, left, bottom, right (exclusive)."""
        rows, columns = self._seen_axes()
        (top, bottom), (left, right) = _span(rows), _span(columns)
        return top, left, bottom, right

    @property
    def seen_share(self) -> float:
        """Share of the photo's pixels whose centres the network saw, 0 .. 1."""
        top, left, bottom, right = self.seen_box
        return (bottom - top) * (right - left) / (self.photo[0] * self.photo[1])

    def seen(self) -> NDArray[np.bool_]:
        """Mask (H, W) of the photo: True where the network saw the pixel's centre."""
        rows, columns = self._seen_axes()
        return rows[:, None] & columns[None, :]

    def lay_back(self, values: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Lay a map of the network's input onto the photo.

        Args:
            values: (H, W) in input space.

        Returns:
            The map (H, W) in the photo's pixels, bilinear with half-pixel centres and NaN where
            the network saw nothing, and the mask (H, W) of what it saw.

        Raises:
            ValueError: The map's shape is not the input's.
        """
        array = np.asarray(values)
        if array.shape != self.input:
            raise ValueError(f"a map of shape {array.shape} for an input of {self.input}")
        rows, columns = self.to_input(np.arange(self.photo[0]), np.arange(self.photo[1]))
        laid = sample_bilinear(array, rows, columns)
        mask = self.seen()
        laid[~mask] = np.nan
        return laid, mask

    def _seen_axes(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """For each row and each column of the photo: is its centre inside the input."""
        rows, columns = self.to_input(np.arange(self.photo[0]), np.arange(self.photo[1]))
        # A hair of tolerance: 0.5 * scale + shift may miss the edge by a rounding error.
        slack = 1e-9 * max(*self.photo, *self.input)
        inside = [
            (axis >= -0.5 - slack) & (axis <= size - 0.5 + slack)
            for axis, size in zip((rows, columns), self.input, strict=True)
        ]
        return inside[0], inside[1]


def _span(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """First and one past the last True; (0, 0) when there is none."""
    where = np.flatnonzero(inside)
    return (int(where[0]), int(where[-1]) + 1) if len(where) else (0, 0)


def sample_bilinear(values: ArrayLike, rows: Array, columns: Array) -> NDArray[np.float32]:
    """Values of a map, or of several, at fractional positions, linear between pixel centres.

    Beyond the outermost centres the edge's value continues, as in ONNX ``Resize`` (linear,
    half_pixel) and torch ``interpolate(align_corners=False)``.

    Args:
        values: (..., h, w).
        rows: Row coordinate of each row of the result, in pixel centres, (H,).
        columns: Column coordinate of each column of the result, (W,).

    Returns:
        (..., H, W) float32; the arithmetic is float64.
    """
    array = np.asarray(values, np.float64)
    low, high, part = _neighbours(rows, array.shape[-2])
    upper = np.take(array, low, -2)
    array = upper + part[:, None] * (np.take(array, high, -2) - upper)
    low, high, part = _neighbours(columns, array.shape[-1])
    result = np.empty((*array.shape[:-1], len(part)), np.float32)
    for start in range(0, array.shape[-2], _BLOCK):  # float64 copies of a large photo add up
        block = array[..., start : start + _BLOCK, :]
        lower, upper = np.take(block, low, -1), np.take(block, high, -1)
        result[..., start : start + _BLOCK, :] = lower + part * (upper - lower)
    return result


def _neighbours(at: Array, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """The two neighbours of each position on an axis, and how far it lies between them."""
    place = np.clip(at, 0, length - 1)
    low = np.floor(place).astype(np.intp)
    return low, np.minimum(low + 1, length - 1), place - low
