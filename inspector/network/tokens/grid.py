"""Token grids: which places of the image the tokens (N, T, C) of a transformer stand for.

Nothing is guessed from T: the places of the tokens are traced forward from the image, through the
patch convolution, the reshapes and the attention blocks (`inspector.network.coordinates.traced`).
Tokens without a place (class, distillation and register tokens) are extra; the others must form
one grid of h rows and w columns, each place once, in whatever order the network keeps them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inspector.errors import MethodRefused
from inspector.network.coordinates.units import Lost, Placed, State, squeezed

__all__ = ["Tokens", "channels_last", "tokens_of"]

Array = np.ndarray[Any, Any]

_DECIMALS = 3
"""Decimals of a pixel to which places are compared."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Grid that the tokens of one tensor form.

    Attributes:
        index: (h, w), the token at each place of the grid.
        count: Number T of all tokens.
        axis: Axis of the tokens: 1 of (N, T, C), 2 of (N, C, T), or 0 of (T, N, C), which is held
            image by image as (N, T, 1, C).
    """

    index: Array
    count: int
    axis: int = 1

    @property
    def extra(self) -> int:
        """Number of tokens that stand for no place: class, distillation, registers."""
        return self.count - int(self.index.size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return int(self.index.shape[0]), int(self.index.shape[1])

    def channels(self, shape: Sequence[int]) -> int:
        """Number C of channels of a tensor of one image, by its shape as the graph holds it."""
        return int(shape[1 if self.axis == 2 else 2])

    def read(self, value: Array) -> Array:
        """The grid as a map (N, C, h, w), of a tensor (N, T, C); extra tokens are left out.

        Raises:
            MethodRefused: The tensor has another number of tokens.
        """
        if self.axis == 0 and value.ndim == 4 and value.shape[2] == 1:
            value = value[:, :, 0]
        along = max(self.axis, 1)
        if value.ndim != 3 or value.shape[along] != self.count:
            raise MethodRefused(
                f"the layer of shape {list(value.shape)} has not the {self.count} tokens that were "
                "traced",
                hint="gradient and occlusion need no layer",
            )
        value = value if along == 1 else value.transpose(0, 2, 1)
        picked = value[:, self.index.reshape(-1)]
        return picked.transpose(0, 2, 1).reshape(len(value), -1, *self.grid)

    def write(self, maps: Array, like: Array) -> Array:
        """The inverse of ``read``: a tensor like another one, with other values on the grid.

        Args:
            maps: (N, C, h, w).
            like: (N, T, C), whose extra tokens are kept.
        """
        if self.axis == 0:
            return replace(self, axis=1).write(maps, like[:, :, 0])[:, :, None]
        found = np.array(like if self.axis == 1 else like.transpose(0, 2, 1))
        flat = maps.reshape(*maps.shape[:2], -1).transpose(0, 2, 1)
        found[:, self.index.reshape(-1)] = flat
        return found if self.axis == 1 else found.transpose(0, 2, 1)

    def laid(self, state: Placed) -> Placed:
        """Places of the map that ``read`` gives, from those of the tensor."""

        def change(coordinate: Array) -> Array:
            along = np.broadcast_to(_along(coordinate, self.axis), (3, self.count))
            return squeezed(along[:, self.index][:, None, None])

        return state.map((1, 1, *self.grid), change)


def tokens_of(state: State | None, tensor: str) -> Tokens:
    """The grid of a tensor (N, T, C).

    Args:
        state: Places of its units, from ``Coordinates.of``.
        tensor: Its name, for messages.

    Raises:
        MethodRefused: The tokens stand for no places that are known, or for none that form one
            grid.
    """
    if not isinstance(state, Placed):
        lost = state if isinstance(state, Lost) else None
        raise _refused(
            "its tokens do not depend on the image"
            if lost is None
            else f"which place each of its tokens stands for is not known: node "
            f"{lost.node.name or lost.node.op_type!r} {lost.why}",
            tensor,
        )
    if len(state.shape) != 3:
        raise _refused(f"shape {list(state.shape)} is not (N, T, C)", tensor)
    axes = {axis for c in (state.rows, state.columns) for axis in range(3) if c.shape[axis + 1] > 1}
    first = axes == {0} and state.shape[1] == 1  # (T, N, C), of one image
    if (axes - {1, 2} or len(axes) != 1) and not first:
        why = (
            "parts of each image are rows of its batch"
            if 0 in axes
            else "no axis of it follows the image"
            if not axes
            else "its tokens and its channels both follow places of the image"
        )
        raise _refused(why, tensor)
    axis = axes.pop()
    count = state.shape[axis]
    rows, columns = (
        np.broadcast_to(_along(c, axis)[0], count) for c in (state.rows, state.columns)
    )
    return Tokens(_index(rows, columns, tensor), count, axis)


def channels_last(state: State | None) -> bool:
    """Whether a tensor of four axes is (N, h, w, C): rows and columns are its axes 1 and 2."""
    if not isinstance(state, Placed) or len(state.shape) != 4:
        return False
    varying = [
        {axis for axis in range(4) if c.shape[axis + 1] > 1} for c in (state.rows, state.columns)
    ]
    return varying == [{1}, {2}]


def _index(rows: Array, columns: Array, tensor: str) -> Array:
    """Token at each place of the grid that places (T,) form, (h, w).

    Raises:
        MethodRefused: They form none.
    """
    placed = np.flatnonzero(np.isfinite(rows) & np.isfinite(columns))
    down, at_row = np.unique(np.round(rows[placed], _DECIMALS), return_inverse=True)
    across, at_column = np.unique(np.round(columns[placed], _DECIMALS), return_inverse=True)
    size = (len(down), len(across))
    cells = at_row * len(across) + at_column
    if placed.size < 2 or placed.size != size[0] * size[1] or np.unique(cells).size != cells.size:
        raise _refused(
            f"{placed.size} of its {rows.size} tokens have a place, on {size[0]} rows and "
            f"{size[1]} columns: that is not one grid with each place once",
            tensor,
        )
    index = np.empty(placed.size, np.intp)
    index[cells] = placed
    return index.reshape(size)


def _along(coordinate: Array, axis: int) -> Array:
    """Places (3, T) along one axis of a coordinate that does not vary along the others."""
    return np.moveaxis(coordinate, axis + 1, -1).reshape(3, -1)


def _refused(why: str, tensor: str) -> MethodRefused:
    return MethodRefused(
        f"the tensor cannot be read as a map: {why}",
        where=repr(tensor),
        hint="`inspector layers` lists the layers; gradient and occlusion need none",
    )
