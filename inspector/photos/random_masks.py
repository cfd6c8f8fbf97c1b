"""Random masks that show a part of an image and hide the rest (RISE, Petsiuk et al. 2018)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from inspector.errors import UsageError
from inspector.network.lattice import Lattice
from inspector.photos.geometry import sample_bilinear

__all__ = ["correlation", "random_masks", "require_masks"]

Array = np.ndarray[Any, Any]


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
    method: str, masks: int, cells: int, keep: float, seed: int, *, short: int
) -> None:
    """Refuse options of masks that are out of range.

    Args:
        method: The method's name, for the message.
        masks: Their number.
        cells: Cells along the shorter side.
        keep: Probability that a cell is shown.
        seed: Of the draws.
        short: The input's shorter side.

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


def correlation(left: Array, right: Array) -> float:
    """Pearson's correlation of two maps; 1 where both are constant."""
    a, b = left - left.mean(), right - right.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 1.0
