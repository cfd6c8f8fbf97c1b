"""Outlines of objects, finer than their boxes: polygons, or a mask as COCO's run lengths."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.plain_values import finite_number
from inspector.measures.outlines import polygon_cover, run_box, run_lengths, runs_at
from inspector.photos.geometry import Geometry
from inspector.photos.photo import MAX_PIXELS

__all__ = ["Outline", "of_coco", "of_points"]

Array = np.ndarray[Any, Any]
Corners = tuple[float, float, float, float]

_MOST_POINTS = 100_000
_FAR = 1e9
_LEAST = 3
"""Points of the smallest polygon."""


@dataclass(frozen=True)
class Outline:
    """What an object covers.

    Numbers are kept as bytes: a data set may have a million outlines, which are compared, and sent
    to other processes.

    Attributes:
        polygons: Parts that it consists of together: columns and rows of their points in turn, as
            float32, in the unit of the object's corners.
        runs: Run lengths of a mask, as uint32, column by column.
        size: Height and width of that mask.
        orientation: EXIF orientation by which that mask is turned upright.
    """

    polygons: tuple[bytes, ...] = ()
    runs: bytes = b""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1

    def described(self) -> str:
        """A hash of it."""
        content = repr((self.polygons, self.runs, self.size, self.orientation))
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def corners(self) -> Corners | None:
        """Top, left, bottom, right of what it reaches; None of nothing."""
        if self.runs:
            return run_box(_runs(self.runs), self.size[0])
        points = [_points(part) for part in self.polygons]
        if not points:
            return None
        x, y = np.concatenate(points).T
        return float(y.min()), float(x.min()), float(y.max()), float(x.max())

    def cover(self, geometry: Geometry, *, relative: bool) -> Array:
        """Share of each pixel (H, W) of the network's input that it covers.

        Args:
            geometry: How the photo and the input lie on each other.
            relative: Whether its points are shares of the photo's height and width.

        Raises:
            ValueError: A polygon is none that somebody drew.
        """
        if self.runs:
            return self._looked_up(geometry)
        found = np.zeros(geometry.input)
        (sy, sx), (ty, tx) = geometry.scale, geometry.shift
        height, width = geometry.photo if relative else (1, 1)
        for part in self.polygons:
            x, y = _points(part).T
            cover = polygon_cover(x * width * sx + tx, y * height * sy + ty, geometry.input)
            found = np.maximum(found, cover)
        return found

    def moved(self, move: Callable[[Array, Array], tuple[Array, Array]]) -> "Outline":
        """It with the rows and columns of its polygons' points changed."""
        parts = []
        for part in self.polygons:
            x, y = _points(part).T
            rows, columns = move(y, x)
            parts.append(np.stack([columns, rows], 1).astype(np.float32).tobytes())
        return replace(self, polygons=tuple(parts))

    def _looked_up(self, geometry: Geometry) -> Array:
        """The mask at the photo's pixel below the centre of each pixel of the input."""
        places = (np.arange(length) for length in geometry.input)
        at = [np.rint(v).astype(np.int64) for v in geometry.to_photo(*places)]
        seen = [(v >= 0) & (v < n) for v, n in zip(at, geometry.photo, strict=True)]
        row, column = (v.clip(0, n - 1) for v, n in zip(at, geometry.photo, strict=True))
        rows, columns = row[:, None], column[None, :]
        height, width = self.size
        if self.orientation in {5, 6, 7, 8}:  # the row of the stored mask is the photo's column
            rows, columns = columns, rows
            rows = height - 1 - rows if self.orientation in {6, 7} else rows
            columns = width - 1 - columns if self.orientation in {7, 8} else columns
        inside = runs_at(_runs(self.runs), height, rows, columns)
        return np.asarray(inside & seen[0][:, None] & seen[1][None, :], np.float64)


def _points(part: bytes) -> Array:
    return np.frombuffer(part, np.float32).reshape(-1, 2).astype(np.float64)


def _runs(runs: bytes) -> Array:
    return np.frombuffer(runs, np.uint32).astype(np.int64)


def of_points(parts: Sequence[Sequence[float]]) -> Outline | None:
    """Outline of polygons: columns and rows of their points in turn; None of fewer than 3 points.

    Raises:
        ValueError: They have more points than somebody drew, or lie far away.
    """
    kept = [np.asarray(part, np.float64) for part in parts if len(part) >= 2 * _LEAST]
    if sum(map(len, kept)) > 2 * _MOST_POINTS:
        raise ValueError(f"it has more than {_MOST_POINTS:,} points")
    if any(np.abs(part).max() > _FAR for part in kept):
        raise ValueError("its points lie far away")
    return Outline(tuple(part.astype(np.float32).tobytes() for part in kept)) if kept else None


def of_coco(segmentation: object) -> Outline | None:
    """Outline of COCO's ``segmentation``: polygons, or run lengths with their size; None of none.

    Raises:
        ValueError: It is neither.
    """
    if segmentation is None or segmentation == {}:
        return None
    if isinstance(segmentation, dict):
        return _of_runs(segmentation)
    if not isinstance(segmentation, list):
        raise ValueError("it is neither polygons nor run lengths")  # noqa: TRY004 - a file's content
    # One polygon without a list around it, as some programs write it.
    flat = segmentation and not any(isinstance(one, list | dict) for one in segmentation)
    parts = [segmentation] if flat else segmentation
    numbers = []
    for part in parts:
        found = [finite_number(v) for v in part] if isinstance(part, list) else [None]
        if None in found or len(found) % 2:
            raise ValueError("its polygons are not lists of x, y in turn")
        numbers.append([float(v or 0) for v in found])
    return of_points(numbers)


def _of_runs(segmentation: dict[str, Any]) -> Outline:
    given = segmentation.get("size")
    sizes = given if isinstance(given, list) and len(given) == len(("height", "width")) else [0]
    if any(type(one) is not int or one <= 0 for one in sizes) or math.prod(sizes) > MAX_PIXELS:
        raise ValueError("its run lengths have no size [height, width] of a picture")
    height, width = sizes
    runs = run_lengths(segmentation.get("counts"), (height, width))
    return Outline(runs=runs.astype(np.uint32).tobytes(), size=(height, width))
