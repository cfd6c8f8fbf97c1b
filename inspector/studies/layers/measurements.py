"""One pass over the photos for all layers: each unit's strongest activation, mean and activity.

The journal keeps chunks of photos, not photos: the sums of some thousand units, said again for
each of ten thousand photos, would fill a disk.  Chunks grow with the run, so that an interrupted
one loses at most a ninth of its work and a long one keeps a few dozen records.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, MethodRefused
from inspector.passes.activations import activations
from inspector.passes.batches import Batch, Progress, batches
from inspector.passes.journal import Journal

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.studies.layers.hierarchy import Level

__all__ = ["Measurements", "Seen", "Units"]

Array = np.ndarray[Any, Any]

CHUNK = 32
"""Photos of the first chunks; later ones are an eighth of all photos before them."""

_GROWTH = 8


@dataclass(frozen=True, eq=False)
class Seen:
    """A photo that excites some unit most.

    Attributes:
        source: As the user gave it.
        name: Its name.
        sha256: Its hash.
    """

    source: Any
    name: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one layer over all photos; arrays are (C,).

    Only positive activations count: a photo on which a unit has none counts as 0.

    Attributes:
        peaks: The strongest activation over all photos and places; 0 for a unit without any.
        places: The photo's place in the list, the first of equal ones; -1 for a unit without any.
        rows: Row of it in the map, the first in reading order.
        columns: Column of it.
        means: Mean over the photos of the strongest activation on each.
        active: Photos on which the unit is active.
    """

    peaks: Array
    places: Array
    rows: Array
    columns: Array
    means: Array
    active: Array


class _Sums:
    """What is known of U units after some photos."""

    def __init__(self, units: int) -> None:
        self.used = 0
        self.peaks, self.totals = np.zeros(units), np.zeros(units)
        self.at = np.full((units, 3), -1)  # photo, row, column
        self.active = np.zeros(units, np.int64)

    def add(self, place: int, peaks: Array, rows: Array, columns: Array) -> None:
        """Take in one photo's strongest activations (U,) and where they are."""
        self.used += 1
        lit = np.maximum(peaks, 0)
        self.totals += lit
        self.active += lit > 0
        better = lit > self.peaks  # of equal ones the first photo stays
        self.peaks[better] = lit[better]
        self.at[better] = np.stack([np.full_like(rows, place), rows, columns], 1)[better]


class Measurements:
    """The pass.

    Args:
        model: The opened model.
        levels: The layers.
        journal: Keeps what was found in each chunk of photos.

    Attributes:
        used: Photos that could be read.
        photos: Those that excite some unit most, by place.
    """

    def __init__(self, model: "Opened", levels: "Sequence[Level]", journal: Journal) -> None:
        self.model, self.levels, self.journal = model, tuple(levels), journal
        ends = np.cumsum([0, *(level.shape[0] for level in levels)]).tolist()
        self._slices = [slice(a, b) for a, b in pairwise(ends)]
        self._all = _Sums(ends[-1])
        self.photos: dict[int, Seen] = {}

    @property
    def used(self) -> int:
        """Photos that could be read."""
        return self._all.used

    def over(
        self, images: Iterable[Any], refused: list[ImageRefused], progress: Progress | None
    ) -> list[Units]:
        """Go over the photos; what the journal knows is not opened again.

        Args:
            images: The photos.
            refused: Gets those that cannot be read.
            progress: Called with (what, done, total).

        Returns:
            The units of each layer; means over no photos are 0.

        Raises:
            MethodRefused: Activations that are not finite, or integers of unknown scale.
        """
        for start, size, chunk in _chunks(images):
            key = f"layers/{start}"
            if key in self.journal:
                record = self.journal[key]
                sources = {
                    at: source
                    for at, source in enumerate(chunk, start)
                    if str(at) in record["photos"]
                }
            else:
                total = len(images) if isinstance(images, Sequence) else 0
                record, sources = self._read(start, chunk, _told(progress, start, total))
                if not record["used"] and not record["refused"]:
                    break
                self.journal.keep(key, record)
                record = self.journal[key]
            self._take(record, sources)
            refused += [ImageRefused(what, where=at, hint=do) for what, at, do in record["refused"]]
            if record["used"] + len(record["refused"]) < size:
                break
        return [self._units(part) for part in self._slices]

    # -- a chunk of photos -----------------------------------------------------------------

    def _read(
        self, start: int, chunk: Iterable[Any], progress: Progress | None
    ) -> tuple[dict[str, Any], dict[int, Any]]:
        """Plain data of a chunk, and the photos of it as the user gave them."""
        sums, gone = _Sums(len(self._all.peaks)), list[ImageRefused]()
        sources, names = dict[int, Any](), dict[int, tuple[str, str]]()
        for batch in batches(self.model, chunk, gone, progress):
            peaks, rows, columns = self._strongest(batch)
            for row, place in enumerate(batch.places):
                sums.add(start + place, peaks[row], rows[row], columns[row])
                photo = batch.photos[row]
                sources[start + place] = batch.sources[row]
                names[start + place] = photo.name, photo.sha256
            kept = set(sums.at[:, 0].tolist())
            sources = {place: source for place, source in sources.items() if place in kept}
        stronger = np.flatnonzero(sums.peaks > self._all.peaks)
        won = sorted(set(sums.at[stronger, 0].tolist()))
        record = {
            "used": sums.used,
            "refused": [(error.what, error.where, error.hint) for error in gone],
            "totals": sums.totals.tolist(),
            "active": sums.active.tolist(),
            "stronger": [
                (unit, peak, *at)
                for unit, peak, at in zip(
                    stronger.tolist(),
                    sums.peaks[stronger].tolist(),
                    sums.at[stronger].tolist(),
                    strict=True,
                )
            ],
            "photos": {str(place): names[place] for place in won},
        }
        return record, sources

    def _strongest(self, batch: Batch) -> tuple[Array, Array, Array]:
        """Of each photo and unit the strongest activation (N, U), its row and its column."""
        found = activations(self.model, batch.tensors, [level.tensor for level in self.levels])
        parts = []
        for level in self.levels:
            maps = np.moveaxis(found[level.tensor], level.axis, 1)
            flat = maps.reshape(*maps.shape[:2], -1)
            at = flat.argmax(2)  # the first of equals; a NaN wins
            peaks = np.take_along_axis(flat, at[:, :, None], 2)[:, :, 0].astype(np.float64)
            bad = np.flatnonzero(~np.isfinite(peaks).all(1))
            if bad.size:
                raise MethodRefused(
                    f"activations are not finite on {batch.photos[bad[0]].name}",
                    where=level.tensor,
                    hint="leave the layer or the photo out",
                )
            parts.append((peaks, *np.divmod(at, maps.shape[3])))
        peaks, rows, columns = (np.concatenate(part, 1) for part in zip(*parts, strict=True))
        return peaks, rows, columns

    def _take(self, record: Mapping[str, Any], sources: Mapping[int, Any]) -> None:
        """Add a chunk to all before it."""
        every = self._all
        every.used += record["used"]
        every.totals += record["totals"]
        every.active += record["active"]
        for unit, peak, *at in record["stronger"]:
            every.peaks[unit], every.at[unit] = peak, at
        for place, (name, sha256) in record["photos"].items():
            self.photos[int(place)] = Seen(sources[int(place)], name, sha256)
        kept = set(every.at[:, 0].tolist())
        self.photos = {place: seen for place, seen in self.photos.items() if place in kept}

    def _units(self, part: slice) -> Units:
        every = self._all
        places, rows, columns = every.at[part].T
        means = every.totals[part] / max(every.used, 1)
        return Units(every.peaks[part], places, rows, columns, means, every.active[part])


def _chunks(images: Iterable[Any]) -> Iterator[tuple[int, int, Iterable[Any]]]:
    """Place of the first photo, size and photos of each chunk, without end."""
    start, rest = 0, iter(images)
    while True:
        size = max(CHUNK, start // _GROWTH)
        if isinstance(images, Sequence):
            yield start, size, images[start : start + size]
        else:  # photos that come one by one are not collected
            yield start, size, islice(rest, size)
        start += size


def _told(progress: Progress | None, start: int, total: int) -> Progress | None:
    """Progress over all photos, out of that over those of a chunk."""
    if progress is None:
        return None
    tell = progress
    return lambda what, done, _: tell(what, start + done, total)
