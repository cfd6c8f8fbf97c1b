"""Tail of a network: the nodes behind a layer, and what they read from elsewhere."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from converters.graph import Graph, Node
from inspector.network.quantisation.levels import copies_of

__all__ = ["Tail", "depends_on", "tail_of"]


@dataclass(frozen=True)
class Tail:
    """Nodes between some tensors and a target.

    Attributes:
        nodes: Nodes that depend on the start and that the target depends on, in order.
        frontier: Tensors that those nodes read, that depend on no start tensor and are not
            constant: skip connections that pass the layer by.  Their values come from the
            forward pass, so that only the nodes of the tail run again.
    """

    nodes: tuple[Node, ...]
    frontier: tuple[str, ...]

    @property
    def connected(self) -> bool:
        """Whether the target depends on the start at all."""
        return bool(self.nodes)


def tail_of(graph: Graph, start: Collection[str], target: str) -> Tail:
    """Find the tail from ``start`` to ``target``.

    Args:
        graph: The network.
        start: Names of the tensors to start from, usually one layer.
        target: Name of the tensor to reach.

    Returns:
        The tail; it has no nodes when the target does not depend on the start.
    """
    live, downstream = set(start), []
    for node in graph.nodes:
        if any(name in live for name in graph.reads(node)) and not set(node.outputs) <= set(start):
            live.update(name for name in node.outputs if name and name not in start)
            downstream.append(node)
    needed, nodes = {target}, []
    for node in reversed(downstream):
        if any(name in needed for name in node.outputs):
            needed.update(name for name in graph.reads(node) if name)
            nodes.append(node)
    nodes.reverse()
    read = dict.fromkeys(name for node in nodes for name in graph.reads(node) if name)
    variable = _depends_on_input(graph)
    frontier = tuple(name for name in read if name not in live and name in variable)
    return Tail(tuple(nodes), frontier)


def depends_on(graph: Graph, target: str) -> Callable[[str], bool]:
    """What tells whether a target is computed from a tensor, or from a copy of it.

    As ``tail_of(graph, copies_of(graph, tensor), target).connected``, by one walk for all tensors.

    Args:
        graph: The network.
        target: Name of the tensor to reach.
    """
    known = {name for node in graph.nodes_before([target]) for name in graph.reads(node) if name}

    def depends(tensor: str) -> bool:
        copies = copies_of(graph, tensor)
        return target not in copies and not known.isdisjoint(copies)

    return depends


def _depends_on_input(graph: Graph) -> set[str]:
    variable = set(graph.inputs)
    for node in graph.nodes:
        if any(name in variable for name in graph.reads(node)):
            variable.update(node.outputs)
    variable.discard("")
    return variable
