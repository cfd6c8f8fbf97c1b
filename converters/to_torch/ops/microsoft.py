"""Fused float operators that ONNX Runtime writes when it saves an optimised model.

Domain ``com.microsoft``; two of them it puts into the default domain.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from converters.errors import ConverterError
from converters.to_torch.ops.convolution import conv
from converters.to_torch.ops.matrix import gemm
from converters.to_torch.ops.normalisation import EPSILON, layer_normalization, rms_normalization
from converters.to_torch.optable import OPS

__all__ = ["DOMAIN", "fused_conv", "fused_gemm", "fused_matmul"]

DOMAIN = "com.microsoft"

# Activation functions by name, with the parameters that a fused node may carry.
FUSED: dict[str, Callable[..., Tensor]] = {
    "": lambda x: x,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "LeakyRelu": F.leaky_relu,
    "Elu": F.elu,
    "Clip": F.hardtanh,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: F.hardtanh(alpha * x + beta, 0.0, 1.0),
    "HardSwish": F.hardswish,
    "Softplus": lambda x: F.softplus(x, threshold=40.0),
    "Softsign": F.softsign,
}


def _activate(x: Tensor, name: str, parameters: tuple[float, ...]) -> Tensor:
    """Apply the activation function that a node was fused with."""
    if name not in FUSED:
        raise ConverterError(f"a node fused with activation {name!r}")
    return FUSED[name](x, *parameters)


@OPS.register("FusedConv", domain=DOMAIN)
def fused_conv(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    Z: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: tuple[float, ...] | None = None,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Conv, then the addition of Z, then an activation function."""
    Y = conv(
        X, W, B, auto_pad=auto_pad, dilations=dilations, group=group, pads=pads, strides=strides
    )
    return _activate(Y if Z is None else Y + Z, activation, activation_params or ())


@OPS.register("FusedGemm", domain=DOMAIN)
def fused_gemm(
    A: Tensor,
    B: Tensor,
    C: Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Gemm, then an activation function."""
    Y = gemm(A, B, C, alpha=alpha, beta=beta, transA=transA, transB=transB)
    given = (activation_alpha, activation_beta, activation_gamma)
    return _activate(Y, activation, tuple(value for value in given if value is not None))


@OPS.register("FusedMatMul", domain=DOMAIN)
def fused_matmul(
    A: Tensor,
    B: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """``alpha A B`` with either matrix transposed first."""
    if transBatchA or transBatchB:
        raise ConverterError("FusedMatMul with a transposed batch axis")
    A = A.transpose(-1, -2) if transA and A.dim() > 1 else A
    B = B.transpose(-1, -2) if transB and B.dim() > 1 else B
    return alpha * torch.matmul(A, B)


@OPS.register("Gelu", domain=DOMAIN)
def gelu(X: Tensor) -> Tensor:
    """X Phi(x)."""
    return F.gelu(X)


@OPS.register("BiasGelu", domain=DOMAIN)
def bias_gelu(A: Tensor, B: Tensor) -> Tensor:
    """Gelu of a sum."""
    return F.gelu(A + B)


@OPS.register("FastGelu", domain=DOMAIN)
def fast_gelu(X: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gelu by its tanh approximation, of a sum."""
    return F.gelu(X if bias is None else X + bias, approximate="tanh")


@OPS.register("QuickGelu", domain=DOMAIN)
def quick_gelu(X: Tensor, *, alpha: float = 1.702) -> Tensor:
    """X sigmoid(alpha x)."""
    return F.silu(X) if alpha == 1.0 else X * torch.sigmoid(alpha * X)


# Before opset 17 ONNX Runtime has a LayerNormalization of its own in the default domain.
OPS.register("LayerNormalization", since=1)(layer_normalization)


@OPS.register("SimplifiedLayerNormalization")
def simplified_layer_normalization(
    X: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = EPSILON,
    n_outputs: int = 1,
    stash_type: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:
    """Divide by the root mean square; 1 / that on demand."""
    Y = rms_normalization(X, scale, axis=axis, epsilon=epsilon)
    if n_outputs == 1:
        return Y
    axes = tuple(range(axis % X.dim(), X.dim()))
    return Y, torch.rsqrt(X.square().mean(axes, keepdim=True) + epsilon)


@OPS.register("SkipLayerNormalization", domain=DOMAIN)
def skip_layer_normalization(
    input: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, ...]:
    """LayerNormalization of a sum; the fourth output is the sum."""
    total = input + skip if bias is None else input + skip + bias
    result = layer_normalization(total, gamma, beta, epsilon=epsilon, n_outputs=3)
    return (*result, total)


@OPS.register("SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip_simplified_layer_normalization(
    input: Tensor,
    skip: Tensor,
    gamma: Tensor,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, ...]:
    """RMSNormalization of a sum; the fourth output is the sum."""
    total = input + skip if bias is None else input + skip + bias
    inverse = torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon)
    return total * inverse * gamma, torch.zeros_like(inverse), inverse, total
