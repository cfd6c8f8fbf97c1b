"""Heads that write every anchor into one output: YOLOv5 to YOLO26, YOLOX, NanoDet, RT-DETR."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from inspector.network.classifier.scores import ends_in_activation
from inspector.network.outputs.score_tensors import ends_as_features
from inspector.tasks import Outputs
from inspector.tasks.detector.lists import hull, mask_of, prototypes
from inspector.tasks.detector.rows import (
    Array,
    Layout,
    Rows,
    are_corners,
    best_of,
    cells_of,
    from_centre,
    from_distances,
    looks_like_shares,
    looks_whole,
    mean_distances,
    one_of_several_levels,
    pyramids,
    unit_of,
)

__all__ = ["columns", "distributions", "rows_of_anchors"]

_NEGATIVE = 0.01
"""Share of the rows of a decoded head whose width or height may be none."""

_PUBLISHED = {1, 20, 80, 365}
"""Classes of published heads with an objectness."""

_WITH_OBJECTNESS = (
    "nothing says whether its fifth column is an objectness, as in YOLOv5: it is taken for one; "
    "--task detector:yolov8 reads it as the first class"
)

_BINS = (32, 68, 44, 64)
"""Numbers of a distribution over distances: of NanoDet (8 steps a side) and its relatives."""


def columns(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """(4 + K, A): the head of YOLOv8 and later, one column per anchor.

    Behind the classes may lie coefficients of masks, keypoints or an angle. (A, 4 + K) is the same
    turned round, where the class names or the metadata say that there is no objectness.
    """
    masks = [len(v) for v in values.values() if v.ndim == 3]
    for name, value in values.items():
        if value.ndim != 2:
            continue
        turned = value.shape[0] > value.shape[1]
        own = value if turned else value.T  # (A, 4 + K)
        width = own.shape[1]
        if not 5 <= width < len(own) or _is_activated(own, name, outputs):
            continue
        count = _classes_of(width - 4, own[:, 4:].T, outputs, masks)
        without = width == 4 + len(outputs.labels) or outputs.layout == "yolov8"
        if count is None or (turned and not without):
            continue
        if turned and width == 6 and looks_whole(own[:, 5]):
            continue  # a list: score and class
        extra = width - 4 - count
        corners = are_corners(own, outputs.size)
        angle = extra == 1 and (bool(outputs.labels) or outputs.declared("task") == "obb")
        if not corners and (own[:, 2:4] <= 0).any(axis=1).mean() > _NEGATIVE:
            continue  # no sizes of boxes
        edges = _in_pixels(_edges(corners=corners, angle=angle), own, outputs)
        proto = prototypes(values, extra)

        def read(
            found: Mapping[str, Array],
            name: str = name,
            count: int = count,
            turned: bool = turned,
            edges: Callable[[Array], Array] = edges,
        ) -> Rows:
            rows = found[name].astype(np.float64)
            rows = rows if turned else rows.T
            return best_of(edges(rows), rows[:, 4 : 4 + count], outputs.size)

        def element(
            row: int, number: int, name: str = name, turned: bool = turned
        ) -> tuple[str, tuple[int, ...]]:
            return name, (row, 4 + number) if turned else (4 + number, row)

        more = f" + {extra}" if extra else ""
        shape = f"{len(own)}, 4 + {count}" if turned else f"4 + {count}{more}, {len(own)}"
        what = f"YOLOv8 head (N, {shape})"
        what += ", oriented boxes" if angle else ", masks" if proto is not None else ""
        what += ", corners of boxes" if corners and not angle else ""
        mask = None
        if proto is not None:
            mask = mask_of(name, proto, 4 + count, read, axis=1 if turned else 0)
        names = (name,) if proto is None else (name, proto)
        yield Layout(
            "yolov8", what, names, count, False, read, element, len(own), mask=mask,
            caution="what is drawn is the upright box around the turned one" if angle else "",
        )  # fmt: skip


def _is_activated(rows: Array, name: str, outputs: Outputs) -> bool:
    """Whether one activation or normalisation makes all numbers of the rows: then none is a box."""
    if looks_like_shares(rows) and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        return True
    graph = outputs.scores.graph
    if graph is None:
        return False
    return ends_in_activation(graph, name) or ends_as_features(graph, name)


def _edges(*, corners: bool, angle: bool = False) -> Callable[[Array], Array]:
    """From rows to left, top, right, bottom: of corners, of a turned box, or of centre and size."""
    if angle:
        return lambda rows: hull(rows[:, :4], rows[:, -1])
    return (lambda rows: rows[:, :4]) if corners else from_centre


def _in_pixels(
    edges: Callable[[Array], Array], rows: Array, outputs: Outputs
) -> Callable[[Array], Array]:
    """Edges of boxes in pixels or shares, of those that are written in percent."""
    unit = unit_of(edges(rows.astype(np.float64)), outputs.size)
    return lambda own: edges(own) * unit


def _classes_of(width: int, scores: Array, outputs: Outputs, masks: list[int]) -> int | None:
    """Number of classes among the rows behind a box; None where they are not probabilities."""
    named = len(outputs.labels)
    counts = [named] if 0 < named <= width else []
    counts += [width - extra for extra in masks if width > extra]
    # Without a name: as many as are shares, before keypoints or coefficients of masks.
    inside = np.asarray(((scores >= 0) & (scores <= 1)).all(axis=1))
    counts.append(int(inside.argmin()) if not inside.all() else width)
    return next((n for n in counts if n > 0 and bool(inside[:n].all())), None)


def rows_of_anchors(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """(A, 5 + K): the head of YOLOv5 and YOLOX, one row per anchor, with an objectness.

    YOLOX is exported with its boxes decoded, or with offsets from the cell and logarithms.
    """
    for name, value in values.items():
        if value.ndim != 2 or not 6 <= value.shape[1] < len(value):
            continue
        if one_of_several_levels(name, values) or _is_activated(value, name, outputs):
            continue
        count, names = value.shape[1] - 5, len(outputs.labels)
        proto = prototypes(values, count - names) if 0 < names < count else None
        count = names if proto is not None else count
        known = next(pyramids(len(value), outputs.size), None)
        if not looks_like_shares(value[:, 4 : 5 + count]) or (known is None and names != count):
            continue
        if (names == count + 1 and proto is None) or outputs.layout == "yolov8":
            continue  # (A, 4 + K)
        cells = cells_of(outputs.size, known[0]) if known is not None and known[1] == 1 else None
        corners = are_corners(value, outputs.size)
        raw = cells is not None and not corners and _is_raw(value, cells)
        edges = _edges(corners=corners)
        edges = edges if raw else _in_pixels(edges, value, outputs)

        def read(
            found: Mapping[str, Array],
            name: str = name,
            cells: Array | None = cells if raw else None,
            count: int = count,
            edges: Callable[[Array], Array] = edges,
        ) -> Rows:
            rows = found[name].astype(np.float64)
            boxes = rows[:, :4]
            if cells is not None:
                step = cells[:, 2:]
                boxes = np.hstack(
                    [(boxes[:, :2] + cells[:, :2]) * step, np.exp(boxes[:, 2:]) * step]
                )
            sure, scores = rows[:, 4], rows[:, 5 : 5 + count]
            return best_of(edges(boxes), sure[:, None] * scores, outputs.size, sure)

        # The one class of a head with an objectness is not told from others: YOLOv5 does not train
        # it, and what says that there is an object is the objectness.
        def element(
            row: int, number: int, name: str = name, first: int = 5 if count > 1 else 4
        ) -> tuple[str, tuple[int, ...]]:
            return name, (row, first + number)

        kind = "YOLOX" if cells is not None and known and len(known[0]) > 1 else "YOLOv5"
        what = f"{kind} head (N, {len(value)}, 5 + {count})"
        what += ", offsets from the cells" if raw else ", corners of boxes" if corners else ""
        mask = None if proto is None else mask_of(name, proto, 5 + count, read)
        outs = (name,) if proto is None else (name, proto)
        yield Layout(
            kind.lower(), what, outs, count, False, read, element, len(value), mask=mask,
            caution="" if names or raw or count in _PUBLISHED else _WITH_OBJECTNESS,
        )  # fmt: skip


def _is_raw(value: Array, cells: Array) -> bool:
    """Whether boxes are offsets from their cells: centres that do not follow the cells."""
    middle = (cells[:, :2] + 0.5) * cells[:, 2:]
    decoded = np.median(np.abs(value[:, :2] - middle) / cells[:, 2:])
    offsets = np.median(np.abs(value[:, :2] - 0.5))
    return bool((value[:, 2:4] < 0).any() or offsets < decoded)


def distributions(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """(A, K + 4 (R + 1)): class scores and distributions over the distances of each side (NanoDet).

    NanoDet has three levels and measures from the middle of a cell, NanoDet-Plus four and from its
    corner.
    """
    for name, value in values.items():
        if value.ndim != 2 or not 17 <= value.shape[1] < len(value):
            continue
        if one_of_several_levels(name, values):
            continue
        known = next((k for k in pyramids(len(value), outputs.size) if k[1] == 1), None)
        count = _distributed(value, len(outputs.labels))
        if known is None or count is None or looks_like_shares(value[:, count:]):
            continue
        cells = cells_of(outputs.size, known[0])
        centres = (cells[:, :2] + middle_of(len(known[0]))) * cells[:, 2:]

        def read(
            found: Mapping[str, Array],
            name: str = name,
            count: int = count,
            centres: Array = centres,
            steps: Array = cells[:, 2:],
        ) -> Rows:
            rows = found[name].astype(np.float64)
            distances = mean_distances(rows[:, count:]) * steps
            return best_of(from_distances(centres, distances), rows[:, :count], outputs.size)

        def element(row: int, number: int, name: str = name) -> tuple[str, tuple[int, ...]]:
            return name, (row, number)

        what = f"NanoDet head (N, {len(value)}, {count} + {value.shape[1] - count})"
        yield Layout("nanodet", what, (name,), count, False, read, element, len(value))


def middle_of(levels: int) -> float:
    """Where in its cell a distance begins: in the middle; NanoDet-Plus, of four levels, at 0."""
    return 0.5 if levels <= 3 else 0.0


def _distributed(value: Array, names: int) -> int | None:
    """Number of classes before the distributions, which are not shares; None where not known."""
    width = value.shape[1]
    counts = [names, *(width - bins for bins in _BINS)]
    fits = (n for n in counts if 0 < n < width and (width - n) % 4 == 0 and width - n >= 16)
    return next((n for n in fits if looks_like_shares(value[:, :n])), None)
