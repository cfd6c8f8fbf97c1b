"""Items of two networks on one photo, matched: the same box, region or character in both.

A detector's second box need not be the other detector's second box.  Boxes and regions are matched
by class and by their overlap on the photo's pixels, the best first; characters by their place.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.errors import UsageError
from inspector.explain import Explainer
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.tasks import Item, Reading, Sample
from inspector.tasks.items import ItemSpec

__all__ = ["Found", "Matched", "chosen", "common_task", "items_of", "matched"]

Array = np.ndarray[Any, Any]

LEAST = 0.5
"""Overlap (IoU) from which two boxes or regions of a class are the same."""

_RANK = re.compile(r"#\d+$", re.ASCII)
_PLACE = re.compile(r"char:\d+", re.ASCII)


@dataclass(frozen=True, eq=False)
class Found:
    """An item of one network.

    Attributes:
        item: The item.
        words: How it is asked for.
        place: (H, W) of the photo, True where it lies; None where it has no place.
    """

    item: Item
    words: str
    place: Array | None

    @property
    def kind(self) -> str:
        """Its class, without its rank."""
        return _RANK.sub("", self.item.label)


@dataclass(frozen=True, eq=False)
class Matched:
    """An item of A and its counterpart.

    Attributes:
        a: The item of A.
        b: That of B; None where B has none.
        overlap: IoU on the photo's pixels; None where the items have no place.
    """

    a: Found
    b: Found | None
    overlap: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {
            "a": self.a.item.label,
            "b": None if self.b is None else self.b.item.label,
            "scores": [self.a.item.score, None if self.b is None else self.b.item.score],
            "overlap": None if self.overlap is None else round(self.overlap, 4),
        }


def common_task(a: Explainer, b: Explainer) -> tuple[Reading, Reading] | None:
    """The readings of two networks of one task; None for classifiers.

    Raises:
        UsageError: The networks are of different tasks, or of one that has no items to match.
    """
    readings = a.reading(), b.reading()
    if readings[0] is None and readings[1] is None:
        return None
    where = f"{a.path.name} and {b.path.name}"
    if readings[0] is None or readings[1] is None or readings[0].task != readings[1].task:
        names = [
            one.task
            if one is not None
            else "classifier"
            if m.scores.classifier
            else "no known task"
            for one, m in zip(readings, (a, b), strict=True)
        ]
        raise UsageError(
            f"not two networks of one task: {names[0]} against {names[1]}",
            where=where,
            hint="name an element that both have, --target OUTPUT[i,j,...]",
        )
    if readings[0].task == "embedding":
        raise UsageError(
            "two embeddings have nothing to compare without a reference photo, and their vectors "
            "have axes of their own",
            where=where,
            hint="explain each with --similar-to, or name an element, --target OUTPUT[i]",
        )
    return readings[0], readings[1]


def items_of(model: Explainer, reading: Reading, photo: Photo) -> list[Found]:
    """All items of one photo, the most certain first.

    Raises:
        ImageRefused: The outputs cannot be read as those of other photos.
    """
    sample = _sample(model, reading, photo)
    every = ItemSpec.parse(None, reading).every(sample)
    return [_found(item, reading.task, sample.geometry) for item in every]


def chosen(model: Explainer, reading: Reading, photo: Photo, text: str | None) -> list[Found]:
    """The items that a user names, or those that are explained by default.

    Raises:
        UnknownTarget: The words name nothing, whatever the photo.
        ImageRefused: They name nothing of this photo.
    """
    sample = _sample(model, reading, photo)
    named, _ = ItemSpec.parse(text, reading).resolve(sample)
    return [_found(item, reading.task, sample.geometry) for item in named]


def _sample(model: Explainer, reading: Reading, photo: Photo) -> Sample:
    tensor, geometry = model.preprocessing.preprocess.apply(photo)
    values = model.forward(tensor[None], list(reading.outputs))
    rows = {name: np.asarray(value)[0] for name, value in values.items()}
    return Sample(rows, geometry, photo.name, photo.path)


def matched(a: Sequence[Found], b: Sequence[Found]) -> list[Matched]:
    """For each item of A the one of B that is the same, each given once."""
    free = list(b)
    found = []
    for own in a:
        best = max(free, key=lambda other: _alike(own, other), default=None)
        if best is None or _alike(own, best) < LEAST:
            found.append(Matched(own, None, None))
            continue
        free.remove(best)
        placed = own.place is not None and best.place is not None
        found.append(Matched(own, best, _overlap(own.place, best.place) if placed else None))
    return found


def _found(item: Item, task: str, geometry: Geometry) -> Found:
    words = item.label
    if place := _PLACE.match(item.label):
        words = place[0]
    if task == "dense" and item.box is not None:  # the same place, not the other one's maximum
        top, left, bottom, right = item.box
        y, x = geometry.to_photo((top + bottom) / 2 - 0.5, (left + right) / 2 - 0.5)
        words = f"@{float(x):.2f},{float(y):.2f}"
    region = item.mask
    if region is None and item.box is not None:
        top, left, bottom, right = item.box
        rows, columns = (np.arange(n) + 0.5 for n in geometry.input)
        inside = (rows >= top) & (rows <= bottom), (columns >= left) & (columns <= right)
        region = inside[0][:, None] & inside[1][None, :]
    place_on = None
    if region is not None:
        laid, seen = geometry.lay_back(region.astype(np.float32))
        place_on = seen & (np.nan_to_num(laid) > 0.5)
    return Found(item, words, place_on)


def _alike(a: Found, b: Found) -> float:
    if a.kind != b.kind:
        return 0.0
    if a.place is None or b.place is None:
        return 1.0
    return _overlap(a.place, b.place)


def _overlap(a: Array | None, b: Array | None) -> float:
    """Intersection over union."""
    if a is None or b is None:
        return 0.0
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0
