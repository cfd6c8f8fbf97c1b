"""Areas on a grid of pixels: of polygons, and of the run lengths that COCO writes.

Polygons are filled by the rule of even and odd crossings, exactly along a row and at a few heights
of each pixel; no picture of the photo's own size is made.  Run lengths are looked up where they are
asked for, and never decoded into a picture either: what a stranger's file says of its size costs
no memory.
"""

from typing import Any

import numpy as np

__all__ = ["polygon_cover", "run_box", "run_lengths", "runs_at"]

Array = np.ndarray[Any, Any]

_STEPS = 8
"""Heights within a pixel at which a polygon's edges are looked for."""

_MOST_CROSSINGS = 1 << 23
_LONGEST = 7
"""Characters of one number of run lengths: 35 bits."""


def polygon_cover(x: Array, y: Array, size: tuple[int, int]) -> Array:
    """Share of each pixel (H, W) that a polygon covers.

    Args:
        x: Columns (n,) of its points; 0 is the left edge of the first pixel.
        y: Their rows.
        size: Height and width of the grid.

    Raises:
        ValueError: Its edges cross the grid more often than an outline does.
    """
    height, width = size
    rows = height * _STEPS
    top, bottom = (np.asarray(v, np.float64) * _STEPS - 0.5 for v in (y, np.roll(y, -1)))
    left, right = (np.asarray(v, np.float64) for v in (x, np.roll(x, -1)))
    # Whole numbers are heights that are looked at. An edge has its upper end, not its lower one.
    ends = (np.ceil(f(top, bottom)).clip(0, rows) for f in (np.minimum, np.maximum))
    first, last = (end.astype(np.int64) for end in ends)
    counts = last - first
    total = int(counts.sum())
    if total > _MOST_CROSSINGS:
        raise ValueError(f"its edges cross the rows of the input {total:,} times")
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    rise = bottom - top
    slope = np.divide(right - left, rise, out=np.zeros_like(rise), where=rise != 0)
    at = (left[edge] + (row - top[edge]) * slope[edge]).clip(0, width)
    order = np.lexsort((at, row))
    at, row = at[order], row[order] // _STEPS
    # Each height has an even number of crossings: from the odd ones on it is inside.
    sign = np.where(np.arange(total) % 2, 1.0, -1.0)
    cell = np.minimum(at.astype(np.int64), width - 1)
    place = row * width + cell
    part = np.bincount(place, sign * (at - cell), height * width).reshape(size)
    ended = np.bincount(place, sign, height * width).reshape(size)
    beyond = ended[:, ::-1].cumsum(1)[:, ::-1] - ended
    return np.asarray((part + beyond) / _STEPS).clip(0, 1)


def run_lengths(counts: object, size: tuple[int, int]) -> Array:
    """Run lengths of a mask, column by column: outside, inside, outside and so on.

    Args:
        counts: A list of whole numbers, or COCO's text of them: groups of five bits, the sixth says
            that more follow, and from the fourth number on the difference to the last but one.
        size: Height and width of the mask.

    Returns:
        The numbers, (n,) int64.

    Raises:
        ValueError: They are not run lengths of a mask of that size.
    """
    runs = _of_text(counts) if isinstance(counts, str) else _of_list(counts)
    whole = size[0] * size[1]
    if ((runs < 0) | (runs > whole)).any() or int(runs.sum()) != whole:
        raise ValueError(f"its run lengths are not those of {size[1]}x{size[0]} pixels")
    return runs


def _of_list(counts: object) -> Array:
    if not isinstance(counts, list) or any(type(one) is not int for one in counts):
        raise ValueError("its run lengths are not whole numbers")
    if any(abs(one) >= 2**31 for one in counts):
        raise ValueError("its run lengths are too large")
    return np.array(counts, np.int64)


def _of_text(text: str) -> Array:
    """Numbers of pycocotools' ``rleFrString``."""
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes):
        return np.zeros(0, np.int64)
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("its run lengths are not text of COCO")
    last = np.flatnonzero(~codes & 32)
    starts = np.concatenate([[0], last[:-1] + 1])
    lengths = last - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError("its run lengths are too large")
    group = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * group), starts)
    numbers -= np.where(codes[last] & 16, 1 << (5 * lengths), 0)
    # Each of them counts on from the last but one; the first stands alone.
    for begin in (1, 2):
        numbers[begin::2] = numbers[begin::2].cumsum()
    return np.asarray(numbers)


def runs_at(runs: Array, height: int, rows: Array, columns: Array) -> Array:
    """Whether places of a mask are inside, in the shape that rows and columns have together."""
    return np.asarray(np.searchsorted(np.cumsum(runs), columns * height + rows, "right") % 2 == 1)


def run_box(runs: Array, height: int) -> tuple[int, int, int, int] | None:
    """Top, left, bottom, right of what is inside; None where nothing is."""
    ends = np.cumsum(runs)
    first, last = ends[:-1:2], ends[1::2] - 1
    kept = last >= first[: len(last)]
    first, last = first[: len(last)][kept], last[kept]
    if not len(first):
        return None
    left, right = int(first.min()) // height, int(last.max()) // height + 1
    if (first // height != last // height).any():  # a run that goes on in the next column
        top, bottom = 0, height
    else:
        top, bottom = int((first % height).min()), int((last % height).max()) + 1
    return top, left, bottom, right
