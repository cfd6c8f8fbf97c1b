"""Raw maps of heads whose anchors are not in the file: YOLOv2's one level, SSD's many.

The score is read and explained; what is drawn is its cell, and it is said.  YOLOv2 (Redmon &
Farhadi 2017) writes one map (n (5 + K), h, w), whose class scores are a softmax.  SSD (Liu et al.
2016) writes (n K, h, w) and (4 n, h, w) per level, with an n of its own, and its first class is
"nothing there".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod

import numpy as np

from inspector.network.classifier.scores import ends_in_activation
from inspector.tasks import Outputs
from inspector.tasks.detector.parts import (
    ORDERS,
    UNKNOWN_ANCHORS,
    Head,
    Level,
    Part,
    Step,
    cell_itself,
    layout_of,
)
from inspector.tasks.detector.rows import Array, Layout, looks_like_shares

__all__ = ["one_raw_level", "ssd_levels"]

_COARSE = (16, 32, 64)
"""Strides of heads of one level."""

_FOLDED = {5: frozenset({20, 80}), 3: frozenset({80})}
"""Anchors per cell that lie among the channels, and the classes of published heads with them."""

_CELLS = 64
"""Places from which an output is a map of classes as well."""

_MOST_ANCHORS = 9
_FEWEST_LEVELS = 3
_LOCATION = ("loc", "box", "reg", "offset")

_SURE = 0.5
"""Share of the anchors at which a column is the surest, and is sure, if it says "nothing there"."""


def one_raw_level(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """The one output of a head of one level, with box, objectness and classes of each anchor.

    Where several anchors lie among the channels it could be a coarse map of classes as well.  It is
    a head where the class names say so, or the numbers of a published one; else that is a doubt.
    """
    if len(values) != 1:
        return
    ((name, value),) = values.items()
    for order, (rank, space) in ORDERS.items():
        grid = value.shape[space]
        stride = next(
            (s for s in _COARSE if value.ndim == rank and grid == _grid(outputs, s)), None
        )
        if stride is None:
            continue
        part = Part(name, value.shape, grid, order)
        for head in _of_one_level(part, outputs):
            yield layout_of(head, [(stride, (part,))], outputs, values)
        return


def _of_one_level(part: Part, outputs: Outputs) -> Iterator[Head]:
    """What the map of one level can be, by its width and the class names."""
    names, width = len(outputs.labels), part.width
    if part.anchors > 1:
        if width > 5 and part.anchors <= _MOST_ANCHORS and names in {0, width - 5}:
            yield _one_head(width - 5, part.anchors)
        return
    if names == width:
        return  # a map of classes
    fits = [
        (replace(_one_head(width // n - 5, n), anchors=(n,)), width // n - 5 in usual)
        for n, usual in _FOLDED.items()
        if width % n == 0 and width // n > 5 and names in {0, width // n - 5}
    ]
    for found, published in sorted(fits, key=lambda one: not one[1])[:1]:
        if names or published:
            yield found
            return
        if prod(part.grid) < _CELLS and not outputs.layout:
            return  # too few places for either
        graph = outputs.scores.graph
        if graph is None or not ends_in_activation(graph, part.name):
            yield replace(found, doubt=f"a segmenter with {width} classes, or as features")


def _one_head(classes: int, anchors: int) -> Head:
    roles = {"boxes": (0, 0), "objectness": (0, 4), "scores": (0, 5)}
    key, name = ("yolov3-raw", "YOLOv3") if anchors == 3 else ("yolov2-raw", "YOLOv2")
    return Head(
        key, f"raw map of {name}", classes, roles, cell_itself, caution=UNKNOWN_ANCHORS,
        softmax=anchors != 3,
    )  # fmt: skip


def ssd_levels(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """Maps of class scores beside maps of offsets, per level; not what ``per_level`` reads.

    Which are: levels with different numbers of anchors, levels that the usual strides do not give,
    and class scores whose first column is "nothing there".
    """
    levels = _paired_levels(outputs, values)
    if len(levels) < _FEWEST_LEVELS:
        return
    heads = [head for boxes in (0, 1) if (head := _ssd(levels, boxes, outputs, values))]
    if len(heads) == 1:
        yield layout_of(heads[0], levels, outputs, values)


def _paired_levels(outputs: Outputs, values: Mapping[str, Array]) -> list[Level]:
    """Levels of two maps each, the finest first; empty where any output is something else."""
    for order in ("planes", "last"):
        rank, space = ORDERS[order]
        found: dict[tuple[int, ...], list[Part]] = {}
        for name, value in values.items():
            if value.ndim != rank or not _covers(value.shape[space], outputs.size):
                break
            grid = value.shape[space]
            found.setdefault(grid, []).append(Part(name, value.shape, grid, order))
        else:
            grids = sorted(found, reverse=True)
            falling = all(a[0] > b[0] and a[1] >= b[1] for a, b in pairwise(grids))
            if falling and all(len(parts) == 2 for parts in found.values()):
                return [(_step(grid, outputs.size), _sorted(found[grid])) for grid in grids]
    return []


def _sorted(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts of a level, the one that is called boxes first; else as they stand in the file."""
    said = [any(word in part.name.lower() for word in _LOCATION) for part in parts]
    return tuple(parts) if said[0] or not said[1] else tuple(parts[::-1])


def _covers(grid: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a grid's cells are square on the input, up to one cell that reaches beyond it."""
    stride = size[0] / grid[0]
    return stride >= 4 and abs(grid[1] - size[1] / stride) <= 1


def _step(grid: Sequence[int], size: Sequence[int]) -> Array:
    """Pixels per cell, of left, top, right and bottom."""
    return np.array([size[1] / grid[1], size[0] / grid[0]] * 2)


def _ssd(
    levels: Sequence[Level], boxes: int, outputs: Outputs, values: Mapping[str, Array]
) -> Head | None:
    """The head whose offsets are the given one of each level's maps; None where they are not."""
    offsets, scores = ([parts[i] for _, parts in levels] for i in (boxes, 1 - boxes))
    counts = tuple(part.width // 4 for part in offsets)
    widths = {
        part.width / count if count else 0 for part, count in zip(scores, counts, strict=True)
    }
    exact = all(part.width == 4 * count for part, count in zip(offsets, counts, strict=True))
    width = int(widths.pop())
    if widths or not exact or max(counts) > _MOST_ANCHORS or width < 2:
        return None
    if any(part.width != width * count for part, count in zip(scores, counts, strict=True)):
        return None
    if width == 4 and not any(word in offsets[0].name.lower() for word in _LOCATION):
        return None  # offsets and scores are of one width
    table = np.concatenate(
        [
            replace(part, folded=count).rows(values)
            for part, count in zip(scores, counts, strict=True)
        ]
    )
    names, softmax = len(outputs.labels), _is_background(table)
    nothing = names == width - 1 or (names != width and softmax)
    usual = all(part.grid == _grid(outputs, _stride(step)) for step, (part, _) in levels)
    if len(set(counts)) == 1 and not nothing and usual:
        return None  # RetinaNet
    if names not in {0, width - nothing}:
        return None
    roles = {"scores": (1 - boxes, 0), "boxes": (boxes, 0)}
    return Head(
        "ssd-raw", "raw maps of SSD", width - nothing, roles, cell_itself, caution=UNKNOWN_ANCHORS,
        anchors=counts if len(set(counts)) > 1 else counts[:1], softmax=softmax, background=nothing,
    )  # fmt: skip


def _is_background(scores: Array) -> bool:
    """Whether the first of the columns (A, K) says "nothing there": sure nearly everywhere."""
    first = scores[:, 0]
    wins = float((scores.argmax(axis=1) == 0).mean())
    sure = _SURE if looks_like_shares(scores) else 0.0  # of a logit
    return wins > _SURE and float(np.median(first)) > sure


def _stride(step: Step) -> int:
    """The power of two that is nearest to a level's stride, 128 at most as in usual pyramids."""
    return min(1 << round(float(np.log2(np.ravel(step)[0]))), 128)


def _grid(outputs: Outputs, stride: int) -> tuple[int, ...]:
    return tuple(-(-length // stride) for length in outputs.size)
