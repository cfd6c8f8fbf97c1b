"""What a layout makes of one photo's outputs: one row per candidate box, each with its element."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Array",
    "Layout",
    "Rows",
    "are_corners",
    "best_of",
    "cells_of",
    "from_centre",
    "from_distances",
    "in_pixels",
    "looks_like_shares",
    "looks_whole",
    "mean_distances",
    "one_of_several_levels",
    "probabilities",
    "pyramids",
    "unit_of",
]

Array = np.ndarray[Any, Any]

Element = tuple[str, tuple[int, ...]]
"""An output and where in one sample of it."""

Read = Callable[[Mapping[str, Array]], "Rows"]

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (8, 16, 32, 64, 128), (16, 32), (4, 8, 16, 32), (8, 16))
"""Levels that published heads have; the usual ones first."""

_ALONE = (16, 8, 32, 4)
"""Strides of heads of one level, with one row per cell."""

_NEARLY_ALL = 0.99

_BEYOND, _SOME = 0.1, 0.2
"""Share of its side that a box reaches beyond the input if it is misread, and of such boxes."""

_MOST_ANCHORS = 9
"""Boxes that one cell proposes at most."""


_MANY, _LONG, _OFF = 32, 160, 25
"""Boxes from which they lie all over an input, the side from which percents are told from pixels,
and percents that the middle of all boxes lies off that of the input.
"""


@dataclass(frozen=True, eq=False)
class Rows:
    """What one photo's outputs say, one row per candidate.

    Attributes:
        boxes: (D, 4): top, left, bottom, right in continuous pixels of the input.
        scores: (D,), from 0 to 1.
        classes: (D,) whole numbers.
        table: (D, K) scores of every class; None where only the best one is written down.
        objectness: (D,) how sure the head is of any object; None where it does not say.
    """

    boxes: Array
    scores: Array
    classes: Array
    table: Array | None = None
    objectness: Array | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """One way to write detections down.

    Attributes:
        key: Its name as typed after ``--task detector:``.
        name: What it is called.
        outputs: Outputs that hold it.
        classes: Number of classes; None when unknown.
        final: Whether rows are sorted and suppressed in the graph already.
        read: From one sample of the outputs to rows.
        element: From a row and a class to the element that holds its score.
        candidates: Number of rows; None where it changes with the photo.
        mask: From one sample, a row and the input's height and width to what the object covers;
            None where the layout has no masks.
        caution: What must be known of its boxes; empty where nothing must.
        doubt: What the outputs can be else, which nothing rules out; empty where nothing.
        placeless: Whether nobody knows where the boxes lie: none is drawn.
    """

    key: str
    name: str
    outputs: tuple[str, ...]
    classes: int | None
    final: bool
    read: Read
    element: Callable[[int, int], Element]
    candidates: int | None = None
    mask: Callable[[Mapping[str, Array], int, tuple[int, int]], Array] | None = None
    caution: str = ""
    doubt: str = ""
    placeless: bool = False


# -- levels and cells ------------------------------------------------------------------------------


def cells_of(size: Sequence[int], strides: Sequence[int]) -> Array:
    """Column, row and stride of every cell of some levels, (A, 3), level after level."""
    found = []
    for stride in strides:
        rows, columns = np.mgrid[: -(-size[0] // stride), : -(-size[1] // stride)]
        steps = np.full(rows.size, stride)
        found.append(np.stack([columns.ravel(), rows.ravel(), steps], axis=1))
    return np.concatenate(found)


def pyramids(count: int, size: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Levels of which a number of rows are all cells, and how many rows each cell has."""
    for strides in _STRIDES:
        cells = sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)
        if count % cells == 0 and count // cells <= _MOST_ANCHORS:
            yield strides, count // cells
    for stride in _ALONE:
        if count == -(-size[0] // stride) * -(-size[1] // stride):
            yield (stride,), 1


def one_of_several_levels(name: str, values: Mapping[str, Array]) -> bool:
    """Whether an output (A, C) has the width of others of other lengths: each is one level."""
    own = values[name]
    return any(
        v.ndim == 2 and v.shape[1] == own.shape[1] and len(v) != len(own) for v in values.values()
    )


# -- boxes -----------------------------------------------------------------------------------------


def are_corners(boxes: Array, size: Sequence[int]) -> bool:
    """Whether four numbers are corners: nearly everywhere the last two lie behind the first two.

    Centres and sizes do so as well where every box is large; read as such, they lie on the input.

    Args:
        boxes: Rows of which the first four numbers are a box, (A, 4 or more).
        size: Height and width of the input.
    """
    if (boxes[:, 2:4] > boxes[:, :2]).all(axis=1).mean() <= _NEARLY_ALL:
        return False
    # In one unit either way: corners in percent end far inside a large input, read as centres too.
    edges = in_pixels(from_centre(boxes) * unit_of(boxes[:, :4], size), size)
    slack = _BEYOND * (edges[:, 2:] - edges[:, :2])
    beyond = (edges[:, :2] < -slack) | (edges[:, 2:] > np.asarray(size) + slack)
    return bool(beyond.any(axis=1).mean() > _SOME)


def from_centre(boxes: Array) -> Array:
    """Left, top, right, bottom of centre, width and height."""
    half = boxes[:, 2:4] / 2
    return np.hstack([boxes[:, :2] - half, boxes[:, :2] + half])


def from_distances(centres: Array, distances: Array) -> Array:
    """Left, top, right, bottom of points (D, 2) and how far each side lies from them (D, 4)."""
    return np.hstack([centres - distances[:, :2], centres + distances[:, 2:4]])


def mean_distances(bins: Array) -> Array:
    """Distances (D, 4) whose distribution over whole steps is written down, (D, 4 (R + 1)).

    The mean of the softmax over the steps 0 to R (Li et al. 2020, Generalized Focal Loss).
    """
    powers = bins.reshape(len(bins), 4, -1)
    powers = np.exp(powers - powers.max(axis=2, keepdims=True))
    found: Array = powers @ np.arange(powers.shape[2]) / powers.sum(axis=2)
    return found


def in_pixels(boxes: Array, size: Sequence[int]) -> Array:
    """Top, left, bottom, right in pixels, of left, top, right, bottom in pixels or shares."""
    height, width = size
    own = boxes[:, [1, 0, 3, 2]]
    if own.size and np.abs(own).max() <= 2 and min(height, width) > 8:
        own = own * np.array([height, width, height, width])
    return own


def unit_of(edges: Array, size: Sequence[int]) -> Array:
    """Pixels per unit of left, top, right, bottom: 1, or those of a percent of the input's sides.

    The boxes of a head lie all over the input. Where they end at 100 of many more pixels they are
    in percent.

    Args:
        edges: Left, top, right and bottom of every box of a head, (A, 4).
        size: Height and width of the input.
    """
    whole = np.array([size[1], size[0]] * 2, np.float64)
    if len(edges) < _MANY or min(size) < _LONG:
        return np.ones(4)
    centres = (edges[:, :2] + edges[:, 2:]) / 2
    furthest, middle = centres.max(axis=0), np.median(centres, axis=0)
    spread = bool((np.abs(middle - 50) < _OFF).all() and (furthest > 50 + _OFF).all())
    percent = spread and bool((furthest <= 1 + 100).all())
    return whole / 100 if percent else np.ones(4)


def best_of(
    boxes: Array, scores: Array, size: Sequence[int], objectness: Array | None = None
) -> Rows:
    """Rows of boxes (left, top, right, bottom) with scores (D, K) of every class."""
    best = scores.max(axis=1), scores.argmax(axis=1)
    return Rows(in_pixels(boxes, size), *best, scores, objectness)


# -- scores ----------------------------------------------------------------------------------------


def probabilities(scores: Array, kind: str) -> Array:
    """Scores (D, K) as probabilities: ``none`` where they are, ``sigmoid`` or ``softmax``."""
    if kind == "none":
        return scores
    if kind == "sigmoid":
        found: Array = 1 / (1 + np.exp(-np.clip(scores, -60, 60)))
        return found
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def looks_like_shares(values: Array) -> bool:
    """Whether there are values, and all lie between 0 and 1."""
    return bool(values.size and (values >= -1e-6).all() and (values <= 1 + 1e-6).all())


def looks_whole(values: Array) -> bool:
    """Whether all values are whole numbers from -1 on."""
    return bool((values == np.rint(values)).all() and (values >= -1).all())
