"""Functions of two or more tensors, element by element, with numpy's broadcasting.

Before opset 7 broadcasting had to be asked for (``broadcast=1``) and aligned the second shape to
a contiguous part of the first, from ``axis`` on.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from converters.to_torch.ops.unsigned import SHELL_TYPES, ordered, widened
from converters.to_torch.optable import OPS

Binary = Callable[[Tensor, Tensor], Tensor]


def aligned(A: Tensor, B: Tensor, axis: int | None) -> Tensor:
    """Shape ``B`` so that it meets ``A`` from ``axis`` on (broadcasting before opset 7)."""
    if axis is None:
        return B
    trailing = A.ndim - (axis % A.ndim) - B.ndim
    return B.reshape((*B.shape, *([1] * trailing)))


def binary(*op_types: str, since: int = 7, legacy: bool = False) -> Callable[[Binary], Binary]:
    """Register a function of ``A`` and ``B``; with ``legacy`` also its form before opset 7."""

    def register(function: Binary) -> Binary:
        def old(A: Tensor, B: Tensor, *, axis: int | None = None, broadcast: int = 0) -> Tensor:
            return function(A, aligned(A, B, axis))

        old.__doc__ = function.__doc__
        if legacy:
            OPS.register(*op_types, since=1)(old)
        return OPS.register(*op_types, since=since)(function)

    return register


def _integral(*tensors: Tensor) -> bool:
    return not any(t.is_floating_point() or t.is_complex() for t in tensors)


@binary("Add", legacy=True)
@widened
def add(A: Tensor, B: Tensor) -> Tensor:
    """Sum of two tensors."""
    return A + B


@binary("Sub", legacy=True)
@widened
def sub(A: Tensor, B: Tensor) -> Tensor:
    """Difference of two tensors."""
    return A - B


@binary("Mul", legacy=True)
@widened
def mul(A: Tensor, B: Tensor) -> Tensor:
    """Product of two tensors."""
    return A * B


@binary("Div", legacy=True)
def div(A: Tensor, B: Tensor) -> Tensor:
    """Quotient of two tensors; integers truncate towards zero."""
    if not _integral(A, B):
        return A / B
    if A.dtype is torch.uint64:
        return _divide_uint64(A, B)
    return _divide_integers(A, B)


@widened
def _divide_integers(A: Tensor, B: Tensor) -> Tensor:
    return torch.div(A, B, rounding_mode="trunc")


def _divide_uint64(A: Tensor, B: Tensor) -> Tensor:
    """Divide 64-bit unsigned numbers with signed arithmetic.

    Half the dividend fits a signed number; twice its quotient is at most one too small.  A
    divisor of 2^63 or more goes at most once into anything.
    """
    a, b = A.to(torch.int64), B.to(torch.int64)
    half = (a >> 1) & (2**63 - 1)
    quotient = torch.div(half, torch.where(b < 0, 1, b), rounding_mode="trunc") * 2
    rest = a - quotient * b
    lowest = -(2**63)
    small = quotient + ((rest ^ lowest) >= (b ^ lowest))
    large = ((a ^ lowest) >= (b ^ lowest)).to(torch.int64)
    return torch.where(b < 0, large, small).to(torch.uint64)


def _power(X: Tensor, Y: Tensor) -> Tensor:
    if X.is_floating_point():
        return torch.pow(X, Y)
    if _integral(X, Y) and (Y.dtype in SHELL_TYPES or not bool((Y < 0).any())):
        return torch.pow(X.to(torch.int64), Y.to(torch.int64)).to(X.dtype)
    return torch.pow(X.to(torch.float64), Y.to(torch.float64)).to(X.dtype)


@OPS.register("Pow")
def power_with_axis(X: Tensor, Y: Tensor, *, axis: int | None = None, broadcast: int = 0) -> Tensor:
    """``X`` to the power of ``Y``, as broadcasting was before opset 7."""
    return _power(X, aligned(X, Y, axis))


@OPS.register("Pow", since=7)
def power(X: Tensor, Y: Tensor) -> Tensor:
    """``X`` to the power of ``Y``, in the type of ``X``."""
    return _power(X, Y)


@OPS.register("Mod", since=10)
def mod(A: Tensor, B: Tensor, *, fmod: int = 0) -> Tensor:
    """Remainder with the sign of the divisor, or of the dividend for ``fmod=1``."""
    if A.dtype is torch.uint64:
        quotient = _divide_uint64(A, B).to(torch.int64)
        return (A.to(torch.int64) - quotient * B.to(torch.int64)).to(torch.uint64)
    return _mod(A, B, fmod)


@widened
def _mod(A: Tensor, B: Tensor, fmod: int) -> Tensor:
    return torch.fmod(A, B) if fmod else torch.remainder(A, B)


@binary("BitwiseAnd", since=18)
def bitwise_and(A: Tensor, B: Tensor) -> Tensor:
    """Bitwise conjunction."""
    return A & B


@binary("BitwiseOr", since=18)
def bitwise_or(A: Tensor, B: Tensor) -> Tensor:
    """Bitwise disjunction."""
    return A | B


@binary("BitwiseXor", since=18)
def bitwise_xor(A: Tensor, B: Tensor) -> Tensor:
    """Bitwise exclusive disjunction."""
    return A ^ B


@OPS.register("BitShift", since=11)
def bit_shift(X: Tensor, Y: Tensor, *, direction: str) -> Tensor:
    """Move the bits of each element; a shift past the width leaves zeros or the sign."""
    bits = torch.iinfo(X.dtype).bits
    x, y = X.to(torch.int64), Y.to(torch.int64)
    past = (y < 0) | (y >= bits)
    y = torch.where(past, 0, y)
    if direction == "LEFT":
        return torch.where(past, 0, x << y).to(X.dtype)
    shifted = x >> y
    if X.dtype is torch.uint64:  # int64 repeats the sign bit: clear what it shifted in
        shifted = torch.where(y == 0, x, (x >> 1 & (2**63 - 1)) >> (y - 1).clamp(min=0))
    fill = torch.where(x < 0, -1, 0) if X.dtype is not torch.uint64 else torch.zeros_like(x)
    return torch.where(past, fill, shifted).to(X.dtype)


@OPS.register("Max")
@ordered()
def maximum(*data_0: Tensor) -> Tensor:
    """Largest of the tensors, element by element."""
    return functools.reduce(torch.maximum, data_0)


@OPS.register("Min")
@ordered()
def minimum(*data_0: Tensor) -> Tensor:
    """Smallest of the tensors, element by element."""
    return functools.reduce(torch.minimum, data_0)


@OPS.register("Sum")
def total(*data_0: Tensor) -> Tensor:
    """Sum of the tensors, element by element."""
    return functools.reduce(torch.add, data_0)


@OPS.register("Mean")
def mean(*data_0: Tensor) -> Tensor:
    """Mean of the tensors, element by element."""
    return functools.reduce(torch.add, data_0) / len(data_0)
