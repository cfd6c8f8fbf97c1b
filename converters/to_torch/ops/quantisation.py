"""Quantised operators, with a gradient.

Where a gradient is wanted, a quantised value is carried as a float that holds an integer, so that
autograd can pass through it; 8-bit and 16-bit integers are exact in float32.  Where none is
wanted it has the type that ONNX says.  Rounding and saturation are *straight-through* (Bengio et
al. 2013): forwards they round and clamp, backwards they are not there.  All of it goes through
``saturate``, which is the one place where a backward rule changes what the clamp lets pass: ONNX
Runtime's quantiser removes Relu and Clip, and leaves their work to the clamp of QuantizeLinear.

Zero points and scales keep the types that they have in the file, for a zero point's type says
what range its tensor has.
"""

from typing import Any

import onnx
import torch
from torch import Tensor

from converters.errors import ConverterError
from converters.to_torch.ops.convolution import convolve
from converters.to_torch.ops.window import conv_window
from converters.to_torch.optable import OPS

__all__ = [
    "along",
    "carried",
    "dequantize_linear",
    "quantize",
    "quantize_linear",
    "requantize",
    "saturate",
    "type_of",
    "typed",
]

TYPES = onnx.TensorProto
INTEGER_LIMITS = {
    int(TYPES.UINT2): (0, 3),
    int(TYPES.INT2): (-2, 1),
    int(TYPES.UINT4): (0, 15),
    int(TYPES.INT4): (-8, 7),
    int(TYPES.UINT8): (0, 255),
    int(TYPES.INT8): (-128, 127),
    int(TYPES.UINT16): (0, 65535),
    int(TYPES.INT16): (-32768, 32767),
    int(TYPES.INT32): (-(2**31), 2**31 - 1),
}
FLOAT8 = {
    int(TYPES.FLOAT8E4M3FN): torch.float8_e4m3fn,
    int(TYPES.FLOAT8E4M3FNUZ): torch.float8_e4m3fnuz,
    int(TYPES.FLOAT8E5M2): torch.float8_e5m2,
    int(TYPES.FLOAT8E5M2FNUZ): torch.float8_e5m2fnuz,
}
STORED = {
    int(TYPES.UINT2): torch.uint8,
    int(TYPES.INT2): torch.int8,
    int(TYPES.UINT4): torch.uint8,
    int(TYPES.INT4): torch.int8,
    int(TYPES.UINT8): torch.uint8,
    int(TYPES.INT8): torch.int8,
    int(TYPES.UINT16): torch.uint16,
    int(TYPES.INT16): torch.int16,
    int(TYPES.INT32): torch.int32,
} | FLOAT8
ONNX_TYPES = {
    torch.uint8: int(TYPES.UINT8),
    torch.int8: int(TYPES.INT8),
    torch.uint16: int(TYPES.UINT16),
    torch.int16: int(TYPES.INT16),
    torch.int32: int(TYPES.INT32),
} | {dtype: number for number, dtype in FLOAT8.items()}


class _StraightThrough(torch.autograd.Function):
    """Round to even, add the zero point, clamp; backwards the identity."""

    @staticmethod
    def forward(_ctx: Any, levels: Tensor, zero: Tensor | None, low: float, high: float) -> Tensor:
        rounded = torch.round(levels)
        return (rounded if zero is None else rounded + zero).clamp(low, high)

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None, None


class _Float8(torch.autograd.Function):
    """Round to the nearest number that a type of eight bits has; backwards the identity."""

    @staticmethod
    def forward(_ctx: Any, levels: Tensor, dtype: torch.dtype, saturating: bool) -> Tensor:
        if saturating:
            top = torch.finfo(dtype).max
            levels = levels.clamp(-top, top)
        return levels.to(torch.float32).to(dtype).to(levels.dtype)

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None


def saturate(levels: Tensor, zero_point: Tensor | None, limits: tuple[float, float]) -> Tensor:
    """Round levels to whole numbers, shift by the zero point, clamp; straight-through.

    Args:
        levels: Values over their scale.
        zero_point: The level that stands for 0, of a shape that broadcasts.
        limits: Least and greatest number of the quantised type.

    Returns:
        Whole numbers, as floats.
    """
    zero = None if zero_point is None else zero_point.to(levels.dtype)
    result: Tensor = _StraightThrough.apply(levels, zero, *limits)  # type: ignore[no-untyped-call]
    return result


def typed(levels: Tensor, number: int) -> Tensor:
    """Whole numbers in the type that ONNX says, unless a gradient passes through them."""
    return levels if levels.requires_grad else levels.to(STORED[number])


def type_of(zero_point: Tensor | None) -> int:
    """ONNX element type of a zero point, and so of what it belongs to; uint8 without one."""
    return ONNX_TYPES.get(torch.uint8 if zero_point is None else zero_point.dtype, 0)


def carried(x: Tensor, like: torch.dtype = torch.float64) -> Tensor:
    """A quantised value as a float; integers from the file or from the user become ``like``."""
    return x if x.dtype in {torch.float32, torch.float64} else x.to(like)


def along(parameter: Tensor, x: Tensor, axis: int, block_size: int = 0) -> Tensor:
    """Bring a scale or zero point into a shape that broadcasts to x.

    Args:
        parameter: One value, one for each index of ``axis``, or one for each block.
        x: The tensor that is quantised.
        axis: The axis that the values belong to.
        block_size: Number of consecutive indices of ``axis`` that share a value; 0 for none.
    """
    if parameter.numel() == 1 and not block_size:
        return parameter.reshape([])
    if block_size:
        return parameter.repeat_interleave(block_size, dim=axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return parameter.reshape(shape)


@OPS.register("QuantizeLinear", since=10)
@OPS.register("QuantizeLinear", domain="com.microsoft")
def quantize_linear(
    x: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    zero_point_type: int = 0,
) -> Tensor:
    """saturate(round(x / scale) + zero point): by tensor, axis or block.

    ``zero_point_type`` is not an attribute: the program says here of which ONNX type the zero point
    is where torch has no such type (four and two bits, held in eight).
    """
    number = output_dtype or zero_point_type or type_of(y_zero_point)
    return quantize(
        x, y_scale, y_zero_point, number, axis=axis, block_size=block_size, saturating=saturate
    )


def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    number: int,
    *,
    axis: int = 1,
    block_size: int = 0,
    saturating: int = 1,
) -> Tensor:
    """Quantise x to the ONNX element type ``number``.

    Raises:
        ConverterError: When nothing here can hold that type.
    """
    levels = carried(x, scale.dtype) / along(scale, x, axis, block_size)
    if number in FLOAT8:
        result: Tensor = _Float8.apply(levels, FLOAT8[number], bool(saturating))  # type: ignore[no-untyped-call]
        return typed(result, number)
    if number not in INTEGER_LIMITS:
        raise ConverterError(f"quantisation to {TYPES.DataType.Name(number)}")
    zero = None if zero_point is None else along(zero_point, x, axis, block_size)
    return typed(_saturate(levels, zero, INTEGER_LIMITS[number]), number)


_saturate = saturate  # `saturate` is also an attribute of QuantizeLinear


@OPS.register("DequantizeLinear", since=10)
@OPS.register("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """(x - zero point) * scale: by tensor, axis or block."""
    levels = carried(x, x_scale.dtype)
    if x_zero_point is not None:
        levels = levels - along(x_zero_point, x, axis, block_size).to(levels.dtype)
    return levels * along(x_scale, x, axis, block_size)


@OPS.register("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise to uint8 over the range of x itself.

    Scale and zero point count as constants in the gradient: what x loses by them is rounding.
    """
    with torch.no_grad():
        low, high = x.min().clamp(max=0), x.max().clamp(min=0)
        span = torch.where(high == low, torch.ones_like(high), high - low)
        scale = span / 255
        zero = torch.round((-low / scale).clamp(0, 255)).to(torch.uint8)
    levels = saturate(x / scale, zero, (0, 255))
    return typed(levels, int(TYPES.UINT8)), scale, zero


def centred(x: Tensor, zero_point: Tensor | None, dtype: torch.dtype, axis: int = 0) -> Tensor:
    """X less its zero point, in a float type."""
    x = carried(x, dtype)
    if zero_point is None:
        return x
    return x - along(zero_point, x, axis).to(x.dtype)


def requantize(total: Tensor, factor: Tensor, zero_point: Tensor | None) -> Tensor:
    """Bring sums of integer products to a quantised type: round(total * factor) + zero point."""
    number = type_of(zero_point)
    if number not in INTEGER_LIMITS:
        raise ConverterError(f"quantisation to {TYPES.DataType.Name(number)}")
    return typed(saturate(total * factor, zero_point, INTEGER_LIMITS[number]), number)


@OPS.register("ConvInteger", since=10)
def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Convolution of integers; what is padded is the zero point, so nothing."""
    window = conv_window(x.shape[2:], w.shape[2:], strides, pads, dilations, auto_pad)
    X = centred(x, x_zero_point, torch.float64)
    W = centred(w, w_zero_point, X.dtype).to(X.dtype)
    return typed(convolve(X, W, None, window, group), int(TYPES.INT32))


@OPS.register("QLinearConv", since=10)
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
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Convolution of quantised values; weights may have a scale for each output channel."""
    window = conv_window(x.shape[2:], w.shape[2:], strides, pads, dilations, auto_pad)
    dtype = x_scale.dtype
    W, bias = centred(w, w_zero_point, dtype), None if B is None else carried(B, dtype)
    total = convolve(centred(x, x_zero_point, dtype), W, bias, window, group)
    factor = along(x_scale.reshape([]) * w_scale / y_scale.reshape([]), total, 1)
    return requantize(total, factor, y_zero_point)


@OPS.register("MatMulInteger", since=10)
def matmul_integer(
    A: Tensor, B: Tensor, a_zero_point: Tensor | None = None, b_zero_point: Tensor | None = None
) -> Tensor:
    """Product of integer matrices; zero points by tensor, by row of A, by column of B."""
    left = _less_rows(A, a_zero_point, torch.float64)
    product = left @ _less_columns(B, b_zero_point, left.dtype).to(left.dtype)
    return typed(product, int(TYPES.INT32))


def _less_rows(A: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """A less a zero point that may be one for each row."""
    if zero_point is not None and zero_point.dim() > 1:
        return carried(A, dtype) - zero_point.to(dtype)
    return centred(A, zero_point, dtype, axis=-2 if A.dim() > 1 else -1)


def _less_columns(B: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """B less a zero point that may be one for each column."""
    if zero_point is not None and zero_point.dim() > 1:
        return carried(B, dtype) - zero_point.to(dtype)
    return centred(B, zero_point, dtype, axis=-1)


def _rows(scale: Tensor) -> Tensor:
    """A scale for each row, as a column; one that is a matrix already stays."""
    return (
        scale.reshape([]) if scale.numel() == 1 else scale[:, None] if scale.dim() == 1 else scale
    )


@OPS.register("QLinearMatMul", since=10)
def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
) -> Tensor:
    """Product of quantised matrices; scales by tensor, by row of a, by column of b."""
    dtype = a_scale.dtype
    total = _less_rows(a, a_zero_point, dtype) @ _less_columns(b, b_zero_point, dtype)
    columns = b_scale.reshape([]) if b_scale.numel() == 1 else b_scale
    return requantize(total, _rows(a_scale) * columns / _rows(y_scale), y_zero_point)
