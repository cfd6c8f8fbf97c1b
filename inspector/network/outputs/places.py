"""Places of an output's rows and pixels on the image.

Whether the rows of a table (T, K) are steps along the image, places of a grid, or heads of their
own, its shape does not say: 26 rows are the steps of one reader and the slots of another.  The
places of its units, traced forward from the image, do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.network.coordinates.units import Lost, Placed, State, merged

__all__ = ["Steps", "is_on_image", "steps_along"]

Array = np.ndarray[Any, Any]

_RECURRENT = {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}


@dataclass(frozen=True, eq=False)
class Steps:
    """Where the rows of a table lie on the image.

    Attributes:
        columns: Column of each row's centre, (T,) in pixels; None where all are at one.
        rows: Row of the image of each row's centre alike.
    """

    columns: Array | None
    rows: Array | None

    @property
    def line(self) -> Array | None:
        """Centres along the one axis of the image on which they go on and on; None without one."""
        one = self.columns if self.rows is None else self.rows if self.columns is None else None
        if one is None or len(one) < 2:
            return None
        steps = np.diff(one)
        return one if bool((steps > 0).all() or (steps < 0).all()) else None

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the grid that they go through line by line; None without one."""
        if self.rows is None or self.columns is None:
            return None
        shape = len(np.unique(self.rows.round(2))), len(np.unique(self.columns.round(2)))
        if shape[0] * shape[1] != len(self.rows) or min(shape) < 2:
            return None
        rows, columns = self.rows.reshape(shape), self.columns.reshape(shape)
        even = np.allclose(rows, rows[:, :1]) and np.allclose(columns, columns[:1])
        upright = (np.diff(rows[:, 0]) > 0).all() and (np.diff(columns[0]) > 0).all()
        return shape if even and bool(upright) else None

    @property
    def placed(self) -> bool:
        """Whether any of them has a place of its own."""
        return self.columns is not None or self.rows is not None


def steps_along(
    places: Callable[[str], State | None], tensor: str, axis: int, count: int
) -> Steps | None:
    """Where the units of a tensor lie along one of its axes.

    A recurrent network reads its input step by step: what it says of a step stands at the step.

    Args:
        places: From a tensor to the places of its units.
        tensor: The table.
        axis: The axis, counted from the end.
        count: How many units it has.

    Returns:
        None where it is not known, or where another axis but that of the samples has places too.
    """
    state = places(tensor)
    seen = {tensor}
    while isinstance(state, Lost) and state.node.op_type in _RECURRENT:
        node = state.node
        axis = 1 if node.attributes.get("layout", 0) else 0  # (T, N, C), or (N, T, C)
        if node.inputs[0] in seen:
            return None
        seen.add(node.inputs[0])
        state = places(node.inputs[0])
        if isinstance(state, Placed) and len(state.shape) == 3:  # each step takes all its features
            state = state.map(state.shape, lambda c: merged(c, (3,)) if c.shape[3] > 1 else c)
    if not isinstance(state, Placed) or not -len(state.shape) <= axis < len(state.shape):
        return None
    axis %= len(state.shape)
    if state.shape[axis] != count:
        return None
    rank = len(state.shape)
    rows, columns = (_along(one, axis, rank) for one in (state.rows, state.columns))
    if rows is None or columns is None:
        return None
    return Steps(columns if columns.size else None, rows if rows.size else None)


def is_on_image(places: Callable[[str], State | None], tensor: str, axes: tuple[int, int]) -> bool:
    """Whether two axes of a tensor can be the rows and the columns of the image.

    Args:
        places: From a tensor to the places of its units.
        tensor: The map.
        axes: Its height and width, counted from the end.

    Returns:
        False where it is known that one of them does not follow the image.
    """
    state = places(tensor)
    if not isinstance(state, Placed) or len(state.shape) < -min(axes):
        return True
    return all(
        coordinate.shape[axis] > 1
        for coordinate, axis in zip((state.rows, state.columns), axes, strict=True)
    )


def _along(coordinate: Array, axis: int, rank: int) -> Array | None:
    """Centres along an axis, empty where all are one; None where other axes have places too.

    Args:
        coordinate: (3, ...): centre, first and last pixel.
        axis: The axis.
        rank: Number of axes of the tensor.
    """
    varying = {a for a in range(rank) if coordinate.shape[a + 1] > 1}
    if varying - {axis}:
        return None
    centres = coordinate[0].reshape(-1)
    if axis not in varying or np.allclose(centres, centres[0], equal_nan=True):
        return np.zeros(0)
    return centres if bool(np.isfinite(centres).all()) else None
