"""Rows of an audit: what one photo's prediction, and its map, say."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inspector.audit.data_set import Entry
from inspector.audit.data_set.frames import on_upright_photo
from inspector.audit.evidence_places import (
    GRID,
    Marks,
    evidence_places,
    heat_of,
    heats_of,
    marks_of,
    small_map,
)
from inspector.audit.predicted import Predicted
from inspector.errors import ExplainedError, ImageRefused
from inspector.measures.photo_traces import Traces, traces_of_all
from inspector.opened import Opened
from inspector.opening import Opening
from inspector.passes.batches import BATCH
from inspector.passes.maps import Map
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.render.drawing.colormap import apply_sequential
from inspector.render.png import dumps
from inspector.run import ExplainRun, PhotoInput, PhotoMaps
from inspector.whole_file import write_whole

__all__ = ["COLUMNS", "GRID", "Asked", "Auditor", "Row", "small_map"]

Array = np.ndarray[Any, Any]
Row = dict[str, Any]

COLUMNS = (
    *("photo", "label", "predicted", "index", "probability", "label_probability", "correct"),
    *("in_top5", "item", "method", "layer", "inside_box", "box_area", "inside_mask", "mask_area"),
    *("centre_y", "centre_x", "entropy", "border", "pointing", "pointing_centre", "drop"),
    *("increase", "sharpness", "jpeg_quality", "frame", "frame_colour", "empty", "deletion"),
    *("insertion", "seconds", "refused", "cluster", "thumbnail", "heat", "heats", "grid"),
)
"""Columns of every row, in order; columns of a table that name groups follow."""

_THUMBNAIL = 160
_TOGETHER = 1 << 17
"""Pixels of the network's inputs that are worth a larger batch."""

_MOST = 32
"""Photos of a batch: what a kill at any moment may lose."""

_SURE = ("detector", "sequence")
"""Tasks whose items have a probability."""


@dataclass(frozen=True)
class Asked:
    """What an audit asks of each photo: plain data, which another process gets as it is.

    Attributes:
        opening: What opens the model.
        method: The method with its options, or several, of which the first is measured and the
            others are shown beside it; None for the one that is right for the task.
        target: As `inspector explain` takes it; None for the default.
        layer: As `inspector explain` takes it; None for the default.
        task: What the outputs mean; None to find it out.
        thumbnails: Folder for small pictures; None for none.
    """

    opening: Opening
    method: str | tuple[str, ...] | None = None
    target: str | None = None
    layer: str | None = None
    task: str | None = None
    thumbnails: Path | None = None


@dataclass(eq=False)
class Auditor:
    """A model that is asked photo by photo.

    Attributes:
        asked: What is asked.
        opened: The opened model.
        run: The request, checked.
    """

    asked: Asked
    opened: Opened = field(init=False, repr=False)
    run: ExplainRun = field(init=False, repr=False)
    _predictions: Predicted = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open the model and check the request.

        Raises:
            InspectorError: The model or the request is refused.
        """
        self.opened = self.asked.opening.open(Opened)
        asked = self.asked
        self._predictions = Predicted(self.opened.scores, self.opened.class_labels)
        self.run = ExplainRun(
            self.opened, asked.method, asked.target, asked.layer, None, task=asked.task
        )

    @property
    def batch(self) -> int:
        """Photos that go through the network at a time: more of small ones, whose cost is calls."""
        if not self.opened.batches or self.run.alone:
            return 1
        height, width = self.opened.size(*self.opened.preprocessing.preprocess.size)
        return min(max(BATCH, _TOGETHER // (height * width)), _MOST)

    def rows(self, entries: Sequence[Entry]) -> Iterator[Row]:
        """One row per photo, in order; a photo that cannot be audited is a row with its reason."""
        for start in range(0, len(entries), self.batch):
            yield from self._rows(entries[start : start + self.batch])

    def _rows(self, entries: Sequence[Entry]) -> list[Row]:
        began = time.perf_counter()
        found: list[Row | None] = [None] * len(entries)
        batch: list[PhotoInput] = []
        places = []
        for place, entry in enumerate(entries):
            try:
                photo = Photo.open(entry.path)
                batch.append((photo, *self.opened.preprocessing.preprocess.apply(photo)))
                places.append(place)
            except ImageRefused as error:
                found[place] = refused_row(entry, error)
        if batch:
            own = [entries[place] for place in places]
            try:
                rows = self._measured(own, batch)
            except ExplainedError as error:
                rows = self._one_by_one(own, batch, error)
            share = (time.perf_counter() - began) / len(rows)
            for place, row in zip(places, rows, strict=True):
                found[place] = row | {"seconds": round(share, 6)}
        return [row for row in found if row is not None]

    def heat(self, entry: Entry) -> tuple[Array, Array] | None:
        """The input (C, H, W) and the positive evidence (H, W) of one photo; None without a map."""
        try:
            photo = Photo.open(entry.path)
            tensor, geometry = self.opened.preprocessing.preprocess.apply(photo)
            tensors = tensor[None]
            values = self.run.forward(tensors)
            (found,) = self.run.found([(photo, tensor, geometry)], tensors, values)
        except ExplainedError:
            return None
        maps = () if isinstance(found, ImageRefused) else found.maps
        one = next((one for one in maps if isinstance(one, Map)), None)
        return None if one is None else (tensor, heat_of(one.attribution, geometry))

    def _one_by_one(
        self, entries: Sequence[Entry], batch: Sequence[PhotoInput], error: ExplainedError
    ) -> list[Row]:
        """Rows of photos of which one refuses the batch."""
        if len(batch) == 1:
            return [refused_row(entries[0], error)]
        rows = []
        for entry, item in zip(entries, batch, strict=True):
            try:
                rows += self._measured([entry], [item])
            except ExplainedError as own:
                rows.append(refused_row(entry, own))
        return rows

    def _measured(self, entries: Sequence[Entry], batch: Sequence[PhotoInput]) -> list[Row]:
        """Rows of photos that go through the network together."""
        tensors = np.stack([tensor for _, tensor, _ in batch])
        values = self.run.forward(tensors)
        found = self.run.found(batch, tensors, values)
        predicted = self._predicted(entries, values)
        traces = traces_of_all([photo.rgb8 for photo, _, _ in batch])
        rows: list[Row] = []
        drawn: dict[int, tuple[list[Map], Marks]] = {}
        for row, (entry, item, one) in enumerate(zip(entries, batch, found, strict=True)):
            try:
                if isinstance(one, ImageRefused):
                    raise one
                upright = on_upright_photo(entry, item[0].size)
                made = self._row(entry, one, predicted[row]) | _described(traces[row])
                if maps := [each for each in one.maps if isinstance(each, Map)]:
                    drawn[row] = maps, marks_of(upright, item[2])
            except ExplainedError as error:
                made = refused_row(entry, error)
            rows.append(made)
        geometries = [batch[row][2] for row in drawn]
        heats = heats_of([maps[0].attribution for maps, _ in drawn.values()], geometries)
        lies = evidence_places(heats, geometries, [marks for _, marks in drawn.values()])
        for row, heat, where in zip(drawn, heats, lies, strict=True):
            rows[row] |= where
            try:
                rows[row] |= self._shown(entries[row], batch[row], drawn[row][0], heat)
            except ExplainedError as error:
                rows[row] = refused_row(entries[row], error)
        return rows

    def _row(self, entry: Entry, found: PhotoMaps, predicted: Row | ExplainedError) -> Row:
        """What is said of one photo without looking at where its map lies."""
        if isinstance(predicted, ExplainedError):
            raise predicted
        made = _blank(entry) | predicted
        if found.items is not None:
            best = next(iter(found.items.chosen), None)
            made |= {"item": best.label, "predicted": best.label} if best is not None else {}
            if best is not None:
                # Of a region it is its share of the area, which is not how sure the model is.
                sure = best.score if self.run.reading.task in _SURE else None  # type: ignore[union-attr]
                made |= {"index": best.index, "probability": sure}
                named = self._predictions.indices(entry.label)
                made["correct"] = best.index in named if named else None
        first = next((one for one in found.maps if isinstance(one, Map)), None)
        if first is None:
            reasons = [str(one.error) for one in found.maps if not isinstance(one, Map)]
            return made | {"refused": reasons[0] if reasons else "no map was drawn"}
        return made | {"method": first.request.label, "layer": first.attribution.layer}

    def _shown(self, entry: Entry, item: PhotoInput, maps: Sequence[Map], heat: Array) -> Row:
        """The small pictures of one photo, of which the first map's heat is known."""
        if self.asked.thumbnails is None:
            return {}
        photo, _, geometry = item
        heats = {one.request.label: heat_of(one.attribution, geometry) for one in maps[1:]}
        heats = {maps[0].request.label: heat, **heats}
        return _thumbnails(self.asked.thumbnails, entry, photo, heats, geometry)

    def _predicted(
        self, entries: Sequence[Entry], values: Mapping[str, Array]
    ) -> Sequence[Row | ExplainedError]:
        """What a classifier says of some photos."""
        scores = self.opened.scores
        if self.run.reading is not None or not scores.classifier or scores.tensor not in values:
            return [{}] * len(entries)
        own = np.asarray(values[scores.tensor], np.float64).reshape(len(entries), -1)
        return self._predictions.rows([entry.label for entry in entries], own)


def _blank(entry: Entry) -> Row:
    """A row of which nothing is known but the photo; the columns of every row, in order."""
    known = {"photo": entry.photo, "label": entry.label}
    return {**dict.fromkeys(COLUMNS), **known, **entry.groups}


def refused_row(entry: Entry, error: ExplainedError) -> Row:
    """The row of a photo that could not be audited."""
    return _blank(entry) | {"refused": str(error)}


def _described(found: Traces) -> Row:
    """What processing left in the photo, as columns."""
    colour = "#" + "".join(f"{v:02x}" for v in found.colour) if found.colour is not None else None
    return {
        "sharpness": None if found.sharpness is None else round(found.sharpness, 6),
        "jpeg_quality": found.jpeg_quality,
        "frame": round(found.frame, 6),
        "frame_colour": colour,
    }


def _thumbnails(
    folder: Path, entry: Entry, photo: Photo, heats: Mapping[str, Array], geometry: Geometry
) -> Row:
    """A small photo and its heats by method; a heat is transparent where there is none."""
    name = hashlib.sha256(entry.photo.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    picture = Image.fromarray(np.rint(photo.pixels).astype(np.uint8))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    size = picture.size[1], picture.size[0]
    scale = tuple(p / s for p, s in zip(geometry.photo, size, strict=True))
    small = Geometry(
        size,
        geometry.input,
        (geometry.scale[0] * scale[0], geometry.scale[1] * scale[1]),
        geometry.shift,
    )
    write_whole(folder / f"{name}.png", dumps(picture))
    paths = {}
    for number, (method, heat) in enumerate(heats.items()):
        values, seen = small.lay_back(heat)
        share = np.where(seen, values, 0) / max(float(heat.max()), 1e-30)
        opacity = np.rint(255 * np.clip(share, 0, 1))
        rgba = np.dstack([apply_sequential(share), opacity]).astype(np.uint8)
        file = f"{name}.heat{number + 1 if number else ''}.png"
        write_whole(folder / file, dumps(Image.fromarray(rgba)))
        paths[method] = f"{folder.name}/{file}"
    found: Row = {"thumbnail": f"{folder.name}/{name}.png", "heat": next(iter(paths.values()))}
    return {**found, "heats": paths} if len(paths) > 1 else found
