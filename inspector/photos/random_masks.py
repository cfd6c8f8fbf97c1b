"""Random masks that show a part of an image and hide the rest (RISE, Petsiuk et al. 2018)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from inspector.errors import UsageError
from inspector.network.coordinates.lattice import Lattice
from inspector.photos.geometry import sample_bilinear

__all__ = ["FIRST", "MaskSums", "random_masks", "require_masks"]

Array = np.ndarray[Any, Any]

FIRST = 128
"""Masks after which the error is measured for the first time; then after twice as many each."""


def random_masks(
    size: tuple[int, ...], count: int, cells: int, keep: float, seed: int
) -> Iterator[Array]:
    """Masks (H, W) from 0 to 1 of square cells, one after the other; spans (L,), cubes (D, H, W).

    Per mask one draw of the cells, ``random((rows + 1, columns + 1)) < keep``, and one of the
    shift, ``integers`` below the cell's side in pixels, of the rows and then of the columns (of a
    volume first of the slices).

    Args:
        size: Of the input along its axes of space: height and width of a picture.
        count: Number of masks.
        cells: Cells along the shorter side.
        keep: Probability that a cell is shown.
        seed: Of the draws.
    """
    drawn = np.random.default_rng(seed)
    side = -(-min(size) // cells)
    grid = tuple(-(-length // side) + 1 for length in size)
    places = [(np.arange(n * side, dtype=np.float64) + 0.5) * (n / (n * side)) - 0.5 for n in grid]
    for _ in range(count):
        shown = (drawn.random(grid) < keep).astype(np.float32)
        shift = [int(drawn.integers(side)) for _ in size]
        if len(size) == 2:
            laid = sample_bilinear(shown, places[0], places[1])
        else:
            whole = tuple(n * side for n in grid)
            laid = Lattice(whole, grid).laid(shown)[0].reshape(whole)
        yield laid[tuple(slice(at, at + length) for at, length in zip(shift, size, strict=True))]


def require_masks(
    method: str, masks: int, cells: int, keep: float, seed: int, *, short: int, error: float
) -> None:
    """Refuse options of masks that are out of range.

    Args:
        method: The method's name, for the message.
        masks: Their number.
        cells: Cells along the shorter side.
        keep: Probability that a cell is shown.
        seed: Of the draws.
        short: The input's shorter side.
        error: Error at which no further masks are drawn.

    Raises:
        UsageError: One of them is.
    """
    if masks < 2:
        raise UsageError(f"{method}: masks is at least 2, not {masks}")
    if not 1 <= cells <= short:
        raise UsageError(f"{method}: cells is 1 to {short}, the input's shorter side, not {cells}")
    if not 0 < keep < 1:
        raise UsageError(f"{method}: keep is a probability between 0 and 1, not {keep}")
    if seed < 0:
        raise UsageError(f"{method}: seed is 0 or more, not {seed}")
    if not 0 <= error < 1:
        raise UsageError(f"{method}: error is 0 or more and below 1, not {error}")


class MaskSums:
    """Sums over every other mask: of the masks, and of the masks times their weights.

    Args:
        size: Of the masks, (H, W).

    Attributes:
        count: Masks so far.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.count = 0
        self._limit = FIRST
        self._errors: list[tuple[int, float]] = []
        self._weighted, self._shown = np.zeros((2, 2, *size))
        self._weights: tuple[list[float], list[float]] = ([], [])

    def add(self, masks: Array, weights: Array) -> None:
        """Take masks (P, H, W) and the weight of each, (P,)."""
        for mask, weight in zip(masks, weights, strict=True):
            half = self.count % 2
            self._weighted[half] += weight * mask
            self._shown[half] += mask
            self._weights[half].append(float(weight))
            self.count += 1

    def converged(self, error: float) -> bool:
        """Whether the error is small enough, where it is time to measure it."""
        if self.count < self._limit:
            return False
        self._limit *= 2
        self._errors.append((self.count, self.error()))
        return self._errors[-1][1] <= error

    @property
    def errors(self) -> list[tuple[int, float]]:
        """Numbers of masks and the error after each, the last of all masks."""
        if not self._errors or self._errors[-1][0] < self.count:
            self._errors.append((self.count, self.error()))
        return self._errors

    @property
    def weights(self) -> Array:
        """Weights of the masks, (P,): those of every other mask, then the others'."""
        return np.asarray([*self._weights[0], *self._weights[1]])

    def agreement(self) -> float:
        """Pearson's correlation of the halves' maps; 1 where both are constant."""
        halves = self._weighted - np.mean(self.weights) * self._shown
        a, b = (half - half.mean() for half in halves)
        scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
        return float((a * b).sum()) / scale if scale and np.ptp(self.weights) else 1.0

    def map(self) -> Array:
        """Sum of the masks times their weights less the mean weight, (H, W)."""
        weights = self.weights
        if not np.ptp(weights):  # else what rounding leaves of the difference is drawn
            return np.zeros(self._shown.shape[1:])
        return np.asarray(self._weighted.sum(0) - np.mean(weights) * self._shown.sum(0))

    def error(self) -> float:
        """Distance of the halves' maps, relative to that of their sum from 0; 1 without a map."""
        halves = [
            (weighted - np.mean(own) * shown) / len(own)
            for weighted, shown, own in zip(self._weighted, self._shown, self._weights, strict=True)
        ]
        whole = float(np.linalg.norm(halves[0] + halves[1]))
        found = float(np.linalg.norm(halves[0] - halves[1])) / whole if whole else 1.0
        return round(min(found, 1.0), 4)
