"""Normalisation that a model does by itself: does it expect pixels of 0..255, or of 0..1?

The first operators are composed to one factor and one offset.  Of the two ranges the one is meant
that they bring near 0, with a width that networks are trained on: (x - 0.485) / 0.229 makes
-2.1..2.2 of 0..1 and up to 1111 of 0..255.
"""

import math

import numpy as np

from converters.graph import Graph, Node
from converters.graph.operators import facts

__all__ = ["expected_range"]

_STEPS = 16

_USUAL_WIDTH = 2.0
_NARROWEST, _WIDEST = 0.2, 300.0
"""Widths of the range behind the normalisation that are believed; raw pixels less a mean: 255."""


def expected_range(graph: Graph, tensor: str) -> tuple[str, str] | None:
    """The preset that a model's own normalisation asks for, and its first operator.

    Args:
        graph: The graph.
        tensor: The image input.

    Returns:
        ``raw`` or ``unit``; None where the model does not normalise, or leaves both open.
    """
    factor, offset, first = 1.0, 0.0, ""
    for _ in range(_STEPS):
        users = [n for n in graph.consumers(tensor) if not n.is_op("Shape", "Size")]
        if len(users) != 1:
            break
        (node,) = users
        if not (facts(node).copies or node.is_op("Transpose", "Cast")):
            step = _step(graph, node, tensor)
            if step is None:
                break
            factor, offset = step[0] * factor, step[0] * offset + step[1]
            first = first or node.op_type
            if node.is_op("BatchNormalization"):
                break
        tensor = node.outputs[0]
    if not first:
        return None
    fits = {
        preset: misfit
        for preset, white in (("raw", 255.0), ("unit", 1.0))
        if (misfit := _misfit(offset, offset + factor * white)) is not None
    }
    return (min(fits, key=lambda preset: fits[preset]), first) if fits else None


def _misfit(black: float, white: float) -> float | None:
    """How far a range is from a usual one; None where it is none."""
    width = abs(white - black)
    if not _NARROWEST <= width <= _WIDEST:
        return None
    near = min(black, white) - width / 2 <= 0 <= max(black, white) + width / 2
    return abs(math.log(width / _USUAL_WIDTH)) if near else None


def _step(graph: Graph, node: Node, tensor: str) -> tuple[float, float] | None:
    """Factor and offset of a node on a tensor, averaged over channels."""
    if node.is_op("BatchNormalization"):
        known = [graph.constant(name) for name in node.inputs[1:5]]
        scale, shift, mean, variance = (None, None, None, None) if len(known) != 4 else known
        if scale is None or shift is None or mean is None or variance is None:
            return None
        factors = scale / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
        return float(np.mean(np.abs(factors))), float(np.mean(shift - factors * mean))
    if not node.is_op("Add", "Sub", "Mul", "Div") or list(node.inputs).count(tensor) != 1:
        return None
    place = list(node.inputs).index(tensor)
    value = graph.constant(node.inputs[1 - place])
    if value is None or value.dtype.kind not in "fiu" or not value.size:
        return None
    number = float(np.mean(value))
    if node.is_op("Add"):
        return 1.0, number
    if node.is_op("Sub"):
        return (1.0, -number) if place == 0 else (-1.0, number)
    if node.is_op("Mul"):
        return number, 0.0
    return (1 / number, 0.0) if place == 0 and number else None
