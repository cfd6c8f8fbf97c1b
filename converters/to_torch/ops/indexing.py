"""Reading elements by index, and finding indices of elements."""

import torch
from torch import Tensor

from converters.to_torch.ops.unsigned import widened
from converters.to_torch.optable import OPS


def wrapped(indices: Tensor, size: int, device: torch.device) -> Tensor:
    """Indices on the data's device, those below zero counted from the end."""
    indices = indices.to(device=device, dtype=torch.int64)
    return torch.where(indices < 0, indices + size, indices)


@OPS.register("Gather")
def gather(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Take slices along an axis; the axis is replaced by those of ``indices``."""
    axis %= data.ndim
    taken = select(data, axis, wrapped(indices, data.shape[axis], data.device).reshape(-1))
    if indices.ndim == 1:
        return taken
    return taken.reshape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))


@widened
def select(data: Tensor, axis: int, indices: Tensor) -> Tensor:
    """Slices along an axis, of any type; the indices are not below zero."""
    return data.index_select(axis, indices)


@OPS.register("GatherElements", since=11)
def gather_elements(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Take one element for each index, along an axis."""
    return _gather_elements(data, wrapped(indices, data.shape[axis], data.device), axis)


@widened
def _gather_elements(data: Tensor, indices: Tensor, axis: int) -> Tensor:
    return torch.gather(data, axis, indices)


@OPS.register("GatherND", since=11)
def gather_nd(data: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Take slices named by the index tuples in the last axis of ``indices``."""
    depth, b = indices.shape[-1], batch_dims
    if depth == 0:  # an empty tuple names the whole (batch entry)
        return data.expand((*indices.shape[:-1], *data.shape[b:]))
    picks = [wrapped(indices[..., i], data.shape[b + i], data.device) for i in range(depth)]
    batch = [
        torch.arange(n, device=data.device).reshape(-1, *[1] * (indices.ndim - 2 - i))
        for i, n in enumerate(data.shape[:b])
    ]
    return data[(*batch, *picks)]


@OPS.register("Compress", since=9)
def compress(input: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """Keep the slices along an axis (or elements) where the condition holds."""
    if axis is None:
        input, axis = input.reshape(-1), 0
    kept = condition.to(input.device).nonzero().reshape(-1)
    return select(input, axis, kept)


@OPS.register("NonZero", since=9)
@widened
def non_zero(X: Tensor) -> Tensor:
    """Indices of all elements that are not zero, one column each."""
    return X.nonzero().T


@OPS.register("OneHot", since=9)
def one_hot(indices: Tensor, depth: int, values: Tensor, *, axis: int = -1) -> Tensor:
    """Write ``values[1]`` where an index points along a new axis, ``values[0]`` elsewhere."""
    rank = indices.ndim + 1
    axis %= rank
    wanted = indices.to(torch.int64).unsqueeze(axis)
    places = torch.arange(depth, device=indices.device)
    places = places.reshape(-1, *[1] * (rank - 1 - axis))
    values = values.to(indices.device)
    return torch.where((wanted == places) | (wanted + depth == places), values[1], values[0])


@OPS.register("Trilu", since=14)
@widened
def trilu(input: Tensor, k: int = 0, *, upper: int = 1) -> Tensor:
    """Keep the upper (lower) triangle, from the ``k``-th diagonal on, of each matrix."""
    return torch.triu(input, k) if upper else torch.tril(input, k)


@OPS.register("ReverseSequence", since=10)
def reverse_sequence(
    input: Tensor, sequence_lens: Tensor, *, batch_axis: int = 1, time_axis: int = 0
) -> Tensor:
    """Reverse the first ``sequence_lens[b]`` steps of each batch entry."""
    steps = torch.arange(input.shape[time_axis], device=input.device).unsqueeze(1)
    lengths = sequence_lens.to(device=input.device, dtype=torch.int64)
    source = torch.where(steps < lengths, lengths - 1 - steps, steps)
    moved = input.movedim((time_axis, batch_axis), (0, 1))
    result = moved[source, torch.arange(input.shape[batch_axis], device=input.device)]
    return result.movedim((0, 1), (time_axis, batch_axis))
