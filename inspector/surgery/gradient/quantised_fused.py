"""Signals of the quantised operators of ONNX Runtime's own domain (``QLinearAdd`` and its like).

They are what they look like: dequantise, compute, quantise again.  As in ``quantisation`` the
signal at a quantised tensor is the derivative by its levels, and rounding is straight-through.
"""

import math
from collections.abc import Mapping

from inspector.surgery.gradient.activations import softmax_back
from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.convolution import convolved_back
from inspector.surgery.gradient.matrix import gemm
from inspector.surgery.gradient.pooling import averaged_back, first_maximum_back
from inspector.surgery.gradient.quantisation import centred
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step
from inspector.surgery.gradient.windows import window_of

__all__: list[str] = []

DOMAIN = "com.microsoft"


def _require(step: Step, *allowed: int) -> None:
    """Refuse scales and weights that depend on the image."""
    if step.wanted - set(allowed):
        raise CannotDifferentiate("its weights or scales depend on the input")


def _ratio(b: Builder, step: Step, above: int, below: int) -> str:
    """One scale over another."""
    return b.once("Div", [b.value(step.input(above)), b.value(step.input(below))])


def _real(b: Builder, step: Step, at: int = 0) -> str:
    """Numbers that the levels of input ``at`` stand for; scale and zero point follow it."""
    levels = b.once("Cast", [step.input(at)], to=1)
    if step.input(at + 2):
        zero = b.once("Cast", [step.input(at + 2)], to=1)
        levels = b.once("Sub", [levels, zero])
    return b.once("Mul", [levels, b.value(step.input(at + 1))])


@RULES.register("QLinearAdd", domain=DOMAIN)
def qlinear_add(b: Builder, step: Step) -> Mapping[int, str]:
    """G times a term's scale over the result's."""
    _require(step, 0, 3)
    whole = b.dims(step.node.outputs[0])
    return {
        i: b.narrowed(b.mul(step.signal, _ratio(b, step, i + 1, 6)), whole, b.dims(step.input(i)))
        for i in sorted(step.wanted)
    }


@RULES.register("QLinearMul", domain=DOMAIN)
def qlinear_mul(b: Builder, step: Step) -> Mapping[int, str]:
    """G times the other factor, and a factor's scale over the result's."""
    _require(step, 0, 3)
    whole, found = b.dims(step.node.outputs[0]), {}
    for i in sorted(step.wanted):
        part = b.mul(b.mul(step.signal, _ratio(b, step, i + 1, 6)), _real(b, step, 3 - i))
        found[i] = b.narrowed(part, whole, b.dims(step.input(i)))
    return found


@RULES.register("QLinearSigmoid", domain=DOMAIN)
def qlinear_sigmoid(b: Builder, step: Step) -> Mapping[int, str]:
    """S (1 - s) with s the sigmoid of the dequantised input."""
    _require(step, 0)
    s = b.op("Sigmoid", [_real(b, step)])
    slope = b.mul(s, b.op("Sub", [b.constant(1.0), s]))
    return {0: b.mul(b.mul(step.signal, _ratio(b, step, 1, 3)), slope)}


@RULES.register("QLinearLeakyRelu", domain=DOMAIN)
def qlinear_leaky_relu(b: Builder, step: Step) -> Mapping[int, str]:
    """1 where x > 0, alpha elsewhere."""
    _require(step, 0)
    alpha = float(step.node.attributes.get("alpha", 0.009999999776482582))
    above = b.scaled(b.positive(_real(b, step)), 1 - alpha)
    slope = b.op("Add", [above, b.constant(alpha)])
    return {0: b.mul(b.mul(step.signal, _ratio(b, step, 1, 3)), slope)}


@RULES.register("QLinearSoftmax", domain=DOMAIN)
def qlinear_softmax(b: Builder, step: Step) -> Mapping[int, str]:
    """Y (g - sum(g y)) with y the softmax of the dequantised input."""
    _require(step, 0)
    dims, attributes = b.dims(step.input(0)), step.node.attributes
    axis = int(attributes.get("axis", -1)) % len(dims)
    x, g = _real(b, step), b.mul(step.signal, _ratio(b, step, 1, 3))
    flat = int(attributes.get("opset", b.opset)) < 13 and axis < len(dims) - 1
    if flat:
        if axis == 0:
            raise CannotDifferentiate("a softmax over the axis of samples")
        rows = (-1, math.prod(dims[axis:]))
        x, g, axis = b.reshape(x, rows), b.reshape(g, rows), 1
    found = softmax_back(b, b.op("Softmax", [x], axis=axis), g, axis)
    return {0: b.like(found, step.input(0)) if flat else found}


@RULES.register("QLinearConcat", domain=DOMAIN)
def qlinear_concat(b: Builder, step: Step) -> Mapping[int, str]:
    """Cut into the parts that were joined, each by its scale over the result's."""
    places = range(2, len(step.node.inputs), 3)
    _require(step, *places)
    axis, at, found = int(step.node.attributes["axis"]), 0, {}
    for i in places:
        size = b.dims(step.input(i))[axis]
        if i in step.wanted:
            part = b.slice(step.signal, [at], [at + size], [axis])
            found[i] = b.mul(part, _ratio(b, step, i + 1, 0))
        at += size
    return found


def _channels_second(step: Step, rank: int) -> tuple[list[int], list[int]] | None:
    """Orders of axes to channels second and back; None where they are."""
    if not int(step.node.attributes.get("channels_last", 0)):
        return None
    return [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]


def _moved(dims: tuple[int, ...], order: list[int]) -> tuple[int, ...]:
    return tuple(dims[axis] for axis in order)


@RULES.register("QLinearGlobalAveragePool", domain=DOMAIN)
def qlinear_global_average_pool(b: Builder, step: Step) -> Mapping[int, str]:
    """The same share for every pixel."""
    _require(step, 0)
    dims = b.dims(step.input(0))
    last = bool(step.node.attributes.get("channels_last", 0))
    pixels = math.prod(dims[1:-1] if last else dims[2:])
    share = b.scaled(b.mul(step.signal, _ratio(b, step, 1, 3)), 1 / pixels)
    return {0: b.expanded(share, step.input(0))}


@RULES.register("QLinearAveragePool", domain=DOMAIN)
def qlinear_average_pool(b: Builder, step: Step) -> Mapping[int, str]:
    """Every window's share goes to all of its pixels."""
    _require(step, 0)
    dims, out = b.dims(step.input(0)), b.dims(step.node.outputs[0])
    signal, orders = b.mul(step.signal, _ratio(b, step, 1, 3)), _channels_second(step, len(dims))
    if orders is not None:
        dims, out = _moved(dims, orders[0]), _moved(out, orders[0])
        signal = b.transpose(signal, orders[0])
    window = window_of(step.node, dims[2:], step.node.attributes["kernel_shape"], out[2:])
    found = averaged_back(b, step, signal, window, dims[1])
    return {0: found if orders is None else b.transpose(found, orders[1])}


@RULES.register("NhwcMaxPool", domain=DOMAIN)
def nhwc_max_pool(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal goes to the place of the maximum, the first of equals; channels come last."""
    dims, out = b.dims(step.input(0)), b.dims(step.node.outputs[0])
    rank = len(dims)
    there, back = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    dims, out = _moved(dims, there), _moved(out, there)
    window = window_of(step.node, dims[2:], step.node.attributes["kernel_shape"], out[2:])
    x, y, g = (
        b.transpose(tensor, there)
        for tensor in (
            b.once("Cast", [step.input(0)], to=1),
            b.once("Cast", [step.node.outputs[0]], to=1),
            step.signal,
        )
    )
    found = first_maximum_back(b, x, y, g, window=window, channels=dims[1])
    return {0: b.transpose(found, back)}


@RULES.register("QLinearConv", domain=DOMAIN)
def qlinear_conv_last(b: Builder, step: Step) -> Mapping[int, str]:
    """QLinearConv, also with the channels of x and y last."""
    _require(step, 0)
    w, dims, out = step.input(3), b.dims(step.input(0)), b.dims(step.node.outputs[0])
    shape, orders, signal = b.dims(w), _channels_second(step, len(dims)), step.signal
    if orders is not None:
        dims, out = _moved(dims, orders[0]), _moved(out, orders[0])
        signal = b.transpose(signal, orders[0])
    weights = centred(b, w, step.input(5), len(shape), 0)
    weights = b.once("Mul", [weights, b.vector(step.input(4), len(shape), 0)])
    found = convolved_back(
        b,
        b.mul(signal, _ratio(b, step, 1, 6)),
        weights,
        shape=shape,
        channels=dims[1],
        window=window_of(step.node, dims[2:], shape[2:], out[2:]),
        group=int(step.node.attributes.get("group", 1)),
    )
    return {0: found if orders is None else b.transpose(found, orders[1])}


@RULES.register("QGemm", domain=DOMAIN)
def qgemm(b: Builder, step: Step) -> Mapping[int, str]:
    """Gemm of levels; without an output scale the result is a float."""
    _require(step, 0)
    attributes = step.node.attributes
    ta, tb = int(attributes.get("transA", 0)), int(attributes.get("transB", 0))
    matrix = centred(b, step.input(3), step.input(5), 2, 0 if tb else 1)
    factor = b.value(step.input(1))
    if step.input(7):
        factor = b.once("Div", [factor, b.value(step.input(7))])
    g = b.mul(step.signal, factor)
    # Scales of B go with the columns of the product.
    g = b.mul(g, b.value(step.input(4)))
    alpha = float(attributes.get("alpha", 1.0))
    if ta:
        return {0: gemm(b, matrix, g, alpha=alpha, ta=tb, tb=1)}
    return {0: gemm(b, g, matrix, alpha=alpha, tb=1 - tb)}
