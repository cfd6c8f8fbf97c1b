"""The layers that a study reconstructs from, and what projects their units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inspector.errors import MethodRefused, UsageError
from inspector.network.layers import channel_axes
from inspector.network.receptive_fields.receptive_field import receptive_fields
from inspector.projection.projector import Projector
from inspector.studies import parse_units

if TYPE_CHECKING:
    from inspector.network.receptive_fields.receptive_field import ReceptiveField
    from inspector.opened import Opened

__all__ = ["Layer", "Work", "chosen_layers", "chosen_unit", "mixed_warnings", "parsed_units"]


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer to reconstruct from.

    Attributes:
        tensor: Its name.
        shape: (C, h, w).
        field: Where its units look; where they mostly look, if ``mixed``.
        mixed: The node through which they depend on the whole image; empty when there is none.
    """

    tensor: str
    shape: tuple[int, ...]
    field: "ReceptiveField"
    mixed: str = ""

    @property
    def middle(self) -> tuple[int, int]:
        """The place that the border cuts off least."""
        return self.shape[1] // 2, self.shape[2] // 2


def _parted(text: str, model: "Opened") -> list[str]:
    """Layers in a text; a tensor's own name may hold commas."""
    if text in model.graph.tensors:
        return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def chosen_layers(model: "Opened", layers: Sequence[str], most: int) -> list[Layer]:
    """Find the layers that a user means, or thin out those of the network.

    Args:
        model: The opened model.
        layers: Tensor names or indices, several in one text set apart by commas; none for all
            that the scores depend on and that have a map larger than 1x1.
        most: Layers to thin out to, the first and the last among them.

    Raises:
        UnknownLayer: There is no such layer.
        MethodRefused: A tensor whose channels are last.
    """
    shapes = model.shapes(model.preprocessing.preprocess.size)
    if layers:
        parts = [part for text in layers for part in _parted(text, model)]
        names = list(dict.fromkeys(model.layer_for(part)[0].tensor for part in parts))
    else:
        named = [x.tensor for x in model.layers if x.on_path and not x.gate]
        maps = [name for name in named if np.prod(shapes[name][2:]) > 1]
        maps = maps or [model.layer_for(None)[0].tensor]
        places = np.linspace(0, len(maps) - 1, min(most, len(maps)))
        names = [maps[int(place)] for place in np.rint(places)]
    axes = channel_axes(model.graph)
    for name in names:
        if axes.get(name, 1) != 1:
            raise MethodRefused(
                "the layer has its channels last",
                where=name,
                hint="name the tensor behind its transposition; `inspector layers` lists it",
            )
    fields = receptive_fields(model.graph, names, model.input.name, shapes)
    return [
        Layer(
            name,
            tuple(model.shape_of(name)[1:]),
            fields[name].local or fields[name],
            fields[name].why,
        )
        for name in names
    ]


def chosen_unit(text: str, layer: Layer) -> int | None:
    """The channel asked for; None for the strongest."""
    if not text.strip():
        return None
    found = parsed_units(text, layer)
    if len(found) != 1:
        raise UsageError(f"{len(found)} units", hint="--unit takes one channel")
    return found[0]


def parsed_units(text: str, layer: Layer) -> tuple[int, ...]:
    """Read channels of a layer; an error names the layer, for others may have more."""
    try:
        return parse_units(text, layer.shape[0])
    except UsageError as error:
        error.where = error.where or f"layer {layer.tensor}"
        raise


class Work:
    """The model with its layers and a projector for each reconstruction of each of them."""

    def __init__(self, model: "Opened", layers: Sequence[Layer], extension: str) -> None:
        self.model, self.layers, self.extension = model, layers, extension
        self._projectors: dict[tuple[str, str], Projector] = {}

    def projector(self, layer: Layer, method: str) -> "Projector":
        """Made when it is asked for: a certificate costs time."""
        key = layer.tensor, method
        if key not in self._projectors:
            self._projectors[key] = Projector(self.model, *key, self.extension)
        return self._projectors[key]

    @property
    def notes(self) -> list[str]:
        """What must be said with the reconstructions that are conditioned on photos."""
        every = [note for one in self._projectors.values() for note in one.notes]
        return list(dict.fromkeys(every))

    @property
    def coverage(self) -> dict[str, dict[str, str]]:
        """Which activations each rule reached, by layer and method."""
        found: dict[str, dict[str, str]] = {}
        for (tensor, method), one in self._projectors.items():
            found.setdefault(tensor, {})[method] = one.coverage
        return found


def mixed_warnings(layers: Sequence[Layer]) -> list[str]:
    """Say for which layers the patches are not all that units see."""
    names = [layer.tensor for layer in layers if layer.mixed]
    if not names:
        return []
    why = next(layer.mixed for layer in layers if layer.mixed)
    seen = f"units of {', '.join(names)} depend on the whole image ({why})"
    return [seen + "; patches and projections are cut out where they mostly look"]
