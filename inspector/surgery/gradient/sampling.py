"""Signals of values between the pixels: GridSample, AffineGrid and DeformConv.

One axis of a grid reaches from -1 to 1.  A bilinear value is the sum of four corners by their
weights; its slope along an axis is the difference of the corners along it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []


@dataclass(frozen=True)
class _Line:
    """Positions along one axis of the image, (N, 1, P), in pixels.

    Attributes:
        size: Pixels of the axis.
        low: The pixel at or before a position, or the nearest one.
        share: How far it lies towards the next pixel; empty for the nearest one.
        slope: Derivative of the position by the grid.
    """

    size: int
    low: str
    share: str
    slope: str


def _line(b: Builder, step: Step, grid: str, size: int, *, nearest: bool) -> _Line:
    attributes = step.node.attributes
    align, padding = bool(attributes.get("align_corners", 0)), attributes.get("padding_mode")
    factor = (size - 1) / 2 if align else size / 2
    at = b.op("Add", [b.scaled(grid, factor), b.constant((size - 1) / 2)])
    slope = b.constant(factor)
    if padding == "reflection":
        first, span = (0.0, size - 1.0) if align else (-0.5, float(size))
        if not span:
            at, slope = b.scaled(at, 0.0), b.constant(0.0)
        else:
            moved = b.op("Sub", [at, b.constant(first)])
            apart = b.op("Abs", [moved])
            turns = b.op("Floor", [b.scaled(apart, 0.5 / span)])
            inner = b.op("Sub", [apart, b.scaled(turns, 2 * span)])
            beyond = b.op("Sub", [inner, b.constant(span)])
            at = b.op("Sub", [b.constant(first + span), b.op("Abs", [beyond])])
            sign = b.mul(b.sign(moved), b.op("Neg", [b.sign(beyond)]))
            slope = b.mul(slope, sign)
    if padding in {"border", "reflection"}:
        last = b.constant(float(size - 1))
        inside = b.mul(b.positive(at), b.mask(b.op("Less", [at, last])))
        slope = b.mul(slope, inside)
        at = b.op("Clip", [at, b.constant(0.0), last])
    if nearest:
        return _Line(size, b.rounded(at), "", slope)
    low = b.op("Floor", [at])
    return _Line(size, low, b.op("Sub", [at, low]), slope)


@dataclass(frozen=True)
class _Corner:
    """One of the pixels around the positions: its index, its weight, and whether it exists."""

    index: str
    weights: tuple[str, str]
    inside: str


def _corner(b: Builder, row: _Line, column: _Line, down: int, right: int) -> _Corner:
    places, weights, inside = [], [], ""
    for line, more in ((row, down), (column, right)):
        place = b.op("Add", [line.low, b.constant(float(more))]) if more else line.low
        weights.append(
            ""
            if not line.share
            else line.share
            if more
            else b.op("Sub", [b.constant(1.0), line.share])
        )
        above = b.mask(b.op("Greater", [place, b.constant(-0.5)]))
        below = b.mask(b.op("Less", [place, b.constant(line.size - 0.5)]))
        here = b.mul(above, below)
        inside = b.mul(inside, here) if inside else here
        places.append(b.op("Clip", [place, b.constant(0.0), b.constant(line.size - 1.0)]))
    flat = b.op("Add", [b.scaled(places[0], float(column.size)), places[1]])
    return _Corner(b.op("Cast", [flat], to=7), (weights[0], weights[1]), inside)


@dataclass(frozen=True)
class _Taps:
    """The pixels around some positions, by how far down and to the right: four, or the nearest."""

    corners: Mapping[tuple[int, int], _Corner]

    @classmethod
    def between(cls, b: Builder, row: _Line, column: _Line) -> "_Taps":
        steps = ((0, 0), (0, 1), (1, 0), (1, 1)) if row.share else ((0, 0),)
        return cls({at: _corner(b, row, column, *at) for at in steps})

    def to_pixels(self, b: Builder, g: str, total: str) -> str:
        """The signals (N, C, P) of the positions, added to pixels (N, C, H W)."""
        for corner in self.corners.values():
            near, far = corner.weights
            weight = b.mul(b.mul(near, far), corner.inside) if near else corner.inside
            index = b.op("Expand", [corner.index, b.shape(g)])
            given = [total, index, b.mul(g, weight)]
            total = b.op("ScatterElements", given, axis=2, reduction="add")
        return total

    def values(self, b: Builder, flat: str, g: str) -> dict[tuple[int, int], str]:
        """The pixels (N, C, P) at each corner, 0 outside of the image."""
        found = {}
        for at, corner in self.corners.items():
            index = b.op("Expand", [corner.index, b.shape(g)])
            found[at] = b.mul(b.op("GatherElements", [flat, index], axis=2), corner.inside)
        return found

    def sampled(self, b: Builder, values: Mapping[tuple[int, int], str]) -> str:
        """The values at the positions, (N, C, P)."""
        return b.add(*(b.mul(b.mul(*self.corners[at].weights), values[at]) for at in values))

    def to_positions(
        self, b: Builder, g: str, values: Mapping[tuple[int, int], str]
    ) -> tuple[str, str]:
        """Slopes by the row and by the column of each position, (N, 1, P) each, in pixels."""
        sums = {at: b.sum(b.mul(g, value), [1], keep=True) for at, value in values.items()}
        slopes = []
        for axis in (0, 1):
            parts = []
            for other in (0, 1):
                here, there = ((other, 0), (other, 1)) if axis else ((0, other), (1, other))
                weight = self.corners[here].weights[1 - axis]
                parts.append(b.mul(b.op("Sub", [sums[there], sums[here]]), weight))
            slopes.append(b.add(*parts))
        return slopes[0], slopes[1]


@RULES.register("GridSample", since=16)
def grid_sample(b: Builder, step: Step) -> Mapping[int, str]:
    """Every position's signal to its four pixels, and their differences to the position."""
    X, grid = step.input(0), step.input(1)
    dims, out = b.dims(X), b.dims(step.node.outputs[0])
    mode = str(step.node.attributes.get("mode", "linear"))
    if mode not in {"linear", "bilinear", "nearest"} or len(dims) != 4:
        raise CannotDifferentiate(f"mode {mode!r} over {len(dims) - 2} axes of space")
    nearest, count = mode == "nearest", math.prod(out[2:])
    _, channels, height, width = dims
    positions = b.reshape(b.value(grid), (-1, count, 2))
    columns, rows = (
        b.reshape(b.slice(positions, [i], [i + 1], [2]), (-1, 1, count)) for i in range(2)
    )
    row = _line(b, step, rows, height, nearest=nearest)
    column = _line(b, step, columns, width, nearest=nearest)
    taps = _Taps.between(b, row, column)
    g = b.reshape(step.signal, (-1, channels, count))
    found: dict[int, str] = {}
    if 0 in step.wanted:
        total = b.reshape(b.zeros(X), (-1, channels, height * width))
        found[0] = b.like(taps.to_pixels(b, g, total), X)
    if 1 in step.wanted and not nearest:
        values = taps.values(b, b.reshape(b.value(X), (-1, channels, height * width)), g)
        slopes = [
            b.reshape(b.mul(slope, line.slope), (-1, count, 1))
            for slope, line in zip(taps.to_positions(b, g, values), (row, column), strict=True)
        ]
        found[1] = b.like(b.op("Concat", slopes[::-1], axis=2), grid)
    return found


@RULES.register("AffineGrid", since=20)
def affine_grid(b: Builder, step: Step) -> Mapping[int, str]:
    """Sums of the positions, by the coordinates that they were made of."""
    out = b.dims(step.node.outputs[0])
    align, sizes = bool(step.node.attributes.get("align_corners", 0)), out[1:-1]
    if align and 1 in sizes:
        raise CannotDifferentiate("aligned corners of one position, which runtimes place apart")

    def line(size: int) -> np.ndarray:
        if align:
            return np.linspace(-1, 1, size)
        return (2 * np.arange(size) + 1) / size - 1

    planes = np.meshgrid(*(line(size) for size in sizes), indexing="ij")
    base = np.stack([*(plane.reshape(-1) for plane in planes[::-1]), np.ones(planes[0].size)], 1)
    g = b.reshape(step.signal, (-1, planes[0].size, out[-1]))
    return {0: b.op("MatMul", [b.transpose(g, [0, 2, 1]), b.constant(base)])}


@RULES.register("DeformConv", since=19)
def deform_conv(b: Builder, step: Step) -> Mapping[int, str]:
    """The taps' signals, by the transposed weights, to the pixels around them, shifts and mask."""
    X, W, offset, mask = step.input(0), step.input(1), step.input(2), step.input(4)
    if step.wanted & {1, 3}:
        raise CannotDifferentiate("its weights depend on the image")
    attributes = step.node.attributes
    _, channels, height, width = b.dims(X)
    weights = b.dims(W)
    group, own = (int(attributes.get(name, 1)) for name in ("group", "offset_group"))
    strides, pads, dilations = (
        tuple(attributes.get(name) or (default,) * count)
        for name, default, count in (("strides", 1, 2), ("pads", 0, 4), ("dilations", 1, 2))
    )
    kernel, outputs = weights[2:], b.dims(step.node.outputs[0])[2:]
    taps, places, each = math.prod(kernel), math.prod(outputs), channels // own
    shifts = b.reshape(b.value(offset), (-1, 2, places))
    lines = []
    for axis, size in enumerate((height, width)):
        ahead = np.arange(kernel[axis]) * dilations[axis] - pads[axis]
        starts = np.arange(outputs[axis]) * strides[axis]
        line = ahead[:, None] + starts  # (k, o), of this axis
        shape = [1, 1, 1, 1]
        shape[axis], shape[2 + axis] = line.shape
        base = np.broadcast_to(line.reshape(shape), (*kernel, *outputs)).reshape(taps, places)
        moved = b.reshape(b.slice(shifts, [axis], [axis + 1], [1]), (-1, taps, places))
        at = b.reshape(b.op("Add", [moved, b.constant(base)]), (-1, 1, taps * places))
        low = b.op("Floor", [at])
        lines.append(_Line(size, low, b.op("Sub", [at, low]), ""))
    around = _Taps.between(b, *lines)
    rows = b.reshape(b.value(W), (group, weights[0] // group, -1))
    g = b.reshape(step.signal, (-1, group, weights[0] // group, places))
    g = b.op("MatMul", [b.transpose(rows, [0, 2, 1]), g])
    g = b.reshape(g, (-1, each, taps * places))
    values: dict[tuple[int, int], str] = {}
    if step.wanted & {2, 4}:
        values = around.values(b, b.reshape(b.value(X), (-1, each, height * width)), g)
    found: dict[int, str] = {}
    if 4 in step.wanted:
        product = b.mul(g, around.sampled(b, values))
        found[4] = b.like(b.sum(product, [1], keep=True), mask)
    if mask:
        g = b.mul(g, b.reshape(b.value(mask), (-1, 1, taps * places)))
    if 0 in step.wanted:
        total = b.reshape(b.zeros(X), (-1, each, height * width))
        found[0] = b.like(around.to_pixels(b, g, total), X)
    if 2 in step.wanted:
        pair = [
            b.reshape(slope, (-1, taps, 1, places)) for slope in around.to_positions(b, g, values)
        ]
        found[2] = b.like(b.op("Concat", pair, axis=2), offset)
    return found
