"""How a tensor holds its values: channels first or last, real numbers or integer levels.

Layers of two networks are compared as real numbers in (N, C, h, w); a network is started with
its own form of them.  Integer levels are what QLinearConv and its kind pass on.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.graph import Graph

__all__ = ["Form", "Levels", "levels_of"]

Array = np.ndarray[Any, Any]

_SCALE_AND_ZERO = {
    "QuantizeLinear": (1, 2),
    "QLinearConcat": (0, 1),
    "QLinearSigmoid": (3, 4),
    "QLinearLeakyRelu": (3, 4),
    "QLinearSoftmax": (3, 4),
    "QLinearAveragePool": (3, 4),
    "QLinearGlobalAveragePool": (3, 4),
    "QLinearReduceMean": (3, 4),
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7),
    "QGemm": (7, 8),
}
"""Inputs that name the scale and the zero point of an operator's output."""

_KEEPS_LEVELS = frozenset(
    {
        "MaxPool",
        "NhwcMaxPool",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Identity",
        "Pad",
    }
)


@dataclass(frozen=True)
class Levels:
    """real = scale * (level - zero).

    Attributes:
        scale: Of the whole tensor.
        zero: The level that stands for 0.
        dtype: Type of the levels.
    """

    scale: float
    zero: int
    dtype: str

    def real(self, levels: Array) -> Array:
        """Values that levels stand for, float32."""
        values: Array = (levels.astype(np.float64) - self.zero) * self.scale
        return values.astype(np.float32)

    def of(self, real: Array) -> Array:
        """The nearest levels, ties to even, cut off at the ends of the type."""
        ends = np.iinfo(self.dtype)
        found = np.rint(real.astype(np.float64) / self.scale) + self.zero
        levels: Array = np.clip(found, ends.min, ends.max).astype(self.dtype)
        return levels


@dataclass(frozen=True)
class Form:
    """The form of one tensor.

    Attributes:
        axis: Axis of the channels of a map, 1 or 3; tensors of other ranks are left as they are.
        levels: What its integers stand for; None for real numbers.
    """

    axis: int = 1
    levels: Levels | None = None

    def real(self, value: Array) -> Array:
        """Real numbers, maps as (N, C, h, w)."""
        if self.levels is not None and value.dtype.kind in "iu":
            value = self.levels.real(value)
        return value.transpose(0, 3, 1, 2) if value.ndim == 4 and self.axis == 3 else value

    def of(self, real: Array) -> Array:
        """The inverse of `real`, up to the rounding to levels."""
        value = real.transpose(0, 2, 3, 1) if real.ndim == 4 and self.axis == 3 else real
        return value if self.levels is None else self.levels.of(value)


def levels_of(graph: Graph, tensor: str) -> Levels | None:
    """Scale and zero point of a tensor of levels; None for any other tensor."""
    node = graph.producer(tensor)
    while node is not None and node.op_type in _KEEPS_LEVELS:
        node = graph.producer(node.inputs[0])
    places = _SCALE_AND_ZERO.get(node.op_type) if node is not None else None
    if node is None or places is None or len(node.inputs) <= places[1]:
        return None
    scale, zero = (graph.constant(node.inputs[place]) for place in places)
    if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
        return None
    if not float(scale.item()) > 0:
        return None
    return Levels(float(scale.item()), int(zero.item()), str(zero.dtype))
