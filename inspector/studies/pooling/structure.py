"""What a person could recognise in the reconstructions of one network, photo by photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.measures import sharpness
from inspector.passes.activations import activations
from inspector.passes.batches import BATCH, Batch, Progress, batches
from inspector.passes.journal import Journal
from inspector.projection.projector import Projector, rgb_of
from inspector.studies.pooling.networks import Network

if TYPE_CHECKING:
    from inspector.errors import ImageRefused

__all__ = ["METHODS", "OTHERS", "Picture", "Reconstructions", "spread_out"]

Array = np.ndarray[Any, Any]

METHODS = ("deconvnet", "guided-backprop", "gradient")

OTHERS = 16
"""Photos whose edges a reconstruction has nothing to do with: the chance level."""


def spread_out(total: int, count: int) -> list[int]:
    """Places of ``count`` of ``total`` photos, as far from one another as can be."""
    if count >= total:
        return list(range(total))
    return [int(place) for place in (np.arange(count) + 0.5) * total / count]


@dataclass(frozen=True, eq=False)
class Picture:
    """What the figure shows of one photo.

    Attributes:
        patch: (h, w, 3) pixels that the unit sees.
        signals: (C, h, w) signed, in red, green, blue; by method.
    """

    patch: Array
    signals: Mapping[str, Array]


class Reconstructions:
    """The strongest unit of a layer on each photo, sent down in three ways and measured.

    Args:
        number: The network's place, for the journal.
        network: The network.
        photos: All photos.
        extension: The rule for smooth activations.

    Attributes:
        pictures: By the photo's place, of the photos that the figure shows.
        notes: What must be said with them.
    """

    def __init__(
        self, number: int, network: Network, photos: Sequence[Any], extension: str
    ) -> None:

        self.number, self.network, self.photos = number, network, photos
        self._projectors = {
            method: Projector(network.model, network.layer, method, extension) for method in METHODS
        }
        size = network.model.size(*network.model.preprocessing.preprocess.size)
        self.scale = sharpness.scale_for(*size)
        self.pictures: dict[int, Picture] = {}

    @property
    def notes(self) -> list[str]:
        """What must be said with the reconstructions."""
        every = [note for one in self._projectors.values() for note in one.notes]
        return [f"{self.network.name}: {note}" for note in dict.fromkeys(every)]

    @property
    def coverage(self) -> dict[str, str]:
        """Which activations each rule reached."""
        return {method: one.coverage for method, one in self._projectors.items()}

    def measure(
        self, places: Sequence[int], progress: Progress | None, journal: Journal
    ) -> dict[int, dict[str, Any] | None]:
        """Reconstruct and measure.

        Args:
            places: Of the photos.
            progress: Called with (what, done, total).
            journal: Keeps the measures of each photo.

        Returns:
            The unit and its measures by the photo's place; None where no unit is active.
        """
        keys = {place: f"{self.number} reconstructions {place}" for place in places}
        known = [place for place in places if keys[place] in journal]
        # Whole batches alone: a photo's last digits may depend on what goes through beside it.
        done = len(known) - len(known) % BATCH
        left = [place for place in places if place not in known[:done]]
        others = self._other_edges() if left else {}
        for batch in self._opened(left):
            sent = self._sent(batch)
            for row, place in enumerate(batch.places):
                if keys[place] not in journal:
                    journal.keep(keys[place], self._measured(batch, row, sent, others))
            done += len(batch.places)
            if progress:
                progress(f"{self.network.name}: reconstructions", done, len(places))
        return {place: journal[keys[place]] for place in places if keys[place] in journal}

    def draw(self, places: Sequence[int]) -> None:
        """Make the pictures of a few photos; apart, so that a resumed run draws the same."""
        preprocess = self.network.model.preprocessing.preprocess
        for batch in self._opened(places):
            sent = self._sent(batch)
            for row, place in enumerate(batch.places):
                if sent.active(row):
                    y0, x0, y1, x1 = self.network.field.pixels(*sent.units[row][1:])
                    cut = {
                        method: rgb_of(signal[row, :, y0:y1, x0:x1].copy(), preprocess)
                        for method, signal in sent.signals.items()
                    }
                    patch = preprocess.decode(batch.tensors[row][:, y0:y1, x0:x1])
                    self.pictures[place] = Picture(patch, cut)

    def _opened(self, places: Sequence[int]) -> Any:
        """Batches of chosen photos; those that cannot be read have been named before."""
        refused: list[ImageRefused] = []
        skip = set(range(len(self.photos))) - set(places)
        return batches(self.network.model, self.photos, refused, skip=skip)

    def _other_edges(self) -> dict[int, Array]:
        """Edges of photos spread over all, by place."""
        return {
            place: self._edges(image)
            for batch in self._opened(spread_out(len(self.photos), OTHERS + 1))
            for place, image in zip(batch.places, batch.tensors, strict=True)
        }

    def _edges(self, image: Array) -> Array:
        pixels = self.network.model.preprocessing.preprocess.decode(image)
        return sharpness.edges_of(pixels, self.scale)

    def _sent(self, batch: Batch) -> "_Sent":
        """Choose the strongest unit of each photo and send it down."""
        layer = self.network.layer
        maps = activations(self.network.model, batch.tensors, [layer])[layer]
        units, values = [], []
        for row in maps:
            c, y, x = (int(i) for i in np.unravel_index(row.argmax(), row.shape))
            units.append((c, y, x))
            values.append(float(row[c, y, x]))
        signals = {method: one(batch.tensors, units) for method, one in self._projectors.items()}
        return _Sent(units, values, signals)

    def _measured(
        self, batch: Batch, row: int, sent: "_Sent", others: Mapping[int, Array]
    ) -> dict[str, Any] | None:
        """What is kept of one photo; None when no unit is active on it."""
        if not sent.active(row):
            return None
        place, photo, (unit, y, x) = batch.places[row], batch.photos[row], sent.units[row]
        box = self.network.field.pixels(y, x)
        edges = self._edges(batch.tensors[row])
        strangers = [other for at, other in others.items() if at != place][:OTHERS]
        return {
            "image": {"name": photo.name, "place": place, "sha256": photo.sha256},
            "unit": unit,
            "at": {"y": y, "x": x},
            "activation": sent.values[row],
            "patch": box,
            "measures": {
                method: sharpness.measured(signal[row], box, edges, strangers, self.scale)
                for method, signal in sent.signals.items()
            },
        }


@dataclass(frozen=True, eq=False)
class _Sent:
    """Units of a batch of photos, their activations, and (N, C, H, W) signals by method."""

    units: Sequence[tuple[int, int, int]]
    values: Sequence[float]
    signals: Mapping[str, Array]

    def active(self, row: int) -> bool:
        """Whether there is anything to reconstruct."""
        return 0 < self.values[row] < float("inf")
