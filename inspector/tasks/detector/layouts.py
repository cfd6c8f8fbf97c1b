"""Layouts of a detector's outputs: how boxes, scores and classes are written down.

Each is recognised by names, shapes and values of the outputs, and turns what one photo gave into
rows: boxes in pixels of the input, one score and class per row, and the element of an output that
holds the score.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.tasks import Outputs
from inspector.tasks.planes import is_halved

__all__ = ["Layout", "Rows", "find_layout"]

Array = np.ndarray[Any, Any]
Element = tuple[str, tuple[int, ...]]
"""An output and where in one sample of it."""

_STRIDES = (8, 16, 32)
_FACE_SIDES = {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}
_NEARLY_ALL = 0.99
_SIDE = 8
"""Shortest side of a plane; boxes (D, 4) and rows of few classes are shorter."""

_MOST_DETECTIONS = 2000
"""Rows of a list of final detections; rows of anchors are more."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What one photo's outputs say, one row per candidate.

    Attributes:
        boxes: (D, 4): top, left, bottom, right in continuous pixels of the input.
        scores: (D,), from 0 to 1.
        classes: (D,) whole numbers.
        table: (D, K) scores of every class; None where only the best one is written down.
    """

    boxes: Array
    scores: Array
    classes: Array
    table: Array | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """One way to write detections down.

    Attributes:
        name: What it is called.
        outputs: Outputs that hold it.
        classes: Number of classes; None when unknown.
        final: Whether rows are sorted and suppressed in the graph already.
        read: From one sample of the outputs to rows.
        element: From a row and a class to the element that holds its score.
        candidates: Number of rows; None where it changes with the photo.
    """

    name: str
    outputs: tuple[str, ...]
    classes: int | None
    final: bool
    read: Callable[[Mapping[str, Array]], Rows]
    element: Callable[[int, int], Element]
    candidates: int | None = None


def find_layout(outputs: Outputs) -> Layout | None:
    """The layout that a model's outputs have, by their names, shapes and values on a probe."""
    found = {n: v for n, v in outputs.probe().items() if v.dtype.kind in "fiu"}
    # A plane of the input's size, halved some times over, is a picture and not a list.
    planes = {n for n, v in found.items() if v.ndim == 2 and _is_plane(v, outputs)}
    values = {n: v for n, v in found.items() if n not in planes}
    ways = (_listed, _paired, _combined, _columns, _rows_of_anchors)
    return next((found for way in ways for found in way(outputs, values)), None)


def _is_plane(value: Array, outputs: Outputs) -> bool:
    return min(value.shape) >= _SIDE and is_halved(value.shape, outputs.size)


# -- one list of final detections -----------------------------------------------------------------


def _combined(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """(D, 6): left, top, right, bottom, score, class; suppressed in the graph."""
    for name, value in values.items():
        if value.ndim != 2 or value.shape[1] != 6 or not 0 < len(value) <= _MOST_DETECTIONS:
            continue
        if not _whole(value[:, 5]) or not _shares(value[:, 4]) or _is_anchors(outputs, value):
            continue

        def read(found: Mapping[str, Array], name: str = name) -> Rows:
            rows = found[name].reshape(-1, 6).astype(np.float64)
            return Rows(_corners(rows[:, :4], outputs), rows[:, 4], rows[:, 5].astype(np.intp))

        def element(row: int, _: int, name: str = name) -> Element:
            return name, (row, 4)

        count = len(outputs.labels) or None
        yield Layout("a list of boxes (N, D, 6)", (name,), count, True, read, element)


def _listed(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """Boxes (D, 4), scores (D,) and labels (D,) as torchvision and TensorFlow export them."""
    boxes = _named(values, "box", lambda v: v.ndim == 2 and v.shape[1] == 4)
    scores = _named(values, "score", lambda v: v.ndim == 1)
    labels = _named(values, "label", lambda v: v.ndim == 1) or _named(
        values, "class", lambda v: v.ndim == 1
    )
    if boxes is None or scores is None or labels is None:
        return
    if len({len(values[n]) for n in (boxes, scores, labels)}) > 1:
        return
    rows_first = "detection" in boxes.lower()  # TensorFlow: top, left, bottom, right

    def read(found: Mapping[str, Array]) -> Rows:
        own = found[boxes].reshape(-1, 4).astype(np.float64)
        own = own[:, [1, 0, 3, 2]] if rows_first else own
        classes = found[labels].reshape(-1).astype(np.intp)
        return Rows(_corners(own, outputs), found[scores].reshape(-1).astype(np.float64), classes)

    def element(row: int, _: int) -> Element:
        return scores, (row,)

    names = (boxes, scores, labels)
    yield Layout("boxes, scores and labels", names, None, True, read, element)


# -- boxes beside scores of every class -----------------------------------------------------------


def _paired(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """Boxes (D, 4) beside scores (D, K): DETR, SSD, UltraFace."""
    boxes = _named(values, "box", lambda v: v.ndim == 2 and v.shape[1] == 4) or _named(
        values, "loc", lambda v: v.ndim == 2 and v.shape[1] == 4
    )
    if boxes is None:
        return
    count = len(values[boxes])
    others = {n: v for n, v in values.items() if n != boxes and v.ndim == 2 and len(v) == count}
    scores = next(
        (n for word in ("logit", "score", "conf", "class", "cls") for n in others if word in n),
        None,
    )
    if scores is None or count < 2:
        return
    width = others[scores].shape[1]
    made = _probabilities_of(others[scores], outputs)
    if made is None:
        return
    kind, first, last = made
    written = _written(values[boxes].astype(np.float64), boxes, outputs)
    if written is None:
        return

    def read(found: Mapping[str, Array]) -> Rows:
        own = written(found[boxes].reshape(-1, 4).astype(np.float64))
        table = _probabilities(found[scores].reshape(len(own), -1).astype(np.float64), kind)
        return _best(own, table[:, first:last], outputs)

    def element(row: int, number: int) -> Element:
        return scores, (row, number + first)

    name = f"boxes beside scores of every class (N, {count}, {width})"
    yield Layout(name, (boxes, scores), last - first, False, read, element, count)


def _written(boxes: Array, name: str, outputs: Outputs) -> Callable[[Array], Array] | None:
    """From rows as they are written to left, top, right, bottom; None where it is not known how.

    Corners in order, or centre and a positive size; else offsets from the anchors of UltraFace,
    where there is one row for each. Offsets from anchors that are not known are no boxes.
    """
    if "pred" not in name.lower() and _ordered(boxes):
        return lambda rows: rows
    if bool((boxes[:, 2:] > 0).all(axis=1).mean() > _NEARLY_ALL):
        return _from_centre
    anchors = _face_anchors(outputs)
    if len(anchors) != len(boxes):
        return None

    def decoded(rows: Array) -> Array:
        centres = anchors[:, :2] + rows[:, :2] * 0.1 * anchors[:, 2:]
        sizes = anchors[:, 2:] * np.exp(rows[:, 2:] * 0.2)
        return _from_centre(np.hstack([centres, sizes]))

    return decoded


def _face_anchors(outputs: Outputs) -> Array:
    """Anchors of UltraFace as shares of the input: centre, width and height, (A, 4).

    From its published configuration: squares of these sides at every cell of four levels.
    """
    height, width = outputs.size
    found = []
    for stride, sides in _FACE_SIDES.items():
        rows, columns = -(-height // stride), -(-width // stride)
        for row, column in np.ndindex(rows, columns):
            x, y = (column + 0.5) * stride / width, (row + 0.5) * stride / height
            found += [(x, y, side / width, side / height) for side in sides]
    return np.asarray(np.clip(np.asarray(found), 0, 1))


def _probabilities_of(scores: Array, outputs: Outputs) -> tuple[str, int, int] | None:
    """How scores (D, K) become probabilities, and the first and last column that are classes.

    Where one column wins nearly everywhere it is "nothing there": the last one in DETR, the first
    one in SSD.
    """
    width, names = scores.shape[1], len(outputs.labels)
    if _shares(scores):
        sums = bool(np.allclose(scores.sum(axis=1), 1, atol=1e-3)) and width > 1
        return ("none", 1 if sums else 0, width)
    winners = np.bincount(scores.argmax(axis=1), minlength=width) / len(scores)
    if width > 1 and names != width and winners[-1] > 0.5:
        return "softmax", 0, width - 1
    if width > 1 and names == width - 1 and winners[0] > 0.5:
        return "softmax", 1, width
    return "sigmoid", 0, width


def _probabilities(scores: Array, kind: str) -> Array:
    if kind == "none":
        return scores
    if kind == "sigmoid":
        found: Array = 1 / (1 + np.exp(-np.clip(scores, -60, 60)))
        return found
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


# -- anchors ---------------------------------------------------------------------------------------


def _columns(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """(4 + K, A): the head of YOLOv8 and later, one column per anchor, perhaps with masks."""
    masks = [len(v) for v in values.values() if v.ndim == 3]
    for name, value in values.items():
        if value.ndim != 2 or not 5 <= len(value) < value.shape[1]:
            continue
        count = _classes_of(len(value) - 4, value[4:], outputs, masks)
        if count is None:
            continue

        def read(found: Mapping[str, Array], name: str = name, count: int = count) -> Rows:
            rows = found[name].astype(np.float64).T
            return _best(_from_centre(rows[:, :4]), rows[:, 4 : 4 + count], outputs)

        def element(column: int, number: int, name: str = name) -> Element:
            return name, (4 + number, column)

        what = f"YOLOv8 head (N, 4 + {count}, {value.shape[1]})"
        yield Layout(what, (name,), count, False, read, element, value.shape[1])


def _classes_of(width: int, scores: Array, outputs: Outputs, masks: list[int]) -> int | None:
    """Number of classes among the rows behind a box; None where they are no probabilities."""
    named = len(outputs.labels)
    counts = [named] if 0 < named <= width else []
    counts += [width - extra for extra in masks if width > extra]
    # Without a name: as many as are shares, before keypoints or coefficients of masks.
    inside = np.asarray(((scores >= 0) & (scores <= 1)).all(axis=1))
    counts.append(int(inside.argmin()) if not inside.all() else width)
    return next((n for n in counts if n > 0 and bool(inside[:n].all())), None)


def _rows_of_anchors(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """(A, 5 + K): the head of YOLOv5 and YOLOX, one row per anchor, with an objectness."""
    for name, value in values.items():
        if value.ndim != 2 or not 6 <= value.shape[1] < len(value):
            continue
        if not _shares(value[:, 4:]):
            continue
        if not _is_anchors(outputs, value) and len(outputs.labels) != value.shape[1] - 5:
            continue
        raw = len(value) == len(_cells(outputs)) and bool((value[:, 2:4] < 0).any())
        count = value.shape[1] - 5

        def read(found: Mapping[str, Array], name: str = name, raw: bool = raw) -> Rows:
            rows = found[name].astype(np.float64)
            boxes = rows[:, :4]
            if raw:  # offsets from the cell and logarithms, in strides
                cells = _cells(outputs)
                steps = cells[:, 2:]
                boxes = np.hstack(
                    [(boxes[:, :2] + cells[:, :2]) * steps, np.exp(boxes[:, 2:]) * steps]
                )
            return _best(_from_centre(boxes), rows[:, 4:5] * rows[:, 5:], outputs)

        def element(row: int, number: int, name: str = name) -> Element:
            return name, (row, 5 + number)

        what = f"{'YOLOX' if raw else 'YOLOv5'} head (N, {len(value)}, 5 + {count})"
        yield Layout(what, (name,), count, False, read, element, len(value))


def _is_anchors(outputs: Outputs, value: Array) -> bool:
    """Whether there is one row per cell of three levels, or a whole number of them."""
    cells = len(_cells(outputs))
    return cells > 0 and len(value) % cells == 0


def _cells(outputs: Outputs) -> Array:
    """Column, row, stride and stride of every cell of three levels, (A, 4)."""
    height, width = outputs.size
    found = []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        steps = np.full((rows.size, 2), stride)
        found.append(np.hstack([columns.reshape(-1, 1), rows.reshape(-1, 1), steps]))
    return np.concatenate(found)


def _best(boxes: Array, scores: Array, outputs: Outputs) -> Rows:
    best = scores.max(axis=1), scores.argmax(axis=1)
    return Rows(_corners(boxes, outputs), *best, scores)


# -- boxes ----------------------------------------------------------------------------------------


def _from_centre(boxes: Array) -> Array:
    """Left, top, right, bottom of centre, width and height."""
    half = boxes[:, 2:] / 2
    return np.hstack([boxes[:, :2] - half, boxes[:, :2] + half])


def _corners(boxes: Array, outputs: Outputs) -> Array:
    """Top, left, bottom, right in pixels, of left, top, right, bottom in pixels or shares."""
    height, width = outputs.size
    own = boxes[:, [1, 0, 3, 2]]
    if own.size and np.abs(own).max() <= 2 and min(height, width) > 8:
        own = own * np.array([height, width, height, width])
    return own


def _ordered(boxes: Array) -> bool:
    """Whether the last two numbers of nearly every row lie behind the first two."""
    return bool((boxes[:, 2:] >= boxes[:, :2]).all(axis=1).mean() > _NEARLY_ALL)


def _named(values: Mapping[str, Array], word: str, fits: Callable[[Array], bool]) -> str | None:
    return next((n for n, v in values.items() if word in n.lower() and fits(v)), None)


def _shares(values: Array) -> bool:
    return bool(values.size and (values >= -1e-6).all() and (values <= 1 + 1e-6).all())


def _whole(values: Array) -> bool:
    return bool((values == np.rint(values)).all() and (values >= -1).all())
