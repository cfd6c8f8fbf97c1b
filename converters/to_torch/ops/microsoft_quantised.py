"""Quantised operators of ONNX Runtime's own domain, which its quantiser writes (``QOperator``).

Most of them are what they look like: dequantise, compute, quantise again.  That is also how their
gradient comes about; see ``quantisation``.
"""

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from converters.errors import ConverterError
from converters.to_torch.ops import quantisation
from converters.to_torch.ops.microsoft import DOMAIN
from converters.to_torch.ops.pooling import average_pool, max_pool
from converters.to_torch.ops.quantisation import (
    along,
    carried,
    centred,
    dequantize_linear,
    quantize_linear,
    requantize,
)
from converters.to_torch.optable import OPS

__all__ = ["qgemm", "qlinear_add", "qlinear_concat"]


def _first(x: Tensor) -> Tensor:
    """Channels from the last axis to the second."""
    return x.movedim(-1, 1)


def _last(x: Tensor) -> Tensor:
    """Channels from the second axis to the last."""
    return x.movedim(1, -1)


@OPS.register("QLinearAdd", domain=DOMAIN)
def qlinear_add(
    A: Tensor,
    A_scale: Tensor,
    A_zero_point: Tensor | None,
    B: Tensor,
    B_scale: Tensor,
    B_zero_point: Tensor | None,
    C_scale: Tensor,
    C_zero_point: Tensor | None = None,
) -> Tensor:
    """Sum of quantised tensors."""
    total = dequantize_linear(A, A_scale, A_zero_point) + dequantize_linear(
        B, B_scale, B_zero_point
    )
    return quantize_linear(total, C_scale, C_zero_point)


@OPS.register("QLinearMul", domain=DOMAIN)
def qlinear_mul(
    A: Tensor,
    A_scale: Tensor,
    A_zero_point: Tensor | None,
    B: Tensor,
    B_scale: Tensor,
    B_zero_point: Tensor | None,
    C_scale: Tensor,
    C_zero_point: Tensor | None = None,
) -> Tensor:
    """Product of quantised tensors, element by element."""
    product = centred(A, A_zero_point, A_scale.dtype) * centred(B, B_zero_point, A_scale.dtype)
    return requantize(product, A_scale * B_scale / C_scale, C_zero_point)


@OPS.register("QLinearSigmoid", domain=DOMAIN)
def qlinear_sigmoid(
    X: Tensor,
    X_scale: Tensor,
    X_zero_point: Tensor | None,
    Y_scale: Tensor,
    Y_zero_point: Tensor | None = None,
) -> Tensor:
    """Sigmoid of a quantised tensor."""
    y = torch.sigmoid(dequantize_linear(X, X_scale, X_zero_point))
    return quantize_linear(y, Y_scale, Y_zero_point)


@OPS.register("QLinearLeakyRelu", domain=DOMAIN)
def qlinear_leaky_relu(
    X: Tensor,
    X_scale: Tensor,
    X_zero_point: Tensor | None,
    Y_scale: Tensor,
    Y_zero_point: Tensor | None = None,
    *,
    alpha: float = 0.009999999776482582,
) -> Tensor:
    """LeakyRelu of a quantised tensor."""
    y = F.leaky_relu(dequantize_linear(X, X_scale, X_zero_point), alpha)
    return quantize_linear(y, Y_scale, Y_zero_point)


@OPS.register("QLinearSoftmax", domain=DOMAIN)
def qlinear_softmax(
    X: Tensor,
    X_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor,
    *,
    axis: int = -1,
    opset: int,
) -> Tensor:
    """Softmax of a quantised tensor, with the axes of Softmax of the given opset."""
    x = dequantize_linear(X, X_scale, x_zero_point)
    start = axis % x.dim()
    if opset < 13:
        y = torch.softmax(x.flatten(start), start).reshape(x.shape)
    else:
        y = torch.softmax(x, start)
    return quantize_linear(y, y_scale, y_zero_point)


@OPS.register("QLinearConcat", domain=DOMAIN)
def qlinear_concat(Y_scale: Tensor, Y_zero_point: Tensor, *inputs: Tensor, axis: int) -> Tensor:
    """Join quantised tensors (each with scale and zero point) at one scale."""
    triples = zip(inputs[0::3], inputs[1::3], inputs[2::3], strict=True)
    joined = [
        quantize_linear(dequantize_linear(x, scale, zero), Y_scale, Y_zero_point)
        for x, scale, zero in triples
    ]
    return torch.cat(joined, dim=axis)


@OPS.register("QLinearGlobalAveragePool", domain=DOMAIN)
def qlinear_global_average_pool(
    X: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    *,
    channels_last: int = 0,
) -> Tensor:
    """Mean over all spatial axes of a quantised tensor."""
    axes = tuple(range(1, X.dim() - 1)) if channels_last else tuple(range(2, X.dim()))
    total = centred(X, x_zero_point, x_scale.dtype).sum(axes, keepdim=True)
    pixels = X.numel() // total.numel()
    return requantize(total, x_scale / (y_scale * pixels), y_zero_point)


@OPS.register("QLinearAveragePool", domain=DOMAIN)
def qlinear_average_pool(
    X: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """AveragePool of a quantised tensor."""
    x = dequantize_linear(_first(X) if channels_last else X, x_scale, x_zero_point)
    y = average_pool(
        x,
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        pads=pads,
        strides=strides,
    )
    levels = quantize_linear(y, y_scale, y_zero_point)
    return _last(levels) if channels_last else levels


@OPS.register("NhwcMaxPool", domain=DOMAIN)
def nhwc_max_pool(
    x: Tensor,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """MaxPool of a tensor whose channels come last."""
    y = max_pool(
        _first(x),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    return _last(cast("Tensor", y))


@OPS.register("QLinearConv", domain=DOMAIN)
def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    channels_last: int = 0,
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """QLinearConv, also with the channels of x and y last."""
    y = quantisation.qlinear_conv(
        _first(x) if channels_last else x,
        x_scale,
        x_zero_point,
        w,
        w_scale,
        w_zero_point,
        y_scale,
        y_zero_point,
        B,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        pads=pads,
        strides=strides,
    )
    return _last(y) if channels_last else y


@OPS.register("QGemm", domain=DOMAIN)
def qgemm(
    A: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    B: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    C: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero_point: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Gemm of quantised matrices; without an output scale the result is a float."""
    dtype = a_scale.dtype
    left = centred(A, a_zero_point, dtype)
    # Scales and zero points of B go with the columns of the product.
    right = centred(B, b_zero_point, dtype, axis=0 if transB else 1)
    total = (left.T if transA else left) @ (right.T if transB else right)
    if C is not None:
        total = total + carried(C, dtype)
    factor = alpha * a_scale.reshape([]) * along(b_scale, total, 1)
    if y_scale is None:
        return total * factor
    if y_zero_point is None:
        raise ConverterError("QGemm with an output scale and no output zero point")
    return requantize(total, factor / y_scale.reshape([]), y_zero_point)
