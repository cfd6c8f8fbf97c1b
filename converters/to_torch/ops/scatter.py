"""Writing elements by index; the input itself is never changed."""

import torch
from torch import Tensor

from converters.to_torch.ops.indexing import wrapped
from converters.to_torch.ops.unsigned import ordered
from converters.to_torch.optable import OPS

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@OPS.register("Scatter", since=9)
@OPS.register("ScatterElements", since=11)
def scatter_elements(
    data: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """Write (or add, multiply, ...) one element for each index, along an axis."""
    places = wrapped(indices, data.shape[axis], data.device)
    return _write(data, places, updates.to(data.device), axis, reduction)


@OPS.register("ScatterND", since=11)
def scatter_nd(
    data: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none"
) -> Tensor:
    """Write (or add, multiply, ...) slices named by the index tuples in the last axis."""
    depth = indices.shape[-1]
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=data.device)
    for i, size in enumerate(data.shape[:depth]):
        flat = flat * size + wrapped(indices[..., i], size, data.device)
    rows = data.reshape(data.shape[:depth].numel(), -1)
    places = flat.reshape(-1, 1).expand(-1, rows.shape[1])
    values = updates.to(data.device).reshape(places.shape)
    return _write(rows, places, values, 0, reduction).reshape(data.shape)


@ordered()
def _write_ordered(data: Tensor, updates: Tensor, places: Tensor, axis: int, how: str) -> Tensor:
    return torch.scatter_reduce(data, axis, places, updates, how, include_self=True)


def _write(data: Tensor, places: Tensor, updates: Tensor, axis: int, reduction: str) -> Tensor:
    if reduction in {"max", "min"}:
        return _write_ordered(data, updates, places, axis, _REDUCTIONS[reduction])
    wide = data.to(torch.int64) if data.dtype in _WIDENED else data
    if reduction == "none":
        result = torch.scatter(wide, axis, places, updates.to(wide.dtype))
    else:
        result = torch.scatter_reduce(
            wide, axis, places, updates.to(wide.dtype), _REDUCTIONS[reduction], include_self=True
        )
    return result.to(data.dtype)


_WIDENED = {torch.uint16, torch.uint32, torch.uint64}


@OPS.register("TensorScatter", since=24)
def tensor_scatter(
    past_cache: Tensor,
    update: Tensor,
    write_indices: Tensor | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Tensor:
    """Write an update into a cache, from an index of its own for each batch entry."""
    axis %= past_cache.ndim
    size, length = past_cache.shape[axis], update.shape[axis]
    start = torch.zeros(past_cache.shape[0], dtype=torch.int64, device=past_cache.device)
    if write_indices is not None:
        start = write_indices.to(start)
    places = start.unsqueeze(1) + torch.arange(length, device=past_cache.device)
    if mode == "circular":
        places = places % size
    places = places.reshape(
        places.shape[0], *[1] * (axis - 1), length, *[1] * (past_cache.ndim - 1 - axis)
    )
    return torch.scatter(past_cache, axis, places.expand(update.shape), update)
