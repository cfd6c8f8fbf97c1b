"""Activation functions that an exporter spelled out over several nodes, in one walk over a graph.

Which subgraphs compute a function of one tensor alone?  For each tensor the walk keeps, of the
few nearest tensors before it, the values that it takes when they run over a grid of scalars::

    x ── Add 3 ── Clip 0..6 ── Div 6      behind Div: of x, of Add's output, of Clip's output

One node costs one operation on that table, so the cost grows with the number of nodes, whatever
they are.  A row that looks like a named curve is then held against what an activation has to be.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from converters.graph import Graph, Node
from converters.graph.activation_curves import (
    GRID,
    Array,
    Curve,
    is_straight,
    may_complete_a_clamp,
    name_curve,
    scalar_op,
)
from converters.graph.operators import facts

__all__ = ["Spelled", "spelled_activations"]

# The last node of a composite is one of these.
_ROOTS = ("Mul", "Div", "Add", "Sub", "Max", "Min", "Where", "Clip", "Log", "Relu", "Reciprocal")
_CLAMPS = ("Relu", "Clip")
# The longest spelling met (GELU's tanh form with casts) has 14 nodes.
_MAX_NODES = 18
# Element-wise nodes in a row, none of which joins anything else: no exporter writes longer runs.
_MAX_RUN = 64
# Rows kept for consumers that stand far behind: some 16 MB.
_MAX_ROWS = 10_000

Scalar = Callable[[str], tuple[float, bool] | None]
"""Mean of a constant, and whether its elements differ; None when it is computed."""


@dataclass(frozen=True)
class Spelled:
    """One activation function over several nodes.

    Attributes:
        curve: What it computes.
        input: The tensor that it is a function of.
        nodes: Its nodes in graph order.
    """

    curve: Curve
    input: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class _Table:
    """One tensor as a function of each of the tensors before it.

    Attributes:
        names: K tensors before it.
        rows: (K, points) of the grid.
        regions: Indices of the nodes between each of them and this one.
        varied: Whether a constant with one value per channel took part (by its mean).
    """

    names: tuple[str, ...]
    rows: Array
    regions: tuple[frozenset[int], ...]
    varied: tuple[bool, ...]


def spelled_activations(
    graph: Graph, nodes: Sequence[Node], carried: set[str], scalar: Scalar
) -> dict[int, Spelled]:
    """Activation functions spelled out, by the index of their last node.

    Args:
        graph: The graph.
        nodes: Its nodes that compute with the values of an input, in order.
        carried: Tensors that hold such values.
        scalar: Reads constants.

    Returns:
        The best reading of each node that ends one; readings may overlap.
    """
    return _Walk(graph, carried, scalar).run(nodes)


class _Walk:
    def __init__(self, graph: Graph, carried: set[str], scalar: Scalar) -> None:
        self.graph, self.carried, self.scalar = graph, carried, scalar
        self.tables: OrderedDict[str, _Table] = OrderedDict()
        self.kept = 0
        self.runs: dict[str, int] = {}

    def run(self, nodes: Sequence[Node]) -> dict[int, Spelled]:
        found: dict[int, Spelled] = {}
        waiting: dict[str, int] = {}
        for node in nodes:
            for name in set(node.inputs):
                waiting[name] = waiting.get(name, 0) + 1
        for node in nodes:
            table = self._through(node)
            if table is not None and node.is_op(*_ROOTS):
                best = self._best(node, table)
                if best is not None:
                    found[node.index] = best
            for name in set(node.inputs):
                waiting[name] -= 1
                if not waiting[name]:
                    self._forget(name)
            if table is not None:
                for name in filter(waiting.get, node.outputs):
                    self._keep(name, table)
        return found

    def _keep(self, name: str, table: _Table) -> None:
        self.tables[name] = table
        self.kept += len(table.names)
        while self.kept > _MAX_ROWS:
            self._forget(next(iter(self.tables)))

    def _forget(self, name: str) -> None:
        table = self.tables.pop(name, None)
        if table is not None:
            self.kept -= len(table.names)

    # -- one node -------------------------------------------------------------------------------

    def _inputs(self, node: Node) -> tuple[str, ...]:
        # The scale and zero point of (de)quantisation, the shape of a cast, say nothing here.
        return node.inputs[:1] if facts(node).carries else node.inputs

    def _through(self, node: Node) -> _Table | None:
        """The table behind a node; None where it is not elementwise, or reads unknown numbers."""
        if node.domain or not scalar_operator(node.op_type, len(node.inputs)):
            return None
        inputs = self._inputs(node)
        run = 1 + min((self.runs.get(n, 0) for n in inputs if n in self.carried), default=0)
        self.runs.update(dict.fromkeys(node.outputs, run))
        if run > _MAX_RUN:
            return None
        constants: dict[str, tuple[float, bool]] = {}
        data: list[str] = []
        for name in dict.fromkeys(filter(None, inputs)):
            if name in self.carried:
                data.append(name)
                continue
            constant = self.scalar(name)
            if constant is None:
                return None
            constants[name] = constant
        names, regions = self._shared(node, data)
        if not names:
            return None
        values: dict[str, Any] = {name: value for name, (value, _) in constants.items()}
        values |= {name: self._rows(name, names) for name in data}
        result = _applied(node, [values.get(name) for name in inputs])
        if result is None or result.shape != (len(names), len(GRID)):
            return None
        differ = any(varied for _, varied in constants.values())
        return _Table(names, result, regions, self._varied(names, data, differ=differ))

    def _shared(
        self, node: Node, data: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[frozenset[int], ...]]:
        """Tensors that all inputs are functions of, and the nodes between each and this node."""
        between: dict[str, frozenset[int]] = {}
        own = frozenset((node.index,))
        for position, name in enumerate(data):
            table = self.tables.get(name)
            mine = {name: own}
            if table is not None:
                mine |= {n: own | r for n, r in zip(table.names, table.regions, strict=True)}
            if position:
                mine = {n: between[n] | r for n, r in mine.items() if n in between}
            between = mine
        fitting = {n: r for n, r in between.items() if len(r) <= _MAX_NODES + 1}
        return tuple(fitting), tuple(fitting.values())

    def _rows(self, name: str, wanted: Sequence[str]) -> Array:
        """Values of one input as a function of each of the tensors that are wanted."""
        table = self.tables.get(name)
        if table is None:
            return GRID[None]
        if (name, *table.names) == tuple(wanted):
            return np.concatenate([GRID[None], table.rows])
        place = {n: position for position, n in enumerate(table.names)}
        return np.stack([GRID if n == name else table.rows[place[n]] for n in wanted])

    def _varied(
        self, names: Sequence[str], data: Sequence[str], *, differ: bool
    ) -> tuple[bool, ...]:
        found = dict.fromkeys(names, differ)
        for name in data:
            table = self.tables.get(name)
            for n, varied in zip(table.names, table.varied, strict=True) if table else ():
                if n in found:
                    found[n] = found[n] or varied
        return tuple(found.values())

    # -- what a row is --------------------------------------------------------------------------

    def _best(self, root: Node, table: _Table) -> Spelled | None:
        """The reading of a node that explains most; None where it ends no composite."""
        left = self._curved(root, table)
        own_function = bool(facts(root).activation)
        if not left or (own_function and all(len(table.regions[k]) == 1 for k in left.values())):
            return None  # what the operator itself says is known better
        more = may_complete_a_clamp(table.rows)
        best: Spelled | None = None
        for candidate in self._before(root):
            k = left.get(candidate)
            if k is None or (best is not None and not more[k]):
                continue
            found = self._reading(root, candidate, table, k)
            if found is None or (best is not None and not _completes(found.curve, best.curve)):
                continue
            best = found
            if best.curve.kind not in _CLAMPS:
                break
        return None if best is not None and len(best.nodes) == 1 and own_function else best

    def _curved(self, root: Node, table: _Table) -> dict[str, int]:
        """Rows that may be an activation function, by the tensor that they are a function of."""
        if table.rows.dtype == bool:
            return {}
        rows = ~is_straight(table.rows)
        for name in dict.fromkeys(filter(None, self._inputs(root))):
            if name in self.carried and rows.any():
                # The last node changes nothing: the activation ends before it.
                rows &= (table.rows != self._rows(name, table.names)).any(axis=1)
        return {table.names[k]: int(k) for k in np.flatnonzero(rows)}

    def _reading(self, root: Node, candidate: str, table: _Table, k: int) -> Spelled | None:
        """The activation function that one row is; None where it is none."""
        region = {index: self.graph.nodes[index] for index in sorted(table.regions[k])}
        if not self._is_closed(region, root):
            return None
        curve = _named(table.rows[k], varied=table.varied[k])
        if curve is None or self._repeats(candidate, root, table.rows[k]):
            return None
        return Spelled(curve, candidate, tuple(region.values()))

    def _before(self, root: Node) -> Iterator[str]:
        """Tensors upstream of a node over elementwise nodes, nearest first."""
        seen: dict[str, None] = {}
        frontier = [root]
        visited = {root.index}
        while frontier and len(visited) <= _MAX_NODES:
            following = []
            for node in frontier:
                for name in node.inputs:
                    if name in self.carried and name not in seen:
                        seen[name] = None
                        maker = self.graph.producer(name)
                        if maker is not None and maker.index not in visited and not maker.domain:
                            visited.add(maker.index)
                            following.append(maker)
            frontier = [n for n in following if scalar_operator(n.op_type, len(n.inputs))]
        # A composite applies to what all its branches start from; ties go to the shorter way.
        yield from seen

    def _is_closed(self, region: dict[int, Node], root: Node) -> bool:
        """Whether nothing outside reads an inner tensor (then it is more than an activation)."""
        for node in region.values():
            if node.index == root.index:
                continue
            for name in node.outputs:
                if name in self.graph.outputs:
                    return False
                if any(user.index not in region for user in self.graph.consumers(name)):
                    return False
        return True

    def _repeats(self, candidate: str, root: Node, result: Array) -> bool:
        """Whether an inner tensor has the values of the last one already."""
        values: dict[str, Any] = {candidate: GRID}
        self._evaluate(root.outputs[0], values)
        return any(
            tensor not in root.outputs
            and np.shape(inner) == GRID.shape
            and np.array_equal(inner, result)
            for tensor, inner in values.items()
        )

    def _evaluate(self, tensor: str, values: dict[str, Any]) -> None:
        """Fill ``values`` up to a tensor; no deeper than the region, which is small."""
        if tensor in values:
            return
        if tensor not in self.carried:
            constant = self.scalar(tensor)
            values[tensor] = None if constant is None else constant[0]
            return
        node = self.graph.producer(tensor)
        if node is None:
            return
        inputs = self._inputs(node)
        for name in filter(None, inputs):
            self._evaluate(name, values)
        values[tensor] = _applied(node, [values.get(name) for name in inputs])


@cache
def scalar_operator(op_type: str, inputs: int) -> bool:
    """Whether an operator with this many inputs works element by element, and is known here."""
    ones: list[Array | float | None] = [np.ones(1)] * max(1, inputs)
    try:
        return scalar_op(op_type, {}, ones) is not None
    except (TypeError, ValueError, IndexError):
        return False


def _applied(node: Node, values: Sequence[Any]) -> Array | None:
    try:
        return scalar_op(node.op_type, node.attributes, values)
    except (TypeError, ValueError, IndexError):  # a stranger's attributes or number of inputs
        return None


def _named(row: Array, *, varied: bool) -> Curve | None:
    curve = name_curve(row)
    if varied and curve is not None:
        # One slope per channel is PRelu; any other name would hold for the mean only.
        return Curve("PRelu") if curve.kind == "LeakyRelu" else None
    return curve


def _completes(curve: Curve, best: Curve) -> bool:
    """Whether a longer match explains more: Max(Min(x,6),0) is Clip(0,6), no ReLU of a Min."""
    return best.kind in _CLAMPS and (
        curve.kind in {"HardSigmoid", "HardSwish"}
        or (curve.kind == "Clip" and curve.high is not None and best.high is None)
    )
