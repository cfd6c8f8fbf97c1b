"""Activation functions, element by element and along an axis.

Where a function has a corner the derivative is the one at the flat side: Relu'(0) = 0, and a
Clip passes nothing at its bounds.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from converters.to_torch.optable import OPS

__all__ = ["clip", "gelu", "leaky_relu", "prelu", "relu", "softmax"]


@OPS.register("Relu")
def relu(X: Tensor) -> Tensor:
    """max(x, 0)."""
    return torch.relu(X)


@OPS.register("Clip", since=11)
@OPS.register("Clip")
def clip(input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """min(max(x, low), high)."""
    low = -math.inf if min is None else min
    high = math.inf if max is None else max
    if not input.dtype.is_floating_point:
        return _clip_integers(input, low, high)
    if low > high:
        return torch.clamp(input, low, high)
    return F.hardtanh(input, low, high)  # unlike clamp, passes no gradient at the bounds


@OPS.register("Clip", since=6)
def clip_6(
    input: Tensor, *, min: float = -3.4028234663852886e38, max: float = 3.4028234663852886e38
) -> Tensor:
    """min(max(x, low), high) with the bounds as attributes."""
    return clip(input, min, max)


def _clip_integers(input: Tensor, low: float, high: float) -> Tensor:
    """Clip integers at bounds that the type can hold."""
    limits = torch.iinfo(input.dtype)
    floor = limits.min if low <= limits.min else math.ceil(low)
    ceiling = limits.max if high >= limits.max else math.floor(high)
    if input.dtype in {torch.uint16, torch.uint32, torch.uint64}:  # torch does not clamp these
        return input.to(torch.int64).clamp(floor, ceiling).to(input.dtype)
    return torch.clamp(input, floor, ceiling)


@OPS.register("LeakyRelu")
def leaky_relu(X: Tensor, *, alpha: float = 0.009999999776482582) -> Tensor:
    """X where x >= 0, alpha x elsewhere."""
    return F.leaky_relu(X, alpha)


@OPS.register("PRelu", since=7)
def prelu(X: Tensor, slope: Tensor) -> Tensor:
    """X where x >= 0, slope x elsewhere; the slope broadcasts to x."""
    if not X.dtype.is_floating_point:
        return torch.where(X < 0, X * slope, X)
    per_channel = slope.dim() == X.dim() - 1 and slope.shape[0] == slope.numel() == X.shape[1]
    if slope.numel() == 1 or per_channel:
        return torch.prelu(X, slope.flatten())
    return torch.where(X > 0, X, X * slope)


@OPS.register("PRelu", since=1)
def prelu_1(X: Tensor, slope: Tensor) -> Tensor:
    """X where x >= 0, slope x elsewhere; one slope, or one a channel."""
    return torch.prelu(X, slope.flatten())


@OPS.register("Elu")
def elu(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    """X where x >= 0, alpha (exp(x) - 1) elsewhere."""
    return F.elu(X, alpha)


@OPS.register("Selu", since=6)
def selu(
    X: Tensor, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323
) -> Tensor:
    """Gamma times Elu."""
    return gamma * F.elu(X, alpha)


@OPS.register("Selu", since=1)
def selu_1(
    X: Tensor, *, alpha: float = 1.673200011253357, gamma: float = 1.0506999492645264
) -> Tensor:
    """Gamma times Elu, with the constants of opset 1."""
    return gamma * F.elu(X, alpha)


@OPS.register("Celu", since=12)
def celu(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    """max(x, 0) + min(alpha (exp(x / alpha) - 1), 0)."""
    return F.celu(X, alpha)


@OPS.register("ThresholdedRelu")
def thresholded_relu(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    """X where x > alpha, 0 elsewhere."""
    return F.threshold(X, alpha, 0.0)


@OPS.register("Shrink", since=9)
def shrink(input: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """X + bias below -lambd, x - bias above lambd, 0 between."""
    if not input.dtype.is_floating_point:
        return shrink(input.to(torch.float64), bias=bias, lambd=lambd).to(input.dtype)
    below, above = input + bias, input - bias
    inner = torch.where(input > lambd, above, torch.zeros_like(input))
    return torch.where(input < -lambd, below, inner)


@OPS.register("Sigmoid")
def sigmoid(X: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(X)


@OPS.register("HardSigmoid")
def hard_sigmoid(X: Tensor, *, alpha: float = 0.20000000298023224, beta: float = 0.5) -> Tensor:
    """max(0, min(1, alpha x + beta))."""
    return F.hardtanh(alpha * X + beta, 0.0, 1.0)


@OPS.register("HardSwish", since=14)
def hard_swish(X: Tensor) -> Tensor:
    """X max(0, min(1, x / 6 + 1 / 2))."""
    return F.hardswish(X)


@OPS.register("Mish", since=18)
def mish(X: Tensor) -> Tensor:
    """X tanh(ln(1 + exp(x)))."""
    return F.mish(X)


@OPS.register("Gelu", since=20)
def gelu(X: Tensor, *, approximate: str = "none") -> Tensor:
    """X Phi(x), or its tanh approximation."""
    return F.gelu(X, approximate=approximate)


@OPS.register("Swish", since=24)
def swish(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    """X sigmoid(alpha x)."""
    return F.silu(X) if alpha == 1.0 else X * torch.sigmoid(alpha * X)


@OPS.register("Softplus")
def softplus(X: Tensor) -> Tensor:
    """ln(1 + exp(x))."""
    return F.softplus(X, threshold=40.0)  # above it the difference from x is below 1e-17


@OPS.register("Softsign")
def softsign(input: Tensor) -> Tensor:
    """X / (1 + |x|)."""
    return F.softsign(input)


@OPS.register("Tanh")
def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return torch.tanh(input)


@OPS.register("Softmax", since=13)
def softmax(input: Tensor, *, axis: int = -1) -> Tensor:
    """exp(x) / sum of exp(x) along an axis."""
    return torch.softmax(input, axis)


@OPS.register("LogSoftmax", since=13)
def log_softmax(input: Tensor, *, axis: int = -1) -> Tensor:
    """Logarithm of Softmax."""
    return torch.log_softmax(input, axis)


@OPS.register("Hardmax", since=13)
def hardmax(input: Tensor, *, axis: int = -1) -> Tensor:
    """1 at the first maximum along an axis, 0 elsewhere."""
    first = input.argmax(axis, keepdim=True)
    return torch.zeros_like(input).scatter(axis, first, 1.0)


def _rows(input: Tensor, axis: int) -> Tensor:
    """Flatten to two axes: those before ``axis``, and the rest."""
    return input.reshape(math.prod(input.shape[: axis if axis >= 0 else input.dim() + axis]), -1)


@OPS.register("Softmax", since=1)
def softmax_1(input: Tensor, *, axis: int = 1) -> Tensor:
    """Softmax over all axes from ``axis`` on."""
    return torch.softmax(_rows(input, axis), 1).reshape(input.shape)


@OPS.register("LogSoftmax", since=1)
def log_softmax_1(input: Tensor, *, axis: int = 1) -> Tensor:
    """LogSoftmax over all axes from ``axis`` on."""
    return torch.log_softmax(_rows(input, axis), 1).reshape(input.shape)


@OPS.register("Hardmax", since=1)
def hardmax_1(input: Tensor, *, axis: int = 1) -> Tensor:
    """Hardmax over all axes from ``axis`` on."""
    return hardmax(_rows(input, axis), axis=1).reshape(input.shape)
