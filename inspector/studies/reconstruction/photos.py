"""Units that are reconstructed from what photos make of them: chosen, sent down, measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.measures import sharpness
from inspector.passes.activations import activations
from inspector.passes.batches import BATCH, Batch, Progress, batches
from inspector.studies.reconstruction.layers import Layer, Work

if TYPE_CHECKING:
    from inspector.errors import ImageRefused
    from inspector.passes.journal import Journal
    from inspector.projection.projector import Unit

__all__ = ["MEASURES", "METHODS", "Photos", "Picture", "Pictures", "clipped", "on_photos"]

Array = np.ndarray[Any, Any]

METHODS = ("guided-backprop", "deconvnet", "gradient")

MEASURES = ("edge correlation", "concentration", "coherence")
"""Those that one photo is enough for."""

SHOWN = 4
"""Photos in the figure; all of them are measured."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What the figure shows of one layer on one photo.

    Attributes:
        patch: (h, w, 3) pixels that the unit sees.
        signals: (C, h, w) signed, by method.
    """

    patch: Array
    signals: Mapping[str, Array]


Photos = dict[int, dict[str, Any]]
Pictures = dict[tuple[int, str], Picture]


def on_photos(
    work: Work,
    images: Sequence[Any],
    channels: Sequence[int | None],
    *,
    refused: "list[ImageRefused]",
    progress: Progress | None,
    journal: "Journal",
) -> tuple[Photos, Pictures]:
    """Reconstruct on every photo; of the first few the pictures are kept.

    Photos that the journal knows are opened again in the first batch alone, for the figure.
    """
    known = [place for place in range(len(images)) if str(place) in journal]
    # Whole batches alone: a photo's last digits may depend on what goes through beside it.
    skip = known[BATCH : len(known) - len(known) % BATCH]
    shown: list[int] = []
    pictures: Pictures = {}
    for batch in batches(work.model, images, refused, progress, skip=frozenset(skip)):
        shown += batch.places[: SHOWN - len(shown)]
        _reconstruct(work, batch, channels, shown=shown, pictures=pictures, journal=journal)
    places = [place for place in range(len(images)) if str(place) in journal]
    return {place: journal[str(place)] for place in places}, pictures


def _reconstruct(
    work: Work,
    batch: Batch,
    channels: Sequence[int | None],
    *,
    shown: Sequence[int],
    pictures: Pictures,
    journal: "Journal",
) -> None:
    """Choose the units of a batch of photos, send them down, measure and keep them."""
    found: list[list[dict[str, Any] | None]] = [[] for _ in batch.places]
    values = activations(work.model, batch.tensors, [layer.tensor for layer in work.layers])
    for layer, channel in zip(work.layers, channels, strict=True):
        units = [_strongest(row, channel) for row in values[layer.tensor]]
        signals = {m: work.projector(layer, m)(batch.tensors, units) for m in METHODS}
        for row, (place, unit) in enumerate(zip(batch.places, units, strict=True)):
            value = float(values[layer.tensor][row][unit])
            own = {method: signal[row] for method, signal in signals.items()}
            entry = _entry(work, layer, batch.tensors[row], unit=unit, value=value, signals=own)
            found[row].append(entry)
            if entry is not None and place in shown:
                pictures[place, layer.tensor] = _picture(work, entry, batch.tensors[row], own)
    for place, photo, entries in zip(batch.places, batch.photos, found, strict=True):
        if str(place) not in journal:
            journal.keep(
                str(place), {"name": photo.name, "sha256": photo.sha256, "layers": entries}
            )


def _strongest(maps: Array, channel: int | None) -> "Unit":
    """Channel, row and column of the largest activation; of equal ones the first."""
    part = maps if channel is None else maps[channel : channel + 1]
    c, y, x = (int(i) for i in np.unravel_index(part.argmax(), part.shape))
    return c if channel is None else channel, y, x


def _entry(
    work: Work,
    layer: Layer,
    image: Array,
    *,
    unit: "Unit",
    value: float,
    signals: Mapping[str, Array],
) -> dict[str, Any] | None:
    """What is kept of one unit; None when it is not active."""
    box = layer.field.pixels(unit[1], unit[2])
    if not 0 < value < float("inf"):
        return None
    scale = sharpness.scale_for(*image.shape[1:])
    edges = sharpness.edges_of(work.model.preprocessing.preprocess.decode(image), scale)
    methods = {}
    for method, signal in signals.items():
        numbers = sharpness.measured(signal, box, edges, (), scale)
        del numbers["edge agreement"]  # needs other photos
        # The rules are linear in a positive signal: what goes down is the activation itself.
        methods[method] = {"largest": value * float(np.abs(signal).max(initial=0)), **numbers}
    return {
        "layer": layer.tensor,
        "unit": unit[0],
        "at": {"y": unit[1], "x": unit[2]},
        "activation": value,
        "patch": box,
        "methods": methods,
    }


def clipped(entries: Sequence[Mapping[str, Any]]) -> str:
    """Units whose gradient is zero, for people: they stand at the upper end of a clip (ReLU6)."""
    layers: dict[str, int] = {}
    for entry in entries:
        if entry["methods"]["gradient"]["largest"] == 0:
            layers[entry["layer"]] = layers.get(entry["layer"], 0) + 1
    if not layers:
        return ""
    return (
        f"empty, because the strongest unit stands where its activation is clipped (as ReLU6 does) "
        f"and has no gradient: {sum(layers.values())} unit(s) of {', '.join(layers)}; a layer that "
        "ends in an addition is not clipped"
    )


def _picture(
    work: Work, entry: Mapping[str, Any], image: Array, signals: Mapping[str, Array]
) -> Picture:
    y0, x0, y1, x1 = entry["patch"]
    patch = work.model.preprocessing.preprocess.decode(image[:, y0:y1, x0:x1])
    return Picture(patch, {name: s[:, y0:y1, x0:x1].copy() for name, s in signals.items()})
