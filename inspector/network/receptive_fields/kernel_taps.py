"""Taps of a convolution's kernel that carry weight: a kernel that shifts its map is seen here.

A convolution is taken to look at the middle of its window.  Of a kernel whose weights lie to one
side (a shift, a causal mask, a picture moved by an exporter) that is not where it looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.graph import Graph, Node
from converters.graph.operators import facts
from inspector.network.classifier.affine import folded, is_constant

__all__ = ["Taps", "taps_along"]

Array = np.ndarray[Any, np.dtype[np.float64]]

_FAR = 1.0
"""Taps that filters of one convolution may lie from the middle and still be one place."""

_ASIDE = 0.5
"""Taps, beyond the spread of its weights, that a kernel without zeros lies aside of its middle."""


@dataclass(frozen=True)
class Taps:
    """Taps of one kernel that are used, along one axis of space.

    Attributes:
        centres: Middle of the used taps, in taps from the first: (1,), or (M,) for M filters that
            look at places far apart.
        first: First used tap.
        last: Last used tap.
        aside: Whether they lie to one side.
    """

    centres: Array
    first: int
    last: int
    aside: bool


def taps_along(graph: Graph, node: Node, kernel: Sequence[int]) -> list[Taps]:
    """The used taps of a convolution or pooling along each axis of space.

    Args:
        graph: The graph.
        node: A node with a window.
        kernel: Its size along each axis of space.

    Example:
        >>> from onnx import parser
        >>> from converters.graph import Graph
        >>> text = '''<ir_version: 8, opset_import: ["" : 17]>
        ...   g (float[1,1,8,8] x) => (float[1,1,8,8] y)
        ...   <float[1,1,3,1] w = {0, 0, 1}> { y = Conv<pads=[1,0,1,0]>(x, w) }'''
        >>> graph = Graph(parser.parse_model(text))
        >>> taps_along(graph, graph.nodes[0], [3, 1])[0].centres.tolist()
        [2.0]
    """
    found = [_all_of(k) for k in kernel]
    weights = _magnitudes(graph, node, kernel) if max(kernel, default=1) > 1 else None
    if weights is None:
        return found
    for axis, k in enumerate(kernel):
        if k > 1:
            others = tuple(a for a in range(1, weights.ndim) if a != axis + 1)
            found[axis] = _used(weights.sum(others, dtype=np.float64))
    return found


def _all_of(kernel: int) -> Taps:
    return Taps(np.array([(kernel - 1) / 2]), 0, kernel - 1, aside=False)


def _used(each: Array) -> Taps:
    """Taps that are used, from the weight (M, k) of each filter at each."""
    total, middle = each.sum(0), (each.shape[1] - 1) / 2
    used = np.flatnonzero(total > 0)
    if not used.size or not np.isfinite(total).all():
        return _all_of(each.shape[1])
    first, last = int(used[0]), int(used[-1])
    live = each[each.sum(1) > 0] > 0
    ends = live.argmax(1), live.shape[1] - 1 - live[:, ::-1].argmax(1)
    own = (ends[0] + ends[1]) / 2
    if np.abs(own - own.mean()).max() > _FAR:
        centres = np.full(len(each), middle)
        centres[each.sum(1) > 0] = own
        return Taps(centres, first, last, aside=True)
    centre = (first + last) / 2
    if centre == middle:  # nothing is zero: weights that nearly are may still tell
        at = np.arange(each.shape[1])
        heavy = float((total * at).sum() / total.sum())
        spread = float(np.sqrt((total * (at - heavy) ** 2).sum() / total.sum()))
        centre = heavy if abs(heavy - middle) > spread + _ASIDE else middle
    return Taps(np.array([centre]), first, last, aside=centre != middle)


def _magnitudes(graph: Graph, node: Node, kernel: Sequence[int]) -> Array | None:
    """Absolute weights with the filters first, (M, *kernel); None where they are not constant.

    A transposed convolution's filters lie along axis 1, in groups along axis 0.
    """
    position = facts(node).weights
    if position is None or not is_constant(graph, node.inputs[position]):
        return None
    try:
        weights = folded(graph, node.inputs[position])
        zero = {"QLinearConv": 5, "QLinearConvTranspose": 5, "ConvInteger": 3}.get(node.op_type)
        if zero is not None and zero < len(node.inputs) and node.inputs[zero]:
            level = folded(graph, node.inputs[zero])
            turned = node.op_type.endswith("Transpose")
            dims = [1] * weights.ndim
            dims[1 if turned else 0] = level.size
            weights = weights - level.reshape(dims)
    except ValueError:
        return None
    if weights.ndim != len(kernel) + 2 or weights.shape[2:] != tuple(kernel):
        return None
    if not node.op_type.endswith("ConvTranspose"):
        return np.asarray(np.abs(weights).sum(1))
    groups = int(node.attributes.get("group", 1))
    if weights.shape[0] % groups:
        return None
    split = np.abs(weights).reshape(groups, -1, *weights.shape[1:]).sum(1)
    return np.asarray(split.reshape(-1, *weights.shape[2:]))
