"""Lists of final detections: sorted and suppressed in the graph."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from inspector.tasks import Outputs
from inspector.tasks.detector.rows import (
    Array,
    Layout,
    Rows,
    in_pixels,
    looks_like_shares,
    looks_whole,
    probabilities,
    pyramids,
)

__all__ = ["combined", "listed", "mask_of", "with_batch_index"]

_MOST_DETECTIONS = 2000
"""Rows of a list of final detections; rows of anchors are more."""

_NOTHING = ("background", "__background__", "bg", "n/a", "???", "none")
"""Names of class 0 where it stands for "nothing there"."""

Prototypes = Mapping[str, Array]


def listed(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """Boxes (D, 4), scores (D,) and labels (D,) as torchvision and TensorFlow export them.

    By their names, else as the only outputs of such shapes: labels are whole numbers, scores are
    shares in falling order.
    """
    values = {n: v for n, v in values.items() if "raw" not in n.lower()}
    boxes = _only(values, ("box", "det"), lambda v: v.ndim == 2 and v.shape[1] in {4, 5})
    if boxes is None:
        return
    count, scored = len(values[boxes]), values[boxes].shape[1] == 5  # left to bottom, and a score
    rows = {n: v for n, v in values.items() if n != boxes and v.ndim == 1 and len(v) == count}
    labels = _only(rows, ("label", "class"), looks_whole, lambda v: v.dtype.kind in "iu")
    rest = {n: v for n, v in rows.items() if n != labels}
    scores = boxes if scored else _only(rest, ("score", "conf"), looks_like_shares_or_empty)
    if labels is None or scores is None or count > _MOST_DETECTIONS:
        return
    api = "detection" in boxes.lower()  # TensorFlow's: top, left, bottom, right; ids from 1
    ids = api and bool(outputs.labels) and outputs.labels[0].strip().lower() not in _NOTHING
    total = next((n for n in values if "num" in n.lower() and values[n].size == 1), None)

    def read(found: Mapping[str, Array]) -> Rows:
        own = found[boxes].reshape(-1, 5 if scored else 4).astype(np.float64)
        sure = own[:, 4] if scored else found[scores].reshape(-1).astype(np.float64)
        classes = found[labels].reshape(-1).astype(np.intp) - ids
        if total is not None:  # the rest is padding
            kept = int(np.asarray(found[total]).reshape(-1)[0])
            own, sure, classes = own[:kept], sure[:kept], classes[:kept]
        order = [1, 0, 3, 2] if api else [0, 1, 2, 3]
        return Rows(in_pixels(own[:, order], outputs.size), sure, classes)

    def element(row: int, _: int) -> tuple[str, tuple[int, ...]]:
        return scores, (row, 4) if scored else (row,)

    names = tuple(dict.fromkeys(filter(None, (boxes, scores, labels, total))))
    what = "boxes, scores and labels"
    yield Layout("list", what, names, None, True, read, element)


def combined(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """(D, 6): left, top, right, bottom, score, class; behind them coefficients of masks, or more.

    Rows that turn (YOLO's oriented boxes, which the metadata names) hold centre, width, height,
    score, class and angle. PaddleDetection writes class and score first.
    """
    for name, value in values.items():
        if value.ndim != 2 or value.shape[1] < 6 or not 0 < len(value) <= _MOST_DETECTIONS:
            continue
        width = value.shape[1]
        first = width == 6 and _label_first(value)
        label, score, box = (0, 1, slice(2, 6)) if first else (5, 4, slice(0, 4))
        if not first and not (looks_whole(value[:, 5]) and looks_like_shares(value[:, 4])):
            continue
        proto = prototypes(values, width - 6)
        keypoints = outputs.declared("task") == "pose"
        turned = outputs.declared("task") == "obb" and width == 7
        if width > 6 and proto is None and not (keypoints or turned):
            continue
        if any(pyramids(len(value), outputs.size)) and width == 6 and len(value) > 300:
            continue  # rows of anchors, with an objectness and one class

        def read(
            found: Mapping[str, Array],
            name: str = name,
            width: int = width,
            turned: bool = turned,
            at: tuple[int, int, slice] = (label, score, box),
        ) -> Rows:
            rows = found[name].reshape(-1, width).astype(np.float64)
            boxes = hull(rows[:, :4], rows[:, 6]) if turned else rows[:, at[2]]
            kinds = rows[:, at[0]].astype(np.intp)
            sure = np.where(kinds < 0, 0, rows[:, at[1]])  # Paddle ends its list with -1
            return Rows(in_pixels(boxes, outputs.size), sure, kinds)

        def element(
            row: int, _: int, name: str = name, score: int = score
        ) -> tuple[str, tuple[int, ...]]:
            return name, (row, score)

        count = len(outputs.labels) or None
        extra = {38: " + 32", 7: " + angle"}.get(width, f" + {width - 6}" if width > 6 else "")
        what = f"a list of boxes (N, D, 6{extra})" + (", class and score first" if first else "")
        names = (name,) if proto is None else (name, proto)
        mask = None if proto is None else mask_of(name, proto, 6, read)
        yield Layout("final", what, names, count, True, read, element, mask=mask)


def _label_first(rows: Array) -> bool:
    """Whether rows (D, 6) are class, score and corners, and not corners, score and class."""
    if looks_whole(rows[:, 5]) and looks_like_shares(rows[:, 4]):
        return False
    kept = rows[rows[:, 0] >= 0]
    ordered = (kept[:, 4:] >= kept[:, 2:4]).all()
    return bool(looks_whole(rows[:, 0]) and len(kept) and looks_like_shares(kept[:, 1]) and ordered)


def with_batch_index(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """(M, 7) of all images together: number of the image, box, class and score in two orders.

    YOLOv7 writes image, left, top, right, bottom, class, score; OpenVINO's DetectionOutput image,
    class, score, left, top, right, bottom, in shares of the input.
    """
    for name, value in values.items():
        rows = value.reshape(-1, 7) if value.ndim in {2, 3} and value.shape[-1] == 7 else None
        if rows is None or (value.ndim == 3 and len(value) != 1) or len(rows) > _MOST_DETECTIONS:
            continue
        if outputs.declared("task") == "obb" or not looks_whole(rows[:, 0]):
            continue
        last = bool(looks_whole(rows[:, 5]) and looks_like_shares_or_empty(rows[:, 6]))
        first = bool(
            len(rows) and looks_whole(rows[:, 1]) and looks_like_shares_or_empty(rows[:, 2])
        )
        if not last and not first:
            continue
        box, label, score = (slice(1, 5), 5, 6) if last else (slice(3, 7), 1, 2)
        lead = value.shape[:-2]

        def read(
            found: Mapping[str, Array],
            name: str = name,
            box: slice = box,
            label: int = label,
            score: int = score,
        ) -> Rows:
            own = found[name].reshape(-1, 7).astype(np.float64)
            sure = np.where(own[:, 0] < 0, 0, own[:, score])  # OpenVINO ends its list with -1
            boxes = in_pixels(own[:, box], outputs.size)
            return Rows(boxes, sure, own[:, label].astype(np.intp))

        def element(
            row: int, _: int, name: str = name, score: int = score, axes: int = len(lead)
        ) -> tuple[str, tuple[int, ...]]:
            return name, (*[0] * axes, row, score)

        count = len(outputs.labels) or None
        what = "a list of boxes of all images (M, 7)"
        yield Layout("batch-index", what, (name,), count, True, read, element)


def prototypes(values: Mapping[str, Array], count: int) -> str | None:
    """The output (P, h, w) of which masks are sums, with P coefficients per box."""
    fits = (n for n, v in values.items() if v.ndim == 3 and len(v) == count > 0)
    return next(fits, None)


def mask_of(
    name: str, proto: str, first: int, read: Callable[[Mapping[str, Array]], Rows], axis: int = 1
) -> Callable[[Mapping[str, Array], int, tuple[int, int]], Array]:
    """Masks as sums of prototypes (YOLACT, Bolya et al. 2019), cut out by the box.

    Args:
        name: The output with the coefficients.
        proto: That with the prototypes (P, h, w).
        first: Where in a row the coefficients begin.
        read: From the outputs to rows, for the box.
        axis: Axis of ``name`` along which a row lies.
    """

    def mask(found: Mapping[str, Array], row: int, size: tuple[int, int]) -> Array:
        planes = found[proto].astype(np.float64)
        own = np.take(found[name], row, axis=1 - axis).astype(np.float64)
        sums = np.tensordot(own[first : first + len(planes)], planes, 1)
        shown = probabilities(sums, "sigmoid")
        at = [
            np.minimum(((np.arange(n) + 0.5) * m / n).astype(np.intp), m - 1)
            for n, m in zip(size, shown.shape, strict=True)
        ]
        top, left, bottom, right = read(found).boxes[row]
        rows, columns = (np.arange(n) + 0.5 for n in size)
        inside = ((rows >= top) & (rows <= bottom))[:, None] & (
            (columns >= left) & (columns <= right)
        )
        return np.asarray((shown[np.ix_(*at)] > 0.5) & inside)

    return mask


def hull(boxes: Array, angles: Array) -> Array:
    """Left, top, right, bottom around boxes (centre, width, height) that are turned, in radians."""
    cosine, sine = np.abs(np.cos(angles)), np.abs(np.sin(angles))
    width = boxes[:, 2] * cosine + boxes[:, 3] * sine
    height = boxes[:, 2] * sine + boxes[:, 3] * cosine
    half = np.stack([width, height], axis=1) / 2
    return np.hstack([boxes[:, :2] - half, boxes[:, :2] + half])


def looks_like_shares_or_empty(values: Array) -> bool:
    """Whether all values lie between 0 and 1; a list of no detections says nothing else."""
    return not values.size or (values.dtype.kind == "f" and looks_like_shares(values))


def _only(
    values: Mapping[str, Array],
    words: tuple[str, ...],
    fits: Callable[[Array], bool],
    unnamed: Callable[[Array], bool] | None = None,
) -> str | None:
    """The output that fits and has one of these words in its name; else the only one that fits.

    Args:
        values: Outputs by name.
        words: Words of names.
        fits: Whether an output may be meant by a name.
        unnamed: The same where no name says so; ``fits`` when None.
    """
    named = (n for word in words for n, v in values.items() if word in n.lower() and fits(v))
    found = [name for name, value in values.items() if (unnamed or fits)(value)]
    return next(named, found[0] if len(found) == 1 else None)
