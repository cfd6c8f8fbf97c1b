"""Heads that write each level of the pyramid into outputs of its own.

SCRFD, YuNet, YOLOX, NanoDet, the parts of YOLOv8 as they are exported for small devices, and raw
maps of several anchors per cell: YOLOv3 to v7, RetinaNet, EfficientDet.  Levels are told by their
sizes, what an output holds by its width.  Outputs are rows (A, C) of all cells, maps (C, h, w) or
(h, w, C), of n anchors (n, h, w, C) or with the anchors side by side in the channels (n C, h, w).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from inspector.tasks import Outputs
from inspector.tasks.detector.anchors import middle_of
from inspector.tasks.detector.rows import (
    Array,
    Layout,
    Rows,
    best_of,
    from_centre,
    from_distances,
    looks_like_shares,
    mean_distances,
    probabilities,
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

_USUAL = 80
"""Classes of COCO, which a head without names is taken to have where its width allows it."""

_UNKNOWN_ANCHORS = (
    "the sizes of this head's anchors are not in the file, so its boxes cannot be decoded: what is "
    "drawn is the cell of the score"
)


@dataclass(frozen=True)
class Part:
    """One output of one level, seen as rows of its cells.

    Attributes:
        name: The output.
        shape: Shape of one sample of it.
        grid: Height and width of the level.
        order: Where the axes lie: ``rows`` (A, C), ``planes`` (C, h, w), ``last`` (h, w, C) or
            ``anchored`` (n, h, w, C).
        folded: Anchors of one cell that lie side by side among the channels of a map.
    """

    name: str
    shape: tuple[int, ...]
    grid: tuple[int, int]
    order: str
    folded: int = 1

    @property
    def width(self) -> int:
        """Numbers in a row."""
        if self.order == "rows":
            return self.shape[1] if len(self.shape) > 1 else 1
        return (self.shape[0] if self.order == "planes" else self.shape[-1]) // self.folded

    @property
    def anchors(self) -> int:
        """Rows of one cell."""
        return prod(self.shape) // self.width // prod(self.grid)

    def rows(self, values: Mapping[str, Array]) -> Array:
        """(A, C) of one sample's outputs."""
        value = values[self.name].astype(np.float64)
        value = np.moveaxis(value, 0, -1) if self.order == "planes" else value
        return value.reshape(-1, self.width)  # of folded anchors place by place

    def index(self, row: int, column: int) -> tuple[int, ...]:
        """Where in one sample an element of those rows lies."""
        if self.order == "rows":
            return (row, column) if len(self.shape) > 1 else (row,)
        lead = self.shape[:-3] + self.grid
        place = tuple(int(i) for i in np.unravel_index(row // self.folded, lead))
        column += row % self.folded * self.width
        return (column, *place) if self.order == "planes" else (*place, column)

    def cells(self) -> Array:
        """Column and row of the cell of every row, (A, 2)."""
        rows, columns = np.mgrid[: self.grid[0], : self.grid[1]]
        found = np.stack([columns.ravel(), rows.ravel()], axis=1)
        if self.order == "anchored":
            return np.tile(found, (self.anchors, 1))
        return np.repeat(found, self.anchors, axis=0)


@dataclass(frozen=True)
class Head:
    """What the outputs of every level hold.

    Attributes:
        key: Its name as typed.
        name: What it is called.
        classes: Number of classes.
        roles: Output and first column of ``scores``, ``boxes`` and ``objectness``, by place among
            a level's outputs.
        decode: From rows of a box, cells, stride and number of levels to left, top, right, bottom.
        joined: From objectness (A, 1) and class scores (A, K) to scores.
        caution: What must be known of its boxes.
        anchors: Boxes of one cell that lie side by side among the channels.
    """

    key: str
    name: str
    classes: int
    roles: Mapping[str, tuple[int, int]]
    decode: Callable[[Array, Array, int, int], Array]
    joined: Callable[[Array, Array], Array] = np.multiply
    caution: str = ""
    anchors: int = 1


Level = tuple[int, tuple[Part, ...]]
"""Its stride and its outputs in the file's order."""


def per_level(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """Outputs of two levels or more, each with the same parts."""
    levels = _levels(outputs, values)
    if len(levels) < 2:
        return
    for head in _heads(levels, outputs, values):
        yield _layout(head, levels, outputs, values)


# -- levels ----------------------------------------------------------------------------------------


def _levels(outputs: Outputs, values: Mapping[str, Array]) -> list[Level]:
    """The levels of a pyramid that the outputs hold; empty where they are none."""
    return _of_maps(outputs, values) or _of_rows(outputs, values)


def _of_maps(outputs: Outputs, values: Mapping[str, Array]) -> list[Level]:
    found: dict[int, list[Part]] = {}
    for name, value in values.items():
        for order, grid in (
            ("planes", value.shape[1:]),
            ("last", value.shape[:2]),
            ("anchored", value.shape[1:3]),
        ):
            if value.ndim != (4 if order == "anchored" else 3):
                continue
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
        yield from _with_objectness(parts, place, widths)
    elif len(widths) == 2 and (found := _beside_anchors(parts, outputs)) is not None:
        yield found
    elif len(widths) == 1:
        yield from _joined(parts[0], outputs, [values[level[1][0].name] for level in levels])
    else:
        yield from _with_distributions(parts, outputs)


def _with_objectness(
    parts: Sequence[Part], place: Mapping[int, int], widths: Sequence[int]
) -> Iterator[Head]:
    """Objectness, class scores and offsets from the cell: YuNet, of one class, and YOLOX."""
    single = [i for i, part in enumerate(parts) if part.width == 1]
    if len(single) == 2:  # YuNet's order where no name tells them apart
        own = next((i for i in single if "obj" in parts[i].name.lower()), single[1])
        kind = next(i for i in single if i != own)
    else:
        own, kind = single[0], place[next(w for w in widths[1:] if w != 4)]
    roles = {"objectness": (own, 0), "scores": (kind, 0), "boxes": (place[4], 0)}
    if len(single) == 2:
        yield Head("yunet", "YuNet", 1, roles, _offsets, _root)
    else:
        yield Head("yolox", "YOLOX", parts[kind].width, roles, _offsets)


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


def _joined(part: Part, outputs: Outputs, values: Sequence[Array]) -> Iterator[Head]:
    """Box, objectness and class scores in one output per level; or distributions and scores."""
    width, names = part.width, len(outputs.labels)
    if part.anchors > 1:
        if width > 5:
            yield _with_unknown_anchors(width - 5)
        return
    folded = _folded(part, names)
    if folded is not None and (names or folded.classes == _USUAL):
        yield folded
        return
    shares = all(
        looks_like_shares(np.moveaxis(v, 0, -1)[..., 4:] if part.order == "planes" else v[..., 4:])
        for v in values
    )
    if width > 5 and (shares or width - 5 == names):
        roles = {"boxes": (0, 0), "objectness": (0, 4), "scores": (0, 5)}
        yield Head("yolox", "YOLOX", width - 5, roles, _offsets)
        return
    if width > _BINS and (width - _BINS == names or not names):
        roles = {"boxes": (0, 0), "scores": (0, _BINS)}
        yield Head("yolov8", "YOLOv8", width - _BINS, roles, _distributed_first)
        if width - _BINS == _USUAL:
            return
    if folded is not None:
        yield folded


def _with_unknown_anchors(classes: int) -> Head:
    roles = {"boxes": (0, 0), "objectness": (0, 4), "scores": (0, 5)}
    return Head("yolov5-raw", "raw maps of YOLOv5", classes, roles, _cell, caution=_UNKNOWN_ANCHORS)


def _folded(part: Part, names: int) -> Head | None:
    """Box, objectness and class scores of three anchors among the channels: YOLOv3 and v4."""
    if part.order == "rows" or part.width % 3 or part.width // 3 <= 5:
        return None
    found = replace(_with_unknown_anchors(part.width // 3 - 5), anchors=3)
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
            "anchors", "raw maps of RetinaNet or EfficientDet", other // anchors, roles, _cell,
            caution=_UNKNOWN_ANCHORS, anchors=anchors,
        )  # fmt: skip
    return None


def _sides(rows: Array, cells: Array, stride: int, levels: int) -> Array:
    """SCRFD: distances in strides from the corner of the cell."""
    del levels
    return from_distances(cells * stride, rows[:, :4] * stride)


def _offsets(rows: Array, cells: Array, stride: int, levels: int) -> Array:
    """YOLOX and YuNet: offsets from the cell, and logarithms of the size, in strides."""
    del levels
    centres = (rows[:, :2] + cells) * stride
    return from_centre(np.hstack([centres, np.exp(np.clip(rows[:, 2:4], -60, 60)) * stride]))


def _distributed(rows: Array, cells: Array, stride: int, levels: int) -> Array:
    """NanoDet and YOLOv8: the mean of a distribution over distances, in strides."""
    return from_distances((cells + middle_of(levels)) * stride, mean_distances(rows) * stride)


def _distributed_first(rows: Array, cells: Array, stride: int, levels: int) -> Array:
    """YOLOv8: the same in front of the class scores."""
    return _distributed(rows[:, :_BINS], cells, stride, levels)


def _cell(rows: Array, cells: Array, stride: int, levels: int) -> Array:
    """The cell itself, where boxes cannot be decoded."""
    del rows, levels
    return np.hstack([cells, cells + 1]) * float(stride)


def _root(objectness: Array, scores: Array) -> Array:
    """YuNet: the geometric mean of both."""
    return np.asarray(np.sqrt(objectness * scores))


# -- the layout ------------------------------------------------------------------------------------


def _layout(
    head: Head, levels: Sequence[Level], outputs: Outputs, values: Mapping[str, Array]
) -> Layout:
    levels = _unfolded(levels, head)

    def taken(role: str, found: Mapping[str, Array]) -> list[Array]:
        place, first = head.roles[role]
        return [parts[place].rows(found)[:, first:] for _, parts in levels]

    def columns(role: str, found: Mapping[str, Array], count: int) -> Array:
        return np.concatenate([rows[:, :count] for rows in taken(role, found)])

    scored = [r for r in ("scores", "objectness") if r in head.roles]
    kinds = {
        role: "none"
        if looks_like_shares(columns(role, values, head.classes if role == "scores" else 1))
        else "sigmoid"
        for role in scored
    }
    bounds = np.cumsum(
        [0, *(parts[head.roles["scores"][0]].rows(values).shape[0] for _, parts in levels)]
    )
    one = head.classes == 1 and "objectness" in head.roles

    def read(found: Mapping[str, Array]) -> Rows:
        boxes = [
            head.decode(rows, parts[head.roles["boxes"][0]].cells(), stride, len(levels))
            for rows, (stride, parts) in zip(taken("boxes", found), levels, strict=True)
        ]
        table = probabilities(columns("scores", found, head.classes), kinds["scores"])
        sure = None
        if "objectness" in head.roles:
            own = probabilities(columns("objectness", found, 1), kinds["objectness"])
            table, sure = head.joined(own, table), own[:, 0]
        return best_of(np.concatenate(boxes), table, outputs.size, sure)

    def element(row: int, number: int) -> tuple[str, tuple[int, ...]]:
        level = int(np.searchsorted(bounds, row, side="right")) - 1
        # The one class of a head with an objectness is not told from others; see YOLOv5.
        place, first = head.roles["objectness" if one else "scores"]
        part = levels[level][1][place]
        return part.name, part.index(row - int(bounds[level]), first + number)

    used = sorted({place for place, _ in head.roles.values()})
    names = tuple(parts[place].name for _, parts in levels for place in used)
    strides = ", ".join(str(stride) for stride, _ in levels)
    what = f"{head.name} head, levels of stride {strides}"
    what += f", {head.anchors} anchors per cell" if head.anchors > 1 else ""
    return Layout(
        head.key, what, names, head.classes, False, read, element, int(bounds[-1]),
        caution=head.caution,
    )  # fmt: skip


def _unfolded(levels: Sequence[Level], head: Head) -> list[Level]:
    """The levels, with the anchors of a cell as rows of their own."""
    used = {place for place, _ in head.roles.values()}
    return [
        (
            stride,
            tuple(
                replace(part, folded=head.anchors) if place in used else part
                for place, part in enumerate(parts)
            ),
        )
        for stride, parts in levels
    ]
