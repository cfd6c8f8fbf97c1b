"""Signals of values between the pixels: GridSample and AffineGrid.

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
    steps = ((0, 0),) if nearest else ((0, 0), (0, 1), (1, 0), (1, 1))
    corners = {at: _corner(b, row, column, *at) for at in steps}
    g = b.reshape(step.signal, (-1, channels, count))
    found: dict[int, str] = {}
    if 0 in step.wanted:
        total = b.reshape(b.zeros(X), (-1, channels, height * width))
        for corner in corners.values():
            weight = corner.inside if nearest else b.mul(b.mul(*corner.weights), corner.inside)
            index = b.op("Expand", [corner.index, b.shape(g)])
            given = [total, index, b.mul(g, weight)]
            total = b.op("ScatterElements", given, axis=2, reduction="add")
        found[0] = b.like(total, X)
    if 1 in step.wanted and not nearest:
        flat = b.reshape(b.value(X), (-1, channels, height * width))
        sums = {}
        for at, corner in corners.items():
            index = b.op("Expand", [corner.index, b.shape(g)])
            value = b.mul(b.op("GatherElements", [flat, index], axis=2), corner.inside)
            sums[at] = b.sum(b.mul(g, value), [1], keep=True)
        slopes = []
        for axis, line in ((1, column), (0, row)):
            parts = []
            for other in (0, 1):
                here, there = ((other, 0), (other, 1)) if axis else ((0, other), (1, other))
                weight = corners[here].weights[1 - axis]
                parts.append(b.mul(b.op("Sub", [sums[there], sums[here]]), weight))
            slopes.append(b.reshape(b.mul(b.add(*parts), line.slope), (-1, count, 1)))
        found[1] = b.like(b.op("Concat", slopes, axis=2), grid)
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
