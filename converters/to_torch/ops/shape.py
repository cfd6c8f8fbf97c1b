"""Shapes: reading them, changing them, cutting and joining along axes."""

import math

import torch
from torch import Tensor

from converters.to_torch.optable import OPS

Ints = tuple[int, ...]


@OPS.register("Shape")
def shape(data: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Sizes of the axes from ``start`` to ``end``, on the CPU, where shapes are computed."""
    return torch.tensor(data.shape[start:end], dtype=torch.int64)


@OPS.register("Size")
def size(data: Tensor) -> Tensor:
    """Number of elements."""
    return torch.tensor(data.numel(), dtype=torch.int64)


@OPS.register("Reshape")
def reshape(data: Tensor, shape: Ints = (), *, allowzero: int = 0) -> Tensor:
    """Give a new shape: -1 is what remains, 0 the size of the input (unless ``allowzero``)."""
    if not allowzero and 0 in shape:
        shape = tuple(data.shape[i] if n == 0 else n for i, n in enumerate(shape))
    if data.numel() == 0 and -1 in shape:
        known = math.prod(n for n in shape if n != -1)
        rest = data.numel() // known if known else 0
        shape = tuple(rest if n == -1 else n for n in shape)
    return data.reshape(shape)


@OPS.register("Flatten")
def flatten(input: Tensor, *, axis: int = 1) -> Tensor:
    """Make two axes of many: those before ``axis`` and the others."""
    axis = axis + input.ndim if axis < 0 else axis
    return input.reshape(math.prod(input.shape[:axis]), math.prod(input.shape[axis:]))


@OPS.register("Squeeze")
def squeeze(data: Tensor, axes: Ints | None = None) -> Tensor:
    """Drop axes of size 1: those named, or all of them."""
    if axes is None:
        return data.squeeze()
    if any(data.shape[axis] != 1 for axis in axes):
        raise ValueError(f"axes {list(axes)} of shape {list(data.shape)} are not all of size 1")
    return data.squeeze(axes)


@OPS.register("Unsqueeze")
def unsqueeze(data: Tensor, axes: Ints) -> Tensor:
    """Insert axes of size 1, at positions counted in the result."""
    rank = data.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        data = data.unsqueeze(axis)
    return data


@OPS.register("Transpose")
def transpose(data: Tensor, *, perm: Ints | None = None) -> Tensor:
    """Reorder the axes; reverse them when no order is given."""
    return data.permute(tuple(reversed(range(data.ndim))) if perm is None else perm)


@OPS.register("Expand", since=8)
def expand(input: Tensor, shape: Ints) -> Tensor:
    """Repeat axes of size 1 until the shapes meet (either may be the larger one)."""
    common = torch.broadcast_shapes(input.shape, shape)  # type: ignore[no-untyped-call]
    return input.expand(common)


@OPS.register("Tile")
def tile_one_axis(input: Tensor, tiles: int, axis: int) -> Tensor:
    """Repeat a tensor along one axis."""
    return input.repeat(*(tiles if i == axis else 1 for i in range(input.ndim)))


@OPS.register("Tile", since=6)
def tile(input: Tensor, repeats: Ints) -> Tensor:
    """Repeat a tensor along each axis."""
    return input.repeat(repeats)


@OPS.register("Concat")
def concat_from_axis_one(*inputs: Tensor, axis: int = 1) -> Tensor:
    """Join tensors along an axis, by default the channels."""
    return torch.cat(inputs, axis)


@OPS.register("Concat", since=4)
def concat(*inputs: Tensor, axis: int) -> Tensor:
    """Join tensors along an axis."""
    return torch.cat(inputs, axis)


@OPS.register("Split")
def split(
    input: Tensor,
    split: Ints | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    n_outputs: int = 1,
) -> tuple[Tensor, ...]:
    """Cut along an axis into parts of given sizes, or of equal size (the last may be smaller)."""
    if split is None:
        length, parts = input.shape[axis], num_outputs or n_outputs
        step = -(-length // parts)
        split = tuple(max(0, min(step, length - step * part)) for part in range(parts))
    return torch.split(input, list(split), axis)


@OPS.register("Slice")
def slice_(
    data: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None
) -> Tensor:
    """Take every ``step``-th element between bounds; steps may run backwards."""
    ranges = [slice(None)] * data.ndim
    backwards = []
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken = _bounds(start, end, step, data.shape[axis])
        if step < 0:
            taken = taken[::-1]
            backwards.append(axis)
        ranges[axis] = slice(taken.start, max(taken.stop, taken.start), taken.step)
    result = data[tuple(ranges)]
    return result.flip(backwards) if backwards else result


def _bounds(start: int, end: int, step: int, size: int) -> range:
    """Indices that a slice takes; unlike Python's, a start too low still takes the first one."""
    start, end = (start + size if start < 0 else start), (end + size if end < 0 else end)
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    if end in _TO_THE_END:
        end = -1
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


_TO_THE_END = {2**31 - 1, 2**63 - 1}
"""The largest integers mean "as far as it goes" in ONNX Runtime, backwards as well."""


@OPS.register("DepthToSpace")
def depth_to_space(input: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Lay channels out as blocks of pixels, depth first (DCR) or column-row first (CRD)."""
    n, c, h, w = input.shape
    b, depth = blocksize, c // blocksize**2
    if mode == "DCR":
        blocks = input.reshape(n, b, b, depth, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = input.reshape(n, depth, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, depth, h * b, w * b)


@OPS.register("SpaceToDepth")
def space_to_depth(input: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Gather blocks of pixels into channels, the inverse of DepthToSpace."""
    n, c, h, w = input.shape
    b = blocksize
    blocks = input.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.permute(order).reshape(n, c * b * b, h // b, w // b)
