"""Which tensors are a network's features, from the first layer to the classifier's input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.graph.operators import facts
from converters.plain_values import whole_number
from inspector.errors import MethodRefused, UnknownLayer, UsageError
from inspector.network.classifier.linear_nodes import last_linear, way_back
from inspector.network.layers import channel_axes

if TYPE_CHECKING:
    from inspector.network.layers import Layer
    from inspector.opened import Opened

__all__ = ["MOST_LAYERS", "FeatureLayer", "chosen_layers"]

MOST_LAYERS = 8
"""Layers that are taken when none are named, evenly thinned from first to last."""

_POOLS = ("Pool", "ReduceMean", "ReduceSum", "ReduceMax")


@dataclass(frozen=True)
class FeatureLayer:
    """A tensor that is read as features.

    Attributes:
        tensor: Its name.
        shape: Of one photo: (C, h, w), or (C,) for a vector.
        channel_axis: Axis of the channels, batch axis included.
    """

    tensor: str
    shape: tuple[int, ...]
    channel_axis: int = 1

    @property
    def is_map(self) -> bool:
        """Whether it has places."""
        return len(self.shape) == 3


def chosen_layers(model: "Opened", named: Sequence[str]) -> tuple[tuple[FeatureLayer, ...], str]:
    """Find the layers to read.

    Args:
        model: The opened model.
        named: Tensor names or indices, several in one text set apart by commas; none for a
            choice of them.

    Returns:
        The layers, and a sentence on how they were chosen.

    Raises:
        UnknownLayer: no such layer.
        MethodRefused: there is nothing to choose from.
    """
    if named:
        names = dict.fromkeys(tensor for text in named for tensor in _named(model, text))
        return tuple(_layer(model, name) for name in names), "chosen by the user"
    maps, way = _maps(model)
    tensors = list(dict.fromkeys([*maps, *_hidden(model)]))
    if not tensors:
        raise MethodRefused(
            "no layers between the image and the scores",
            where=model.path.name,
            hint="name tensors with --layers",
        )
    at = np.unique(np.linspace(0, len(tensors) - 1, MOST_LAYERS).round().astype(int))
    thinned = f"; {len(at)} of {len(tensors)}, evenly from first to last"
    why = f"{way}, up to what the classifier reads{thinned if len(at) < len(tensors) else ''}"
    return tuple(_layer(model, tensors[i]) for i in at), why


def _named(model: "Opened", text: str) -> list[str]:
    """Tensors that a text names."""
    text = text.strip()
    if text in model.graph.tensors or text in {layer.tensor for layer in model.layers}:
        return [text]
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError("a layer without a name", hint="`inspector layers` lists them")
    return [_one(model, part) for part in parts]


def _one(model: "Opened", text: str) -> str:
    if text in model.graph.tensors and whole_number(text) is None:
        return text
    return model.layer_for(text)[0].tensor


def _layer(model: "Opened", tensor: str) -> FeatureLayer:
    """A layer with its shape.

    Raises:
        UnknownLayer: the tensor is neither a map nor a vector of each photo.
    """
    shape = model.shape_of(tensor)
    if tensor == model.input.name:
        return FeatureLayer(tensor, _photo(model))
    if model.graph.constant(tensor) is None and len(shape) == 4 and shape[0] == 1:
        axis = channel_axes(model.graph).get(tensor, 1)
        sizes = [size for at, size in enumerate(shape) if at and at != axis]
        return FeatureLayer(tensor, (shape[axis], *sizes), axis)
    if model.graph.constant(tensor) is None and shape[:1] == (1,) and _is_vector(shape):
        return FeatureLayer(tensor, (int(np.prod(shape[1:])),))
    raise UnknownLayer(
        f"tensor {tensor!r} is of shape {list(shape)}: neither a map (N, C, h, w) nor a vector "
        "(N, C)",
        hint="`inspector layers` lists the layers",
    )


def _photo(model: "Opened") -> tuple[int, ...]:
    return (model.input.channels, *model.size(*model.preprocessing.preprocess.size))


def _is_vector(shape: Sequence[int]) -> bool:
    return len(shape) > 1 and sum(size != 1 for size in shape[1:]) <= 1


# -- maps -----------------------------------------------------------------------------------------


def _maps(model: "Opened") -> tuple[list[str], str]:
    """Convolutional layers, and which of them they are.

    Inside of a residual block or a branch a layer holds only a part of what goes on; so those
    are taken that no other way leads around.
    """
    classifier = last_linear(model.graph, model.scores)
    own = classifier[0].outputs[0] if classifier else ""
    layers = [x for x in model.layers if x.on_path and not x.gate and x.convolution != own]
    whole = [x for x in layers if not _passed_by(model, x)]
    if len(whole) > 1:
        return [x.tensor for x in whole], "layers that no skip connection or branch leads around"
    return [x.tensor for x in layers], "convolutional layers"


def _passed_by(model: "Opened", layer: "Layer") -> bool:
    return bool(model.model.tail(layer.tensor, model.scores.tensor).frontier)


# -- vectors --------------------------------------------------------------------------------------


def _hidden(model: "Opened") -> list[str]:
    """Inputs of fully connected layers that another one feeds, first to last.

    What the first of them reads is the last map, pooled or flattened, and no layer of its own.
    """
    if not model.scores.classifier:
        return []
    found: list[str] = []
    pending = ""
    for node, data in way_back(model.graph, model.scores.tensor):
        if any(word in node.op_type for word in _POOLS):
            break
        if not facts(node).weighted:
            continue
        if not _is_vector(model.shape_of(node.outputs[0])):
            break  # a convolution over places: what was read behind it is its map, flattened
        if pending:
            found.append(pending)
        pending = data
    return found[::-1]
