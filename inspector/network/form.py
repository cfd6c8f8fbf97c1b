"""Form of a tensor: where its channels are, and what its numbers stand for.

Whoever reads a map of features asks for (N, C, h, w) as real numbers.  A network may hold it with
channels last, as tokens (N, T, C), or as the integer levels of a quantiser; ``read`` brings it to
the common form and ``write`` takes it back, so that a network can be started from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from converters.graph import Graph
from inspector.errors import MethodRefused
from inspector.network.layers import channel_axes
from inspector.network.quantisation.levels import Levels, levels_of
from inspector.network.space import plane, space_axes
from inspector.network.tokens.grid import Tokens

__all__ = ["Form", "Forms"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Form:
    """Form in which a network holds one tensor.

    Attributes:
        axis: Axis of the channels of a map, 1 or the last; tensors of other ranks are left as they
            are.
        levels: What its integers stand for; None for real numbers.
        tokens: The grid that its tokens form; None for maps.
        space: Axes of space of the map. One of a signal (N, C, l) is read as the plane
            (N, C, 1, l), one of a volume (N, C, d, h, w) as (N, C, d h, w).
    """

    axis: int = 1
    levels: Levels | None = None
    tokens: Tokens | None = None
    space: int = 2

    def real(self, value: Array) -> Array:
        """Real numbers in the tensor's own layout; integers that are not levels stay integers."""
        if self.levels is None or value.dtype.kind not in "iu":
            return value
        return self.levels.read(value)

    def read(self, value: Array) -> Array:
        """Real numbers; a map as (N, C, h, w)."""
        value = self.real(value)
        if self.tokens is not None:
            return self.tokens.read(value)
        return self._plane(value)

    def write(self, real: Array, like: Array | None = None) -> Array:
        """The inverse of ``read``, up to the rounding to levels.

        Args:
            real: A map (N, C, h, w), or real numbers in the tensor's own layout.
            like: The tensor whose extra tokens are kept, and whose slices are taken; needed where
                there are tokens, and of volumes.
        """
        if self.tokens is not None and like is not None:
            value = self.tokens.write(real, self.real(like))
        elif self.space != 2 and like is not None and like.ndim == self.space + 2:
            sizes = like.shape[1:-1] if self._last else like.shape[2:]
            value = real.reshape(*real.shape[:2], *sizes)
            value = np.moveaxis(value, 1, -1) if self._last else value
        else:
            value = real.transpose(0, 2, 3, 1) if self._last and real.ndim == 4 else real
        return value if self.levels is None else self.levels.write(value)

    def read_gradient(self, signal: Array) -> Array:
        """Gradient with respect to the real numbers; that of a map as (N, C, h, w).

        Args:
            signal: Gradient with respect to what the tensor holds: its real numbers or levels.
        """
        if self.levels is not None:  # dS/dA = dS/dlevel / scale
            signal = signal / self.levels.steps(signal.ndim)
        if self.tokens is not None:
            return self.tokens.read(signal)
        return self._plane(signal)

    def require_known(self, value: Array, tensor: str) -> None:
        """Refuse integers that stand for nothing known.

        Args:
            value: What the tensor holds.
            tensor: Its name, for the message.

        Raises:
            MethodRefused: They are integers, and the file does not say of which scale.
        """
        known = self.levels is not None and value.dtype.kind in "iu"
        if value.dtype.kind not in "fV" and not known:  # V: bfloat16
            raise MethodRefused(
                f"the layer holds integers ({value.dtype}) whose scale is not known",
                where=repr(tensor),
                hint="choose one that `inspector layers` lists",
            )

    @property
    def _last(self) -> bool:
        return self.axis > 1

    def _plane(self, value: Array) -> Array:
        if value.ndim != self.space + 2:
            return value
        value = np.moveaxis(value, -1, 1) if self._last else value
        return value if self.space == 2 else plane(value)

    def cells(self, value: Array) -> tuple[int, ...]:
        """Places of a map along its axes of space: (l,), (h, w) or (d, h, w); those of tokens."""
        if self.tokens is not None:
            return self.tokens.grid
        found: tuple[int, ...] = value.shape[1:-1] if self._last else value.shape[2:]
        return found


class Forms:
    """Forms of all tensors of a graph.

    Args:
        graph: The network.
    """

    def __init__(self, graph: Graph) -> None:
        """Look nothing up yet."""
        self._graph = graph
        self._found: dict[str, Form] = {}

    @cached_property
    def _axes(self) -> Mapping[str, int]:
        return channel_axes(self._graph)

    def is_map(self, tensor: str) -> bool:
        """Whether the graph alone shows which axis of a tensor its channels are."""
        return tensor in self._axes

    def of(self, tensor: str) -> Form:
        """The form of one tensor, as far as the graph alone shows it."""
        if tensor not in self._found:
            levels = levels_of(self._graph, tensor)
            axis = self._axes.get(tensor, 1)
            self._found[tensor] = Form(axis, levels, space=space_axes(self._graph))
        return self._found[tensor]
