"""Boxes beside scores of every class: DETR, SSD, UltraFace, RetinaFace, TensorFlow's raw boxes."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from inspector.network.outputs.class_evidence import is_score_like
from inspector.tasks import Outputs
from inspector.tasks.detector.rows import (
    Array,
    Layout,
    Rows,
    are_corners,
    best_of,
    from_centre,
    looks_like_shares,
    probabilities,
    unit_of,
)

__all__ = ["paired"]

_FACE_SIDES: Mapping[str, Mapping[int, Sequence[int]]] = {
    "UltraFace": {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)},
    "RetinaFace": {8: (16, 32), 16: (64, 128), 32: (256, 512)},
}
"""Squares at every cell, by stride, of published configurations; variances 0.1 and 0.2."""

_BOXES = ("box", "loc", "reg", "delta", "offset")
_NOT_DECODED = (
    "the anchors that its boxes are offsets from are not in the file: of each class the surest row "
    "is explained, and no box is drawn"
)

_SURE, _NEARLY_EVERYWHERE = 0.5, 0.9
"""Share from which "nothing there" is sure, and share of the boxes of which it is."""

_NEARLY_ALL = 0.99
_FEWEST = 10
"""Rows from which two outputs without telling names are boxes beside scores."""


def paired(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """Boxes (D, 4) beside scores (D, K); boxes also as (D, 1, 4), and both also turned round.

    Scores of one class may be (D,), where no labels lie beside them.
    """
    values, line = _tables(values)
    boxes = _boxes(values)
    turned = boxes is None
    if turned:
        values = {n: v.T for n, v in values.items() if v.ndim == 2}
        boxes = _boxes(values)
    if boxes is None:
        return
    count = len(values[boxes])
    others = {n: v for n, v in values.items() if n != boxes and v.ndim == 2 and len(v) == count}
    scores = _scores(others)
    if scores is None or count < 2:
        return
    width = others[scores].shape[1]
    made = _probabilities_of(others[scores], outputs)
    if made is None:
        return
    kind, first, last = made
    own = values[boxes].astype(np.float64)
    found = _written(own, boxes, outputs)
    if found is None and not _are_called(boxes, scores):
        return
    written, what = found or (lambda rows: _everywhere(len(rows), outputs.size), ", not decoded")
    unit = unit_of(written(own), outputs.size)
    what += ", in percent" if unit.max() > 1 else ""

    def table_of(value: Array, width: int) -> Array:
        rows = value.astype(np.float64)
        return rows.reshape(width, -1).T if turned else rows.reshape(-1, width)

    def read(found: Mapping[str, Array]) -> Rows:
        own = written(table_of(found[boxes], 4)) * unit
        table = probabilities(table_of(found[scores], width), kind)
        return best_of(own, table[:, first:last], outputs.size)

    def element(row: int, number: int) -> tuple[str, tuple[int, ...]]:
        if scores == line:
            return scores, (row,)
        return scores, (number + first, row) if turned else (row, number + first)

    name = f"boxes beside scores of every class (N, {count}, {width}){what}"
    yield Layout(
        "pairs", name, (boxes, scores), last - first, False, read, element, count,
        placeless=found is None, caution=_NOT_DECODED if found is None else "",
    )  # fmt: skip


def _tables(values: Mapping[str, Array]) -> tuple[dict[str, Array], str | None]:
    """Outputs as tables (D, C), and the one that is (D,): scores of one class."""
    lines = [n for n, v in values.items() if v.ndim == 1 and len(v) > 1]
    line = lines[0] if len(lines) == 1 and values[lines[0]].dtype.kind == "f" else None
    found = {}
    for name, value in values.items():
        between = value.ndim == 3 and value.shape[1:] == (1, 4)
        found[name] = value[:, 0] if between else value[:, None] if name == line else value
    return found, line


def _are_called(boxes: str, scores: str) -> bool:
    """Whether names say that one output is boxes, or offsets of them, and one their scores."""
    return any(word in boxes.lower() for word in _BOXES) and is_score_like(scores) > 0


def _everywhere(count: int, size: Sequence[int]) -> Array:
    """The whole input, of each of some rows."""
    return np.tile(np.array([0.0, 0.0, size[1], size[0]]), (count, 1))


def _boxes(values: Mapping[str, Array]) -> str | None:
    """The output with boxes: by its name, else the only one of four columns."""
    fits = [n for n, v in values.items() if v.ndim == 2 and v.shape[1] == 4]
    # TensorFlow's final list is not such a pair; its boxes before suppression are.
    fits = [n for n in fits if "raw" in n.lower()] or [n for n in fits if "detection" not in n]
    if len({len(values[n]) for n in fits}) > 1:
        return None  # one per level
    named = (n for word in ("box", "loc") for n in fits if word in n.lower())
    only = fits[0] if len(fits) == 1 and len(values[fits[0]]) >= _FEWEST else None
    return next(named, only)


def _scores(others: Mapping[str, Array]) -> str | None:
    """The output with scores: by its name, else the only one that can be."""
    words = ("logit", "score", "conf", "class", "cls", "prob")
    named = (n for word in words for n in others if word in n.lower())
    left = [n for n, v in others.items() if v.shape[1] not in {4, 10} and len(v) >= _FEWEST]
    return next(named, left[0] if len(left) == 1 else None)


def _written(
    boxes: Array, name: str, outputs: Outputs
) -> tuple[Callable[[Array], Array], str] | None:
    """From rows as they are written to left, top, right, bottom; None where it is not known how.

    Corners in order, or centre and a positive size; else offsets from the anchors of a published
    configuration, where there is one row for each. Offsets from anchors that are not known are no
    boxes.
    """
    if "raw_detection" in name.lower():  # TensorFlow: top, left, bottom, right
        return lambda rows: rows[:, [1, 0, 3, 2]], ", corners, rows first"
    if "pred" not in name.lower() and are_corners(boxes, outputs.size):
        return lambda rows: rows, ", corners"
    if bool((boxes[:, 2:] > 0).all(axis=1).mean() > _NEARLY_ALL):
        return from_centre, ", centres and sizes"
    known = {said: _face_anchors(outputs.size, sides) for said, sides in _FACE_SIDES.items()}
    known["UltraFace"] = np.clip(known["UltraFace"], 0, 1)
    said = next((name for name, own in known.items() if len(own) == len(boxes)), None)
    if said is None:
        return None
    anchors = known[said]

    def decoded(rows: Array) -> Array:
        centres = anchors[:, :2] + rows[:, :2] * 0.1 * anchors[:, 2:]
        sizes = anchors[:, 2:] * np.exp(rows[:, 2:] * 0.2)
        # In pixels at once: squares that are larger than the input reach far beyond shares of 1.
        whole = np.array([outputs.size[1], outputs.size[0]] * 2)
        return np.asarray(from_centre(np.hstack([centres, sizes])) * whole)

    return decoded, f", anchors of {said}"


def _face_anchors(size: Sequence[int], sides: Mapping[int, Sequence[int]]) -> Array:
    """Anchors as shares of the input: centre, width and height, (A, 4)."""
    height, width = size
    found = []
    for stride, lengths in sides.items():
        rows, columns = -(-height // stride), -(-width // stride)
        for row, column in np.ndindex(rows, columns):
            x, y = (column + 0.5) * stride / width, (row + 0.5) * stride / height
            found += [(x, y, side / width, side / height) for side in lengths]
    return np.asarray(found)


def _probabilities_of(scores: Array, outputs: Outputs) -> tuple[str, int, int] | None:
    """How scores (D, K) become probabilities, and the first and last column that are classes.

    Where one column wins nearly everywhere it is "nothing there": the last one in DETR, the first
    one in SSD.
    """
    width, names = scores.shape[1], len(outputs.labels)
    if looks_like_shares(scores):
        background = width > 1 and (
            bool(np.allclose(scores.sum(axis=1), 1, atol=1e-3))
            or names == width - 1
            or (names != width and float((scores[:, 0] > _SURE).mean()) > _NEARLY_EVERYWHERE)
        )
        return ("none", 1 if background else 0, width)
    winners = np.bincount(scores.argmax(axis=1), minlength=width) / len(scores)
    if width > 1 and names != width and winners[-1] > 0.5:
        return "softmax", 0, width - 1
    if width > 1 and names == width - 1 and winners[0] > 0.5:
        return "softmax", 1, width
    return "sigmoid", 0, width
