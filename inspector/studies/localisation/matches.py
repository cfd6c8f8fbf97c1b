"""What the maps of one photo hit, and what a box in the middle of the photo hits."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inspector.errors import ImageRefused
from inspector.heatmap import Heatmap
from inspector.measures.boxes import (
    box_of_map,
    centred_box,
    gaps,
    gaussian_boxes,
    overlaps,
    peak,
    sweep,
)
from inspector.methods import methods
from inspector.studies.localisation.maps import MapsOfPhoto, raster, seen_shares
from inspector.studies.localisation.objects import Object

if TYPE_CHECKING:
    from inspector.heatmap import Attribution
    from inspector.photos.geometry import Geometry

__all__ = [
    "CENTRE",
    "SIGMA",
    "THRESHOLDS",
    "Rules",
    "entry_of",
    "threshold_of",
    "unpacked",
    "wanted",
]

CENTRE = "centre"
"""The baseline that knows nothing of the photo but its size."""

SIGMA = 0.25
"""Of the baseline's Gaussian, as a share of each side of the photo."""

THRESHOLDS = tuple(step / 100 for step in range(100))
"""Shares of the maximum that MaxBoxAcc tries."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Rules:
    """What the paper leaves open.

    Attributes:
        top: How many of the best classes may hold the right one.
        threshold: Share of the maximum that boxes are cut at; 0 for that of the method's paper.
        connectivity: 4 or 8.
        centre: Share of the photo's area that the baseline's box covers.
    """

    top: int
    threshold: float
    connectivity: int
    centre: float


def threshold_of(method: str, rules: Rules) -> float:
    """Share of the maximum that a method's box is cut at.

    Args:
        method: Its name.
        rules: As chosen.
    """
    return rules.threshold or methods()[method].box_threshold


def ranked(scores: Array, top: int) -> list[int]:
    """The best classes of one photo, best first; of equal ones the first, as ArgMax does."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[:top]]


def true_classes(scores: Array, objects: Sequence[Object]) -> list[int]:
    """For each object the class that its map is of: the alternative with the highest score."""
    return [max(one.classes, key=lambda index: (scores[index], -index)) for one in objects]


def wanted(scores: Array, objects: Sequence[Object], top: int) -> list[int]:
    """Classes whose maps decide a photo: the true ones, and right ones among the best.

    The map of a wrong prediction is never needed: it is an error wherever its box lies.
    """
    right = {index for one in objects for index in one.classes}
    found = [index for index in ranked(scores, top) if index in right]
    return list(dict.fromkeys([*true_classes(scores, objects), *found]))


def entry_of(
    looked: MapsOfPhoto,
    objects: Sequence[Object],
    geometry: "Geometry",
    methods: Iterable[str],
    rules: Rules,
) -> dict[str, Any]:
    """Everything about one photo that the results need, as plain data.

    Args:
        looked: Scores and maps.
        objects: What is on the photo.
        geometry: How the photo and the network's input lie on each other.
        methods: Labels of the methods.
        rules: As chosen.

    Raises:
        ImageRefused: Scores or a map that are not finite.
    """
    if not np.isfinite(looked.scores).all():
        raise ImageRefused(
            "the model's scores for this photo are not finite", hint="check the preprocessing"
        )
    best, true = ranked(looked.scores, rules.top), true_classes(looked.scores, objects)
    measured = {CENTRE: _centre(objects, best, geometry.photo, rules)}
    for method in methods:
        maps = {index: found.get(method) for index, found in looked.maps.items()}
        measured[method] = _measured(
            method, maps, objects, best=best, true=true, geometry=geometry, rules=rules
        )
    return {
        "size": list(geometry.photo),
        "predicted": best,
        "right": [any(index in one.classes for one in objects) for index in best],
        "objects": [
            {
                "label": one.label,
                "class": index,
                "boxes": [list(box) for box in one.boxes],
                "seen": list(seen_shares(geometry, one.boxes)),
            }
            for one, index in zip(objects, true, strict=True)
        ],
        "methods": measured,
    }


def _measured(
    method: str,
    maps: "Mapping[int, Attribution | None]",
    objects: Sequence[Object],
    *,
    best: Sequence[int],
    true: Sequence[int],
    geometry: "Geometry",
    rules: Rules,
) -> dict[str, Any]:
    """What one method's maps of one photo hit."""
    grid, cell = raster(geometry)
    laid: dict[int, Array] = {}
    for index, attribution in maps.items():
        if attribution is None:
            raise ImageRefused(
                f"{method}: the map has values that are not finite",
                hint="the network overflows on this photo; check its preprocessing",
            )
        laid[index] = Heatmap.of(attribution, grid).values
    name = next(found.method for found in maps.values() if found is not None)
    share = threshold_of(name, rules)
    boxes = {
        index: box_of_map(values, share, rules.connectivity) * (*cell, *cell)
        for index, values in laid.items()
    }
    found = []
    for one, index in zip(objects, true, strict=True):
        point = peak(laid[index])
        swept = [b * (*cell, *cell) for b in sweep(laid[index], THRESHOLDS, rules.connectivity)]
        ious = [overlaps(b, one.boxes).max(1, initial=0) for b in swept]
        found.append(
            _object(
                one,
                boxes[index],
                None if point is None else (point[0] * cell[0], point[1] * cell[1]),
                largest=[float(iou[0]) if len(iou) else 0.0 for iou in ious],
                every=[float(iou.max(initial=0)) for iou in ious],
            )
        )
    return {"ranks": _ranks(best, objects, boxes), "objects": found}


def _centre(
    objects: Sequence[Object], best: Sequence[int], size: tuple[int, int], rules: Rules
) -> dict[str, Any]:
    """What a box in the middle, a Gaussian in the middle, and the middle itself hit."""
    box, swept = centred_box(size, rules.centre), gaussian_boxes(size, THRESHOLDS, SIGMA)
    found = []
    for one in objects:
        ious = overlaps(swept, one.boxes).max(1).tolist()
        middle = size[0] / 2, size[1] / 2
        found.append(_object(one, box, middle, largest=ious, every=ious))
    return {"ranks": _ranks(best, objects, dict.fromkeys(best, box)), "objects": found}


def _object(
    one: Object,
    box: Array,
    point: tuple[float, float] | None,
    *,
    largest: Sequence[float],
    every: Sequence[float],
) -> dict[str, Any]:
    return {
        "box": box[0].tolist() if len(box) else None,
        "iou": float(overlaps(box, one.boxes).max(initial=0)),
        "point": None if point is None else list(point),
        "gap": None if point is None else float(gaps(point, one.boxes).min()),
        "largest": _packed(largest),
        "every": _packed(every),
    }


def _ranks(
    best: Sequence[int], objects: Sequence[Object], boxes: Mapping[int, Array]
) -> list[float]:
    """For each of the best classes its box's IoU with a box of that class; 0 for a wrong class."""
    found = []
    for index in best:
        truth = [box for one in objects if index in one.classes for box in one.boxes]
        found.append(float(overlaps(boxes[index], truth).max(initial=0)) if truth else 0.0)
    return found


def _packed(values: Sequence[float]) -> str:
    """(T,) numbers as a short text: lists of floats would take a journal ten times the memory."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> NDArray[np.float32]:
    """(T,) numbers of `_packed`, as float32."""
    return np.frombuffer(base64.b64decode(text), "<f4")
