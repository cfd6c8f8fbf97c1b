"""Padding and cropping at the borders."""

import torch
from torch import Tensor

from converters.to_torch.ops.indexing import select
from converters.to_torch.optable import OPS

Ints = tuple[int, ...]


@OPS.register("Pad")
def pad_with_paddings(
    data: Tensor, *, paddings: Ints, mode: str = "constant", value: float = 0.0
) -> Tensor:
    """Pad all axes, with the attribute names of opset 1."""
    return _pad(data, paddings, value, mode)


@OPS.register("Pad", since=2)
def pad_with_attributes(
    data: Tensor, *, pads: Ints, mode: str = "constant", value: float = 0.0
) -> Tensor:
    """Pad all axes, with everything given by attributes."""
    return _pad(data, pads, value, mode)


@OPS.register("Pad", since=11)
def pad(
    data: Tensor,
    pads: Ints,
    constant_value: Tensor | None = None,
    axes: Ints | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """Pad axes with a constant, the edge, the reflection or the other end; below zero crops."""
    if axes is not None:
        begins, ends = [0] * data.ndim, [0] * data.ndim
        for i, axis in enumerate(axes):
            begins[axis], ends[axis] = pads[i], pads[i + len(axes)]
        pads = (*begins, *ends)
    value = 0 if constant_value is None else constant_value.item()
    return _pad(data, pads, value, mode)


def _pad(data: Tensor, pads: Ints, value: float, mode: str) -> Tensor:
    """Pad with ``pads`` = all begins, then all ends."""
    rank = data.ndim
    if mode == "constant":
        return _constant(data, pads, value)
    if mode not in _SOURCES:
        raise ValueError(f"padding mode {mode!r} is unknown")
    data = _constant(data, tuple(min(n, 0) for n in pads), 0)  # crop before filling
    for axis in range(rank):
        begin, end = max(pads[axis], 0), max(pads[axis + rank], 0)
        if begin or end:
            size = data.shape[axis]
            positions = torch.arange(-begin, size + end, device=data.device)
            data = select(data, axis, _SOURCES[mode](positions, size))
    return data


def _constant(data: Tensor, pads: Ints, value: float) -> Tensor:
    if not any(pads):
        return data
    rank = data.ndim
    # torch counts axes from the last one, begin and end side by side
    sides = [pads[axis + end] for axis in reversed(range(rank)) for end in (0, rank)]
    return torch.nn.functional.pad(data, sides, value=value)


def _edge(positions: Tensor, size: int) -> Tensor:
    return positions.clamp(0, size - 1)


def _reflect(positions: Tensor, size: int) -> Tensor:
    if size == 1:
        return torch.zeros_like(positions)
    period = 2 * (size - 1)
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded)


def _wrap(positions: Tensor, size: int) -> Tensor:
    return positions.remainder(size)


_SOURCES = {"edge": _edge, "reflect": _reflect, "wrap": _wrap}
"""Where each position outside the tensor takes its value from."""


@OPS.register("CenterCropPad", since=18)
def center_crop_pad(input_data: Tensor, shape: Ints, *, axes: Ints | None = None) -> Tensor:
    """Crop or zero-pad around the centre to given sizes."""
    rank = input_data.ndim
    begins, ends = [0] * rank, [0] * rank
    for axis, wanted in zip(range(rank) if axes is None else axes, shape, strict=True):
        difference = wanted - input_data.shape[axis]
        # Cropping rounds the first removed part down, padding the first added part.
        before = difference // 2 if difference >= 0 else -(-difference // 2)
        begins[axis], ends[axis] = before, difference - before
    return _constant(input_data, (*begins, *ends), 0)
