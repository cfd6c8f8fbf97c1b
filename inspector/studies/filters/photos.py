"""Activity of the filters on photos, and energy of their responses by frequency."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converters.graph import Node
from inspector.errors import ImageRefused, MethodRefused
from inspector.measures import spectrum
from inspector.opened import Opened
from inspector.passes.activations import activations
from inspector.passes.batches import Batch, Progress, batches
from inspector.passes.journal import Journal
from inspector.studies.filters.convolution import activation_of
from inspector.studies.filters.filterbank import PhotoNumbers

__all__ = ["PhotoMeasurements"]

Array = np.ndarray[Any, Any]


class PhotoMeasurements:
    """One pass over the photos: activity of the filters, and energy of their responses.

    Args:
        model: The opened model.
        node: The convolution.
        weights: (K, C / groups, h, w), with the zeros that a dilation means.
        strides: Down and across.
        journal: Gets the numbers of each photo; photos in it are not opened again.
    """

    def __init__(
        self,
        model: Opened,
        node: Node,
        weights: Array,
        strides: Sequence[int],
        journal: Journal,
    ) -> None:
        self.model, self.weights, self.strides, self.journal = model, weights, strides, journal
        self.source, self.activation = node.inputs[0], activation_of(model, node)

    def over(
        self, images: Sequence[Any], refused: list[ImageRefused], progress: Progress | None
    ) -> PhotoNumbers | None:
        """What the photos say; None when none was used."""
        known = {place for place in range(len(images)) if _key(place) in self.journal}
        for batch in batches(self.model, images, refused, progress, skip=known):
            for place, numbers in zip(batch.places, self._measured(batch), strict=True):
                self.journal.keep(_key(place), numbers)
                known.add(place)
        return self._summed(sorted(known)) if known else None

    def _measured(self, batch: Batch) -> list[dict[str, Any]]:
        """Plain numbers of each photo of a batch."""
        found = activations(self.model, batch.tensors, [self.source, self.activation])
        maps, count = found[self.activation], len(self.weights)
        if maps.ndim != 4 or maps.shape[1] != count:
            raise MethodRefused(
                f"the layer is of shape {list(maps.shape)}, for {count} filters",
                where=self.activation,
            )
        if not np.isfinite(maps).all():
            raise MethodRefused("activations are not finite", where=self.activation)
        energy, folded, own = spectrum.folded_energy(found[self.source], self.weights, self.strides)
        return [
            {
                "peaks": maps[row].max((1, 2)).tolist(),
                "positive": (maps[row] > 0).sum((1, 2)).tolist(),
                "places": maps.shape[2] * maps.shape[3],
                "energy": energy[row].tolist(),
                "folded": folded[row].tolist(),
                "own": own[row].tolist(),
            }
            for row in range(len(batch.photos))
        ]

    def _summed(self, places: Sequence[int]) -> PhotoNumbers:
        """All photos together, added up in their order, so that a resumed run gives the same."""
        count = len(self.weights)
        peaks, positive, total = np.full(count, -np.inf), np.zeros(count), 0
        energy, folded, own, shares = np.zeros(count), np.zeros(count), np.zeros(2), []
        for place in places:
            one: Mapping[str, Any] = self.journal[_key(place)]
            peaks = np.maximum(peaks, one["peaks"])
            positive += one["positive"]
            total += one["places"]
            energy += one["energy"]
            folded += one["folded"]
            own += one["own"]
            whole = sum(one["energy"])
            shares.append(sum(one["folded"]) / whole if whole > 0 else np.nan)
        return PhotoNumbers(
            photos=len(places),
            peaks=peaks,
            active=positive / total,
            energy=energy,
            folded=folded,
            own=(float(own[0]), float(own[1])),
            shares=np.array(shares),
        )


def _key(place: int) -> str:
    return f"filters/{place}"
