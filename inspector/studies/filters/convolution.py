"""The convolution whose filters lie on the image's pixels, and its weights."""

from typing import Any

import numpy as np

from converters.graph import Node
from converters.graph.operators import facts
from inspector.errors import MethodRefused, ModelRefused, UsageError
from inspector.network.layer_choice import select_layer
from inspector.network.receptive_fields.receptive_field import receptive_field
from inspector.opened import Opened

__all__ = ["activation_of", "first_convolution", "weights_of"]

Array = np.ndarray[Any, Any]

_FLOATING = ("Conv", "FusedConv")


def first_convolution(model: Opened, layer: str | int | None) -> Node:
    """The convolution whose filters lie on the image's pixels."""
    if layer is not None:
        shapes = model.shapes(model.preprocessing.preprocess.size)
        chosen = select_layer(model.layers, layer, shapes, model.graph)
        made = model.graph.producer(chosen.convolution)
        if made is None or not facts(made).convolves or not _reads_pixels(model, made):
            raise UsageError(
                "the layer's filters do not act on the image's pixels",
                where=str(layer),
                hint="leave --layer out for the first convolution",
            )
        return made
    for made in model.graph.nodes:
        if facts(made).convolves and _reads_pixels(model, made):
            return made
    raise ModelRefused(
        "no convolution reads the image's pixels one by one",
        where=model.path.name,
        hint="filters of a network that rearranges its input first have no pictures",
    )


def _reads_pixels(model: Opened, node: Node) -> bool:
    """Whether each element that the convolution reads is of one pixel, at the pixel's place."""
    source = node.inputs[0]
    if source == model.input.name:
        return True
    try:
        field = receptive_field(model.graph, source, model.input.name)
    except UsageError:  # it does not depend on the image
        return False
    return not field.global_ and field.size == (1, 1) and field.stride == (1, 1)


def weights_of(model: Opened, node: Node) -> Array:
    """The filters (K, C, h, w) in float64, whatever way the file spells them."""
    quantised = node.op_type == "QLinearConv"
    if node.op_type not in _FLOATING and not quantised:
        raise MethodRefused(
            f"the filters of {node.op_type} are not in the file as numbers on pixels",
            where=f"node {node.name!r}",
        )
    names = node.inputs[3:6] if quantised else node.inputs[1:2]
    values = [_constant(model, name) for name in names]
    weights = values[0].astype(np.float64)
    if quantised:
        scale, zero = (v.astype(np.float64).reshape(-1, 1, 1, 1) for v in values[1:])
        weights = (weights - zero) * scale
    if weights.ndim != 4 or not np.isfinite(weights).all():
        raise MethodRefused(
            f"the weights are of shape {list(weights.shape)} or not finite",
            where=f"node {node.name!r}",
            hint="filters (K, C, h, w) are needed",
        )
    return weights


def _constant(model: Opened, name: str) -> Array:
    """A tensor that no image changes; computed if it is behind a DequantizeLinear or the like."""
    known = model.graph.constant(name)
    if known is not None:
        return np.asarray(known)
    size = model.size(*model.preprocessing.preprocess.size)
    blank = np.zeros((model.input.batch or 1, model.input.channels, *size), np.float32)
    feeds = model.model.feeds(model.input.arrange(blank))
    return np.asarray(model.model.runtime.run(feeds, [name])[name])


def activation_of(model: Opened, node: Node) -> str:
    """The tensor behind the activation function of a convolution; its own output if not a layer."""
    made = [a.tensor for a in model.layers if a.convolution == node.outputs[0]]
    return made[0] if made else node.outputs[0]
