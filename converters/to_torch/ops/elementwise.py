"""Functions of one tensor, element by element."""

from collections.abc import Callable

import torch
from torch import Tensor

from converters.to_torch.ops.unsigned import SHELL_TYPES, widened
from converters.to_torch.optable import OPS


def _plain(op_type: str, since: int, function: Callable[[Tensor], Tensor], doc: str) -> None:
    """Register a torch function of one float tensor whose input ONNX calls ``input``."""

    def call(input: Tensor) -> Tensor:
        return function(input)

    call.__name__ = call.__qualname__ = op_type
    call.__doc__ = doc
    OPS.register(op_type, since=since)(call)


def _plain_x(op_type: str, since: int, function: Callable[[Tensor], Tensor], doc: str) -> None:
    """Register a torch function of one tensor whose input ONNX calls ``X``."""

    def call(X: Tensor) -> Tensor:
        return function(X)

    call.__name__ = call.__qualname__ = op_type
    call.__doc__ = doc
    OPS.register(op_type, since=since)(widened(call))


_plain("Exp", 1, torch.exp, "e to the power of each element.")
_plain("Log", 1, torch.log, "Natural logarithm.")
_plain("Erf", 9, torch.erf, "Gauss error function.")
_plain("Sin", 7, torch.sin, "Sine.")
_plain("Cos", 7, torch.cos, "Cosine.")
_plain("Tan", 7, torch.tan, "Tangent.")
_plain("Asin", 7, torch.asin, "Inverse sine.")
_plain("Acos", 7, torch.acos, "Inverse cosine.")
_plain("Atan", 7, torch.atan, "Inverse tangent.")
_plain("Sinh", 9, torch.sinh, "Hyperbolic sine.")
_plain("Cosh", 9, torch.cosh, "Hyperbolic cosine.")
_plain("Asinh", 9, torch.asinh, "Inverse hyperbolic sine.")
_plain("Acosh", 9, torch.acosh, "Inverse hyperbolic cosine.")
_plain("Atanh", 9, torch.atanh, "Inverse hyperbolic tangent.")
_plain_x("Neg", 1, torch.neg, "Negative of each element.")
_plain_x("Floor", 1, torch.floor, "Largest integer that is not above.")
_plain_x("Ceil", 1, torch.ceil, "Smallest integer that is not below.")
_plain_x("Sqrt", 1, torch.sqrt, "Square root.")
_plain_x("Reciprocal", 1, torch.reciprocal, "One over each element.")
_plain_x("Round", 11, torch.round, "Nearest integer, halves to the even one.")


@OPS.register("Abs")
def absolute(X: Tensor) -> Tensor:
    """Absolute value."""
    return X if X.dtype in SHELL_TYPES or X.dtype is torch.uint8 else X.abs()


@OPS.register("Sign", since=9)
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1, as each element is negative, zero or positive."""
    if input.dtype in SHELL_TYPES:
        return (input != 0).to(input.dtype)
    return torch.sign(input)


@OPS.register("IsNaN", since=9)
def is_nan(X: Tensor) -> Tensor:
    """Whether each element is not a number."""
    return torch.isnan(X)


@OPS.register("IsInf", since=10)
def is_inf(X: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Whether each element is infinite, of the signs asked for."""
    found = torch.isinf(X)
    if not detect_negative:
        found = found & (X > 0)
    if not detect_positive:
        found = found & (X < 0)
    return found


@OPS.register("BitwiseNot", since=18)
@widened
def bitwise_not(X: Tensor) -> Tensor:
    """Flip every bit."""
    return ~X


@OPS.register("Not")
def logical_not(X: Tensor) -> Tensor:
    """Logical negation."""
    return torch.logical_not(X)


@OPS.register("Identity")
def identity(*input: Tensor) -> Tensor:
    """Return the input, a tensor, a sequence or an optional."""
    return input[0]
