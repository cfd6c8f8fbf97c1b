"""Linear nodes of the classifier at a network's end, found on the one way back from the scores."""

from collections.abc import Iterator

from converters.graph import Graph, Node
from converters.graph.activations import find_activations
from converters.graph.operators import facts
from inspector.network.classifier.affine import is_constant
from inspector.network.classifier.scores import Scores

__all__ = ["last_linear", "way_back"]

_MAX_STEPS = 200


def last_linear(graph: Graph, scores: Scores) -> tuple[Node, str] | None:
    """The last linear node before the scores, and the tensor that it reads.

    Args:
        graph: The network.
        scores: Where its scores are.

    Returns:
        None where the network is not a classifier, or no linear node lies on the one way back.
    """
    if not scores.classifier:
        return None
    walked = way_back(graph, scores.tensor)
    return next(((node, read) for node, read in walked if facts(node).weighted), None)


def way_back(graph: Graph, tensor: str) -> Iterator[tuple[Node, str]]:
    """Nodes on the one way back from a tensor, and what each reads of it.

    An activation function counts as one step, however it is spelled. The way ends where computed
    tensors are joined.
    """
    before = {a.output: a.input for a in find_activations(graph) if a.input}
    for _ in range(_MAX_STEPS):
        node = graph.producer(tensor)
        source = None if node is None else before.get(tensor) or _only_input(graph, node)
        if node is None or source is None:
            return
        yield node, source
        tensor = source


def _only_input(graph: Graph, node: Node) -> str | None:
    """The one input that is computed from the image."""
    known = facts(node)
    if known.moves or known.quantised is not None:  # sizes may be computed
        return node.inputs[0]
    computed = [name for name in node.inputs[:2] if name and not is_constant(graph, name)]
    return computed[0] if len(computed) == 1 else None
