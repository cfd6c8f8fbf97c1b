"""From the signals at some tensors back to those at others, node by node."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from converters.errors import UnsupportedNode, UnsupportedOperator
from converters.graph import Graph, Node
from converters.graph.activations import Activation
from inspector.surgery.gradient.builder import OLDEST, Builder
from inspector.surgery.gradient.gaps import WITHOUT_RULE
from inspector.surgery.gradient.table import (
    RULES,
    CannotDifferentiate,
    RuleTable,
    Step,
    VectorJacobian,
)

__all__ = ["Clamp", "Overlay", "reverse"]


class Clamp(Protocol):
    """A quantiser that does the work of an activation function."""

    @property
    def tensor(self) -> str:
        """The tensor on which it acts."""
        ...

    @property
    def low(self) -> int:
        """The level that stands for 0."""
        ...

    @property
    def high(self) -> int | None:
        """The level that stands for the upper bound."""
        ...

    @property
    def step(self) -> float | None:
        """What the tensor is to be divided by to give levels; None where it has levels."""
        ...


@dataclass(frozen=True)
class Overlay:
    """What a backward rule does to activations; nothing, for the plain gradient.

    With R the incoming signal, x an activation's input and f its function:

    ==========  ========================================================
    gradient    f'(x) R
    deconvnet   max(R, 0)           (Zeiler & Fergus 2014, section 2.1)
    guided      f'(x) max(R, 0)     (Springenberg et al. 2015, section 3.4)
    ==========  ========================================================

    Attributes:
        rule: Name of the rule.
        ruled: Activations that it replaces, by the tensor f(x).
        gradient_first: Outputs of smooth activations for which the guided rule reads
            max(f'(x) R, 0).
        clamps: Quantisers that do the work of an activation, by tensor, whatever the rule.
        passed: Outputs of nodes whose signal goes to their first input as it is: a sigmoid or a
            softmax behind the number that is explained.
    """

    rule: str = "gradient"
    ruled: Mapping[str, Activation] = field(default_factory=dict)
    gradient_first: frozenset[str] = frozenset()
    clamps: Mapping[str, Clamp] = field(default_factory=dict)
    passed: frozenset[str] = frozenset()


def reverse(
    builder: Builder,
    nodes: Sequence[Node],
    signals: Mapping[str, str],
    wanted: Collection[str],
    *,
    overlay: Overlay | None = None,
    table: RuleTable = RULES,
) -> dict[str, str]:
    """Write the backward pass of some nodes.

    Args:
        builder: Where it is written.
        nodes: The nodes on the way, in the order of the network.
        signals: Names of the signals at the tensors that are differentiated.
        wanted: Tensors whose signals are asked for.
        overlay: What a backward rule does to activations.
        table: The rules.

    Returns:
        Names of the signals at the wanted tensors that the differentiated ones depend on.

    Raises:
        UnsupportedOperator: Nodes on the way that have no rule, all of them.
    """
    return _Pass(builder, tuple(nodes), wanted, overlay or Overlay(), table).run(signals)


class _Pass:
    def __init__(
        self,
        builder: Builder,
        nodes: tuple[Node, ...],
        wanted: Collection[str],
        overlay: Overlay,
        table: RuleTable,
    ) -> None:
        self.builder, self.nodes, self.wanted = builder, nodes, frozenset(wanted)
        self.overlay, self.table = overlay, table
        self.live = _live(builder.graph, nodes, self.wanted)
        self.arrived: dict[str, list[str]] = {}
        self.missing: list[UnsupportedNode] = []

    def run(self, signals: Mapping[str, str]) -> dict[str, str]:
        for tensor, signal in signals.items():
            self.arrived.setdefault(tensor, []).append(signal)
        for node in reversed(self.nodes):
            if any(name in self.arrived for name in node.outputs if name not in self.wanted):
                self._node(node)
        if self.missing:
            raise UnsupportedOperator(
                sorted(self.missing, key=lambda one: one.name),
                lacking="no gradient can be written as ONNX for",
                hint="choose a --layer behind it; `inspector explain --engine twin` may have it",
            )
        return {name: self._total(name) for name in self.wanted if name in self.arrived}

    def _total(self, tensor: str) -> str:
        """The signal at a tensor: the sum of what its readers sent."""
        found = self.arrived[tensor]
        if len(found) > 1:
            self.arrived[tensor] = found = [self.builder.add(*found)]
        return found[0]

    def _node(self, node: Node) -> None:
        builder = self.builder
        try:
            outputs = [self._at(name) for name in node.outputs]
            activation = next((a for n in node.outputs if (a := self.overlay.ruled.get(n))), None)
            if activation is not None:
                self._ruled(activation, outputs[node.outputs.index(activation.output)] or "")
                return
            if node.outputs[0] in self.overlay.passed:
                self.arrived.setdefault(node.inputs[0], []).append(outputs[0] or "")
                return
            wanted = frozenset(i for i, name in enumerate(node.inputs) if name in self.live)
            if not wanted:
                self._require_closed(node)
                return
            sent = self._rule(node)(builder, Step(node, tuple(outputs), wanted))
            for position, signal in sent.items():
                if node.inputs[position] in self.live:
                    self.arrived.setdefault(node.inputs[position], []).append(signal)
        except CannotDifferentiate as error:
            opset = builder.graph.opset(node.domain)
            self.missing.append(
                UnsupportedNode(node.name, node.op_type, node.domain, opset, str(error))
            )
            for name in node.inputs:  # go on behind it, so that one error names all
                if name in self.live:
                    self.arrived.setdefault(name, []).append("")

    def _require_closed(self, node: Node) -> None:
        """Refuse a body that reads, past its node's inputs, what the signals are asked for.

        Raises:
            CannotDifferentiate: It does.
        """
        read = next((n for n in self.builder.graph.reads(node) if n in self.live), None)
        if read is not None:
            raise CannotDifferentiate(f"its body reads {read!r}")

    def _rule(self, node: Node) -> VectorJacobian:
        """The rule of a node.

        Raises:
            CannotDifferentiate: There is none.
        """
        graph = self.builder.graph
        rule = self.table.lookup(node.domain, node.op_type, graph.opset(node.domain))
        if rule is None:
            names = WITHOUT_RULE.items() if not node.domain else ()
            reasons = (why for why, some in names if node.op_type in some)
            raise CannotDifferentiate(next(reasons, "no gradient is known"))
        if self.builder.opset < OLDEST:
            raise CannotDifferentiate(f"gradients are written from opset {OLDEST} on")
        return rule

    def _at(self, tensor: str) -> str | None:
        """What arrives at an output, behind a quantiser that does an activation's work."""
        if not tensor or tensor not in self.arrived or tensor in self.wanted:
            return None
        signal = self._total(tensor)
        clamp = self.overlay.clamps.get(tensor)
        return signal if clamp is None else self._clamped(clamp, signal)

    def _clamped(self, clamp: Clamp, signal: str) -> str:
        builder = self.builder
        if self.overlay.rule != "gradient":
            signal = builder.rectified(signal)
        if self.overlay.rule == "deconvnet":
            return signal
        levels = builder.value(clamp.tensor)
        if clamp.step is not None:  # rounded as the quantiser behind it rounds
            levels = builder.op("Div", [levels, builder.constant(clamp.step)])
            levels = builder.rounded(levels)
        signal = builder.mul(signal, builder.above(levels, float(clamp.low)))
        if clamp.high is None:
            return signal
        return builder.mul(signal, builder.below(levels, float(clamp.high)))

    def _ruled(self, activation: Activation, signal: str) -> None:
        """An activation under a rule, as a whole."""
        builder, overlay = self.builder, self.overlay
        first = activation.output in overlay.gradient_first
        if not first or overlay.rule == "deconvnet":
            signal = builder.rectified(signal)
        if overlay.rule != "deconvnet":
            inner = _Pass(builder, activation.nodes, [activation.input], Overlay(), self.table)
            found = inner.run({activation.output: signal})
            if activation.input not in found:
                return
            signal = found[activation.input]
            if first:
                signal = builder.rectified(signal)
        if activation.input in self.live:
            self.arrived.setdefault(activation.input, []).append(signal)


def _live(graph: Graph, nodes: Iterable[Node], start: Collection[str]) -> frozenset[str]:
    """Tensors that depend on the start, and the start itself."""
    live = set(start)
    for node in nodes:
        if any(name in live for name in graph.reads(node)):
            live.update(name for name in node.outputs if name)
    return frozenset(live)
