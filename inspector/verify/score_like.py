"""Tensors of a model that is not a classifier to be tried as targets: scores before coordinates."""

import re

from converters.graph import Graph

__all__ = ["candidates"]

_MOVES = (
    "Concat",
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Cast",
    "Slice",
    "Split",
    "Gather",
)
"""Operators that move values and change none."""

_SCORING = ("Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax")

_PLACES = re.compile(r"box|coord|loc|offset|anchor|landmark|point|dist|reg", re.IGNORECASE)
"""Names of outputs that say where, not how sure."""


def candidates(graph: Graph) -> tuple[str, ...]:
    """Tensors whose largest element may stand for the model, best first.

    First what a sigmoid or softmax of an output is taken of, also where it is put together with
    boxes; then the outputs themselves, those that are called coordinates last.

    Args:
        graph: The network.
    """
    outputs = list(graph.outputs)
    before = [name for output in outputs for name in _before_scoring(graph, output)]
    ordered = sorted(outputs, key=lambda name: bool(_PLACES.search(name)))
    return tuple(dict.fromkeys([*before, *ordered]))


def _before_scoring(graph: Graph, output: str) -> list[str]:
    found, seen, waiting = [], {output}, [output]
    while waiting:
        node = graph.producer(waiting.pop(0))
        if node is None:
            continue
        if node.is_op(*_SCORING):
            found.append(node.inputs[0])
        elif node.is_op(*_MOVES):
            for name in node.inputs:
                if name and name not in seen and graph.constant(name) is None:
                    seen.add(name)
                    waiting.append(name)
    return found
