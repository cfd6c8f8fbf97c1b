"""Activation functions in a graph, as single nodes or spelled out over several.

Backward rules (guided backpropagation, deconvnet), the choice of layers and the coverage that
each run prints all ask the same question: which nodes are an activation function, and of what
tensor.  It is answered here once.

    x ── Sigmoid ──┐
    └───────────── Mul ── y      one Activation: kind "Silu", input x, output y, two nodes

A single-node activation is known by its operator; a composite by the curve it computes
(:mod:`converters.graph.activation_curves`).  A node belongs to one activation at most.
"""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from converters.graph import Graph, Node
from converters.graph.activation_curves import Curve
from converters.graph.operators import MICROSOFT_DOMAINS, facts
from converters.graph.spelled_activations import spelled_activations

__all__ = [
    "Activation",
    "data_nodes",
    "data_tensors",
    "find_activations",
    "unknown_nonlinearities",
]

# DequantizeLinear of the scale of a DequantizeLinear of ...
_MAX_DEPTH = 8
# Operators behind which a constant has the same mean.
_COPIES = ("Cast", "CastLike", "Unsqueeze", "Reshape", "Expand", "Squeeze")
_GATES = ("Sigmoid", "HardSigmoid", "Softmax", "Tanh")
_DATA_NODES: WeakKeyDictionary[Graph, tuple[Node, ...]] = WeakKeyDictionary()
_DATA_TENSORS: WeakKeyDictionary[Graph, frozenset[str]] = WeakKeyDictionary()
_FOUND: WeakKeyDictionary[Graph, tuple["Activation", ...]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Attributes:
        kind: ``Relu``, ``Clip``, ``LeakyRelu``, ``PRelu``, ``Silu``, ``Gelu``, ``HardSwish``,
            ``Mish``, ``Elu``, ``Softplus``, ``Sigmoid``, ``HardSigmoid``, ``Softmax``, ``Tanh`` ...
            A ``Clip`` at 0 without an upper bound is a ``Relu``.
        input: The tensor x it is applied to; empty when it is fused into a convolution, where
            no tensor holds x.
        output: The tensor f(x).
        nodes: All its nodes in graph order, the last makes ``output``.
        gate: Its result multiplies another tensor (squeeze-excite, attention), so that it
            weighs features and makes none.
        low: Lower bound of a clamp.
        high: Upper bound of a clamp.
        alpha: Slope or scale where it is a known scalar.
        products: Of a gate, the nodes in which it multiplies other tensors.
    """

    kind: str
    input: str
    output: str
    nodes: tuple[Node, ...] = field(repr=False)
    gate: bool = False
    low: float | None = None
    high: float | None = None
    alpha: float | None = None
    products: tuple[Node, ...] = field(default=(), repr=False)

    @property
    def fused(self) -> bool:
        """Whether it is an attribute of another operator, without a node of its own."""
        return not self.input


def data_nodes(graph: Graph) -> tuple[Node, ...]:
    """Nodes that compute with the values of an input, not with constants or with its shape.

    They are looked for once per graph.
    """
    known = _DATA_NODES.get(graph)
    if known is None:
        carried = set(graph.inputs)
        found = []
        for node in graph.nodes:
            if not carried.isdisjoint(graph.reads(node)) and not node.is_op("Shape", "Size"):
                carried.update(filter(None, node.outputs))
                found.append(node)
        known = _DATA_NODES[graph] = tuple(found)
    return known


def data_tensors(graph: Graph) -> frozenset[str]:
    """The inputs, and all that is computed with their values; looked for once per graph."""
    known = _DATA_TENSORS.get(graph)
    if known is None:
        made = (name for node in data_nodes(graph) for name in node.outputs if name)
        known = _DATA_TENSORS[graph] = frozenset((*graph.inputs, *made))
    return known


def find_activations(graph: Graph) -> tuple[Activation, ...]:
    """Find every activation function of a graph, in the order of their outputs.

    They are searched for once per graph.
    """
    found = _FOUND.get(graph)
    if found is None:
        found = _FOUND[graph] = _Search(graph).run()
    return found


def unknown_nonlinearities(graph: Graph) -> tuple[Node, ...]:
    """Elementwise nonlinear nodes that are part of no activation function known here.

    What stands inside a normalisation or a spelled-out softmax (it feeds a reduction, or comes
    from one) is left out: a backward rule has nothing to say about it.
    """
    claimed = {node.index for found in find_activations(graph) for node in found.nodes}
    nodes, carried = data_nodes(graph), set(data_tensors(graph))
    reductions = _near_reductions(graph)
    return tuple(
        node
        for node in nodes
        if node.domain == ""
        and facts(node).nonlinear
        and node.index not in claimed
        and node.index not in reductions
        and not _is_polynomial(graph, node, carried)
    )


def _is_polynomial(graph: Graph, node: Node, carried: set[str]) -> bool:
    """Whether this is linear after all: a power of 1, or a choice by a constant mask."""
    if node.op_type == "Pow":
        exponent = graph.constant(node.inputs[1])
        return exponent is not None and bool(np.all(exponent == 1))
    return node.op_type == "Where" and node.inputs[0] not in carried


def _near_reductions(graph: Graph, reach: int = 4) -> set[int]:
    """Indices of elementwise nodes within ``reach`` elementwise steps of a reduction."""
    near: set[int] = set()
    for reduction in graph.nodes:
        if not (reduction.domain == "" and reduction.op_type.startswith("Reduce")):
            continue
        before, after = set(reduction.inputs), set(reduction.outputs)
        for _ in range(reach):
            makers = [p for p in map(graph.producer, before) if p and _is_elementwise(p)]
            users = [c for name in after for c in graph.consumers(name) if _is_elementwise(c)]
            near.update(node.index for node in (*makers, *users))
            before = {name for node in makers for name in node.inputs}
            after = {name for node in users for name in node.outputs}
    return near


def _is_elementwise(node: Node) -> bool:
    known = facts(node)
    spelled = ("Pow", "Sqrt", "Exp", "Log", "Abs", "Neg", "Max", "Min", "Reciprocal", "Clip")
    return known.arithmetic or node.is_op(*spelled) or _rearranges(node)


def _rearranges(node: Node) -> bool:
    """Whether a node hands its first input on, up to type, rounding, place and size."""
    known = facts(node)
    return node.domain == "" and (known.carries or known.moves or known.resizes)


def _exponent(node: Node, tensor: str, graph: Graph) -> float | None:
    """The power that a node raises a tensor to; None where it does something else with it."""
    if node.is_op("Sqrt", "Reciprocal"):
        return 0.5 if node.is_op("Sqrt") else -1.0
    if node.is_op("Div") and node.inputs[1] == tensor != node.inputs[0]:
        return -1.0
    if node.is_op("Pow") and node.inputs[0] == tensor:
        exponent = graph.constant(node.inputs[1])
        return None if exponent is None or exponent.size != 1 else float(exponent.item())
    return None


@dataclass
class _Search:
    graph: Graph

    def __post_init__(self) -> None:
        self.nodes = data_nodes(self.graph)
        self.carried = {*self.graph.inputs, *(n for node in self.nodes for n in node.outputs)}
        self.claimed: set[int] = set()
        self.scalars: dict[str, tuple[float, bool] | None] = {}

    def run(self) -> tuple[Activation, ...]:
        found = []
        spelled = spelled_activations(self.graph, self.nodes, self.carried, self._scalar)
        # Last first: x*Clip(x+3,0,6)/6 must be met at its end, before its Clip is.
        for node in reversed(self.nodes):
            if node.index in self.claimed:
                continue
            whole = spelled.get(node.index)
            activation = (
                self._single(node)
                if whole is None
                else self._make(whole.curve, whole.input, whole.nodes)
            )
            if activation is not None:
                self.claimed.update(member.index for member in activation.nodes)
                found.append(activation)
        return tuple(one for one in reversed(found) if not self._guards_a_divisor(one))

    def _guards_a_divisor(self, activation: Activation) -> bool:
        """Whether a clamp only keeps a variance or a norm from being 0 or less.

        ``x / Max(norm, eps)``, ``x / Sqrt(Max(variance, 0) + eps)``: part of a normalisation.
        """
        if activation.kind not in {"Clip", "Relu"} or activation.fused:
            return False
        carriers, ends = [activation.output], 0
        for name in carriers:
            for user in self.graph.consumers(name):
                copied = _rearranges(user) and user.inputs[0] == name
                power = _exponent(user, name, self.graph)
                if copied or power == 0.5:  # a root is divided by further on
                    carriers.append(user.outputs[0])
                elif power in {-0.5, -1.0}:
                    ends += 1
                else:
                    return False
        return ends > 0 and not set(carriers) & set(self.graph.outputs)

    # -- single nodes ---------------------------------------------------------------------------

    def _single(self, node: Node) -> Activation | None:
        if node.domain in MICROSOFT_DOMAINS:
            return self._microsoft(node)
        if node.domain == "" and node.op_type in {"Max", "Min"}:
            return self._one_sided(node)
        kind = facts(node).activation if node.domain == "" else ""
        if not kind:
            return None
        bounds: dict[str, float | None] = {}
        if kind == "Clip":
            kind, bounds = self._clip(node)
        alpha = node.attributes.get("alpha")
        return self._make(Curve(kind, alpha=alpha, **bounds), node.inputs[0], (node,))

    def _clip(self, node: Node) -> tuple[str, dict[str, float | None]]:
        bounds: list[float | None] = []
        for position, name in enumerate(("min", "max"), start=1):
            value = node.attributes.get(name)
            if len(node.inputs) > position and node.inputs[position]:
                scalar = self._scalar(node.inputs[position])
                value = None if scalar is None else scalar[0]
            # The old default bounds, the largest float32 or float16, stand for "no bound".
            bounds.append(None if value is None or abs(value) >= 65504 else float(value))
        low, high = bounds
        given = node.inputs[2] if len(node.inputs) > 2 else ""
        # A bound that is computed is one, though nobody knows which.
        unbounded = high is None and (not given or self._scalar(given) is not None)
        return ("Relu" if low == 0.0 and unbounded else "Clip"), {"low": low, "high": high}

    def _one_sided(self, node: Node) -> Activation | None:
        """Max(x, c) and Min(x, c): clamps on one side (Max(x, 0) is met as a composite)."""
        data = [name for name in node.inputs if name in self.carried]
        scalars = [self._scalar(name) for name in node.inputs if name not in self.carried]
        if len(data) != 1 or len(scalars) != 1 or scalars[0] is None or scalars[0][1]:
            return None
        side = "low" if node.op_type == "Max" else "high"
        kind = "Relu" if side == "low" and scalars[0][0] == 0.0 else "Clip"
        return self._make(Curve(kind, **{side: scalars[0][0]}), data[0], (node,))

    def _microsoft(self, node: Node) -> Activation | None:
        kind = facts(node).activation
        if kind:
            return self._make(Curve(kind), node.inputs[0], (node,))
        fused = node.attributes.get("activation")
        if not fused:
            return None
        low = high = None
        if fused == "Clip":
            low, high = [*node.attributes.get("activation_params", []), None, None][:2]
        elif fused == "Relu":
            low = 0.0
        return Activation(str(fused), "", node.outputs[0], (node,), low=low, high=high)

    def _scalar(self, tensor: str, depth: int = _MAX_DEPTH) -> tuple[float, bool] | None:
        """Mean of a constant, and whether its elements differ; None when it is computed."""
        passed: list[str] = []
        while tensor not in self.scalars:
            node = self.graph.producer(tensor)
            # Asked before what is carried: CastLike takes the type of its data, and no value.
            copies = node is not None and node.is_op(*_COPIES) and len(passed) < len(self.nodes)
            if tensor in self.carried and not copies:
                break
            if node is None or not copies or self.graph.constant(tensor) is not None:
                self.scalars[tensor] = self._scalar_here(tensor, node, depth)
                break
            passed.append(tensor)
            tensor = node.inputs[0]
        value = self.scalars.get(tensor)
        self.scalars.update(dict.fromkeys(passed, value))
        return value

    def _scalar_here(self, tensor: str, node: Node | None, depth: int) -> tuple[float, bool] | None:
        """The same of a tensor that copies no other."""
        array = self.graph.constant(tensor)
        if array is not None:
            if not array.size or array.dtype.kind not in "fiub":
                return None
            flat = array.astype(np.float64).ravel()
            return float(flat.mean()), bool(flat.min() != flat.max())
        if node is None or not node.is_op("DequantizeLinear") or not depth:
            return None
        parts = [self._scalar(name, depth - 1) for name in node.inputs if name]
        if any(part is None or part[1] for part in parts):
            return None
        x, scale, *zero = [part[0] for part in parts if part is not None]
        return (x - (zero[0] if zero else 0.0)) * scale, False

    # -- the result -----------------------------------------------------------------------------

    def _make(self, curve: Curve, source: str, nodes: tuple[Node, ...]) -> Activation:
        output = nodes[-1].outputs[0]
        products = self._products(output, nodes) if curve.kind in _GATES else ()
        return Activation(
            curve.kind,
            source,
            output,
            nodes,
            gate=bool(products),
            low=curve.low,
            high=curve.high,
            alpha=curve.alpha,
            products=products,
        )

    def _products(self, output: str, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """Nodes where the result, reshaped or scaled on the way, multiplies another tensor."""
        frontier, seen = [output], {output}
        own = {node.index for node in nodes}
        found = {}
        while frontier:
            for user in self.graph.consumers(frontier.pop()):
                if user.index in own or user.domain:
                    continue
                others = [n for n in user.inputs if n in self.carried and n not in seen]
                if user.is_op("Mul", "MatMul") and others:
                    found[user.index] = user
                affine = user.is_op("Add", "Sub", "Mul", "Div") and not others
                if affine or (_rearranges(user) and user.inputs[0] in seen):
                    fresh = [n for n in user.outputs if n and n not in seen]
                    seen.update(fresh)
                    frontier += fresh
        return tuple(found.values())
