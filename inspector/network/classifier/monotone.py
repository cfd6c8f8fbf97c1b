"""Steps that change a probability's number and not its order: 100 p, 1 - p, log p, a clamp.

Exporters and authors write percentages, "normal" instead of "diseased", and bounds that keep a
logarithm finite behind the last activation.  What the number says is said by the score before it.
"""

from typing import NamedTuple

import numpy as np

from converters.graph import Graph, Node
from converters.graph.operators import facts

__all__ = ["Monotone", "monotone"]

_SMALL = 1e-3
"""What is added to keep a logarithm finite."""


class Monotone(NamedTuple):
    """A monotone function of one tensor, element by element.

    Attributes:
        tensor: The tensor.
        sign: -1 where the function falls.
        bounded: It makes a probability, or its logarithm, of a probability; a factor or an offset
            makes another quantity of it, such as an age.
    """

    tensor: str
    sign: int = 1
    bounded: bool = True


def monotone(graph: Graph, node: Node) -> Monotone | None:
    """What a node is a monotone function of.

    Args:
        graph: The graph.
        node: Any node.

    Returns:
        None where elements are moved, changed by different numbers, or joined with others.
    """
    if node.is_op("Clip", "Log") or facts(node).copies:
        return Monotone(node.inputs[0])
    if node.is_op("Neg"):
        return Monotone(node.inputs[0], -1, bounded=False)
    if not node.is_op("Add", "Sub", "Mul", "Div"):
        return None
    known = [_number(graph, name) for name in node.inputs]
    for place, other in ((0, known[1]), (1, known[0])):
        if known[place] is None and other is not None:
            return _arithmetic(node, place, other)
    return None


def _arithmetic(node: Node, place: int, other: float) -> Monotone | None:
    """A computed tensor at one input, and a number at the other."""
    name = node.inputs[place]
    if node.is_op("Add", "Sub"):
        if place == 1 and node.is_op("Sub"):
            return Monotone(name, -1, bounded=other == 1)
        return Monotone(name, bounded=abs(other) <= _SMALL)
    if other == 0 or (node.is_op("Div") and place == 1):
        return None
    return Monotone(name, 1 if other > 0 else -1, bounded=other == 1)


def _number(graph: Graph, name: str) -> float | None:
    """The one number that a constant holds; None of a tensor that is computed, or of several."""
    value = graph.constant(name)
    if value is None or value.dtype.kind not in "fiu" or value.size != 1:
        return None
    number = float(value.ravel()[0])
    return number if np.isfinite(number) else None
