"""Tensors of a model that is not a classifier to be tried as targets: scores before coordinates."""

from converters.graph import Graph
from converters.graph.operators import facts
from inspector.network.outputs.class_evidence import is_score_like

__all__ = ["candidates"]


def candidates(graph: Graph) -> tuple[str, ...]:
    """Tensors whose largest element may stand for the model, best first.

    First what a sigmoid or softmax of an output is taken of, also where it is put together with
    boxes; then the outputs themselves, those that are called scores first and coordinates last.

    Args:
        graph: The network.
    """
    outputs = list(graph.outputs)
    before = [name for output in outputs for name in _before_scoring(graph, output)]
    ordered = sorted(outputs, key=lambda name: -is_score_like(name))
    return tuple(dict.fromkeys([*before, *ordered]))


def _before_scoring(graph: Graph, output: str) -> list[str]:
    found, seen, waiting = [], {output}, [output]
    while waiting:
        node = graph.producer(waiting.pop(0))
        if node is None:
            continue
        known = facts(node)
        if known.scores:
            found.append(node.inputs[0])
        elif known.copies or known.moves or known.joins:
            for name in node.inputs:
                if name and name not in seen and graph.constant(name) is None:
                    seen.add(name)
                    waiting.append(name)
    return found
