"""Coordinates behind operators that move, join, cut or repeat values."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inspector.network.coordinates.units import (
    LARGEST,
    Array,
    Lost,
    Placed,
    State,
    Step,
    aligned,
    alike,
    over_windows,
    reshaped,
    squeezed,
)

__all__ = [
    "concat",
    "crop",
    "cut",
    "expand",
    "gather",
    "pad",
    "rearranged",
    "reshape",
    "space_to_depth",
    "split",
    "tile",
    "transpose",
]


def transpose(step: Step) -> Placed:
    """Axes in another order."""
    source = step.first
    order = step.attribute("perm") or list(range(len(source.shape)))[::-1]
    axes = (0, *(axis + 1 for axis in order))
    return source.map([source.shape[a] for a in order], lambda c: c.transpose(axes))


def reshape(step: Step) -> Placed:
    """Reshape, Flatten, Squeeze and Unsqueeze."""
    source = step.first
    shape = _target(step, source.shape)
    return source.map(shape, lambda c: reshaped(step, c, source.shape, shape))


def _target(step: Step, before: tuple[int, ...]) -> tuple[int, ...]:
    """Shape that a reshape gives."""
    node, total = step.node, math.prod(before)
    rank = len(before)
    if node.op_type == "Flatten":
        axis = step.attribute("axis", 1) % (rank + 1)
        return math.prod(before[:axis]), math.prod(before[axis:])
    if node.op_type in ("Squeeze", "Unsqueeze"):
        axes = step.ints(1, "axes")
        if node.op_type == "Squeeze":
            gone = [a % rank for a in axes] if axes else [a for a, n in enumerate(before) if n == 1]
            return tuple(n for a, n in enumerate(before) if a not in gone)
        if axes is None:
            return step.measured()
        more = {a % (rank + len(axes)) for a in axes}
        left = iter(before)
        return tuple(1 if a in more else next(left) for a in range(rank + len(axes)))
    asked = step.ints(1, "shape")
    if asked is None:
        found = step.measured()
        declared = step.net.shape(node.outputs[0]) or ()
        rest = math.prod(found[1:])
        free = declared[:1] == (None,) and rest > 0
        return (total // rest, *found[1:]) if free else found
    dims = [
        before[a] if n == 0 and not step.attribute("allowzero", 0) and a < rank else n
        for a, n in enumerate(asked)
    ]
    known = math.prod(n for n in dims if n != -1)
    return tuple(total // max(known, 1) if n == -1 else n for n in dims)


def concat(step: Step) -> Placed:
    """Tensors side by side; those without a place leave a gap."""
    parts = [step.states.get(n) for n in step.node.inputs]
    placed = [s for s in parts if isinstance(s, Placed)]
    lost = [s for s in parts if isinstance(s, Lost)]
    scattered = next((s for s in lost if s.scattered), None)
    if scattered is not None or not placed:
        raise scattered or lost[0]
    rank = len(placed[0].shape)
    axis = step.attribute("axis", 1) % rank
    lengths = _lengths(step, parts, axis, rank)
    shape = (*placed[0].shape[:axis], sum(lengths), *placed[0].shape[axis + 1 :])
    rows = _side_by_side(step, parts, lengths, axis, lambda s: s.rows)
    columns = _side_by_side(step, parts, lengths, axis, lambda s: s.columns)
    return Placed(shape, rows, columns)


def _lengths(step: Step, parts: Sequence[State | None], axis: int, rank: int) -> list[int]:
    """Lengths of the parts along the axis on which they are joined.

    One that is not known (a class token, expanded to the batch) is what the others leave of the
    result.

    Raises:
        Lost: More than one is not known.
    """
    found: list[int | None] = []
    for name, state in zip(step.node.inputs, parts, strict=True):
        if isinstance(state, Placed):
            found.append(state.shape[axis])
            continue
        if step.node.op_type != "Concat":
            found.append(0)
            continue
        known = step.net.shape(name)
        found.append(known[axis] if known is not None and len(known) == rank else None)
    if found.count(None) == 1:
        whole = step.net.extent(step.node.outputs[0], axis)
        rest = None if whole is None else whole - sum(n for n in found if n is not None)
        found = [rest if n is None else n for n in found]
    if None in found:
        raise step.lost("joins tensors whose shapes are not known")
    return [n for n in found if n is not None]


def _side_by_side(
    step: Step,
    parts: Sequence[State | None],
    lengths: Sequence[int],
    axis: int,
    read: Callable[[Placed], Array],
) -> Array:
    found = [read(part) if isinstance(part, Placed) else None for part in parts]
    some = [c for c in found if c is not None]
    if axis == step.net.channels.get(step.node.outputs[0]):
        # Beside maps, what is the same everywhere has no place of its own.
        varying = [c for c in some if c[0].size > 1] or some
        same = alike(varying)
        if same is not None:
            return same
        found = [None if c is None or c[0].size == 1 else c for c in found]
        some = varying
    dims = list(
        np.broadcast_shapes(*((*c.shape[: axis + 1], 1, *c.shape[axis + 2 :]) for c in some))
    )
    if math.prod(dims) * sum(lengths) > LARGEST:
        raise step.lost("joins too many different places")
    pieces = []
    for coordinate, length in zip(found, lengths, strict=True):
        dims[axis + 1] = length
        pieces.append(np.broadcast_to(np.nan if coordinate is None else coordinate, dims))
    return squeezed(np.concatenate(pieces, axis + 1))


def split(step: Step) -> Mapping[str, State]:
    """Places of each part."""
    source, outputs = step.first, step.node.outputs
    rank = len(source.shape)
    axis = step.attribute("axis", 0) % rank
    lengths = step.ints(1, "split")
    if lengths is None:
        each = -(-source.shape[axis] // len(outputs))
        lengths = [min(each, source.shape[axis] - each * i) for i in range(len(outputs))]
    found: dict[str, State] = {}
    start = 0
    for name, length in zip(outputs, lengths, strict=False):
        picked = np.arange(start, start + length)
        start += length
        if name:
            found[name] = _picked(source, axis, picked)
    return found


def _picked(source: Placed, axis: int, indices: Any) -> Placed:
    shape = (*source.shape[:axis], len(indices), *source.shape[axis + 1 :])

    def change(coordinate: Array) -> Array:
        if coordinate.shape[axis + 1] == 1:
            return coordinate
        return squeezed(coordinate.take(indices, axis + 1))

    return source.map(shape, change)


def cut(step: Step) -> Placed:
    """Slice: some indices along some axes."""
    found, node = step.first, step.node
    starts, ends = step.ints(1, "starts"), step.ints(2, "ends")
    axes, steps = step.ints(3, "axes"), step.ints(4, "steps")
    if axes is None and len(node.inputs) > 3 and node.inputs[3]:
        raise step.lost("cuts axes that are computed")
    count = len(starts or ends or axes or [])
    axes = list(range(count)) if axes is None else axes
    for position, one in enumerate(axes):
        axis = one % len(found.shape)
        stride = steps[position] if steps else 1
        length = found.shape[axis]
        if starts is None or ends is None:
            found = _cut_to_length(
                step, found, axis, None if starts is None else starts[position], stride
            )
        else:
            picked = np.arange(length)[
                slice(starts[position], _end(ends[position], stride), stride)
            ]
            found = _picked(found, axis, picked)
    return found


def _end(end: int, stride: int) -> int | None:
    return None if stride < 0 and end < -(1 << 30) else end


def _cut_to_length(step: Step, source: Placed, axis: int, start: int | None, stride: int) -> Placed:
    """A slice of which only the result's length is known."""
    length = step.measured()[axis]
    if length == source.shape[axis] and stride == 1:
        return source
    varies = max(source.rows.shape[axis + 1], source.columns.shape[axis + 1]) > 1
    if start is None and varies:
        raise step.lost("cuts the map at a place that is computed")
    first = int(start or 0) % max(source.shape[axis], 1)
    picked = np.clip(first + stride * np.arange(length), 0, source.shape[axis] - 1)
    return _picked(source, axis, picked)


def gather(step: Step) -> Placed:
    """Chosen indices along one axis."""
    source = step.first
    axis = step.attribute("axis", 0) % len(source.shape)
    chosen = step.net.graph.constant(step.node.inputs[1])
    if chosen is None:
        varies = max(source.rows.shape[axis + 1], source.columns.shape[axis + 1]) > 1
        if varies:
            raise step.lost("picks places that are computed")
        shape = step.measured()
        more = len(shape) - len(source.shape) + 1
        return source.map(
            shape, lambda c: c.reshape(*c.shape[: axis + 1], *[1] * more, *c.shape[axis + 2 :])
        )
    picked = _picked(source, axis, np.atleast_1d(chosen).ravel().astype(np.intp))
    shape = (*picked.shape[:axis], *chosen.shape, *picked.shape[axis + 1 :])

    def change(coordinate: Array) -> Array:
        along = coordinate.shape[axis + 1]
        dims = chosen.shape if along > 1 else (1,) * chosen.ndim
        return coordinate.reshape(
            *coordinate.shape[: axis + 1], *dims, *coordinate.shape[axis + 2 :]
        )

    return picked.map(shape, change)


def pad(step: Step) -> Placed:
    """A border all around; its cells hold no pixel."""
    found = step.first
    pads = step.ints(1, "pads") or step.ints(1, "paddings")
    rank = len(found.shape)
    axes = step.ints(3, "axes") or list(range(rank))
    if pads is None:
        shape = step.measured()
        if shape == found.shape:
            return found
        raise step.lost("adds a border whose width is computed")
    for position, one in enumerate(axes):
        axis, before, after = one % rank, pads[position], pads[position + len(axes)]
        if before or after:
            found = _shifted(found, axis, before, after)
    return found


def _shifted(source: Placed, axis: int, before: int, after: int) -> Placed:
    """The map with a border, whose places go on in steps of one cell and hold no pixel."""
    length = source.shape[axis] + before + after
    places = np.arange(length, dtype=np.float64) - before
    shape = (*source.shape[:axis], length, *source.shape[axis + 1 :])
    border = (places < 0) | (places > source.shape[axis] - 1)

    def change(coordinate: Array) -> Array:
        found = over_windows(coordinate, axis, places, places[:, None])
        if found.shape[axis + 1] > 1:
            np.moveaxis(found, axis + 1, 1)[1:, border] = np.nan
        return found

    return source.map(shape, change)


def crop(step: Step) -> Placed:
    """Crop of the first ONNX versions; border is (left, top, right, bottom)."""
    found = step.first
    left, top, right, bottom = step.attribute("border", [0, 0, 0, 0])
    for axis, first, last in ((2, top, bottom), (3, left, right)):
        found = _picked(found, axis, np.arange(first, found.shape[axis] - last))
    return found


def space_to_depth(step: Step) -> Placed:
    """Blocks of space made channels."""
    source, b = step.first, int(step.attribute("blocksize"))
    n, c, h, w = source.shape
    shape = (n, c * b * b, h // b, w // b)
    return rearranged(step, source, (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4), shape)


def rearranged(
    step: Step,
    source: Placed,
    split: tuple[int, ...],
    order: tuple[int, ...],
    shape: tuple[int, ...],
) -> Placed:
    """Axes split, put in another order, and joined."""
    turned = [split[axis] for axis in order]
    axes = (0, *(axis + 1 for axis in order))

    def change(coordinate: Array) -> Array:
        apart = reshaped(step, coordinate, source.shape, split).transpose(axes)
        return reshaped(step, apart, turned, shape)

    return source.map(shape, change)


def tile(step: Step) -> Placed:
    """The tensor repeated along its axes."""
    source, repeats = step.first, step.ints(1, "repeats")
    shape = step.measured() if repeats is None else None
    if repeats is None and shape is not None:
        repeats = [new // max(old, 1) for new, old in zip(shape, source.shape, strict=True)]
    found = source
    for axis, times in enumerate(repeats or ()):
        if times != 1:
            found = _picked(found, axis, np.tile(np.arange(found.shape[axis]), times))
    return found


def expand(step: Step) -> Placed:
    """Axes of length 1 made longer."""
    source = step.first
    asked = step.ints(1, "shape")
    shape = np.broadcast_shapes(source.shape, asked) if asked else step.measured()
    return source.map(shape, lambda c: aligned(c, len(shape)))
