"""Activation functions that a quantiser has removed, because the clamp behind them does their work.

ONNX Runtime's quantiser deletes ``Relu`` and ``Clip`` before a ``QuantizeLinear`` whose least
level stands for 0: the clamp cuts negative values off by itself.

    Conv ─ Relu ─ Conv      becomes      Conv ─ QuantizeLinear ─ DequantizeLinear ─ Conv
                                                zero point = least level

Such a quantiser is a ReLU (and a ReLU6, where its greatest level stands for 6), except where
nothing negative can arrive: on what is known to be non-negative, and on pixels.  The same holds
for the output of ``QLinearConv`` and its kin.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.activations import Activation, find_activations
from converters.graph import Graph, Node
from inspector.quantisation import OPERANDS, Levels, levels_of

__all__ = ["Mark", "Suspicion", "find_marks", "lost_activations", "lost_note"]

CAP = 6.0
CAP_TOLERANCE = 1e-3
"""How close to 6 the greatest value must be to be a ReLU6's bound, relative.  A ReLU6 that met
its bound in calibration has 6 up to float32's rounding; one that did not has nothing to cut."""

NEAR_FLOOR = 0.05
"""Share of the levels below zero up to which a quantiser looks like a ReLU's, put beside zero."""

_NOT_NEGATIVE = frozenset({
    "Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp", "Sqrt", "ReduceL1",
    "ReduceL2", "ReduceSumSquare", "LpPool", "GlobalLpPool", "ThresholdedRelu",
    "QLinearSigmoid", "QLinearSoftmax",
})  # fmt: skip
_KEEPS_SIGN = frozenset({
    "Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose",
    "Slice", "Gather", "Split", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "MaxPool",
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceMin",
    "ReduceSum", "LRN", "Upsample", "NhwcMaxPool", "QLinearAveragePool",
    "QLinearGlobalAveragePool", "QuantizeLinear", "DequantizeLinear", "LeakyRelu",
    "QLinearLeakyRelu", "PRelu",
})  # fmt: skip
_KEEPS_SIGN_OF_ALL = frozenset({
    "Add", "Sum", "Mul", "Div", "Concat", "Mean", "Min", "Where", "QLinearAdd", "QLinearMul",
    "QLinearConcat",
})  # fmt: skip
_ON_PIXELS = frozenset({
    "Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Split",
    "Concat", "Pad", "Resize", "Upsample", "Add", "Sub", "Mul", "Div", "BatchNormalization",
    "QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearConcat", "Max", "Min",
})  # fmt: skip
_NEVER_MARKED = frozenset({"QLinearSigmoid", "QLinearSoftmax", "QLinearLeakyRelu"})


@dataclass(frozen=True, eq=False)
class Mark:
    """A quantiser that does the work of an activation function.

    Attributes:
        tensor: The quantised tensor; the one before, where each of its consumers has an equal
            quantiser of its own: their signals are summed up before the rule is applied.
        node: The node that quantises (the first of several).
        low: The level that stands for 0; a value that lies there has been cut off.
        high: The level that stands for the upper bound, 6; None for a ReLU.
        step: What the tensor is to be divided by to give levels above 0; None where it has levels.
    """

    tensor: str
    node: Node
    low: int
    high: int | None = None
    step: float | None = None

    @property
    def kind(self) -> str:
        """The activation function, as the coverage lists it."""
        return "fused Relu" if self.high is None else f"fused Clip[0,{CAP:g}]"


def find_marks(graph: Graph, activations: Iterable[Activation] | None = None) -> tuple[Mark, ...]:
    """Find the quantisers that do the work of an activation function.

    Args:
        graph: The network.
        activations: What ``find_activations`` found in it, if that is known.

    Returns:
        One mark a quantiser, in the order of the network.
    """
    if not any(node.op_type in OPERANDS for node in graph.nodes):
        return ()
    known = find_activations(graph) if activations is None else activations
    found: dict[str, list[tuple[Node, Levels]]] = {}
    for node, levels in _Signs(graph, known).marked():
        source = node.inputs[0] if node.op_type == "QuantizeLinear" else node.outputs[0]
        found.setdefault(source, []).append((node, levels))
    return tuple(mark for source, group in found.items() for mark in _marks(graph, source, group))


def _marks(graph: Graph, source: str, group: list[tuple[Node, Levels]]) -> Iterator[Mark]:
    """One mark for quantisers of one tensor that are alike, else one for each."""
    _, first = group[0]
    alike = all(levels.same(first) for _, levels in group)
    alone = len(graph.consumers(source)) == len(group) and source not in graph.outputs
    joint = len(group) > 1 and alike and alone and first.scale.size == 1
    for node, levels in group[: 1 if joint else None]:
        capped = math.isclose(levels.top, CAP, rel_tol=CAP_TOLERANCE)
        if joint:
            top = levels.high - levels.low
            step = float(levels.scale.reshape(-1)[0])
            yield Mark(source, node, 0, top if capped else None, step)
        else:
            yield Mark(node.outputs[0], node, levels.low, levels.high if capped else None)


class _Signs:
    """Which tensors cannot be negative, found from the inputs to the outputs."""

    def __init__(self, graph: Graph, activations: Iterable[Activation]) -> None:
        self.graph = graph
        self.rectified = {
            a.output
            for a in activations
            if a.kind == "Relu" or (a.low is not None and a.low >= 0) or a.kind in _NOT_NEGATIVE
        }
        self.positive: set[str] = set()
        self.pixels = set(graph.inputs)

    def marked(self) -> Iterator[tuple[Node, Levels]]:
        for node in self.graph.nodes:
            known = self._not_negative(node)
            data = [n for n in node.inputs if n and self.graph.constant(n) is None]
            pixels = node.op_type in _ON_PIXELS and all(n in self.pixels for n in data)
            if pixels and data:
                self.pixels.update(filter(None, node.outputs))
            if node.op_type in OPERANDS:
                levels = levels_of(self.graph, node.outputs[0])
                if levels is not None and levels.at_floor:
                    if not (known or pixels or node.op_type in _NEVER_MARKED):
                        yield node, levels
                    known = True
            if known:
                self.positive.update(filter(None, node.outputs))

    def _not_negative(self, node: Node) -> bool:
        kind, inputs = node.op_type, node.inputs
        if node.outputs[0] in self.rectified or kind in _NOT_NEGATIVE:
            return True
        if kind in OPERANDS and kind in _KEEPS_SIGN_OF_ALL:
            read = [inputs[i] for i in OPERANDS[kind][1] if i < len(inputs)]
            return all(map(self._positive, read))
        if kind in _KEEPS_SIGN:
            return self._positive(inputs[0])
        if kind in _KEEPS_SIGN_OF_ALL:
            squared = kind == "Mul" and inputs[0] == inputs[1]
            return squared or all(self._positive(n) for n in inputs[kind == "Where" :])
        if kind == "Max":
            return any(map(self._positive, inputs))
        if kind == "Resize":
            return node.attributes.get("mode") != "cubic" and self._positive(inputs[0])
        return kind == "Pad" and self._padded(node)

    def _padded(self, node: Node) -> bool:
        given = len(node.inputs) > 2 and node.inputs[2] != ""
        value = self.graph.constant(node.inputs[2]) if given else node.attributes.get("value", 0)
        return value is not None and bool(np.all(value >= 0)) and self._positive(node.inputs[0])

    def _positive(self, tensor: str) -> bool:
        if tensor in self.positive:
            return True
        value = self.graph.constant(tensor)
        return value is not None and value.dtype.kind in "fiu" and bool(np.all(value >= 0))


# -- activation functions that got lost ----------------------------------------------------------

_LINEAR = frozenset({
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sum", "BatchNormalization", "QLinearConv",
    "QLinearMatMul", "QGemm", "QLinearAdd",
})  # fmt: skip
_WEIGHTED = frozenset({
    "Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "QGemm",
})  # fmt: skip
_PASSES = frozenset({
    "Identity", "Cast", "Reshape", "Flatten", "Transpose", "MaxPool", "AveragePool", "Squeeze",
    "QuantizeLinear", "DequantizeLinear", "NhwcMaxPool", "QLinearAveragePool", "Dropout",
})  # fmt: skip
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

    A quantiser's tool deletes ReLUs in the belief that the zero point will be the least level.
    With symmetric ranges for single tensors, or ranges from a distribution, it is not, and the
    network has lost its activation function.  Three things show it:

    * no activation function is left in the network, and no clamp in its place;
    * quantisers between two weighted layers that are centred on zero, in a network whose other
      ReLUs are in their quantisers, and more of them than chance would centre;
    * a zero point just above the least level, where a ReLU's would be on it.

    Args:
        graph: The network.
        activations: What ``find_activations`` found in it, if that is known.

    Returns:
        The quantisers, in the order of the network; empty when nothing is suspicious.
    """
    if not any(node.op_type in OPERANDS for node in graph.nodes):
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
    centred = [node for node, levels in stretches if levels is None or _centred(levels)]
    chance = _at_least(len(centred), len(stretches), CENTRED_BY_CHANCE)
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
    return node.op_type in OPERANDS and node.op_type not in _NEVER_MARKED


def _between(graph: Graph, node: Node) -> bool:
    """Whether a quantiser leads from one weighted layer (or a sum) straight to another."""
    maker: Node | None = node
    if node.op_type == "QuantizeLinear":
        maker = graph.producer(node.inputs[0])
        while maker is not None and maker.is_op("MaxPool", "AveragePool", "Identity"):
            maker = graph.producer(maker.inputs[0])
    if maker is None or maker.op_type not in _LINEAR or graph.constant(node.inputs[0]) is not None:
        return False
    pending, seen = [node.outputs[0]], set()
    while pending:
        for user in graph.consumers(pending.pop()):
            if user.op_type in _WEIGHTED:
                return True
            if user.op_type in _PASSES and user.index not in seen:
                seen.add(user.index)
                pending += user.outputs
    return False


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


def _at_least(hits: int, trials: int, chance: float) -> float:
    """Probability of so many hits or more."""
    return sum(
        math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k)
        for k in range(hits, trials + 1)
    )
