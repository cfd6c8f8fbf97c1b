"""Tensors of a model that is not a classifier to be tried as targets: scores before coordinates."""

from converters.graph import Graph
from converters.graph.activations import find_activations
from converters.graph.operators import facts
from inspector.network.outputs.class_evidence import is_score_like

__all__ = ["candidates", "ends_as_features"]


_PROBABILITIES = {"Sigmoid", "HardSigmoid", "Softmax"}
"""Activations that end what is a probability, and no features."""


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


def ends_as_features(graph: Graph, output: str) -> bool:
    """Whether an output is what a layer of features ends in: an activation or a normalisation.

    Args:
        graph: The network.
        output: An output, or a tensor.
    """
    activated = {one.output: one.kind for one in find_activations(graph)}
    seen: set[str] = set()
    while output not in seen:
        seen.add(output)
        node = graph.producer(output)
        if node is None:
            return False
        if output in activated:
            return activated[output] not in _PROBABILITIES
        known = facts(node)
        if not (known.copies or known.moves):
            return bool(known.normalises) and not known.scores
        output = node.inputs[0]
    return False


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
