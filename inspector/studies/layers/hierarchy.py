"""The layers of a network from first to last, thinned out, and how far each of them sees."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ModelRefused, UsageError
from inspector.network.layers import channel_axes
from inspector.network.receptive_fields.receptive_field import receptive_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.network.layers import Layer
    from inspector.network.receptive_fields.receptive_field import ReceptiveField
    from inspector.opened import Opened

__all__ = ["Hierarchy", "Level", "hierarchy"]


@dataclass(frozen=True, eq=False)
class Level:
    """One layer.

    Attributes:
        index: Its number in `inspector layers`; -1 for a tensor that is not listed there.
        tensor: Its name.
        module: Path of the module that makes it; empty where the file does not say it.
        operator: What makes it, such as Conv+Relu.
        shape: (C, h, w), whatever the tensor's own layout.
        axis: Of the channels in the tensor, batch axis included: 1 or 3.
        exact: Where its units look.
    """

    index: int
    tensor: str
    module: str
    operator: str
    shape: tuple[int, int, int]
    axis: int
    exact: "ReceptiveField"

    @property
    def name(self) -> str:
        """For sentences."""
        return f"layer {self.index}" if self.index >= 0 else self.tensor

    @property
    def field(self) -> "ReceptiveField":
        """Where its units look; where they mostly look, if they depend on the whole image."""
        return self.exact.local or self.exact

    @property
    def whole(self) -> bool:
        """Whether no part of the image is known to matter more to a unit than the rest."""
        return self.exact.global_ and self.exact.local is None

    @property
    def stride(self) -> tuple[float, float] | None:
        """Pixels from one unit to the next; None where that has no meaning."""
        return None if self.whole else self.field.stride


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The layers of a network.

    Attributes:
        shown: Those that are surveyed and drawn.
        every: All that could be, first to last.
        why: How they were chosen.
    """

    shown: tuple[Level, ...]
    every: tuple[Level, ...]
    why: str

    def strides(self) -> list[Level]:
        """The first layer of each distance between units, in the order of the network."""
        found: dict[tuple[float, float], Level] = {}
        for level in self.every:
            if level.stride is not None:
                found.setdefault(level.stride, level)
        return list(found.values())


def hierarchy(model: "Opened", layers: str, most: int) -> Hierarchy:
    """Find the layers to show.

    Args:
        model: The opened model.
        layers: Tensor names or indices set apart by commas; empty for all that the scores depend
            on, that are not gates, and whose map is larger than 1x1.
        most: Layers to thin these out to: numbers i (L - 1) / (most - 1), rounded (halves to the
            even neighbour), so that the first and the last of L are always among them.

    Raises:
        UnknownLayer: There is no such layer.
        UsageError: A tensor that does not depend on the image.
        ModelRefused: No layer has a map.
    """
    if layers.strip():
        named = _named(model, layers)
        every = _levels(model, named)
        return Hierarchy(every, every, "layers named by the user")
    shapes = model.shapes(model.preprocessing.preprocess.size)
    maps = [
        layer
        for layer in model.layers
        if layer.on_path and not layer.gate and np.prod(shapes[layer.tensor][2:]) > 1
    ]
    if not maps:
        raise ModelRefused(
            "no layer on the way to the scores has a map larger than 1x1",
            where=model.path.name,
            hint="name tensors (N, C, h, w) with --layers",
        )
    every = _levels(model, maps)
    places = np.rint(np.linspace(0, len(every) - 1, min(most, len(every)))).astype(int)
    why = "layers on the way to the scores that are not gates and have a map larger than 1x1"
    if len(places) < len(every):
        why += f"; {len(places)} of {len(every)}, evenly from first to last"
    return Hierarchy(tuple(every[place] for place in places), every, why)


def _named(model: "Opened", text: str) -> "list[Layer]":
    """The layers that a user names, each once."""
    text = text.strip()
    parts = [text] if text in model.graph.tensors else text.split(",")
    found = [model.layer_for(part.strip())[0] for part in parts if part.strip()]
    if not found:
        raise UsageError("layers without a name", hint="`inspector layers` lists them")
    if model.input.name in {layer.tensor for layer in found}:
        raise UsageError("the image itself is not a layer", where=model.input.name)
    return list({layer.tensor: layer for layer in found}.values())


def _levels(model: "Opened", layers: "Sequence[Layer]") -> tuple[Level, ...]:
    """Layers with what is known of them."""
    shapes = model.shapes(model.preprocessing.preprocess.size)
    names = [layer.tensor for layer in layers]
    fields = receptive_fields(model.graph, names, model.input.name, shapes)
    axes = channel_axes(model.graph)
    return tuple(
        _level(model, layer, axes.get(layer.tensor, 1), fields[layer.tensor]) for layer in layers
    )


def _level(model: "Opened", layer: "Layer", axis: int, field: "ReceptiveField") -> Level:
    shape: list[Any] = list(model.shape_of(layer.tensor))
    channels = shape.pop(axis)
    made = model.graph.producer(layer.tensor)
    operator = "+".join(layer.chain) or (made.op_type if made is not None else "")
    return Level(
        layer.index,
        layer.tensor,
        layer.module or (made.module if made is not None else ""),
        operator,
        (channels, shape[1], shape[2]),
        axis,
        field,
    )
