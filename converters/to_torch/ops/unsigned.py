"""Unsigned integers, which torch can store but hardly compute with.

torch has no kernels for most operations on uint16, uint32 and uint64.  Their arithmetic is done
in int64, where addition, subtraction, multiplication and all bit operations agree modulo 2^64;
the result is cast back.  What depends on the *order* of uint64 values needs the sign bit flipped
first: ``x -> x XOR 2^63`` maps unsigned order onto signed order.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["SHELL_TYPES", "ordered", "widened"]

P = ParamSpec("P")
R = TypeVar("R")

SHELL_TYPES = frozenset({torch.uint16, torch.uint32, torch.uint64})
"""Types that torch stores but has few kernels for."""

_SIGN = -(2**63)


def _kind(values: tuple[object, ...]) -> torch.dtype | None:
    for value in values:
        if isinstance(value, Tensor) and value.dtype in SHELL_TYPES:
            return value.dtype
    return None


def _to_int64(value: object, *, flip: bool) -> object:
    if not isinstance(value, Tensor) or value.dtype not in SHELL_TYPES:
        return value
    wide = value.to(torch.int64)
    return wide ^ _SIGN if flip and value.dtype is torch.uint64 else wide


def _back(result: object, kind: torch.dtype, *, flip: bool) -> object:
    if isinstance(result, tuple):  # values first, indices after: only the values change type
        return (_back(result[0], kind, flip=flip), *result[1:])
    if not isinstance(result, Tensor) or result.dtype is not torch.int64:
        return result
    return (result ^ _SIGN if flip and kind is torch.uint64 else result).to(kind)


def _wrap(function: Callable[P, R], *, flip: bool, back: bool) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        kind = _kind(args)
        if kind is None:
            return function(*args, **kwargs)
        wide: Any = tuple(_to_int64(arg, flip=flip) for arg in args)
        result = function(*wide, **kwargs)
        return cast("R", _back(result, kind, flip=flip)) if back else result

    return call


def widened(function: Callable[P, R]) -> Callable[P, R]:
    """Compute unsigned inputs in int64, and cast an int64 (first) result back."""
    return _wrap(function, flip=False, back=True)


def ordered(*, indices: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As ``widened``, for functions that compare: the order of uint64 values is kept.

    Args:
        indices: The result holds indices or truth values, not values of the inputs.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        return _wrap(function, flip=True, back=not indices)

    return decorate
