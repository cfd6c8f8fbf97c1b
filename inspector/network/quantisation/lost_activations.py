"""Activation functions that quantisation has lost: deleted, with no clamp that does their work.

A quantiser's tool deletes ``Relu`` in the belief that the least level will stand for 0 (see
``fused_activations``).  With ranges that are symmetric, or taken from a distribution, it does
not, and what was a network is now one linear map after another.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.graph import Graph, Node
from converters.graph.activations import Activation, find_activations
from converters.graph.operators import facts
from inspector.network.quantisation.fused_activations import find_marks
from inspector.network.quantisation.levels import Levels, levels_of

__all__ = ["Suspicion", "lost_activations", "lost_note"]

NEAR_FLOOR = 0.05
"""Share of the levels below zero up to which a quantiser looks like a ReLU's, put beside zero."""

CENTRED_BY_CHANCE = 0.05
"""How often a quantiser of a linear layer has its zero point in the very middle without being
made symmetric, and the probability above which such a coincidence is not worth a word."""


@dataclass(frozen=True, eq=False)
class Suspicion:
    """A quantiser behind which an activation function seems to be missing.

    Attributes:
        node: The node that quantises.
        tensor: What it quantises to.
        why: What speaks for it, as the end of a sentence.
    """

    node: Node
    tensor: str
    why: str

    def __str__(self) -> str:
        """One line: where, and why."""
        return f"node {self.node.name!r} {self.why}"


def lost_activations(
    graph: Graph, activations: Iterable[Activation] | None = None
) -> tuple[Suspicion, ...]:
    """Quantisers that stand where a ReLU should, but let negative values pass.

    Three things show it:

    * no activation function is left in the network, and no clamp in its place;
    * quantisers that are centred on zero before or behind a full convolution over space, in a
      network whose other ReLUs are in their quantisers, and more of them than chance would centre
      (linear bottlenecks, which are meant to be linear, are 1x1 and do not count);
    * a zero point just above the least level, where a ReLU's would be on it.

    Args:
        graph: The network.
        activations: What ``find_activations`` found in it, if that is known.

    Returns:
        The quantisers, in the order of the network; empty when nothing is suspicious.
    """
    if not any(facts(node).quantised for node in graph.nodes):
        return ()
    known = tuple(find_activations(graph) if activations is None else activations)
    marks = find_marks(graph, known)
    marked = {mark.tensor for mark in marks}
    stretches = [
        (node, levels_of(graph, node.outputs[0]))
        for node in graph.nodes
        if _quantises(node)
        and marked.isdisjoint((node.inputs[0], node.outputs[0]))
        and _between(graph, node)
    ]
    acting = [a for a in known if not a.gate and a.kind != "Softmax"]
    if not acting and not marks and len(stretches) > 1:
        why = "lies between two layers, and no activation function is left in the network"
        return tuple(Suspicion(node, node.outputs[0], why) for node, _ in stretches)
    found = [s for node, levels in stretches if (s := _beside_zero(node, levels)) is not None]
    mixing = [(node, levels) for node, levels in stretches if _mixes_space(graph, node)]
    centred = [node for node, levels in mixing if levels is None or _centred(levels)]
    chance = _at_least(len(centred), len(mixing), CENTRED_BY_CHANCE)
    if marks and centred and chance <= CENTRED_BY_CHANCE:
        why = "is centred on zero between two layers, where others cut off at zero"
        found += [Suspicion(node, node.outputs[0], why) for node in centred]
    return tuple(sorted(found, key=lambda s: s.node.index))


def lost_note(
    graph: Graph,
    suspicions: Sequence[Suspicion],
    layer: str | None = None,
    activation: np.ndarray[Any, Any] | None = None,
) -> str:
    """What to print with a map of a network that seems to have lost activation functions.

    Args:
        graph: The network.
        suspicions: What ``lost_activations`` found in it.
        layer: The layer that is explained through, if one is.
        activation: Its values, (N, C, h, w): negative ones behind a lost ReLU prove the loss.

    Returns:
        A sentence; empty without suspicions.
    """
    if not suspicions:
        return ""
    here = next((s for s in suspicions if layer in _copies(graph, s)), None)
    count = len(suspicions)
    text = (
        f"quantisation seems to have lost activation functions at {count} "
        f"place{'s' if count > 1 else ''}, so that what is explained is a broken network: "
        f"{here or suspicions[0]}"
    )
    if here is not None and activation is not None and bool((activation < 0).any()):
        share = float((activation < 0).mean())
        text += f"; this is the layer itself, and {share:.0%} of its values are negative"
    return text


def _copies(graph: Graph, suspicion: Suspicion) -> set[str]:
    """The quantised tensor, the one before it, and those that hold its values behind it."""
    quantised = {suspicion.tensor}
    if suspicion.node.op_type == "QuantizeLinear":
        quantised.add(suspicion.node.inputs[0])
    users = graph.consumers(suspicion.tensor)
    return quantised | {u.outputs[0] for u in users if u.op_type == "DequantizeLinear"}


def _quantises(node: Node) -> bool:
    known = facts(node)
    return known.quantised is not None and not known.activation


def _between(graph: Graph, node: Node) -> bool:
    """Whether a quantiser leads from one weighted layer (or a sum) straight to another."""
    maker = _maker(graph, node)
    return maker is not None and _is_linear(maker) and any(True for _ in _readers(graph, node))


def _is_linear(node: Node) -> bool:
    known = facts(node)
    return known.weighted or known.sums or known.normalises == "constants"


def _maker(graph: Graph, node: Node) -> Node | None:
    """What computes the values that a node quantises; of a QLinearConv, the node itself."""
    if node.op_type != "QuantizeLinear":
        return node
    if graph.constant(node.inputs[0]) is not None:
        return None
    maker = graph.producer(node.inputs[0])
    while maker is not None and (facts(maker).copies or _pools(maker, whole=False)):
        maker = graph.producer(maker.inputs[0])
    return maker


def _readers(graph: Graph, node: Node) -> Iterator[Node]:
    """Weighted layers that a quantiser leads to, with nothing but pooling on the way."""
    pending, seen = [node.outputs[0]], set()
    while pending:
        for user in graph.consumers(pending.pop()):
            known = facts(user)
            passes = known.carries or known.moves or _pools(user, whole=True)
            if known.weighted:
                yield user
            elif passes and user.index not in seen:
                seen.add(user.index)
                pending += user.outputs


def _pools(node: Node, *, whole: bool) -> bool:
    """Whether a node pools by the maximum or the average, over windows or (``whole``) at all."""
    known = facts(node)
    return known.pools in {"max", "average"} and (whole or not known.whole)


def _mixes_space(graph: Graph, node: Node) -> bool:
    """Whether a full convolution with a window lies before or behind a quantiser."""
    around = [_maker(graph, node), *_readers(graph, node)]
    return any(layer is not None and _is_full(graph, layer) for layer in around)


def _is_full(graph: Graph, node: Node) -> bool:
    known = facts(node)
    if not known.convolves or known.weights is None:
        return False
    name = node.inputs[known.weights]
    weight = graph.producer(name)
    stored = graph.constant(weight.inputs[0] if weight is not None and weight.inputs else name)
    shape = node.attributes.get("kernel_shape") or ([] if stored is None else stored.shape[2:])
    return math.prod(shape) > 1 and node.attributes.get("group", 1) == 1


def _beside_zero(node: Node, levels: Levels | None) -> Suspicion | None:
    if levels is None:
        return None
    above = float(np.max(levels.zero_point)) - levels.low
    if not 0 < above <= NEAR_FLOOR * (levels.high - levels.low):
        return None
    why = f"keeps {above:g} levels below zero, where a ReLU's quantiser would keep none"
    return Suspicion(node, node.outputs[0], why)


def _centred(levels: Levels) -> bool:
    middle = (levels.low + levels.high) / 2
    return bool(np.all(np.abs(levels.zero_point - middle) <= 0.5))


def _at_least(count: int, trials: int, chance: float) -> float:
    """Probability that ``count`` or more of ``trials`` events occur, each with this chance."""
    return sum(
        math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k)
        for k in range(count, trials + 1)
    )
