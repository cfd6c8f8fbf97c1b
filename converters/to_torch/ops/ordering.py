"""What follows an order along an axis: running sums, the largest elements, distinct elements."""

import torch
from torch import Tensor

from converters.to_torch.ops.unsigned import ordered, widened
from converters.to_torch.optable import OPS


@OPS.register("CumSum", since=11)
@widened
def cum_sum(x: Tensor, axis: int, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Running sum along an axis, without the element itself when exclusive."""
    x = x.flip(axis) if reverse else x
    total = torch.cumsum(x, axis, dtype=x.dtype)
    if exclusive:
        total = _shifted(total, axis, 0)
    return total.flip(axis) if reverse else total


@OPS.register("CumProd", since=26)
@widened
def cum_prod(x: Tensor, axis: int, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Running product along an axis, without the element itself when exclusive."""
    x = x.flip(axis) if reverse else x
    product = torch.cumprod(x, axis, dtype=x.dtype)
    if exclusive:
        product = _shifted(product, axis, 1)
    return product.flip(axis) if reverse else product


def _shifted(x: Tensor, axis: int, first: int) -> Tensor:
    """Move everything one step on along an axis and start with a constant."""
    if x.shape[axis] == 0:
        return x
    start = torch.full_like(x.narrow(axis, 0, 1), first)
    return torch.cat([start, x.narrow(axis, 0, x.shape[axis] - 1)], axis)


@ordered()
def _top(X: Tensor, count: int, axis: int, largest: int) -> tuple[Tensor, Tensor]:
    """Largest elements and their indices; of equal ones the lower index comes first."""
    values, indices = torch.sort(X, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


@OPS.register("TopK")
def top_k_attribute(X: Tensor, *, k: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    """The ``k`` largest elements along an axis, sorted, and their indices."""
    return _top(X, k, axis, 1)


@OPS.register("TopK", since=10)
def top_k(
    X: Tensor, K: int, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    """The ``K`` largest (smallest) elements along an axis, sorted, and their indices."""
    return _top(X, K, axis, largest)


@OPS.register("Unique", since=11)
@ordered()
def unique(
    X: Tensor, *, axis: int | None = None, sorted: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distinct elements (or slices), their first index, the way back, and their counts."""
    if axis is None:
        X, axis = X.reshape(-1), 0
    values, inverse, counts = torch.unique(X, return_inverse=True, return_counts=True, dim=axis)
    places = torch.arange(X.shape[axis], device=X.device)
    first = torch.full_like(counts, X.shape[axis])
    first = first.scatter_reduce(0, inverse, places, "amin")
    if not sorted:
        order = torch.argsort(first)
        rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order)).to(order))
        values = values.index_select(axis, order)
        first, inverse, counts = first[order], rank[inverse], counts[order]
    return values, first, inverse, counts
