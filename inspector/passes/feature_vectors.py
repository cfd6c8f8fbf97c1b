"""Feature vectors of whole layers, and the choice of the first, the last and the hidden layer.

Zeiler & Fergus compare vectors of the first layer, of the last convolution (5) and of the last
hidden, fully connected layer (7). In any network these are the first layer of the list, the last
one that is not the classifier itself, and whatever the classifier's last linear node reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.plain_values import whole_number
from inspector.errors import MethodRefused, ModelRefused, UsageError
from inspector.network.classifier.linear_nodes import last_linear
from inspector.passes.activations import activations

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = [
    "FeatureVector",
    "feature_vector",
    "first_layer",
    "last_hidden",
    "last_map",
    "vectors",
]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FeatureVector:
    """A tensor of which all values of a photo are one vector.

    Attributes:
        tensor: Its name.
        shape: Of one photo, in the tensor's own layout.
        why: How it was chosen.
    """

    tensor: str
    shape: tuple[int, ...]
    why: str

    @property
    def dimensions(self) -> int:
        """F, values per photo."""
        return int(np.prod(self.shape))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"tensor": self.tensor, "shape": self.shape, "chosen": self.why}


def feature_vector(model: "Opened", layer: str | int) -> FeatureVector:
    """The layer that a user names.

    A name of a layer wins over an index, and an index over the name of any other tensor: old
    exporters name tensors by numbers.

    Args:
        model: The opened model.
        layer: A tensor name or an index of the list of layers.

    Raises:
        UnknownLayer: There is no such layer.
        UsageError: The tensor is the same for every photo, or has no axis of photos.
    """
    text = str(layer).strip()
    index = whole_number(text)
    is_index = index is not None and -len(model.layers) <= index < len(model.layers)
    if text in model.graph.tensors and isinstance(layer, str) and not is_index:
        return _read_as(model, text, "chosen by the user")
    found, _ = model.layer_for(layer if isinstance(layer, int) else text)
    return _read_as(model, found.tensor, "chosen by the user")


def _read_as(model: "Opened", tensor: str, why: str) -> FeatureVector:
    """A tensor as a vector, if it has a row for each photo."""
    if model.graph.constant(tensor) is not None:
        raise UsageError(
            "the tensor is the same for every photo",
            where=tensor,
            hint="`inspector layers` lists the layers",
        )
    shape = model.shape_of(tensor)
    if len(shape) < 2 or shape[0] != 1:
        raise UsageError(
            f"the tensor is of shape {list(shape)}, which has no row for each photo",
            where=tensor,
            hint="`inspector layers` lists the layers",
        )
    return FeatureVector(tensor, tuple(shape[1:]), why)


def first_layer(model: "Opened") -> FeatureVector:
    """The first convolutional layer, after its activation function.

    Raises:
        ModelRefused: The model has no convolution.
    """
    found = next((layer for layer in model.layers if layer.on_path and not layer.gate), None)
    if found is None:
        raise ModelRefused(
            "the model has no convolutional layer",
            where=model.path.name,
            hint="name a tensor instead",
        )
    return _read_as(model, found.tensor, "the first convolutional layer")


def last_map(model: "Opened") -> FeatureVector:
    """The last convolutional layer that has places and is not the classifier itself.

    Raises:
        ModelRefused: The model has no such layer.
    """
    classifier = last_linear(model.graph, model.scores)
    own = classifier[0].outputs[0] if classifier else ""
    for layer in reversed(model.layers):
        if layer.gate or not layer.on_path or layer.convolution == own:
            continue
        shape = model.shape_of(layer.tensor)
        if len(shape) == 4 and sum(size > 1 for size in shape[1:]) > 1:
            why = "the last convolutional layer before the classifier"
            return _read_as(model, layer.tensor, why)
    return _read_as(model, model.layer_for(None)[0].tensor, "the default layer")


def last_hidden(model: "Opened") -> FeatureVector | None:
    """What the classifier's last linear node reads; None where that is not found."""
    classifier = last_linear(model.graph, model.scores)
    if classifier is None:
        return None
    node, read = classifier
    shape = model.shape_of(read)
    if read == model.input.name or len(shape) < 2 or shape[0] != 1:
        return None
    return _read_as(model, read, f"what the classifier's last linear node ({node.op_type}) reads")


def vectors(
    model: "Opened",
    images: Any,
    layers: Sequence[FeatureVector],
    also: Sequence[str] = (),
    forward: Any = None,
) -> Mapping[str, Array]:
    """Feature vectors of a batch, by one pass.

    Args:
        model: The opened model.
        images: (N, C, H, W), preprocessed.
        layers: What to read.
        also: Further tensors, such as the scores.
        forward: As for ``activations``; no layer may be the image itself then.

    Returns:
        (N, F) floats by the tensor's name.

    Raises:
        MethodRefused: Values that are not finite, or integers whose scale is not known.
    """
    names = list(dict.fromkeys([*(layer.tensor for layer in layers), *also]))
    own = [name for name in names if name != model.input.name]
    found = dict(activations(model, images, own, forward)) if own else {}
    if len(own) < len(names):
        found[model.input.name] = images
    rows = {}
    for name in names:
        values = np.asarray(found[name])
        if not len(values) == len(images) or not np.isfinite(values).all():
            raise MethodRefused(
                "features are not finite numbers, one row per photo",
                where=name,
                hint="the network overflows on this image; check its preprocessing",
            )
        rows[name] = values.reshape(len(images), -1)
    return rows
