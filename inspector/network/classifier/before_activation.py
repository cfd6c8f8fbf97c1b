"""The score behind a named probability: an element followed back through what only carries it.

An element of a tensor that ends in a softmax or a sigmoid is explained by the element before it,
because behind the activation the gradient vanishes on confident images (Selvaraju et al. 2017,
section 3.1).  The index is followed through copies, reshapes, transposes, joins, selections and
what keeps or turns round the order of numbers, such as ``1 - p`` and ``100 p``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.graph import Graph, Node
from converters.graph.operators import facts
from inspector.network.classifier.monotone import monotone
from inspector.network.classifier.scores import INTEGERS, activation_of, before_rounding
from inspector.network.receptive_fields.graph_extents import GraphExtents

__all__ = ["Before", "Index", "Stuck", "before_activation", "final_activation"]

Index = tuple[int | slice, ...]
"""Where in one sample: integers and slices; axes left out at the end are whole."""

ShapeOf = Callable[[str], Sequence[int] | None]

_MAX_STEPS = 64

_OVER_CLASSES = ("softmax", "log_softmax")
"""Activations of which a multiple is a percentage; one of a sigmoid may be an age."""


@dataclass(frozen=True)
class Before:
    """The element before a final activation.

    Attributes:
        tensor: The tensor before the activation.
        index: The element in it.
        activation: ``softmax``, ``sigmoid``, ``log_softmax`` or ``hard_sigmoid``.
        node: The activation's node, ``OPERATOR 'name'``.
        sign: -1 where the named element falls as the probability rises.
    """

    tensor: str
    index: Index
    activation: str
    node: str
    sign: int = 1


@dataclass(frozen=True)
class Stuck:
    """An activation lies before the element, but the way to it cannot be followed.

    Attributes:
        node: The node that cannot be followed, ``OPERATOR 'name'``.
        activation: The activation's node.
    """

    node: str
    activation: str


@dataclass(frozen=True)
class _At:
    tensor: str
    index: Index
    sign: int = 1
    bounded: bool = True


def before_activation(
    graph: Graph, tensor: str, index: Index, shape_of: ShapeOf
) -> Before | Stuck | None:
    """Follow an element back to the softmax or sigmoid that it ends in.

    Args:
        graph: The graph.
        tensor: The tensor that is named.
        index: The element of one sample.
        shape_of: Shape of one sample of a tensor; None where it is not known.

    Returns:
        The element before the activation; None where there is no activation.
    """
    at = _At(tensor, index)
    for _ in range(_MAX_STEPS):
        at = replace(at, tensor=before_rounding(graph, at.tensor))
        node = graph.producer(at.tensor)
        if node is None:
            return None
        found = _final(graph, node)
        if found is not None:
            if not at.bounded and found[0] not in _OVER_CLASSES:
                return None  # an age or a depth, which a sigmoid keeps in its range
            inner = before_rounding(graph, found[1])
            return Before(inner, at.index, found[0], _named(node), at.sign)
        if not _carries(graph, node):
            return None
        step = _step(graph, node, at, shape_of)
        if step is None:
            ends = next(filter(None, (final_activation(graph, name) for name in node.inputs)), "")
            return Stuck(_named(node), ends) if ends else None
        at = step
    return None


def _final(graph: Graph, node: Node) -> tuple[str, str] | None:
    if node.is_op("HardSigmoid"):
        return "hard_sigmoid", node.inputs[0]
    return activation_of(graph, node)


def _carries(graph: Graph, node: Node) -> bool:
    """Whether a node only moves values, joins tensors, or keeps or turns round their order."""
    if node.is_op("Cast"):
        return node.attributes.get("to") not in INTEGERS
    known = facts(node)
    moves = known.copies or known.moves or known.reshapes or known.joins
    return moves or monotone(graph, node) is not None


def _step(graph: Graph, node: Node, at: _At, shape_of: ShapeOf) -> _At | None:
    """The same element in the node's input; None where it cannot be followed."""
    turned = monotone(graph, node)
    if turned is not None:
        bounded = at.bounded and turned.bounded
        return _At(turned.tensor, at.index, at.sign * turned.sign, bounded)
    source = node.inputs[0]
    if node.is_op("Transpose"):
        index = _transposed(node.attributes.get("perm"), at.index)
        return None if index is None else replace(at, tensor=source, index=index)
    before, behind = shape_of(source), shape_of(at.tensor)
    if node.is_op("Concat"):
        return _part(node, at, behind, shape_of)
    if before is None or behind is None:
        return None
    if node.is_op("Gather"):
        index = _gathered(graph, node, at.index, before)
    elif node.is_op("Slice"):
        index = _sliced(GraphExtents(graph), node, at.index, before)
    else:
        index = _reshaped(at.index, tuple(behind), tuple(before)) if _reshapes(node) else None
    return None if index is None else replace(at, tensor=source, index=index)


def _reshapes(node: Node) -> bool:
    return facts(node).reshapes


def _gathered(graph: Graph, node: Node, index: Index, before: Sequence[int]) -> Index | None:
    """The index before constant places of one axis were chosen."""
    chosen, axis = graph.constant(node.inputs[1]), int(node.attributes.get("axis", 0))
    place = (axis if axis >= 0 else axis + len(before) + 1) - 1  # among the axes of one sample
    if chosen is None or chosen.ndim > 1 or place < 0:
        return None
    whole = (*index, *(slice(None) for _ in range(len(before) - (chosen.ndim == 0) - len(index))))
    if chosen.ndim == 0:
        return (*whole[:place], int(chosen) % before[place], *whole[place:])
    wanted = whole[place]
    if not isinstance(wanted, int):
        return None
    return (*whole[:place], int(chosen[wanted]) % before[place], *whole[place + 1 :])


def _sliced(net: GraphExtents, node: Node, index: Index, before: Sequence[int]) -> Index | None:
    """The index before an axis was cut at constant places."""
    starts, ends = net.ints(node, 1, "starts"), net.ints(node, 2, "ends")
    if starts is None or ends is None:
        return None
    axes = net.ints(node, 3, "axes") or list(range(len(starts)))
    steps = net.ints(node, 4, "steps") or [1] * len(starts)
    found = [*index, *(slice(None) for _ in range(len(before) - len(index)))]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = (axis if axis >= 0 else axis + len(before) + 1) - 1
        if place < 0:
            return None
        kept, wanted = range(before[place])[start:end:step], found[place]
        if len(kept) == before[place] and step == 1:
            continue
        if not isinstance(wanted, int) or not -len(kept) <= wanted < len(kept):
            return None
        found[place] = kept[wanted]
    return tuple(found)


def _transposed(perm: Sequence[int] | None, index: Index) -> Index | None:
    if perm is None or perm[0] != 0 or len(index) >= len(perm):
        return None
    whole = (*index, *(slice(None) for _ in range(len(perm) - 1 - len(index))))
    found: list[int | slice] = [slice(None)] * len(whole)
    for place, axis in enumerate(perm[1:]):
        found[axis - 1] = whole[place]
    return tuple(found)


def _part(node: Node, at: _At, shape: Sequence[int] | None, shape_of: ShapeOf) -> _At | None:
    """The joined tensor in which an element lies."""
    if shape is None:
        return None
    axis = int(node.attributes.get("axis", 0))
    place = (axis if axis >= 0 else axis + len(shape) + 1) - 1
    wanted = at.index[place] if 0 <= place < len(at.index) else None
    if not isinstance(wanted, int):
        return None
    left = wanted if wanted >= 0 else wanted + shape[place]
    for name in node.inputs:
        own = shape_of(name)
        if own is None or len(own) != len(shape):
            return None
        if left < own[place]:
            index = (*at.index[:place], left, *at.index[place + 1 :])
            return replace(at, tensor=name, index=index)
        left -= own[place]
    return None


def _reshaped(index: Index, behind: tuple[int, ...], before: tuple[int, ...]) -> Index | None:
    """The index before a reshape; None for a slice whose axis does not survive."""
    if len(index) > len(behind) or math.prod(behind) != math.prod(before):
        return None
    whole = (*index, *(slice(None) for _ in range(len(behind) - len(index))))
    if all(isinstance(part, int) for part in whole):
        places = [int(p) % n for p, n in zip(whole, behind, strict=True)]  # type: ignore[arg-type]
        flat = int(np.ravel_multi_index(places, behind)) if behind else 0
        return tuple(int(i) for i in np.unravel_index(flat, before)) if before else ()
    wide = [part for part, size in zip(whole, behind, strict=True) if size != 1]
    if [n for n in behind if n != 1] != [n for n in before if n != 1]:
        return None
    rest = iter(wide)
    return tuple(next(rest) if size != 1 else slice(None) for size in before)


def final_activation(graph: Graph, tensor: str) -> str:
    """The softmax or sigmoid that a tensor ends in, whichever element is asked for.

    Args:
        graph: The graph.
        tensor: The tensor.

    Returns:
        ``OPERATOR 'name'``; empty where there is none.
    """
    todo, seen = [(tensor, True)], set[str]()
    while todo and len(seen) < _MAX_STEPS:
        name, bounded = todo.pop()
        name = before_rounding(graph, name)
        node = None if name in seen else graph.producer(name)
        seen.add(name)
        if node is None:
            continue
        found = _final(graph, node)
        if found is not None and (bounded or found[0] in _OVER_CLASSES):
            return _named(node)
        if found is None and _carries(graph, node):
            turned = monotone(graph, node)
            if turned is None:
                todo += [(one, bounded) for one in node.inputs]
            else:
                todo.append((turned.tensor, bounded and turned.bounded))
    return ""


def _named(node: Node) -> str:
    return f"{node.op_type} {node.name!r}"
