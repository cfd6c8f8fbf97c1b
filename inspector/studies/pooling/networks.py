"""What a network does instead of pooling, read off its graph; the layer to look at; its classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.graph.activations import data_nodes
from converters.graph.operators import facts
from inspector.errors import MethodRefused, UsageError
from inspector.network.layers import channel_axes
from inspector.network.receptive_fields.receptive_field import receptive_field
from inspector.projection.conditioning import conditioning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.graph import Graph, Node
    from inspector.network.receptive_fields.receptive_field import ReceptiveField
    from inspector.opened import Opened
    from inspector.projection.conditioning import Conditioning

__all__ = ["Network", "opened"]

_LINEAR = {"Gemm": (0, 1, 2), "MatMul": (0, 1), "QLinearMatMul": (0, 3), "QGemm": (0, 3, 6)}


@dataclass(frozen=True, eq=False)
class Network:
    """One of the networks that are compared.

    Attributes:
        name: The file's name, with a number where two are alike.
        model: The opened model.
        layer: The tensor that is reconstructed from.
        reason: Why this one.
        field: Where its units look.
        max_poolings: Max-poolings with windows of more than one place.
        average_poolings: Average-poolings, but for that in front of the classifier.
        strided: Convolutions with a stride above 1.
        parameters: Weights and biases of convolutions and linear layers; None where the file
            computes some of them.
        proof: What the deconvnet's way from the layer to the pixels depends on.
        classes: How many classes it tells apart.
    """

    name: str
    model: "Opened"
    layer: str
    reason: str
    field: "ReceptiveField"
    max_poolings: int
    average_poolings: int
    strided: int
    parameters: int | None
    proof: "Conditioning"
    classes: int

    def facts(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "sha256": self.model.file.sha256,
            "classes": self.classes,
            "parameters": self.parameters,
            "max_poolings": self.max_poolings,
            "average_poolings": self.average_poolings,
            "strided_convolutions": self.strided,
            "layer": self.layer,
            "layer_reason": self.reason,
            "layer_shape": self.model.shape_of(self.layer)[1:],
            "receptive_field": {"size": self.field.size, "stride": self.field.stride},
            "deconvnet_depends_on_the_image": not self.proof.free,
            "why": str(self.proof),
            "certificate": self.model.context(None)["certificate"],
            "preprocess": self.model.context(None)["preprocess"],
        }


def opened(
    model: "Opened", against: Sequence[str], layers: Sequence[str], extension: str
) -> list[Network]:
    """Open the other networks with the settings of the first, and look at all of them.

    Args:
        model: The first.
        against: Files of the others.
        layers: None, one for all, or one for each.
        extension: The rule for smooth activations.

    Raises:
        UsageError: As many layers as there are neither one nor networks.
        MethodRefused: A network without classes.
    """
    models = [model, *(model.sibling(Path(path)) for path in against)]
    if len(layers) not in (0, 1, len(models)):
        raise UsageError(
            f"{len(layers)} layers for {len(models)} networks",
            hint="give one for all, or one for each in their order",
        )
    chosen = list(layers) * len(models) if len(layers) == 1 else layers or [""] * len(models)
    names: list[str] = []
    for one in models:
        same = sum(name.partition(" (")[0] == one.path.name for name in names)
        names.append(f"{one.path.name} ({same + 1})" if same else one.path.name)
    return [
        _network(name, one, layer, extension)
        for name, one, layer in zip(names, models, chosen, strict=True)
    ]


def _network(name: str, model: "Opened", layer: str, extension: str) -> Network:

    graph, shapes = model.graph, model.shapes(model.preprocessing.preprocess.size)
    if layer:
        tensor, reason = model.layer_for(layer)[0].tensor, "chosen by the user"
    else:
        tensor, reason = _high_layer(model, shapes)
    if channel_axes(graph).get(tensor, 1) != 1:
        raise MethodRefused(
            "the layer has its channels last",
            where=f"{name}: {tensor}",
            hint="name the tensor behind its transposition; `inspector layers` lists it",
        )
    nodes = data_nodes(graph)
    field = receptive_field(graph, tensor, model.input.name, shapes)
    head = getattr(model.head, "nodes", ())
    return Network(
        name=name,
        model=model,
        layer=tensor,
        reason=reason,
        field=field.local or field,
        max_poolings=sum(_pools(n, "max") and _wide(n, "kernel_shape") for n in nodes),
        average_poolings=sum(
            _pools(n, "average") and not facts(n).whole and n.name not in head for n in nodes
        ),
        strided=sum(
            facts(n).convolves and "Transpose" not in n.op_type and _wide(n, "strides", 1)
            for n in nodes
        ),
        parameters=_parameters(graph, nodes),
        proof=conditioning(model, tensor, extension),
        classes=_classes(name, model, shapes),
    )


def _wide(node: "Node", attribute: str, missing: int = 2) -> bool:
    return any(side > 1 for side in node.attributes.get(attribute) or (missing,))


def _classes(name: str, model: "Opened", shapes: "Mapping[str, tuple[int, ...]]") -> int:
    scores = model.scores
    found = scores.classes or math.prod(shapes[scores.tensor][1:])
    if not scores.classifier or found < 2:
        why = scores.why if not scores.classifier else "it gives one score a photo"
        raise MethodRefused(f"no accuracy without classes to choose from: {why}", where=name)
    return int(found)


def _high_layer(model: "Opened", shapes: "Mapping[str, tuple[int, ...]]") -> tuple[str, str]:
    """The last layer that still gathers from neighbouring places, before the class maps."""
    maps = getattr(model.head, "kind", "") == "class map" and getattr(model.head, "features", "")
    for layer in reversed(model.layers):
        shape = shapes.get(layer.tensor, ())
        useful = layer.on_path and not layer.gate and layer.tensor != maps
        if useful and len(shape) == 4 and shape[2] * shape[3] > 1:
            node = model.graph.producer(layer.convolution)
            if node is not None and _window(model.graph, node) > 1:
                return layer.tensor, (
                    "the last layer whose convolution has a window of more than one place"
                )
    chosen, reason = model.layer_for(None)
    return chosen.tensor, reason


def _window(graph: "Graph", node: "Node") -> int:
    """Places that a convolution looks at; 1 for what is none."""
    sides = node.attributes.get("kernel_shape")
    if sides is None and "Conv" in node.op_type:
        sides = (_stored(graph, _weights(node)[0]) or ("", ()))[1][2:]
    return math.prod(sides) if sides and "Conv" in node.op_type else 1


def _weights(node: "Node") -> list[str]:
    """Names of a layer's weights and biases, those that are computed included."""
    places = _LINEAR.get(node.op_type)
    if places is None:
        places = (3, 8) if node.op_type.startswith("QLinear") else (1, 2)
    return [node.inputs[place] for place in places if place < len(node.inputs)]


def _parameters(graph: "Graph", nodes: Sequence["Node"]) -> int | None:
    found: dict[str, int] = {}
    carried = {*graph.inputs, *(name for node in nodes for name in node.outputs)}
    for node in nodes:
        if "Conv" not in node.op_type and node.op_type not in _LINEAR:
            continue
        for name in filter(None, _weights(node)):
            stored = _stored(graph, name)
            if stored is not None:
                found[stored[0]] = math.prod(stored[1])
            elif name not in carried:
                return None
    return sum(found.values())


def _carries(node: "Node") -> bool:
    """Whether a node hands a constant on, up to rounding and shape."""
    known = facts(node)
    return known.carries or known.reshapes


def _pools(node: "Node", how: str) -> bool:
    known = facts(node)
    return known.pools == how and not known.reduces


def _stored(graph: "Graph", name: str) -> tuple[str, tuple[int, ...]] | None:
    """Name and shape of the constant behind a tensor; None where it is computed."""
    for _ in range(8):
        stored = graph.initialiser(name)
        if stored is not None:
            return name, tuple(stored.dims)
        constant = graph.constant(name)
        if constant is not None:
            return name, constant.shape
        node = graph.producer(name)
        if node is None or not (_carries(node) or node.is_op("Transpose")):
            return None
        name = node.inputs[0]
    return None
