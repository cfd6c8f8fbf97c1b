"""Axes of space of a network: one of a signal, two of a picture, three of a volume.

Inside the package every sample is a plane (C, H, W).  A signal (C, L) is the plane (C, 1, L), and a
volume (C, D, H, W) the plane (C, D H, W) whose slices lie below each other; formulas that look at
places one by one, or at all of them together, are then the same for all three.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from converters.graph import Graph
from converters.graph.operators import facts

__all__ = [
    "KINDS",
    "first_convolution",
    "own_shape",
    "plane",
    "size_text",
    "space_axes",
    "unfolded",
]

Array = np.ndarray[Any, Any]

KINDS = {1: "signals", 2: "pictures", 3: "volumes"}
"""What a network of one, two or three axes of space takes."""


def first_convolution(graph: Graph, tensor: str) -> tuple[int, int] | None:
    """Axes of space and input channels of the first convolution behind a tensor; None without."""
    seen, waiting = {tensor}, [tensor]
    while waiting:
        for node in graph.consumers(waiting.pop(0)):
            known = facts(node)
            if known.convolves and known.weights is not None:
                weights = graph.constant(node.inputs[known.weights])
                if weights is None or weights.ndim not in {3, 4, 5}:
                    return None
                axis = weights.ndim - 1 if known.channels_last else 1
                channels = int(weights.shape[axis]) * int(node.attributes.get("group", 1))
                return weights.ndim - 2, channels
            new = [name for name in node.outputs if name and name not in seen]
            seen.update(new)
            waiting += new
    return None


_FOUND: WeakKeyDictionary[Graph, int] = WeakKeyDictionary()


def space_axes(graph: Graph) -> int:
    """Axes of space of a network: 1 or 3 where its input and first convolution have them, else 2.

    Other convolutions inside do not count: a channel gate of a picture's network may have one of
    one axis.
    """
    if graph not in _FOUND:
        _FOUND[graph] = 2
        for value in graph.inputs.values():
            rank = 0 if value.shape is None else len(value.shape)
            found = first_convolution(graph, value.name) if rank in {3, 5} else None
            if found is not None and found[0] == rank - 2:
                _FOUND[graph] = rank - 2
    return _FOUND[graph]


def plane(value: Array) -> Array:
    """(N, C, L) as (N, C, 1, L), and (N, C, D, H, W) as (N, C, D H, W); others as they are."""
    if value.ndim == 3:
        return value[:, :, None]
    if value.ndim == 5:
        return value.reshape(*value.shape[:2], -1, value.shape[4])
    return value


def unfolded(value: Array, sizes: Sequence[int]) -> Array:
    """The inverse of ``plane``: (..., H, W) as (..., *sizes)."""
    return value.reshape(*value.shape[:-2], *sizes)


def own_shape(size: tuple[int, int], space: int, depth: int) -> tuple[int, ...]:
    """Sizes along the axes of space, of a plane of the size (H, W).

    Args:
        size: Height and width of the plane.
        space: Number of axes of space.
        depth: Number of slices D of a volume.
    """
    if space == 1:
        return (size[1],)
    return size if space == 2 else (depth, size[0] // depth, size[1])


def size_text(shape: Sequence[int | None]) -> str:
    """Sizes as a text: ``7x7``."""
    return "x".join("?" if axis is None else str(axis) for axis in shape)
