"""Activation functions that a quantiser performs: the clamp at its least level is a ReLU.

ONNX Runtime's quantiser deletes ``Relu`` and ``Clip`` before a ``QuantizeLinear`` whose least
level stands for 0: the clamp cuts negative values off by itself.

    Conv ─ Relu ─ Conv      becomes      Conv ─ QuantizeLinear ─ DequantizeLinear ─ Conv
                                                zero point = least level

Such a quantiser is a ReLU (and a ReLU6, where its greatest level stands for 6), except where
nothing negative can arrive: on what is known to be non-negative, and on pixels.  The same holds
for the output of ``QLinearConv`` and its kin.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from converters.graph import Graph, Node
from converters.graph.activations import Activation, find_activations
from converters.graph.operators import facts, facts_of
from inspector.network.quantisation.levels import Levels, levels_of

__all__ = ["Mark", "find_marks"]

CAP = 6.0
CAP_TOLERANCE = 1e-3
"""How close to 6 the greatest value must be to be a ReLU6's bound, relative.  A ReLU6 that met
its bound in calibration has 6 up to float32's rounding; one that did not has nothing to cut."""


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
        One mark per quantiser, in the order of the network.
    """
    if not any(facts(node).quantised for node in graph.nodes):
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
            if a.kind == "Relu"
            or (a.low is not None and a.low >= 0)
            or facts_of("", a.kind).not_negative
        }
        self.positive: set[str] = set()
        self.pixels = set(graph.inputs)

    def marked(self) -> Iterator[tuple[Node, Levels]]:
        for node in self.graph.nodes:
            known = self._not_negative(node)
            data = [n for n in node.inputs if n and self.graph.constant(n) is None]
            pixels = facts(node).prepares and all(n in self.pixels for n in data)
            if pixels and data:
                self.pixels.update(filter(None, node.outputs))
            if facts(node).quantised is not None:
                levels = levels_of(self.graph, node.outputs[0])
                if levels is not None and levels.at_floor:
                    if not (known or pixels or facts(node).activation):
                        yield node, levels
                    known = True
            if known:
                self.positive.update(filter(None, node.outputs))

    def _not_negative(self, node: Node) -> bool:
        kind, inputs, known = node.op_type, node.inputs, facts(node)
        if node.outputs[0] in self.rectified or known.not_negative:
            return True
        if known.quantised is not None and known.keeps_sign == "all":
            read = [inputs[i] for i in known.quantised.data if i < len(inputs)]
            return all(map(self._positive, read))
        if known.keeps_sign == "first":
            return self._positive(inputs[0])
        if known.keeps_sign == "all":
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
