"""Reductions over axes.

``axes`` was an attribute up to opset 17 (12 for ReduceSum) and is an input since.  No axes mean
all of them, or none of them with ``noop_with_empty_axes``; the function around the reduction
(square, logarithm ...) is applied in either case.
"""

import math

import torch
from torch import Tensor

from converters.to_torch.ops.unsigned import ordered, widened
from converters.to_torch.optable import OPS

Axes = tuple[int, ...]


def resolved(data: Tensor, axes: Axes | None, noop: int) -> Axes:
    """Axes to reduce over, non-negative."""
    if axes:
        return tuple(axis % data.ndim if data.ndim else 0 for axis in axes)
    return () if noop else tuple(range(data.ndim))


def _sum(data: Tensor, axes: Axes, keepdims: int) -> Tensor:
    """Sum over the axes, in the type of the input; over no axes the input itself."""
    return data.sum(axes, keepdim=bool(keepdims), dtype=data.dtype) if axes else data


def _shape(data: Tensor, axes: Axes, keepdims: int) -> list[int]:
    shape = [1 if axis in axes else size for axis, size in enumerate(data.shape)]
    return shape if keepdims else [n for axis, n in enumerate(shape) if axis not in axes]


def _empty(data: Tensor, axes: Axes) -> bool:
    return any(data.shape[axis] == 0 for axis in axes) if data.ndim else False


@OPS.register("ReduceSum")
@widened
def reduce_sum(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Sum over axes."""
    return _sum(data, resolved(data, axes, noop_with_empty_axes), keepdims)


@OPS.register("ReduceMean")
@widened
def reduce_mean(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Mean over axes; of integers truncated."""
    axes = resolved(data, axes, noop_with_empty_axes)
    if not axes:
        return data
    if data.is_floating_point():
        return data.mean(axes, keepdim=bool(keepdims))
    count = math.prod(data.shape[axis] for axis in axes) if data.ndim else 1
    total = data.to(torch.int64).sum(axes, keepdim=bool(keepdims))
    return torch.div(total, count, rounding_mode="trunc").to(data.dtype)


@OPS.register("ReduceSumSquare")
@widened
def reduce_sum_square(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Sum of squares over axes."""
    return _sum(data * data, resolved(data, axes, noop_with_empty_axes), keepdims)


@OPS.register("ReduceL1")
@widened
def reduce_l1(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Sum of absolute values over axes."""
    return _sum(data.abs(), resolved(data, axes, noop_with_empty_axes), keepdims)


@OPS.register("ReduceL2")
@widened
def reduce_l2(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Euclidean length over axes; its gradient at zero is zero."""
    axes = resolved(data, axes, noop_with_empty_axes)
    if not axes:
        return data.abs()
    if data.is_floating_point():
        length: Tensor = torch.linalg.vector_norm(data, dim=axes, keepdim=bool(keepdims))
        return length
    return torch.sqrt(_sum((data * data).to(torch.float64), axes, keepdims)).to(data.dtype)


@OPS.register("ReduceLogSum")
def reduce_log_sum(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Logarithm of the sum over axes."""
    x = data if data.is_floating_point() else data.to(torch.float64)
    return torch.log(_sum(x, resolved(data, axes, noop_with_empty_axes), keepdims)).to(data.dtype)


@OPS.register("ReduceLogSumExp")
def reduce_log_sum_exp(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Logarithm of the sum of exponentials over axes."""
    axes = resolved(data, axes, noop_with_empty_axes)
    if not axes:
        return data
    x = data if data.is_floating_point() else data.to(torch.float64)
    return torch.logsumexp(x, axes, keepdim=bool(keepdims)).to(data.dtype)


@OPS.register("ReduceProd")
@widened
def reduce_prod(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Product over axes."""
    axes = resolved(data, axes, noop_with_empty_axes)
    for axis in sorted(axes, reverse=True):
        data = data.prod(axis, keepdim=bool(keepdims), dtype=data.dtype)
    return data


def _limit(dtype: torch.dtype, *, largest: bool) -> float:
    """Largest or smallest value of a type: what the extreme of an empty set is."""
    if dtype is torch.bool:
        return float(largest)
    if dtype.is_floating_point:
        return math.inf if largest else -math.inf
    return torch.iinfo(dtype).max if largest else torch.iinfo(dtype).min


@OPS.register("ReduceMax")
@ordered()
def reduce_max(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Maximum over axes; of an empty set the smallest value of the type."""
    axes = resolved(data, axes, noop_with_empty_axes)
    if _empty(data, axes):
        return data.new_full(_shape(data, axes, keepdims), _limit(data.dtype, largest=False))
    return data.amax(axes, keepdim=bool(keepdims)) if axes else data


@OPS.register("ReduceMin")
@ordered()
def reduce_min(
    data: Tensor, axes: Axes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Minimum over axes; of an empty set the largest value of the type."""
    axes = resolved(data, axes, noop_with_empty_axes)
    if _empty(data, axes):
        return data.new_full(_shape(data, axes, keepdims), _limit(data.dtype, largest=True))
    return data.amin(axes, keepdim=bool(keepdims)) if axes else data


@OPS.register("ArgMax")
@ordered(indices=True)
def arg_max(
    data: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> Tensor:
    """Index of the largest element along an axis, the first or the last of equals."""
    if select_last_index:
        last = data.shape[axis] - 1
        return last - torch.argmax(data.flip(axis), axis, keepdim=bool(keepdims))
    return torch.argmax(data, axis, keepdim=bool(keepdims))


@OPS.register("ArgMin")
@ordered(indices=True)
def arg_min(
    data: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> Tensor:
    """Index of the smallest element along an axis, the first or the last of equals."""
    if select_last_index:
        last = data.shape[axis] - 1
        return last - torch.argmin(data.flip(axis), axis, keepdim=bool(keepdims))
    return torch.argmin(data, axis, keepdim=bool(keepdims))
