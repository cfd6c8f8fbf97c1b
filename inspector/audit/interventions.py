"""Interventions: is it this region that makes the class?  Painted over, and pasted elsewhere.

A map only suggests; a changed photo answers.  Every change has a control of the same size from
another place, and what counts is by how much the change is larger.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from inspector.audit.data_set import Entry
from inspector.audit.rows import Auditor, Row
from inspector.errors import ImageRefused, MethodRefused
from inspector.measures.statistics import mean_interval
from inspector.opened import Opened
from inspector.photos.photo import Photo
from inspector.probability import probabilities_of, source_of

__all__ = ["EFFECT", "Change", "Interventions", "class_probabilities", "interval_of"]

Array = np.ndarray[Any, Any]
Region = Sequence[float]
Corners = tuple[int, int, int, int]
Change = Callable[[Array, int], Array]
"""Changes the pixels (H, W, 3) of a photo, given its place among the photos of a test."""

EFFECT = 0.1
"""Change of the probability from which an intervention counts."""

MOST = 48
"""Photos per intervention."""

_KEPT = 1 << 28
"""Bytes of pixels that are kept of the photos of one intervention."""

_PATCH = 32


class Photos(Sequence[Array]):
    """Pixels (H, W, 3) of photos, of which no more are kept than fit in memory.

    The others are opened anew each time that they are asked for.
    """

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._kept: dict[int, Array] = {}
        self._bytes = 0

    def add(self, path: Path, pixels: Array) -> None:
        """Take in one photo, which has been opened."""
        self._bytes += pixels.nbytes
        if self._bytes <= _KEPT:
            self._kept[len(self._paths)] = pixels
        self._paths.append(path)

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, place: int) -> Array: ...

    @overload
    def __getitem__(self, place: slice) -> list[Array]: ...

    def __getitem__(self, place: int | slice) -> Array | list[Array]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        kept = self._kept.get(number)
        return Photo.open(self._paths[number]).rgb8 if kept is None else kept


@dataclass(eq=False)
class Interventions:
    """Changes of photos, and what the model says of them.

    Args:
        auditor: The opened model.
        entries: The photos.
        rows: Their rows.
        seed: Of the photos that are drawn and of the controls' places.
    """

    auditor: Auditor
    entries: Sequence[Entry]
    rows: Sequence[Row]
    seed: int
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        """Seed the draws."""
        self._rng = np.random.default_rng(self.seed)

    def of_cluster(self, cluster: Mapping[str, Any], own: Sequence[int]) -> list[dict[str, Any]]:
        """The cluster's region painted over in its photos, and pasted into those of other classes.

        Args:
            cluster: From ``find_clusters``.
            own: Places of its photos among the rows.

        Returns:
            ``paint over`` and ``paste``: change and control with intervals, and whether the change
            is confirmed; fewer where there are no photos to change.
        """
        name, region = str(cluster["class"]), cluster["region"]
        index = next(
            (self.rows[p]["index"] for p in own if self.rows[p]["index"] is not None), None
        )
        control = self._elsewhere(region)
        inside = self._drawn(own)
        if index is None or not inside:
            return []
        others = self.of_others(name)
        painted = (partial(_painted, at) for at in (region, control))
        found = [self.measured("paint over", index, inside, next(painted), list(painted))]
        if others:
            sources = self._rng.choice(len(inside), len(others))

            def pasted(at: Region, pixels: Array, number: int) -> Array:
                return _pasted(pixels, inside[sources[number]], at)

            changes = partial(pasted, region), [partial(pasted, control)]
            found.append(self.measured("paste", index, others, *changes))
        return [one for one in found if one["photos"]]

    def of_others(self, name: str) -> "Photos":
        """Pixels (H, W, 3) of some photos that are predicted as another class than this one."""
        return self._drawn(
            [
                place
                for place, row in enumerate(self.rows)
                if row.get("predicted") not in {None, name} and row.get("refused") is None
            ]
        )

    def constancy(self, region: Region, own: Sequence[int]) -> float:
        """Mean correlation of the region's content between photos: near 1 for a watermark."""
        patches = []
        for pixels in self._drawn(own):
            top, left, bottom, right = _corners(region, pixels.shape[:2])
            grey = Image.fromarray(pixels[top:bottom, left:right]).convert("L")
            values = np.asarray(grey.resize((_PATCH, _PATCH)), np.float64).ravel()
            values -= values.mean()
            norm = float(np.linalg.norm(values))
            if norm:
                patches.append(values / norm)
        count = len(patches)
        if count < 2:
            return 0.0
        total = float((np.sum(patches, 0) ** 2).sum())
        return (total - count) / (count * (count - 1))

    def _drawn(self, places: Sequence[int]) -> "Photos":
        """Pixels (H, W, 3) of some of the photos."""
        found = Photos()
        for place, pixels in self.opened(places, MOST):
            found.add(self.entries[place].path, pixels)
        return found

    def opened(self, places: Sequence[int], most: int) -> Iterator[tuple[int, Array]]:
        """Places and pixels (H, W, 3) of some photos, in order, one after the other.

        Args:
            places: Among the rows.
            most: Photos above which some are drawn.
        """
        chosen = list(places)
        if len(chosen) > most:
            chosen = sorted(self._rng.choice(chosen, most, replace=False).tolist())
        for place in chosen:
            try:
                yield place, Photo.open(self.entries[place].path).rgb8
            except ImageRefused:  # it was there when its row was made
                continue

    def _elsewhere(self, region: Region) -> Region:
        """A region of the same size that overlaps as little as one of 64 draws can."""
        top, left, bottom, right = region
        height, width = bottom - top, right - left
        places = [
            (float(y) * (1 - height), float(x) * (1 - width)) for y, x in self._rng.random((64, 2))
        ]

        def overlap(place: tuple[float, float]) -> float:
            rows = min(bottom, place[0] + height) - max(top, place[0])
            columns = min(right, place[1] + width) - max(left, place[1])
            return max(rows, 0.0) * max(columns, 0.0)

        y, x = min(places, key=overlap)
        return (y, x, y + height, x + width)

    def measured(
        self,
        kind: str,
        index: int,
        photos: Sequence[Array],
        change: Change,
        controls: Sequence[Change],
    ) -> dict[str, Any]:
        """By how much the class's probability moves by a change, and by its controls.

        Args:
            kind: ``paint over``, after which it should fall; ``paste`` or ``process``, after which
                it should rise.
            index: The class.
            photos: Pixels (H, W, 3) each, at least one.
            change: Changes one photo.
            controls: Change it as much in another way; the one that comes nearest to the change
                counts.

        Returns:
            ``change``, ``control`` and ``excess``, the difference, with intervals; ``photos`` is 0
            where the model gives no probability.
        """
        before = self._probabilities(photos, index)
        if before is None:
            return {"kind": kind, "photos": 0}
        sign = -1 if kind == "paint over" else 1

        def effect_of(one: Change) -> Array:
            after = self._probabilities((one(p, i) for i, p in enumerate(photos)), index)
            return np.asarray(sign * (after - before))

        effect = effect_of(change)
        other = max((effect_of(one) for one in controls), key=lambda one: float(one.mean()))
        excess = interval_of(effect - other)
        return {
            "kind": kind,
            "photos": len(photos),
            "change": interval_of(effect),
            "control": interval_of(other),
            "excess": excess,
            "confirmed": bool(excess["low"] > 0 and excess["value"] >= EFFECT),
        }

    def _probabilities(self, photos: Iterable[Array], index: int) -> Array | None:
        """Probability of one class per photo; None where the model gives none."""
        opened = self.auditor.opened
        preprocess = opened.preprocessing.preprocess
        found = []
        inputs = (preprocess.apply(Photo.of(p, name="changed"))[0] for p in photos)
        while batch := list(islice(inputs, self.auditor.batch)):
            tensors = np.stack(batch)
            part = class_probabilities(opened, tensors, index)
            if part is None:
                return None
            found.append(part)
        return np.concatenate(found)


def class_probabilities(opened: Opened, tensors: Array, index: int) -> Array | None:
    """Probability (N,) of one class; None where the model gives none.

    Args:
        opened: The opened model.
        tensors: (N, C, H, W), preprocessed.
        index: The class.
    """
    scores = opened.scores
    values = opened.forward(tensors, [scores.tensor])[scores.tensor]
    rows = np.asarray(values, np.float64).reshape(len(tensors), -1)
    try:
        return np.asarray(probabilities_of(rows, source_of(scores, rows[0]))[:, index])
    except (MethodRefused, IndexError):
        return None


def interval_of(values: Array) -> dict[str, Any]:
    """Mean of paired values (N,) with its 95 % interval, by the normal distribution."""
    mean, low, high = mean_interval(values, alone=1.0)
    return {"value": mean, "low": low, "high": high, "photos": int(values.size)}


def _corners(region: Region, size: tuple[int, ...]) -> Corners:
    """Top, left, bottom, right in pixels of a region in shares, at least one pixel each way."""
    top, left, bottom, right = region
    height, width = size[:2]
    y0, x0 = min(round(top * height), height - 1), min(round(left * width), width - 1)
    return y0, x0, max(round(bottom * height), y0 + 1), max(round(right * width), x0 + 1)


def _painted(region: Region, pixels: Array, number: int) -> Array:
    """A photo with a region in the mean colour of the rest."""
    del number
    top, left, bottom, right = _corners(region, pixels.shape)
    outside = np.ones(pixels.shape[:2], bool)
    outside[top:bottom, left:right] = False
    colour = pixels[outside].mean(0) if outside.any() else pixels.mean((0, 1))
    found = pixels.copy()
    found[top:bottom, left:right] = np.rint(colour)
    return found


def _pasted(pixels: Array, source: Array, region: Region) -> Array:
    """A photo with the region of another photo in the same place."""
    top, left, bottom, right = _corners(region, source.shape)
    patch = Image.fromarray(source[top:bottom, left:right])
    top, left, bottom, right = _corners(region, pixels.shape)
    found = pixels.copy()
    found[top:bottom, left:right] = np.asarray(patch.resize((right - left, bottom - top)))
    return found
