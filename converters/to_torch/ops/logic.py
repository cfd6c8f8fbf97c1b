"""Comparisons and truth values."""

import torch
from torch import Tensor

from converters.to_torch.ops.arithmetic import binary
from converters.to_torch.ops.unsigned import ordered
from converters.to_torch.optable import OPS


@binary("And", legacy=True)
def logical_and(A: Tensor, B: Tensor) -> Tensor:
    """Logical conjunction."""
    return torch.logical_and(A, B)


@binary("Or", legacy=True)
def logical_or(A: Tensor, B: Tensor) -> Tensor:
    """Logical disjunction."""
    return torch.logical_or(A, B)


@binary("Xor", legacy=True)
def logical_xor(A: Tensor, B: Tensor) -> Tensor:
    """Logical exclusive disjunction."""
    return torch.logical_xor(A, B)


@binary("Equal", legacy=True)
def equal(A: Tensor, B: Tensor) -> Tensor:
    """Whether elements are equal."""
    return A == B


@binary("Greater", legacy=True)
@ordered(indices=True)
def greater(A: Tensor, B: Tensor) -> Tensor:
    """Whether elements of ``A`` are above those of ``B``."""
    return A > B


@binary("Less", legacy=True)
@ordered(indices=True)
def less(A: Tensor, B: Tensor) -> Tensor:
    """Whether elements of ``A`` are below those of ``B``."""
    return A < B


@binary("GreaterOrEqual", since=12)
@ordered(indices=True)
def greater_or_equal(A: Tensor, B: Tensor) -> Tensor:
    """Whether elements of ``A`` are not below those of ``B``."""
    return A >= B


@binary("LessOrEqual", since=12)
@ordered(indices=True)
def less_or_equal(A: Tensor, B: Tensor) -> Tensor:
    """Whether elements of ``A`` are not above those of ``B``."""
    return A <= B


@OPS.register("Where", since=9)
def where(condition: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """Elements of ``X`` where the condition holds, of ``Y`` elsewhere."""
    return torch.where(condition, X, Y)
