"""Signals of quantised operators: rounding and saturation are straight-through.

The signal at a quantised tensor is the derivative by its levels, as in the twin.  Levels and scales
are read from the file as they are.
"""

import math
from collections.abc import Mapping

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.convolution import convolved_back
from inspector.surgery.gradient.matrix import times_transposed
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step
from inspector.surgery.gradient.windows import window_of

__all__ = ["centred"]


def _scale(b: Builder, step: Step, position: int, tensor: str) -> str:
    """A scale in a shape that broadcasts to a tensor."""
    if step.node.attributes.get("block_size"):
        raise CannotDifferentiate("scales by block")
    name = step.input(position)
    rank = len(b.dims(tensor))
    axis = int(step.node.attributes.get("axis", 1))
    return b.vector(name, rank, axis % max(rank, 1))


@RULES.register("QuantizeLinear", since=10)
@RULES.register("QuantizeLinear", domain="com.microsoft")
def quantize_linear(b: Builder, step: Step) -> Mapping[int, str]:
    """G / scale."""
    if step.wanted != {0}:
        raise CannotDifferentiate("its scale depends on the input")
    return {0: b.op("Div", [step.signal, _scale(b, step, 1, step.input(0))])}


@RULES.register("DequantizeLinear", since=10)
@RULES.register("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(b: Builder, step: Step) -> Mapping[int, str]:
    """G scale."""
    if step.wanted != {0}:
        raise CannotDifferentiate("its scale depends on the input")
    return {0: b.mul(step.signal, _scale(b, step, 1, step.input(0)))}


@RULES.register("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(b: Builder, step: Step) -> Mapping[int, str]:
    """G / scale; scale and zero point count as constants."""
    if step.signals[0] is None:
        return {}
    return {0: b.op("Div", [step.signal, step.node.outputs[1]])}


def centred(b: Builder, tensor: str, zero_point: str, rank: int, axis: int) -> str:
    """Levels less their zero point, in float32.

    Args:
        b: Where it is written.
        tensor: The levels.
        zero_point: Name of the zero point; empty where there is none.
        rank: Axes of the levels.
        axis: What several zero points belong to.
    """
    levels = b.value(tensor)
    if not zero_point:
        return levels
    constant = b.graph.constant(zero_point)
    if constant is not None and not np.any(constant):
        return levels
    return b.once("Sub", [levels, b.vector(zero_point, rank, axis)])


@RULES.register("QLinearConv", since=10)
def qlinear_conv(b: Builder, step: Step) -> Mapping[int, str]:
    """A convolution of levels: the weights' scales, and the input's over the output's."""
    if step.wanted != {0}:
        raise CannotDifferentiate("its weights or scales depend on the input")
    x, w, y = step.input(0), step.input(3), step.node.outputs[0]
    shape, dims = b.dims(w), b.dims(x)
    window = window_of(step.node, dims[2:], shape[2:], b.dims(y)[2:])
    weights = centred(b, w, step.input(5), len(shape), 0)
    factor = b.once("Div", [b.value(step.input(1)), b.value(step.input(6))])
    scales = b.vector(step.input(4), len(shape), 0)
    signal = b.mul(step.signal, factor)
    if math.prod(b.dims(step.input(4))) == 1:
        signal = b.mul(signal, b.value(step.input(4)))
    else:
        weights = b.once("Mul", [weights, scales])
    group = int(step.node.attributes.get("group", 1))
    found = convolved_back(
        b, signal, weights, shape=shape, channels=dims[1], window=window, group=group
    )
    return {0: found}


@RULES.register("ConvInteger", since=10)
def conv_integer(b: Builder, step: Step) -> Mapping[int, str]:
    """A convolution of levels."""
    if 1 in step.wanted:
        raise CannotDifferentiate("its weights depend on the input")
    x, w, y = step.input(0), step.input(1), step.node.outputs[0]
    shape, dims = b.dims(w), b.dims(x)
    window = window_of(step.node, dims[2:], shape[2:], b.dims(y)[2:])
    weights = centred(b, w, step.input(3), len(shape), 0)
    group = int(step.node.attributes.get("group", 1))
    found = convolved_back(
        b, step.signal, weights, shape=shape, channels=dims[1], window=window, group=group
    )
    return {0: found}


@RULES.register("MatMulInteger", since=10)
def matmul_integer(b: Builder, step: Step) -> Mapping[int, str]:
    """A product of levels."""
    if 1 in step.wanted:
        raise CannotDifferentiate("the second matrix depends on the input")
    return {0: _product(b, step, step.signal, second=1, zero=3)}


@RULES.register("QLinearMatMul", since=10)
def qlinear_matmul(b: Builder, step: Step) -> Mapping[int, str]:
    """A product of levels: the second one's scales, and the first one's over the result's."""
    if step.wanted != {0}:
        raise CannotDifferentiate("the second matrix depends on the input")
    above, below = (_by_row(b, step.input(position)) for position in (1, 6))
    factor = b.once("Div", [above, below])
    signal = b.mul(b.mul(step.signal, factor), b.value(step.input(4)))
    return {0: _product(b, step, signal, second=3, zero=5)}


def _by_row(b: Builder, scale: str) -> str:
    """A scale, or one per row as a column."""
    dims = b.dims(scale)
    value = b.value(scale)
    return b.unsqueeze(value, [1]) if len(dims) == 1 and dims[0] > 1 else value


def _product(b: Builder, step: Step, signal: str, *, second: int, zero: int) -> str:
    a, c = b.dims(step.input(0)), b.dims(step.input(second))
    if len(a) < 2 or len(c) < 2:
        raise CannotDifferentiate("a product with a vector")
    matrix = centred(b, step.input(second), step.input(zero), len(c), len(c) - 1)
    return times_transposed(b, signal, matrix, out=b.dims(step.node.outputs[0]), c=c, a=a)
