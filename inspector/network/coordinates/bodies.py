"""Coordinates through control flow: what the bodies of If and Loop do to places.

A body reads tensors of the graph around it by their names, so that a network whose branch turns
the image over may have no input that says so.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx

from converters.graph import Graph, Node
from inspector.network.coordinates.units import Lost, Placed, State, Step, joined
from inspector.network.receptive_fields.graph_extents import GraphExtents

__all__ = ["Inside", "through_bodies"]

Inside = Callable[[GraphExtents, Mapping[str, State]], Callable[[str], "State | None"]]
"""Traces a body from the places that enter it; gives those of any tensor of it."""


def through_bodies(step: Step, inside: Inside) -> Mapping[str, State]:
    """Places of the outputs of a node that runs subgraphs.

    Args:
        step: An ``If``, a ``Loop`` or another node with bodies, and the places of what it and its
            bodies read.
        inside: Traces one body.

    Returns:
        Of an ``If`` what its branches agree on; of a ``Loop`` the carried tensors that one round
        leaves where they were.  All others are `Lost`, and known to be.
    """
    node = step.node
    if node.is_op("If"):
        found = _of_branches(step, inside)
    elif node.is_op("Loop"):
        found = _of_loop(step, inside)
    else:
        found = [_lost(step, "runs a body") for _ in node.outputs]
    return {
        name: state
        for name, state in zip(node.outputs, found, strict=False)
        if name and state is not None
    }


class _Body(Graph):
    """A body that sees the constants of the graph around it."""

    def __init__(self, outer: Graph, proto: onnx.GraphProto) -> None:
        super().__init__(
            outer.model,
            folder=outer.folder,
            graph=proto,
            unchanged=outer.unchanged,
            weights=outer.weights,
        )
        self._outer = outer

    def constant(self, tensor: str) -> np.ndarray[Any, Any] | None:
        own = super().constant(tensor)
        hidden = own is not None or tensor in self.inputs or self.producer(tensor) is not None
        return own if hidden else self._outer.constant(tensor)

    def initialiser(self, tensor: str) -> onnx.TensorProto | None:
        own = super().initialiser(tensor)
        return self._outer.initialiser(tensor) if own is None else own


def _of_branches(step: Step, inside: Inside) -> list[State | None]:
    """What the branches of an If agree on; the one that runs where the condition is constant."""
    graph, node = step.net.graph, step.node
    chosen = graph.constant(node.inputs[0])
    names = ["then_branch", "else_branch"]
    if chosen is not None:
        names = names[:1] if bool(np.all(chosen)) else names[1:]
    branches = []
    for name in names:
        body = _Body(graph, node.attributes[name])
        of = inside(GraphExtents(body), step.states)
        branches.append([of(output) for output in body.outputs])
    return [_agreed(step, states) for states in zip(*branches, strict=False)]


def _agreed(step: Step, states: tuple[State | None, ...]) -> State | None:
    known = [state for state in states if state is not None]
    if not known:
        return None
    for state in known:
        if isinstance(state, Lost):
            return _lost(step, "runs a branch", state.node)
    placed = [state for state in known if isinstance(state, Placed)]
    if len({state.shape for state in placed}) > 1:
        return _lost(step, "has branches of different shapes")
    try:
        rows, columns = (joined(step, parts) for parts in _sides(placed))
    except Lost:
        return _lost(step, "has branches that look at different places")
    return Placed(placed[0].shape, rows, columns)


def _sides(placed: list[Placed]) -> Iterator[list[Any]]:
    yield [state.rows for state in placed]
    yield [state.columns for state in placed]


def _of_loop(step: Step, inside: Inside) -> list[State | None]:
    """Carried tensors of a Loop that one round leaves where they were."""
    graph, node = step.net.graph, step.node
    body = _Body(graph, node.attributes["body"])
    entering = [step.states.get(name) for name in node.inputs[2:]]
    inner = list(body.inputs)[2:]
    fed = {name: state for name, state in zip(inner, entering, strict=False) if state is not None}
    of = inside(GraphExtents(body), {**step.states, **fed})
    leaving = [of(output) for output in list(body.outputs)[1:]]
    found: list[State | None] = []
    for place, state in enumerate(leaving):
        before = entering[place] if place < len(entering) else None
        if state is None and before is None:
            found.append(None)
        elif place >= len(entering) or not _same(before, state):
            inner_node = state.node if isinstance(state, Lost) else None
            found.append(_lost(step, "runs a body", inner_node))
        else:
            found.append(state)
    return found


def _same(before: State | None, behind: State | None) -> bool:
    if not isinstance(before, Placed) or not isinstance(behind, Placed):
        return False
    if before.shape != behind.shape:
        return False
    return all(
        a.shape == b.shape and np.allclose(a[0], b[0], atol=1e-6, equal_nan=True)
        for a, b in ((before.rows, behind.rows), (before.columns, behind.columns))
    )


def _lost(step: Step, what: str, inner: Node | None = None) -> Lost:
    where = "" if inner is None else f" at {inner.op_type} node {inner.name!r}"
    if not what.startswith("has"):
        what += " that moves places, or whose places are not known"
    return step.lost(what + where, scattered=True)
