"""Which units make the score of a class, by what weights: one step behind `network.head`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph.operators import facts
from inspector.errors import MethodRefused, UsageError
from inspector.network.classifier.affine import (
    Affine,
    NotAffine,
    apply,
    data_input,
    folded,
    is_rounded,
)
from inspector.network.classifier.head import LinearHead
from inspector.network.quantisation.levels import levels_of
from inspector.network.shapes import Shapes

if TYPE_CHECKING:
    from converters.graph import Graph, Node
    from inspector.opened import Opened

__all__ = ["HINT", "ClassUnits", "class_units", "linear_head", "places_of"]

Array = np.ndarray[Any, Any]

HINT = "top-activations shows what excites units of any model"

_ROUNDED = "the head is quantised: contributions sum up to the score but for its rounding"


@dataclass(frozen=True, eq=False)
class ClassUnits:
    """How units make the score of one class.

        S_c = mean_xy [ G(x, y) (sum_k w_k A_k(x, y) + b') ] + b

    Where the network sums positions up instead of averaging them, their number is in w and b'.
    For a linear layer behind the pooling G is 1 and b' is 0 (Zhou et al. 2016, equation 1). Where
    a 1x1 convolution and a ReLU make a map for each class before the pooling, G is 1 where that
    map is positive and 0 elsewhere: the ReLU, written as what it lets through.

    Attributes:
        maps: The tensor A, (N, K, h, w), or (N, h, w, K) when ``channel_axis`` is 3.
        channel_axis: 1 or 3.
        weights: (K,) float64.
        bias: b.
        inner_bias: b'.
        gate: The tensor that holds the class's map behind a ReLU; empty when G is 1.
        gate_axis: Its channel axis.
        gate_channel: The class's channel in it.
        nodes: Names of the nodes from the units to the scores.
        made: How the units make the score, as a sentence.
        notes: What must be known when the numbers are read.
    """

    maps: str
    channel_axis: int
    weights: Array
    bias: float
    inner_bias: float = 0.0
    gate: str = ""
    gate_axis: int = 1
    gate_channel: int = 0
    nodes: tuple[str, ...] = ()
    made: str = ""
    notes: tuple[str, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """What `parts` needs the values of."""
        return (self.maps, self.gate) if self.gate else (self.maps,)

    def features(self, values: Mapping[str, Array]) -> Array:
        """The units' maps (N, K, h, w)."""
        return np.moveaxis(values[self.maps], self.channel_axis, 1)

    def parts(self, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """What each unit, and the bias, adds to the score.

        Args:
            values: Values of ``tensors``, N rows.

        Returns:
            (N, K) and (N,), float64; all together they are the score.
        """
        maps = self.features(values).astype(np.float64)
        gate: Array = np.ones((len(maps), *maps.shape[2:]), bool)
        if self.gate:
            gate = np.moveaxis(values[self.gate], self.gate_axis, 1)[:, self.gate_channel] > 0
        means = (maps * gate[:, None]).mean((2, 3))
        return self.weights * means, self.inner_bias * gate.mean((1, 2)) + self.bias

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        where = " where the class's map is positive" if self.gate else ""
        return {
            "units_of": self.maps,
            "units": len(self.weights),
            "positive_weights": int((self.weights > 0).sum()),
            "negative_weights": int((self.weights < 0).sum()),
            "gate": self.gate or None,
            "contribution": f"weight * mean over all places of the activation{where}",
            "bias": self.bias,
            "bias_before_the_gate": self.inner_bias,
            "nodes": self.nodes,
        }


def linear_head(model: "Opened") -> "LinearHead":
    """The head, if it is linear in the mean of its maps.

    Raises:
        MethodRefused: it is not.
    """
    head = model.head
    if isinstance(head, LinearHead):
        return head
    raise MethodRefused(
        f"units have no single weight for a class: {head.reason}",
        where=f"node {head.node!r}" if head.node else "",
        hint=HINT,
    )


def places_of(model: "Opened", maps: str, channel_axis: int) -> int:
    """How many places each map of a tensor has."""
    shape = model.shape_of(maps)
    return int(np.prod(shape[2:] if channel_axis == 1 else shape[1:3]))


def class_units(model: "Opened", index: int) -> ClassUnits:
    """Find the units that make the score of a class, and their weights.

    Args:
        model: The opened model.
        index: The class.

    Raises:
        MethodRefused: the head is not linear in the mean of its maps, or no 1x1 convolution makes
            its class maps.
        UsageError: there is no such class.
    """
    head = linear_head(model)
    if not 0 <= index < len(head.bias):
        raise UsageError(f"there is no class {index}", hint=f"0 to {len(head.bias) - 1}")
    factor = head.factor(places_of(model, head.features, head.channel_axis))
    weights, bias = head.weights[index] * factor, float(head.bias[index])
    if head.kind == "linear":
        return ClassUnits(
            maps=head.features,
            channel_axis=head.channel_axis,
            weights=weights,
            bias=bias,
            nodes=head.nodes,
            made=f"units are the maps of {head.features}, whose means a linear layer weighs",
            notes=(_ROUNDED,) if head.quantised else (),
        )
    own = np.flatnonzero(weights)
    if own.size != 1:
        raise MethodRefused(
            f"the class's score is made of {own.size} maps", where=head.features, hint=HINT
        )
    channel, gain = int(own[0]), float(weights[own[0]])
    source, path, gated = _behind(model.graph, head)
    inner, inner_bias = _matrix(model.graph, path)
    rounded = head.quantised or any(is_rounded(model.graph, node) for node in path)
    return ClassUnits(
        maps=source,
        channel_axis=1,
        weights=gain * inner[channel],
        bias=bias,
        inner_bias=gain * float(inner_bias[channel]),
        gate=head.features if gated else "",
        gate_axis=head.channel_axis,
        gate_channel=channel,
        nodes=(*(node.name for node in path), *head.nodes),
        made=_made(head, path, gated=gated),
        notes=(_ROUNDED,) if rounded else (),
    )


def _made(head: "LinearHead", path: "Sequence[Node]", *, gated: bool) -> str:
    text = (
        f"each class has its own map in {head.features}: units are the inputs of the 1x1 "
        f"convolution {path[0].name!r}"
    )
    if not gated:
        return text
    return text + ", and count where the class's map is positive, which is what its ReLU lets pass"


def _behind(graph: "Graph", head: "LinearHead") -> "tuple[str, list[Node], bool]":
    """Walk back from the class maps to the units that a 1x1 convolution makes them from.

    Returns:
        The units' tensor, the nodes from there to the class maps without the ReLU, and whether
        there is one.

    Raises:
        MethodRefused: something else makes the class maps.
    """
    tensor, path, gated = head.features, list["Node"](), False
    while (node := graph.producer(tensor)) is not None:
        if node.is_op("Relu") and all(_carries(n) for n in path):
            gated, tensor = True, node.inputs[0]
            continue
        gated = gated or _cuts(graph, node)
        try:
            tensor = data_input(graph, node)
        except NotAffine as error:
            raise _no_units(node, str(error)) from None
        if not (node.is_op("Conv") or _carries(node) or _is_per_channel(node)):
            raise _no_units(node, "it is no 1x1 convolution")
        path.insert(0, node)
        if node.is_op("Conv"):
            if any(s != 1 for s in node.attributes.get("strides", ())):
                raise _no_units(node, "it skips places of the units' maps")
            return _bare(graph, tensor), path, gated
    raise MethodRefused("no 1x1 convolution makes the class maps", where=head.features, hint=HINT)


def _carries(node: "Node") -> bool:
    """Whether a node hands values on, up to rounding and the order of the axes."""
    return facts(node).carries or node.is_op("Transpose")


def _is_per_channel(node: "Node") -> bool:
    known = facts(node)
    return known.arithmetic or known.normalises == "constants"


def _cuts(graph: "Graph", node: "Node") -> bool:
    """Whether a rounding step is a fused ReLU: its least level stands for 0."""
    levels = levels_of(graph, node.outputs[0]) if node.is_op("QuantizeLinear") else None
    return levels is not None and levels.at_floor


def _bare(graph: "Graph", tensor: str) -> str:
    """The tensor before what only copies it: the name that `inspector layers` lists."""
    while (node := graph.producer(tensor)) is not None and node.is_op("Identity", "Dropout"):
        tensor = node.inputs[0]
    return tensor


def _matrix(graph: "Graph", path: "Sequence[Node]") -> tuple[Array, Array]:
    """Weights (classes, K) and bias (classes,) of one place, through the nodes in numbers.

    Raises:
        MethodRefused: a node that is not affine in the units.
    """
    try:
        state = Affine.pooled((int(folded(graph, path[0].inputs[1]).shape[1]), 1, 1))
        for node in path:
            state = apply(graph, Shapes(graph, None), node, state)
    except NotAffine as error:
        raise _no_units(error.node, str(error)) from None
    return state.matrix()


def _no_units(node: "Node", reason: str) -> MethodRefused:
    return MethodRefused(
        f"each class has its own map, and what makes it gives units no single weight: "
        f"{node.op_type}: {reason}",
        where=f"node {node.name!r}",
        hint=HINT,
    )
