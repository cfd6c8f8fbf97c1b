"""Heads that write each level of the pyramid into outputs of its own.

SCRFD, YuNet, YOLOX, FCOS, NanoDet, the parts of YOLOv8 as they are exported for small devices, and
raw maps of several anchors per cell: YOLOv3 to v7, RetinaNet, EfficientDet.  Levels are told by
their sizes, what an output holds by its width; ``parts`` says how its axes may lie.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from inspector.tasks import Outputs
from inspector.tasks.detector.anchors import middle_of
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
from inspector.tasks.detector.rows import (
    Array,
    Layout,
    from_centre,
    from_distances,
    looks_like_shares,
    mean_distances,
)

__all__ = ["per_level"]

_STRIDES = (4, 8, 16, 32, 64, 128)
_MOST_ANCHORS = 3
_LANDMARKS = 10
_BINS = 64
"""Numbers of YOLOv8's distributions over the distances: 16 steps a side."""

_DISTRIBUTIONS = frozenset({32, 44, 64, 68})
"""Widths that distributions over distances have in published heads."""

_PER_CELL = (3, 9, 5, 6, 4)
"""Anchors of one cell that published heads have."""

_STEPS = 6
"""Nodes that are looked at before an output."""

_NEAR = 1.5
"""Cells between a cell and the middle of its box, in the median, where boxes are in pixels."""

_LOW, _NEARLY_ALL = 0.1, 0.9
"""Probability that is low, and share of the class scores that are so on any image."""

_USUAL = 80
"""Classes of COCO, which a head without names is taken to have where its width allows it."""

_UNKNOWN_DISTANCES = (
    "the file does not say in which unit this head writes the distances to a box's edges: what is "
    "drawn is the cell of the score"
)


def per_level(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """Outputs of two levels or more, each with the same parts."""
    levels = _levels(outputs, values)
    if len(levels) < 2:
        return
    for head in _heads(levels, outputs, values):
        yield layout_of(head, levels, outputs, values)


# -- levels ----------------------------------------------------------------------------------------


def _levels(outputs: Outputs, values: Mapping[str, Array]) -> list[Level]:
    """The levels of a pyramid that the outputs hold; empty where they are none."""
    return _of_maps(outputs, values) or _of_rows(outputs, values)


def _of_maps(outputs: Outputs, values: Mapping[str, Array]) -> list[Level]:
    found: dict[int, list[Part]] = {}
    for name, value in values.items():
        for order, (rank, space) in ORDERS.items():
            if value.ndim != rank:
                continue
            grid = value.shape[space]
            stride = next((s for s in _STRIDES if _grid(outputs.size, s) == grid), None)
            if stride is not None:
                found.setdefault(stride, []).append(Part(name, value.shape, grid, order))
                break
    return _alike(found)


def _of_rows(outputs: Outputs, values: Mapping[str, Array]) -> list[Level]:
    """Rows (A, C), or (A,), of all cells of a level; how many per cell is told by all levels."""
    rows = {n: v for n, v in values.items() if v.ndim == 2 or (v.ndim == 1 and len(v) > 1)}
    counts = sorted({len(v) for v in rows.values()}, reverse=True)
    for first, anchors in np.ndindex(len(_STRIDES), _MOST_ANCHORS):
        strides = _STRIDES[first : first + len(counts)]
        if counts == [prod(_grid(outputs.size, s)) * (anchors + 1) for s in strides]:
            return _alike(
                {
                    stride: [
                        Part(n, v.shape, _grid(outputs.size, stride), "rows")
                        for n, v in rows.items()
                        if len(v) == count
                    ]
                    for stride, count in zip(strides, counts, strict=True)
                }
            )
    return []


def _alike(found: Mapping[int, Sequence[Part]]) -> list[Level]:
    """Levels by stride, where each has parts of the same widths."""
    widths = {tuple(sorted(part.width for part in parts)) for parts in found.values()}
    anchors = {part.anchors for parts in found.values() for part in parts}
    if len(widths) != 1 or len(anchors) != 1:
        return []
    return [(stride, tuple(found[stride])) for stride in sorted(found)]


def _grid(size: Sequence[int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


# -- heads -----------------------------------------------------------------------------------------


def _heads(
    levels: Sequence[Level], outputs: Outputs, values: Mapping[str, Array]
) -> Iterator[Head]:
    """What the parts of a level can be, by their widths, names and values."""
    parts = levels[0][1]
    widths = sorted(part.width for part in parts if part.width != _LANDMARKS or len(parts) == 1)
    place = {part.width: i for i, part in enumerate(parts)}
    if widths == [1, 4]:
        yield Head("scrfd", "SCRFD", 1, {"scores": (place[1], 0), "boxes": (place[4], 0)}, _sides)
    elif len(widths) == 3 and widths[0] == 1 and 4 in widths[1:]:
        yield from _with_objectness(levels, outputs)
    elif len(widths) == 2 and (found := _beside_anchors(parts, outputs)) is not None:
        yield found
    elif len(widths) == 1:
        yield from _joined(levels, outputs, values)
    else:
        yield from _with_distributions(parts, outputs)


def _with_objectness(levels: Sequence[Level], outputs: Outputs) -> Iterator[Head]:
    """Objectness, class scores and boxes: YuNet, of one class, YOLOX, and FCOS with its centreness.

    YOLOX writes offsets and logarithms; distances to the edges end in what has no negative values.
    """
    parts = levels[0][1]
    single = [i for i, part in enumerate(parts) if part.width == 1]
    box = next(i for i, part in enumerate(parts) if part.width == 4)
    if len(single) == 2:  # YuNet's order where no name tells them apart
        own = next((i for i in single if "obj" in parts[i].name.lower()), single[1])
        kind = next(i for i in single if i != own)
    else:
        own = single[0]
        kind = next(
            i for i in range(len(parts)) if i not in {own, box} and parts[i].width != _LANDMARKS
        )
    roles = {"objectness": (own, 0), "scores": (kind, 0), "boxes": (box, 0)}
    if _is_centreness(parts[own].name) or _has_no_negatives(parts[box].name, outputs):
        yield Head(
            "fcos", "FCOS", parts[kind].width, roles, cell_itself, _root, caution=_UNKNOWN_DISTANCES
        )
    elif len(single) == 2:
        yield Head("yunet", "YuNet", 1, roles, _offsets, _root)
    else:
        yield Head("yolox", "YOLOX", parts[kind].width, roles, _offsets)


def _is_centreness(name: str) -> bool:
    return any(word in name.lower() for word in ("centerness", "centreness", "ctr"))


def _has_no_negatives(name: str, outputs: Outputs) -> bool:
    """Whether an output is what an exponential or a rectifier gives, scaled at most."""
    graph = outputs.scores.graph
    for _ in range(_STEPS):
        node = None if graph is None else graph.producer(name)
        if node is None:
            return False
        if node.is_op("Exp", "Relu", "Softplus"):
            return True
        if not node.is_op("Mul", "Transpose", "Reshape", "Identity", "Cast"):
            return False
        name = node.inputs[0]
    return False


def _with_distributions(parts: Sequence[Part], outputs: Outputs) -> Iterator[Head]:
    """Class scores beside distributions over the distances: NanoDet, YOLOv8."""
    wide = [i for i, part in enumerate(parts) if part.width >= 16 and part.width % 4 == 0]
    for boxes in wide:
        others = [i for i, part in enumerate(parts) if i != boxes and part.width > 1]
        others = others or [i for i in range(len(parts)) if i != boxes]
        if len(others) != 1:
            continue
        (scores,) = others
        if len(wide) > 1 and not _is_distribution(parts[boxes], parts[scores], outputs):
            continue
        key, name = ("yolov8", "YOLOv8") if parts[boxes].width == _BINS else ("nanodet", "NanoDet")
        roles = {"scores": (scores, 0), "boxes": (boxes, 0)}
        yield Head(key, name, parts[scores].width, roles, _distributed)


def _is_distribution(part: Part, other: Part, outputs: Outputs) -> bool:
    """Whether the one of two outputs that could be either is not the class scores."""
    if len(outputs.labels) in {part.width, other.width} and part.width != other.width:
        return len(outputs.labels) == other.width
    words = ("box", "bbox", "reg", "dis", "loc")
    said = [any(word in one.name.lower() for word in words) for one in (part, other)]
    if said[0] != said[1]:
        return said[0]
    return not (part.width not in {_BINS, 32} and other.width in {_BINS, 32})


def _joined(
    levels: Sequence[Level], outputs: Outputs, values: Mapping[str, Array]
) -> Iterator[Head]:
    """Box, objectness and class scores in one output per level; or distributions and scores."""
    part = levels[0][1][0]
    width, names = part.width, len(outputs.labels)
    if part.anchors > 1:
        if width > 5:
            yield _of_several_anchors(levels, values)
        return
    folded = _folded(part, names)
    if folded is not None and (names or folded.classes == _USUAL):
        yield folded
        return
    shares = all(looks_like_shares(parts[0].rows(values)[:, 4:]) for _, parts in levels)
    if width > 5 and (shares or width - 5 == names):
        roles = {"boxes": (0, 0), "objectness": (0, 4), "scores": (0, 5)}
        yield Head("yolox", "YOLOX", width - 5, roles, _offsets)
        return
    sure = names or width - _BINS == _USUAL or _are_rare(levels, values, _BINS)
    if width > _BINS and names in {0, width - _BINS} and sure:
        roles = {"boxes": (0, 0), "scores": (0, _BINS)}
        yield Head("yolov8", "YOLOv8", width - _BINS, roles, _distributed_first)
        if width - _BINS == _USUAL:
            return
    if folded is not None:
        yield folded


def _are_rare(levels: Sequence[Level], values: Mapping[str, Array], first: int) -> bool:
    """Whether columns from one on are class scores: low nearly everywhere, as no features are."""
    every = np.concatenate([parts[0].rows(values)[:, first:].ravel() for _, parts in levels])
    low = every < (_LOW if looks_like_shares(every) else 0.0)
    return bool(low.size and low.mean() > _NEARLY_ALL)


def _of_several_anchors(levels: Sequence[Level], values: Mapping[str, Array]) -> Head:
    """YOLOv3 to v7: boxes in pixels where their centres follow the cells, else of unknown size."""
    found = _with_unknown_anchors(levels[0][1][0].width - 5)
    for stride, (part, *_) in levels:
        rows, cells = part.rows(values), (part.cells() + 0.5) * stride
        near = np.median(np.abs(rows[:, :2] - cells)) <= _NEAR * stride
        if not (near and (rows[:, 2:4] > 0).all() and looks_like_shares(rows[:, 4:])):
            return found
    return replace(found, key="yolov5", name="YOLOv5", decode=_written, caution="")


def _with_unknown_anchors(classes: int) -> Head:
    roles = {"boxes": (0, 0), "objectness": (0, 4), "scores": (0, 5)}
    return Head(
        "yolov5-raw", "raw maps of YOLOv5", classes, roles, cell_itself, caution=UNKNOWN_ANCHORS
    )


def _folded(part: Part, names: int) -> Head | None:
    """Box, objectness and class scores of three anchors among the channels: YOLOv3 and v4."""
    if part.order == "rows" or part.width % 3 or part.width // 3 <= 5:
        return None
    found = replace(_with_unknown_anchors(part.width // 3 - 5), anchors=(3,))
    if names not in (0, found.classes):
        return None
    return replace(found, key="yolov3-raw", name="raw maps of YOLOv3")


def _beside_anchors(parts: Sequence[Part], outputs: Outputs) -> Head | None:
    """Class scores beside box offsets of several anchors per cell: RetinaNet and EfficientDet.

    Four numbers per anchor are told from a distribution over distances by the class names, else by
    the widths that either has in published heads.
    """
    names = len(outputs.labels)
    if any(part.order == "rows" for part in parts):
        return None
    for boxes, scores in ((0, 1), (1, 0)):
        width, other = parts[boxes].width, parts[scores].width
        anchors = next((n for n in _PER_CELL if width == 4 * n and other % n == 0), None)
        if anchors is None or width in _DISTRIBUTIONS or names not in (0, other // anchors):
            continue
        roles = {"scores": (scores, 0), "boxes": (boxes, 0)}
        return Head(
            "anchors", "raw maps of RetinaNet or EfficientDet", other // anchors, roles,
            cell_itself, caution=UNKNOWN_ANCHORS, anchors=(anchors,),
        )  # fmt: skip
    return None


def _sides(rows: Array, cells: Array, stride: Step, levels: int) -> Array:
    """SCRFD: distances in strides from the corner of the cell."""
    del levels
    return from_distances(cells * stride, rows[:, :4] * stride)


def _offsets(rows: Array, cells: Array, stride: Step, levels: int) -> Array:
    """YOLOX and YuNet: offsets from the cell, and logarithms of the size, in strides."""
    del levels
    centres = (rows[:, :2] + cells) * stride
    return from_centre(np.hstack([centres, np.exp(np.clip(rows[:, 2:4], -60, 60)) * stride]))


def _distributed(rows: Array, cells: Array, stride: Step, levels: int) -> Array:
    """NanoDet and YOLOv8: the mean of a distribution over distances, in strides."""
    return from_distances((cells + middle_of(levels)) * stride, mean_distances(rows) * stride)


def _distributed_first(rows: Array, cells: Array, stride: Step, levels: int) -> Array:
    """YOLOv8: the same in front of the class scores."""
    return _distributed(rows[:, :_BINS], cells, stride, levels)


def _written(rows: Array, cells: Array, stride: Step, levels: int) -> Array:
    """Centre, width and height in pixels."""
    del cells, stride, levels
    return from_centre(rows)


def _root(objectness: Array, scores: Array) -> Array:
    """YuNet: the geometric mean of both."""
    return np.asarray(np.sqrt(objectness * scores))
