"""Units' strongest activations over many photos: one per photo, one pass, bounded memory."""

import heapq
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused
from inspector.passes.batches import Batch, Progress, passes
from inspector.passes.journal import Journal

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["Winner", "strongest"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Winner:
    """One of a unit's strongest activations.

    Attributes:
        unit: Channel of the layer.
        value: The activation; positive.
        place: Position of the photo in the list.
        y: Row in the layer's map.
        x: Column.
        source: The photo as the user gave it.
        name: The photo's name.
        sha256: The photo's hash.
    """

    unit: int
    value: float
    place: int
    y: int
    x: int
    source: Any
    name: str
    sha256: str

    def __lt__(self, other: "Winner") -> bool:
        """Weaker first; of equals the later photo, so that the first one stays."""
        return (self.value, -self.place) < (other.value, -other.place)


def strongest(
    model: "Opened",
    tensor: str,
    images: Iterable[Any],
    units: Sequence[int],
    *,
    count: int,
    refused: list[ImageRefused],
    progress: Progress | None = None,
    journal: Journal | None = None,
    channel_axis: int = 1,
) -> tuple[dict[int, list[Winner]], int]:
    """Find each unit's strongest activations, one per photo, in one pass.

    Only positive activations count. Of equal ones the first photo's, and in a photo the first in
    reading order.

    Args:
        model: The opened model.
        tensor: The layer, (N, C, h, w), or (N, h, w, C) when ``channel_axis`` is 3.
        images: The photos.
        units: Channels.
        count: Photos to keep per unit.
        refused: Gets the photos that cannot be read.
        progress: Called with (what, done, total).
        journal: Gets what each photo brought; photos in it are not opened again.
        channel_axis: 1 or 3.

    Returns:
        The winners of each unit, strongest first, and how many photos were used.

    Raises:
        MethodRefused: The layer holds integers whose scale is not known.
    """

    def look(batch: Batch, found: Mapping[str, Array]) -> list[tuple[_Seen, Array, Array]]:
        maps = np.moveaxis(found[tensor], channel_axis, 1)[:, list(units)]
        flat = maps.reshape(*maps.shape[:2], -1)
        places = flat.argmax(2)
        peaks = np.take_along_axis(flat, places[:, :, None], 2)[:, :, 0]
        at = np.stack(np.divmod(places, maps.shape[3]), 2)
        photos = zip(batch.places, batch.sources, batch.photos, strict=True)
        seen = [_Seen(place, source, p.name, p.sha256) for place, source, p in photos]
        return list(zip(seen, peaks, at, strict=True))

    ranking = _Ranking(units, count, journal or Journal())
    known, images = ranking.resumed(images)
    running = passes(model, images, [tensor], look, refused=refused, progress=progress, skip=known)
    for looked in running:
        for seen, peaks, at in looked:
            ranking.add(seen, peaks, at)
    return ranking.winners(), ranking.used


@dataclass(frozen=True)
class _Seen:
    """A photo that went through the network."""

    place: int
    source: Any
    name: str
    sha256: str


class _Ranking:
    """The strongest activations of each unit so far.

    The journal keeps of each photo only what entered a heap when it came: replayed in the same
    order, that gives the same heaps.
    """

    def __init__(self, units: Sequence[int], count: int, journal: Journal) -> None:
        self.units, self.count, self.journal = tuple(units), count, journal
        self.heaps: dict[int, list[Winner]] = {unit: [] for unit in units}
        self.used = 0

    def resumed(self, images: Iterable[Any]) -> tuple[Container[int], Iterable[Any]]:
        """Take over what the journal knows; the places of its photos, and all photos."""
        if not self.journal.found:
            return (), images
        images = list(images)
        known = [place for place in range(len(images)) if str(place) in self.journal]
        for place in known:
            name, sha256, entries = self.journal[str(place)]
            for unit, value, y, x in entries:
                self._push(Winner(unit, value, place, y, x, images[place], name, sha256))
        self.used += len(known)
        return frozenset(known), images

    def add(self, photo: _Seen, peaks: Array, places: Array) -> None:
        """Rank a photo's largest activation (U,) of each unit, at places (U, 2)."""
        entered = []
        for unit, value, (y, x) in zip(self.units, peaks.tolist(), places.tolist(), strict=True):
            found = Winner(unit, value, photo.place, y, x, photo.source, photo.name, photo.sha256)
            if value > 0 and self._push(found):
                entered.append((unit, value, y, x))
        self.journal.keep(str(photo.place), (photo.name, photo.sha256, entered))
        self.used += 1

    def _push(self, found: Winner) -> bool:
        """Whether an activation is among the strongest so far."""
        heap = self.heaps[found.unit]
        if len(heap) < self.count:
            heapq.heappush(heap, found)
        elif heap[0] < found:
            heapq.heapreplace(heap, found)
        else:
            return False
        return True

    def winners(self) -> dict[int, list[Winner]]:
        """Each unit's activations, strongest first."""
        return {unit: sorted(heap, reverse=True) for unit, heap in self.heaps.items()}
