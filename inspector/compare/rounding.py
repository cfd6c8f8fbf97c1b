"""Rounding that a sound quantiser would add at one layer, from the float network's own numbers.

A layer's own error (``inspector.compare.parting``) is that of its rounded weights, of the levels
that its result is rounded to and, where its kernel reads levels, of its input.  Each rounding is
uniform noise of variance s^2 / 12, s being the step between two levels::

    result     s = (greatest - least value of A) / levels
    weights    s = greatest weight of the channel / levels, times the energy of what it is
               multiplied with
    input      s as for the result, times the energy of the weights

The steps are those that the values ask for, not those that the file states: a scale that is wrong
must not explain itself.  Calibration saw other photos, whose greatest values may be half as large
again, or too small by as much: up to there the file's own step counts, and what it cuts off is
expected.

Source: B. Widrow, I. Kollar, Quantization Noise, 2008 (uniform noise of rounding).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.graph import Graph, Node
from converters.graph.operators import facts
from inspector.compare.alignment import WEIGHTED, Point
from inspector.network.quantisation.levels import Levels, quantiser_behind

__all__ = ["Spread", "expected_rounding"]

Array = np.ndarray[Any, Any]

_UNIFORM = 12.0
"""Variance of a rounding is its step squared over this."""

_BEYOND = 1.5
"""How many times as large values of other photos may be than those of these, either way."""


@dataclass
class Spread:
    """Running range and energy of A's values at one point.

    Attributes:
        bottom: Least value that B's levels hold.
        top: Largest value that they hold.
        least: Smallest value, at most 0.
        most: Largest value, at least 0.
        energy: Mean square per channel, (C,); of the whole vector where there are no places.
        places: Places per channel.
        images: How many images were added.
        count: How many values were added.
        cut: Sum of the squares of what is cut off.
    """

    bottom: float = -math.inf
    top: float = math.inf
    least: float = 0.0
    most: float = 0.0
    energy: Array = field(default_factory=lambda: np.zeros(0))
    places: int = 1
    images: int = 0
    count: int = 0
    cut: float = 0.0

    @classmethod
    def at(cls, graph: Graph, tensor: str) -> "Spread":
        """An empty one for a tensor of B, with what its levels hold."""
        levels = quantiser_behind(graph, tensor)
        if levels is None:
            return cls()
        ends = (levels.scale * (end - levels.zero_point) for end in (levels.low, levels.high))
        low, high = ends
        return cls(float(low.max()), float(high.min()))

    def add(self, value: Array) -> None:
        """Take in one image's values (1, C, ...)."""
        if not value.size or not np.isfinite(value).all():
            return
        exact = value.astype(np.float64)
        self.least = min(self.least, float(exact.min()))
        self.most = max(self.most, float(exact.max()))
        own = np.square(
            exact.reshape(exact.shape[0] * (exact.shape[1] if exact.ndim > 1 else 1), -1)
        )
        mean = own.mean(1)
        if self.images and mean.shape != self.energy.shape:
            return
        over = exact - np.clip(exact, self.bottom, self.top)
        self.count += exact.size
        self.cut += float(np.square(over).sum())
        self.images += 1
        before = self.energy if self.energy.size else np.zeros_like(mean)
        self.energy = before + (mean - before) / self.images
        self.places = own.shape[1]

    @property
    def missed(self) -> float:
        """Mean square of what is cut off, where a sound calibration may have missed it; else 0."""
        ends = ((self.most, self.top), (-self.least, -self.bottom))
        if any(value > _BEYOND * max(end, 0.0) for value, end in ends if value > 0):
            return 0.0
        return self.cut / self.count if self.count else 0.0

    @property
    def square(self) -> float:
        """Mean square of all values."""
        return float(self.energy.mean()) if self.energy.size else 0.0


def expected_rounding(
    graph: Graph, points: Sequence[Point], spreads: Sequence[Spread]
) -> list[float | None]:
    """The relative own error that a sound quantiser would leave at each point.

    Args:
        graph: B's.
        points: Aligned tensors, in order.
        spreads: Range and energy of A's values at each of them.

    Returns:
        RMS relative to that of A's values; None where B does not quantise there, or not in a way
        that is understood.
    """
    levels = [quantiser_behind(graph, point.b) for point in points]
    steps: list[float] = []
    found = []
    for index, point in enumerate(points):
        own = levels[index]
        sources = [source for source in point.sources if source < index]
        step = 0.0 if own is None else _step(own, spreads[index])
        if own is not None and not point.learned_nodes:
            # Pooling and the like keep their input's levels, whose range may be wider.
            shared = [levels[source] for source in sources]
            kept = (at for at, one in zip(sources, shared, strict=True) if one and own.same(one))
            step = max((step, *(steps[at] for at in kept)))
        steps.append(step)
        inputs, square = _of_inputs(graph, point, points, spreads, steps), spreads[index].square
        variance = step**2 / _UNIFORM + spreads[index].missed + (inputs or 0.0)
        known = inputs is not None and variance > 0 and square > 0
        found.append(math.sqrt(variance / square) if known else None)
    return found


def _of_inputs(
    graph: Graph,
    point: Point,
    points: Sequence[Point],
    spreads: Sequence[Spread],
    steps: Sequence[float],
) -> float | None:
    """Variance that rounded weights, and inputs that are read as levels, add at a point.

    None where several layers lie behind one another, values are rounded between them, or a layer is
    of another kind.
    """
    rounded = [
        steps[source] ** 2 / _UNIFORM
        for source in point.sources
        if source < len(steps) and points[source].forms[1].levels is not None
    ]
    if not point.learned_nodes:
        return sum(rounded)
    weights = [_weights(graph, node) for node in point.learned_nodes]
    both = zip(weights, point.learned_nodes, strict=True)
    if any(one is None and _holds_levels(graph, node) for one, node in both):
        return None
    if not any(weights) and not rounded and not any(map(_integers, point.learned_nodes)):
        return 0.0
    (one, *more) = weights
    if one is None or more or len(point.sources) != 1 or _rounds_before(point):
        return None
    return one.noise(spreads[point.sources[0]]) + one.energy * sum(rounded)


def _rounds_before(point: Point) -> bool:
    """Whether values are rounded once more between a point's source and its layer."""
    layer = max(at for at, name in enumerate(point.operators) if name in WEIGHTED)
    return any(name.endswith("QuantizeLinear") for name in point.operators[:layer])


def _integers(node: Node) -> bool:
    """Whether a node multiplies levels rather than real numbers."""
    return facts(node).levels


def _step(levels: Levels, spread: Spread) -> float:
    """Step between two levels that hold the range of some values; the file's own where it is near.

    Calibration on other photos may have seen greater values.
    """
    count = float(levels.high - levels.low)
    middle = (levels.high + levels.low + 1) // 2
    if np.all(levels.zero_point == middle):
        step = 2 * max(-spread.least, spread.most) / count
    else:
        step = (spread.most - spread.least) / count
    return min(max(step, float(levels.scale.mean())), _BEYOND * step)


@dataclass(frozen=True)
class _Weights:
    """Weights of B with the step of each output channel.

    Attributes:
        values: (outputs, inputs of a group, ...).
        steps: Step per output channel, (outputs,).
        groups: Groups of channels.
    """

    values: Array
    steps: Array
    groups: int = 1

    @property
    def energy(self) -> float:
        """Sum of the squared weights per output, the mean over outputs."""
        return float(np.square(self.values).reshape(len(self.values), -1).sum(1).mean())

    def noise(self, source: Spread) -> float:
        """Variance that the rounding of the weights adds, the mean over the output channels."""
        window = float(np.prod(self.values.shape[2:]))
        inside = self.values.shape[1]
        groups, energy = self.groups, source.energy
        if energy.size == inside * groups:
            read = energy.reshape(groups, inside).sum(1)
        elif energy.size * source.places == inside and groups == 1:  # flattened
            read = np.array([energy.sum() * source.places])
        else:
            read = np.full(groups, source.square * inside)
        per_output = np.repeat(read, max(1, len(self.values) // groups))[: len(self.values)]
        return float((np.square(self.steps) * per_output).mean()) / _UNIFORM * window


def _holds_levels(graph: Graph, node: Node) -> bool:
    """Whether the weights of a node are stored as levels."""
    position = facts(node).weights
    if position is None or len(node.inputs) <= position:
        return False
    maker = graph.producer(node.inputs[position])
    dequantised = maker is not None and maker.op_type == "DequantizeLinear"
    return dequantised or facts(node).quantised is not None


def _weights(graph: Graph, node: Node) -> _Weights | None:
    """Quantised weights of a convolution or a matrix product; None for those of other kinds.

    Of one scale, or one per channel: scales of blocks are another kind.
    """
    position = facts(node).weights
    if position is None or len(node.inputs) <= position or "Transpose" in node.op_type:
        return None
    maker = graph.producer(node.inputs[position])
    if maker is not None and maker.op_type == "DequantizeLinear":
        named, axis = list(maker.inputs[:3]), int(maker.attributes.get("axis", 1))
    elif facts(node).quantised is not None:
        named = list(node.inputs[position : position + 3])
        axis = 0 if facts(node).convolves or _is_turned(node) else -1
    else:
        return None
    levels, scale, zero = (graph.constant(n) if n else None for n in (*named, "", "")[:3])
    if levels is None or scale is None or levels.dtype.kind not in "iu" or levels.ndim < 2:
        return None
    shape = [1] * levels.ndim
    if scale.size > 1:
        axis = axis if -levels.ndim <= axis < levels.ndim else 0
        if scale.ndim > 1 or scale.size != levels.shape[axis]:
            return None
        shape[axis] = -1
    offset = np.zeros(1) if zero is None else zero.astype(np.float64)
    offset = offset.reshape(shape) if offset.size == scale.size else offset.reshape(-1)[:1]
    real = (levels.astype(np.float64) - offset) * scale.astype(np.float64).reshape(shape)
    rows = _outputs_first(node, real)
    bits = np.iinfo(levels.dtype)
    flat = rows.reshape(len(rows), -1) if scale.size > 1 else rows.reshape(1, -1)
    if np.any(offset) and levels.dtype.kind == "u":
        steps = (np.maximum(flat.max(1), 0) - np.minimum(flat.min(1), 0)) / (bits.max - bits.min)
    else:
        steps = np.abs(flat).max(1) / ((bits.max - bits.min) // 2)
    groups = int(node.attributes.get("group", 1))
    return _Weights(rows, np.broadcast_to(steps, (len(rows),)), groups)


def _outputs_first(node: Node, weights: Array) -> Array:
    """Weights with the output channels as the first axis."""
    if facts(node).convolves:
        return weights
    return weights if _is_turned(node) else weights.swapaxes(-1, -2).reshape(weights.shape[-1], -1)


def _is_turned(node: Node) -> bool:
    """Whether a product takes its weights with the output channels first."""
    return "Gemm" in node.op_type and bool(node.attributes.get("transB", 0))
