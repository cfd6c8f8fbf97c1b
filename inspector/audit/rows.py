"""Rows of an audit: what one photo's prediction, and its map, say."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inspector.audit.data_set import Entry
from inspector.errors import ExplainedError, ImageRefused, MethodRefused
from inspector.heatmap import Attribution, lay_on_input
from inspector.measures.photo_traces import traces_of
from inspector.opened import Opened
from inspector.opening import Opening
from inspector.passes.batches import BATCH
from inspector.passes.maps import Map
from inspector.photos.dataset import class_indices
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.probability import predictions, probabilities_of, source_of
from inspector.render.drawing.colormap import apply_sequential
from inspector.render.png import dumps
from inspector.run import ExplainRun, PhotoInput, PhotoMaps
from inspector.tasks.planes import mask_on_grid
from inspector.whole_file import write_whole

__all__ = ["BORDER", "COLUMNS", "GRID", "Asked", "Auditor", "Row", "grid_of", "small_map"]

Array = np.ndarray[Any, Any]
Row = dict[str, Any]

GRID = 16
"""Cells per side of the small map that rows are compared by."""

COLUMNS = (
    *("photo", "label", "predicted", "index", "probability", "label_probability", "correct"),
    *("in_top5", "item", "method", "layer", "inside_box", "box_area", "inside_mask", "mask_area"),
    *("centre_y", "centre_x", "entropy", "border", "pointing", "pointing_centre", "drop"),
    *("increase", "sharpness", "jpeg_quality", "frame", "frame_colour", "empty", "deletion"),
    *("insertion", "seconds", "refused", "cluster", "thumbnail", "heat", "heats", "grid"),
)
"""Columns of every row, in order; columns of a table that name groups follow."""

BORDER = 0.1
"""Share of each side that counts as the border: 36 % of the area together."""

_THUMBNAIL = 160
_TOP = 5
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

    def __post_init__(self) -> None:
        """Open the model and check the request.

        Raises:
            InspectorError: The model or the request is refused.
        """
        self.opened = self.asked.opening.open(Opened)
        asked = self.asked
        self.run = ExplainRun(
            self.opened, asked.method, asked.target, asked.layer, None, task=asked.task
        )

    @property
    def batch(self) -> int:
        """Photos that go through the network at a time."""
        return BATCH if self.opened.batches and not self.run.alone else 1

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
                rows = list(self._measured(own, batch))
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
        return None if one is None else (tensor, _heat(one.attribution, geometry))

    def _one_by_one(
        self, entries: Sequence[Entry], batch: Sequence[PhotoInput], error: ExplainedError
    ) -> list[Row]:
        """Rows of photos of which one refuses the batch."""
        if len(batch) == 1:
            return [refused_row(entries[0], error)]
        rows = []
        for entry, item in zip(entries, batch, strict=True):
            try:
                rows += list(self._measured([entry], [item]))
            except ExplainedError as own:
                rows.append(refused_row(entry, own))
        return rows

    def _measured(self, entries: Sequence[Entry], batch: Sequence[PhotoInput]) -> Iterator[Row]:
        tensors = np.stack([tensor for _, tensor, _ in batch])
        values = self.run.forward(tensors)
        found = self.run.found(batch, tensors, values)
        for row, (entry, item, one) in enumerate(zip(entries, batch, found, strict=True)):
            if isinstance(one, ImageRefused):
                yield refused_row(entry, one)
                continue
            try:
                yield self._row(entry, item, one, values, row)
            except ExplainedError as error:
                yield refused_row(entry, error)

    def _row(
        self,
        entry: Entry,
        item: PhotoInput,
        found: PhotoMaps,
        values: Mapping[str, Array],
        row: int,
    ) -> Row:
        photo, _, geometry = item
        if entry.size is not None and entry.size != photo.size:
            raise ImageRefused(
                f"it has {photo.size[1]}x{photo.size[0]} pixels, and its annotations are of "
                f"{entry.size[1]}x{entry.size[0]}",
                where=entry.photo,
                hint="annotate the photo as it is, or take the size out of the annotations",
            )
        made = _blank(entry)
        made |= self._predicted(entry, values, row)
        made |= _traces(photo)
        if found.items is not None:
            best = next(iter(found.items.chosen), None)
            made |= {"item": best.label, "predicted": best.label} if best is not None else {}
            if best is not None:
                # Of a region it is its share of the area, which is not how sure the model is.
                sure = best.score if self.run.reading.task in _SURE else None  # type: ignore[union-attr]
                made |= {"index": best.index, "probability": sure}
                named = self._labels(entry.label)
                made["correct"] = best.index in named if named else None
        drawn = [one for one in found.maps if isinstance(one, Map)]
        if not drawn:
            reasons = [str(one.error) for one in found.maps if not isinstance(one, Map)]
            return made | {"refused": reasons[0] if reasons else "no map was drawn"}
        attribution = drawn[0].attribution
        made |= {"method": drawn[0].request.label, "layer": attribution.layer}
        heat = _heat(attribution, geometry)
        made |= _evidence(heat, geometry, entry)
        if self.asked.thumbnails is not None:
            heats = {one.request.label: _heat(one.attribution, geometry) for one in drawn[1:]}
            heats = {drawn[0].request.label: heat, **heats}
            made |= _thumbnails(self.asked.thumbnails, entry, photo, heats, geometry)
        return made

    def _labels(self, label: str | None) -> tuple[int, ...]:
        """Classes that a label names."""
        names = self.opened.class_labels.names
        return () if label is None else class_indices(label, names, self.opened.scores.classes)

    def _predicted(self, entry: Entry, values: Mapping[str, Array], row: int) -> Row:
        """What a classifier says of the photo."""
        scores, names = self.opened.scores, self.opened.class_labels.names
        if self.run.reading is not None or not scores.classifier or scores.tensor not in values:
            return {}
        own = np.asarray(values[scores.tensor][row], np.float64).reshape(-1)
        best = predictions(scores, names, own, _TOP)
        wanted = self._labels(entry.label)
        made: Row = {
            "predicted": best[0]["label"],
            "index": best[0]["index"],
            "probability": best[0].get("probability"),
        }
        if wanted:
            made["correct"] = best[0]["index"] in wanted
            made["in_top5"] = any(one["index"] in wanted for one in best)
            if made["probability"] is None:
                return made
            try:
                every = probabilities_of(own[None], source_of(scores, own))[0]
            except MethodRefused:
                return made
            if max(wanted) < every.size:
                made["label_probability"] = float(every[list(wanted)].sum())
        return made


def _blank(entry: Entry) -> Row:
    """A row of which nothing is known but the photo; the columns of every row, in order."""
    known = {"photo": entry.photo, "label": entry.label}
    return {**dict.fromkeys(COLUMNS), **known, **entry.groups}


def refused_row(entry: Entry, error: ExplainedError) -> Row:
    """The row of a photo that could not be audited."""
    return _blank(entry) | {"refused": str(error)}


def _traces(photo: Photo) -> Row:
    """What processing left in the photo."""
    found = traces_of(photo.rgb8)
    colour = "#" + "".join(f"{v:02x}" for v in found.colour) if found.colour is not None else None
    return {
        "sharpness": None if found.sharpness is None else round(found.sharpness, 6),
        "jpeg_quality": found.jpeg_quality,
        "frame": round(found.frame, 6),
        "frame_colour": colour,
    }


def _heat(attribution: Attribution, geometry: Geometry) -> Array:
    """Positive evidence (H, W) on the network's input."""
    values = attribution.reduced()
    if attribution.space == "layer":
        values = lay_on_input(values, attribution.placement, geometry.input)
    return np.clip(np.nan_to_num(values.astype(np.float64)), 0, None)


def _photo_area(geometry: Geometry) -> tuple[float, float, float, float]:
    """Top, left, bottom, right of the photo on the input, cut to it."""
    ends = []
    for size, length, scale, shift in zip(
        geometry.photo, geometry.input, geometry.scale, geometry.shift, strict=True
    ):
        ends.append((max(0.0, shift), min(float(length), shift + scale * size)))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


@lru_cache(maxsize=32)
def _cover(corners: tuple[float, float, float, float], size: tuple[int, int]) -> Array:
    """Share of each pixel (H, W) that a box (top, left, bottom, right) covers; not to be changed.

    Photos of one size ask for the same ones.
    """
    top, left, bottom, right = corners
    rows, columns = (
        np.clip(np.minimum(at + 1, high) - np.maximum(at, low), 0, 1)
        for at, low, high in (
            (np.arange(size[0]), top, bottom),
            (np.arange(size[1]), left, right),
        )
    )
    found: Array = np.asarray(rows[:, None] * columns[None])
    found.flags.writeable = False
    return found


def _evidence(heat: Array, geometry: Geometry, entry: Entry) -> Row:
    """Where the evidence lies: shares of the positive sum over what was seen of the photo."""
    area = _photo_area(geometry)
    seen = _cover(area, geometry.input)
    heat = heat * seen
    total, whole = float(heat.sum()), float(seen.sum())
    made: Row = {"empty": total == 0, "grid": grid_of(heat, area)}
    places = _objects(entry, geometry)
    if places is not None:
        # Objects that the network saw nothing of say nothing of where it looked.
        places = places if (places * seen).any() else None
    if places is not None:
        made["box_area"] = round(float((places * seen).sum()) / whole, 6)
    mask = None
    if entry.mask is not None:
        mask = mask_on_grid(str(entry.mask), geometry, geometry.input, entry.photo)
        mask = mask if (mask * seen).any() else None
    if mask is not None:
        made["mask_area"] = round(float((mask * seen).sum()) / whole, 6)
    if not total:
        return made
    height, width = heat.shape
    (top, left, bottom, right) = area
    y = float((heat.sum(1) * (np.arange(height) + 0.5)).sum()) / total
    x = float((heat.sum(0) * (np.arange(width) + 0.5)).sum()) / total
    shares = heat[heat > 0] / total
    cells = max(int((seen > 0).sum()), 2)
    margin = BORDER * (bottom - top), BORDER * (right - left)
    inner = (top + margin[0], left + margin[1], bottom - margin[0], right - margin[1])
    made |= {
        "centre_y": round((y - top) / max(bottom - top, 1e-9), 6),
        "centre_x": round((x - left) / max(right - left, 1e-9), 6),
        "entropy": round(float(-(shares * np.log(shares)).sum() / np.log(cells)), 6),
        "border": round(1 - float((heat * _cover(inner, geometry.input)).sum()) / total, 6),
    }
    if places is not None:
        peak = np.unravel_index(int(heat.argmax()), heat.shape)
        middle = int((top + bottom) / 2), int((left + right) / 2)
        made |= {
            "inside_box": round(float((heat * places).sum()) / total, 6),
            "pointing": bool(places[peak] >= 0.5),
            "pointing_centre": bool(places[middle] >= 0.5),
        }
    if mask is not None:
        made["inside_mask"] = round(float((heat * mask).sum()) / total, 6)
    return made


def _objects(entry: Entry, geometry: Geometry) -> Array | None:
    """Share of each pixel of the input that some object of the photo's label covers."""
    chosen = [one for one in entry.objects if one.label in {entry.label, None}] or entry.objects
    if not chosen:
        return None
    found = np.zeros(geometry.input)
    (sy, sx), (ty, tx), (height, width) = geometry.scale, geometry.shift, geometry.photo
    for one in chosen:
        top, left, bottom, right = one.corners
        if one.relative:
            top, bottom, left, right = top * height, bottom * height, left * width, right * width
        corners = (top * sy + ty, left * sx + tx, bottom * sy + ty, right * sx + tx)
        found = np.maximum(found, _cover(corners, geometry.input))
    return found


def small_map(attribution: Attribution, geometry: Geometry) -> str:
    """The small map of an attribution, as `grid_of` gives it and rows hold it."""
    area = _photo_area(geometry)
    return grid_of(_heat(attribution, geometry) * _cover(area, geometry.input), area)


def grid_of(heat: Array, area: tuple[float, float, float, float]) -> str:
    """A small map of the photo's part of the input: GRID x GRID bytes in hexadecimal digits."""
    top, left, bottom, right = area
    if heat.max() <= 0 or bottom <= top or right <= left:
        return ""
    picture = Image.fromarray(heat.astype(np.float32))
    small = picture.resize((GRID, GRID), Image.Resampling.BOX, box=(left, top, right, bottom))
    cells = np.asarray(small, np.float64)
    levels: Array = np.rint(255 * cells / max(float(cells.max()), 1e-30)).astype(np.uint8)
    return bytes(levels).hex()


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
