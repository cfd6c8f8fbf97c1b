"""Rules of layer-wise relevance propagation (LRP), and whether a graph has one for every node.

LRP passes the score down as *relevance*: what a node hands to its inputs adds up to what it got.
With x the inputs and y the outputs of a node, R the relevance, and m = R / y what the engine
carries in the place of a gradient (so that a map is x m):

    ======================  =============================================  ======================
    node                    rule                                           m at an input
    ======================  =============================================  ======================
    linear layer, epsilon   R_i = sum_j w_ij x_i R_j / (y_j + e sign y_j)  W' (m y / (y + e))
    linear layer, z+        R_i = sum_j (w_ij x_i)+ R_j / sum_i (w_ij x_i)+  in proportion to the
                                                                           positive parts
    linear layer, gamma     as epsilon, with w + g w+ for y > 0            (see the overlay)
    activation, norm        R_i = R_j, place by place (identity)           m f(x) / x
    normalisation           its statistics are constants (identity)        m / deviation
    product of activations  half to each                                   m y / (2 x)
    softmax                 R_i = x_i (R_i - s_i sum_j R_j)                its derivative
    max-pooling             the winner takes all                           its derivative
    sums, means, moves      in proportion to the contributions             their derivatives
    ======================  =============================================  ======================

Constants that are added (biases, position embeddings) keep their part of the relevance, and so
does the constant of softmax's expansion; both are measured, so that what reaches the image and
what they keep add up to the score.

Sources: Bach et al. 2015, equations 58 (epsilon) and 60 (alpha-beta; z+ is alpha 1, beta 0);
Montavon et al. 2019, table 10.1 (composites, gamma); Achtibat et al. 2024, equation 8 (epsilon),
equation 9 (identity), propositions 3.1 (softmax), 3.3 (products), 3.4 (normalisations).

This module needs the graph alone; ``relevance_overlay`` holds the formulas in torch.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from converters.graph import Graph, Node
from converters.graph.activations import Activation, data_nodes
from converters.graph.operators import MICROSOFT, facts
from inspector.engines.rules import Coverage, Rule
from inspector.errors import MethodRefused

__all__ = ["ATTENTION", "PLUS", "RELEVANCE_RULES", "relevance_coverage", "without_relevance"]

ATTENTION, PLUS = "attn-lrp", "lrp-epsilon-plus"
RELEVANCE_RULES = (ATTENTION, PLUS)

_SELECTS = {"TopK", "Trilu", "CenterCropPad", "MaxUnpool"}
"""Operators of which places are chosen or cleared, besides those of whom the facts say so."""

_LINEAR = {"CumSum", "RotaryEmbedding"}
_NORMS = {
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
}
_SCATTERS = {"Scatter", "ScatterElements", "ScatterND"}
_SHARES = {"Softmax", "LogSoftmax", "Hardmax"}
_NO_SIGNAL = {"ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", "OneHot", "Shape", "Size"}


def without_relevance(
    graph: Graph, activations: Iterable[Activation], rule: Rule
) -> frozenset[str]:
    """Tensors that weigh others and take no relevance themselves.

    What others are divided by, and, under ``lrp-epsilon-plus``, gates (squeeze-excite).

    Args:
        graph: The network.
        activations: Of ``find_activations``.
        rule: The rule.
    """
    found = {node.outputs[0] for node in data_nodes(graph) if _is_inverse(graph, node)}
    if rule.name == PLUS:
        found.update(a.output for a in activations if a.gate and a.kind != "Softmax")
    return frozenset(found)


def relevance_coverage(
    graph: Graph,
    nodes: Collection[Node],
    targets: Collection[str],
    rule: Rule,
    activations: Iterable[Activation],
) -> Coverage:
    """Count the nodes under each rule, and refuse those that have none.

    Args:
        graph: The network.
        nodes: The nodes between the input and the targets.
        targets: Names of the targets' tensors.
        rule: The rule.
        activations: What ``find_activations`` found in the network.

    Returns:
        The coverage.

    Raises:
        MethodRefused: Nodes without a rule, by the operator's name.
    """
    walk = _Walk(graph, nodes, rule, tuple(activations))
    counts = walk.down_from(targets)
    if walk.refused:
        kinds = Counter(node.op_type for node, _ in walk.refused).most_common()
        listing = ", ".join(f"{count} {kind}" for kind, count in kinds)
        node, why = walk.refused[0]
        raise MethodRefused(
            f"{rule.name} has no rule for {listing}{f' ({why})' if why else ''}",
            where=f"node {node.name!r}",
            hint="attn-lrp has rules for attention and normalisations"
            if rule.name == PLUS and _attends(node)
            else "input-x-gradient and integrated-gradients need no rule",
        )
    return RelevanceCoverage(rule.name, counts, {}, len(walk.stopped_on_way), ())


@dataclass(frozen=True)
class RelevanceCoverage(Coverage):
    """How many nodes between the input and the target each rule of LRP reaches.

    Attributes:
        ruled: Nodes by rule and operator, counted.
        gates: Tensors that weigh others and take no relevance.
    """

    def __str__(self) -> str:
        """One line, as it is printed with every map."""
        listing = ", ".join(f"{count} {kind}" for kind, count in self.ruled.items()) or "none"
        line = f"{sum(self.ruled.values())} nodes under the {self.rule} rules: {listing}; 0 unknown"
        return f"{line}; {self.gates} gates or divisors take none" if self.gates else line


@dataclass(frozen=True)
class _Way:
    """What a node does with relevance: by which rule, and to which of its inputs."""

    rule: str
    inputs: tuple[str, ...]


class _Walk:
    """A walk down from the targets along everything that takes relevance."""

    def __init__(
        self, graph: Graph, nodes: Collection[Node], rule: Rule, activations: tuple[Activation, ...]
    ) -> None:
        self.graph, self.rule, self.between = graph, rule, set(nodes)
        self.stopped = without_relevance(graph, activations, rule)
        self.activations: Mapping[str, Activation] = {a.output: a for a in activations if a.input}
        self.carried = self._carried()
        self.refused: list[tuple[Node, str]] = []
        self.stopped_on_way: set[str] = set()

    def down_from(self, targets: Collection[str]) -> dict[str, int]:
        """Nodes per rule, the commonest first."""
        counts: Counter[str] = Counter()
        waiting, seen = list(targets), set(targets)
        while waiting:
            node = self.graph.producer(name := waiting.pop())
            if node is None or node not in self.between:
                continue
            try:
                way = self._way(name, node)
            except _NoRuleError as error:
                self.refused.append((error.node, str(error)))
                continue
            if way.rule:
                counts[way.rule] += 1
            self.stopped_on_way.update(self.stopped.intersection(node.inputs))
            fresh = [n for n in way.inputs if n in self.carried and n not in seen]
            seen.update(fresh)
            waiting += fresh
        self.refused.sort(key=lambda pair: pair[0].index)
        return dict(counts.most_common())

    def _carried(self) -> set[str]:
        """Tensors that the image acts on by values with a slope, and that take relevance."""
        found = set(self.graph.inputs)
        for node in sorted(self.between, key=lambda node: node.index):
            if facts(node).logical or node.op_type in _NO_SIGNAL:
                continue
            if not found.isdisjoint(self.graph.reads(node)):
                found.update(name for name in node.outputs if name and name not in self.stopped)
        return found

    def _way(self, name: str, node: Node) -> _Way:
        """The rule of the node that makes a tensor.

        Raises:
            _NoRuleError: There is none.
        """
        activation = self.activations.get(name)
        if activation is not None:
            if activation.kind not in _SHARES:
                return _Way(f"identity ({activation.kind})", (activation.input,))
            if self.rule.name == PLUS or activation.kind != "Softmax":
                raise _NoRuleError(node)
            return _Way("softmax", (activation.input,))
        found = (
            self._of_weights(node)
            or self._of_arithmetic(node)
            or self._of_places(node)
            or self._of_normalisation(node)
        )
        if found is None:
            raise _NoRuleError(node)
        return found

    def _data(self, node: Node, *positions: int) -> list[str]:
        """Inputs at some positions (all where none is named) that take relevance."""
        named = node.inputs if positions == () else [*_at(node, positions)]
        return [name for name in named if name in self.carried]

    def _of_weights(self, node: Node) -> _Way | None:
        """Linear layers, products of activations, attention in one operator."""
        known = facts(node)
        kind = "z+" if self.rule.name == PLUS and known.convolves else "epsilon"
        if self.rule.name == ATTENTION and self.rule.gamma:
            kind = "gamma"
        if node.domain and not (node.is_op("FusedMatMul") and node.domain == MICROSOFT):
            return None
        if node.is_op("Conv", "ConvTranspose"):
            if self._data(node, 1):
                raise _NoRuleError(node, "its weights depend on the image")
            return _Way(f"{kind} ({node.op_type})", (node.inputs[0],))
        if node.is_op("MatMul", "Gemm", "FusedMatMul", "Einsum"):
            product = node.inputs if node.is_op("Einsum") else node.inputs[:2]
            data = [n for n in product if n in self.carried]
            if len(data) < 2:
                kind = "epsilon" if node.is_op("Einsum", "FusedMatMul") else kind
                return _Way(f"{kind} ({node.op_type})", tuple(self._data(node)))
        elif not node.is_op("Attention"):
            return None
        if self.rule.name == PLUS:
            raise _NoRuleError(node, "a product of two tensors that depend on the image")
        if node.attributes.get("softcap"):
            raise _NoRuleError(node, "softcap")
        return _Way(f"halves ({node.op_type})", tuple(self._data(node)))

    def _of_arithmetic(self, node: Node) -> _Way | None:
        """Sums, products, quotients and functions of one value."""
        known = facts(node)
        if known.levels and not known.rounds:
            return None
        if node.is_op("Mul"):
            return self._of_product(node)
        if node.is_op("Div"):
            return _Way("", tuple(self._data(node, 0))) if self._data(node, 0) else None
        if node.is_op("Add", "Sub", "Sum", "Mean", "Neg"):
            return _Way("sum" if len(self._data(node)) > 1 else "", tuple(self._data(node)))
        if node.is_op("Max", "Min", "Where"):
            return _Way("winner", tuple(self._data(node)))
        if node.is_op("BiasGelu", "FastGelu"):
            return _Way("identity (Gelu)", tuple(self._data(node)))
        return self._of_one_value(node)

    def _of_product(self, node: Node) -> _Way:
        data = self._data(node)
        if len(data) < 2:
            return _Way("", tuple(data))
        if self.rule.name == PLUS:
            raise _NoRuleError(node, "a product of two tensors that depend on the image")
        return _Way("halves (Mul)", tuple(data))

    def _of_one_value(self, node: Node) -> _Way | None:
        """Functions of one value, whose parameters are constants."""
        known = facts(node)
        if node.is_op("Affine", "ImageScaler") or self._data(node, *range(1, len(node.inputs) + 1)):
            return None
        one_value = known.elementwise == "first" or known.activation or node.is_op("Pow")
        slope = not (known.logical or known.constant_slope or known.rounds or known.softmax)
        return (
            _Way(f"identity ({node.op_type})", (node.inputs[0],)) if one_value and slope else None
        )

    def _of_places(self, node: Node) -> _Way | None:
        """What moves, joins, pools and resizes."""
        known = facts(node)
        if known.levels and not known.rounds:
            return None
        if known.joins:
            return _Way("", tuple(self._data(node)))
        if known.moves or known.carries or known.pads or known.resizes or node.op_type in _SELECTS:
            return _Way("", tuple(self._data(node, 0)))
        if node.op_type in _SCATTERS:
            return _Way("", tuple(self._data(node, 0, 2)))
        if node.is_op(*_LINEAR):
            return _Way("sum", tuple(self._data(node, 0)))
        if node.is_op("ReduceMean", "ReduceSum") or known.pools == "average":
            return _Way(f"proportional ({node.op_type})", tuple(self._data(node, 0)))
        if node.is_op("ReduceMax", "ReduceMin") or known.pools == "max":
            return _Way(f"winner ({node.op_type})", tuple(self._data(node, 0)))
        if node.is_op("GridSample", "RoiAlign") and not self._data(node, 1):
            return _Way("proportional", tuple(self._data(node, 0)))
        return None

    def _of_normalisation(self, node: Node) -> _Way | None:
        known = facts(node)
        if node.is_op("BatchNormalization"):
            if node.attributes.get("training_mode"):
                raise _NoRuleError(node, "in training mode")
            return _Way("folded (BatchNormalization)", (node.inputs[0],))
        if known.normalises in {"norm", "neighbours"}:
            return _Way(f"identity ({node.op_type})", (node.inputs[0],))
        fused = node.op_type.startswith("Skip") and node.domain == MICROSOFT
        if node.op_type not in _NORMS and not fused:
            return None
        if self.rule.name == PLUS:
            raise _NoRuleError(node)
        rest = tuple(self._data(node, 0, 1)) if fused else (node.inputs[0],)
        return _Way(f"identity ({node.op_type})", rest)


class _NoRuleError(Exception):
    """A node that a rule of LRP does not reach; ``str(error)`` says why."""

    def __init__(self, node: Node, why: str = "") -> None:
        super().__init__(why)
        self.node = node


def _at(node: Node, positions: Iterable[int]) -> Iterator[str]:
    for position in positions:
        if position < len(node.inputs):
            yield node.inputs[position]


def _is_inverse(graph: Graph, node: Node) -> bool:
    """Whether a node makes what others are multiplied by to be divided: 1 / x, x ** -0.5."""
    if node.is_op("Reciprocal"):
        return True
    if node.is_op("Div"):
        return graph.constant(node.inputs[0]) is not None
    if not node.is_op("Pow"):
        return False
    power = graph.constant(node.inputs[1])
    return power is not None and power.size == 1 and float(power.reshape(-1)[0]) < 0


def _attends(node: Node) -> bool:
    """Whether a node belongs to a transformer's block."""
    known = facts(node)
    return (
        known.softmax
        or known.normalises == "statistics"
        or node.is_op("MatMul", "Einsum", "Attention", "Mul")
    )
