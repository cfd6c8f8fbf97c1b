"""Signals of activation functions, element by element and along an axis.

At a corner the derivative is that of the flat side, as in the twin: Relu'(0) = 0, and a Clip passes
nothing at its bounds.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__ = ["elementwise", "gelu_slope", "softmax_back"]

Slope = Callable[[Builder, Step, str, str], str]


def elementwise(*op_types: str, since: int = 1, domain: str = "") -> Callable[[Slope], Slope]:
    """Register the derivative of a function of one tensor, from its input x and its output y."""

    def register(slope: Slope) -> Slope:
        def rule(b: Builder, step: Step) -> Mapping[int, str]:
            x, y = b.value(step.input(0)), b.value(step.node.outputs[0])
            return {0: b.mul(step.signal, slope(b, step, x, y))}

        rule.__doc__ = slope.__doc__
        RULES.register(*op_types, since=since, domain=domain)(rule)
        return slope

    return register


def _plus(b: Builder, tensor: str, number: float) -> str:
    return b.op("Add", [tensor, b.constant(number)])


def _times(b: Builder, tensor: str, number: float) -> str:
    return b.scaled(tensor, number)


def _float(step: Step, name: str, default: float) -> float:
    return float(step.node.attributes.get(name, default))


@elementwise("Relu")
def relu(b: Builder, _step: Step, _x: str, y: str) -> str:
    """[y > 0]: the sign of what is not negative."""
    compared = b.own or b.opset < 9 or "Sign" in b.avoid
    return b.positive(y) if compared else b.sign(y)


@elementwise("Clip")
def clip(b: Builder, step: Step, _x: str, y: str) -> str:
    """[low < y < high]."""
    inside = []
    for position, name, side, compare in (
        (1, "min", b.above, "Greater"),
        (2, "max", b.below, "Less"),
    ):
        given = step.input(position)
        number = b.graph.constant(given) if given else step.node.attributes.get(name)
        if number is not None and np.size(number) == 1:
            inside.append(side(y, float(np.float32(np.ravel(number)[0]))))
        elif given:
            inside.append(b.mask(b.op(compare, [y, b.value(given)])))
    if not inside:
        return b.constant(1.0)
    return inside[0] if len(inside) == 1 else b.mul(*inside)


@elementwise("LeakyRelu")
def leaky_relu(b: Builder, step: Step, x: str, _y: str) -> str:
    """1 where x > 0, alpha elsewhere."""
    alpha = _float(step, "alpha", 0.009999999776482582)
    return _plus(b, _times(b, b.positive(x), 1 - alpha), alpha)


@RULES.register("PRelu")
def prelu(b: Builder, step: Step) -> Mapping[int, str]:
    """1 where x > 0, the slope elsewhere."""
    x, slope, found = b.value(step.input(0)), b.value(step.input(1)), {}
    above = b.positive(x)
    if 0 in step.wanted:
        below = b.mul(b.op("Sub", [b.constant(1.0), above]), slope)
        found[0] = b.mul(step.signal, b.op("Add", [above, below]))
    if 1 in step.wanted:
        part = b.mul(step.signal, b.mul(b.op("Sub", [b.constant(1.0), above]), x))
        found[1] = b.narrowed(part, b.dims(step.input(0)), b.dims(step.input(1)))
    return found


@elementwise("Elu")
def elu(b: Builder, step: Step, x: str, y: str) -> str:
    """1 where x > 0, y + alpha elsewhere."""
    above = b.op("Greater", [x, b.constant(0.0)])
    return b.where(above, b.constant(1.0), _plus(b, y, _float(step, "alpha", 1.0)))


@elementwise("Selu", since=6)
def selu(b: Builder, step: Step, x: str, y: str) -> str:
    """Gamma where x > 0, y + alpha gamma elsewhere."""
    alpha = _float(step, "alpha", 1.6732631921768188)
    gamma = _float(step, "gamma", 1.0507010221481323)
    above = b.op("Greater", [x, b.constant(0.0)])
    return b.where(above, b.constant(gamma), _plus(b, y, alpha * gamma))


@elementwise("Celu", since=12)
def celu(b: Builder, step: Step, x: str, y: str) -> str:
    """1 where x > 0, 1 + y / alpha elsewhere."""
    alpha = _float(step, "alpha", 1.0)
    above = b.op("Greater", [x, b.constant(0.0)])
    return b.where(above, b.constant(1.0), _plus(b, _times(b, y, 1 / alpha), 1.0))


@elementwise("ThresholdedRelu")
def thresholded_relu(b: Builder, step: Step, x: str, _y: str) -> str:
    """[x > alpha]."""
    return b.above(x, _float(step, "alpha", 1.0))


@elementwise("Shrink", since=9)
def shrink(b: Builder, step: Step, x: str, _y: str) -> str:
    """[|x| > lambd]."""
    return b.mask(b.op("Greater", [b.op("Abs", [x]), b.constant(_float(step, "lambd", 0.5))]))


def _of_sigmoid(b: Builder, y: str) -> str:
    return b.mul(y, b.op("Sub", [b.constant(1.0), y]))


@elementwise("Sigmoid")
def sigmoid(b: Builder, _step: Step, _x: str, y: str) -> str:
    """Y (1 - y)."""
    return _of_sigmoid(b, y)


@elementwise("Tanh")
def tanh(b: Builder, _step: Step, _x: str, y: str) -> str:
    """1 - y^2."""
    return b.op("Sub", [b.constant(1.0), b.mul(y, y)])


@elementwise("ScaledTanh")
def scaled_tanh(b: Builder, step: Step, _x: str, y: str) -> str:
    """Beta (alpha - y^2 / alpha) for y = alpha tanh(beta x)."""
    alpha, beta = _float(step, "alpha", 1.0), _float(step, "beta", 1.0)
    return _plus(b, _times(b, b.mul(y, y), -beta / alpha), alpha * beta)


@elementwise("ParametricSoftplus")
def parametric_softplus(b: Builder, step: Step, x: str, _y: str) -> str:
    """Alpha beta sigmoid(beta x) for y = alpha log(1 + exp(beta x))."""
    alpha, beta = _float(step, "alpha", 1.0), _float(step, "beta", 1.0)
    return _times(b, b.op("Sigmoid", [_times(b, x, beta)]), alpha * beta)


@elementwise("HardSigmoid")
def hard_sigmoid(b: Builder, step: Step, _x: str, y: str) -> str:
    """Alpha where 0 < y < 1."""
    inside = b.mul(b.positive(y), b.below(y, 1.0))
    return _times(b, inside, _float(step, "alpha", 0.20000000298023224))


@elementwise("HardSwish", since=14)
def hard_swish(b: Builder, _step: Step, x: str, _y: str) -> str:
    """0 below -3, 1 above 3, x / 3 + 1 / 2 between."""
    inner = _plus(b, _times(b, x, 1 / 3), 0.5)
    low = b.op("Greater", [x, b.constant(-3.0)])
    high = b.op("Less", [x, b.constant(3.0)])
    return b.where(high, b.mul(inner, b.mask(low)), b.constant(1.0))


@elementwise("Mish", since=18)
def mish(b: Builder, _step: Step, x: str, _y: str) -> str:
    """T + x s (1 - t^2) with t = tanh(softplus(x)) and s = sigmoid(x)."""
    t, s = b.op("Tanh", [b.op("Softplus", [x])]), b.op("Sigmoid", [x])
    rest = b.op("Sub", [b.constant(1.0), b.mul(t, t)])
    return b.op("Add", [t, b.mul(b.mul(x, s), rest)])


@elementwise("Gelu", since=20)
@elementwise("Gelu", domain="com.microsoft")
def gelu(b: Builder, step: Step, x: str, _y: str) -> str:
    """Phi(x) + x phi(x), or the derivative of the tanh approximation."""
    approximate = step.node.attributes.get("approximate", "none")
    return gelu_slope(b, x, by_tanh=approximate == "tanh")


def gelu_slope(b: Builder, x: str, *, by_tanh: bool) -> str:
    """Derivative of x Phi(x), or of its approximation by a tanh.

    Args:
        b: Where it is written.
        x: The argument.
        by_tanh: Whether the function is the approximation.
    """
    if not by_tanh:
        phi = _times(b, _plus(b, b.op("Erf", [_times(b, x, math.sqrt(0.5))]), 1.0), 0.5)
        density = b.op("Exp", [_times(b, b.mul(x, x), -0.5)])
        return b.op("Add", [phi, b.mul(x, _times(b, density, 1 / math.sqrt(2 * math.pi)))])
    root, square = math.sqrt(2 / math.pi), b.mul(x, x)
    inner = b.mul(x, _times(b, _plus(b, _times(b, square, 0.044715), 1.0), root))
    t = b.op("Tanh", [inner])
    slope = _times(b, _plus(b, _times(b, square, 3 * 0.044715), 1.0), root)
    rest = b.mul(b.op("Sub", [b.constant(1.0), b.mul(t, t)]), slope)
    return _times(b, b.op("Add", [_plus(b, t, 1.0), b.mul(x, rest)]), 0.5)


@elementwise("QuickGelu", domain="com.microsoft")
@elementwise("Swish", since=24)
def swish(b: Builder, step: Step, x: str, _y: str) -> str:
    """S + alpha x s (1 - s) with s = sigmoid(alpha x)."""
    alpha = _float(step, "alpha", 1.702 if step.node.op_type == "QuickGelu" else 1.0)
    s = b.op("Sigmoid", [_times(b, x, alpha)])
    return b.op("Add", [s, b.mul(_times(b, x, alpha), _of_sigmoid(b, s))])


@elementwise("Softplus")
def softplus(b: Builder, _step: Step, x: str, _y: str) -> str:
    """sigmoid(x)."""
    return b.op("Sigmoid", [x])


@elementwise("Softsign")
def softsign(b: Builder, _step: Step, x: str, _y: str) -> str:
    """1 / (1 + |x|)^2."""
    r = b.reciprocal(_plus(b, b.op("Abs", [x]), 1.0))
    return b.mul(r, r)


@elementwise("Exp")
def exp(_b: Builder, _step: Step, _x: str, y: str) -> str:
    """Y itself."""
    return y


@elementwise("Log")
def log(b: Builder, _step: Step, x: str, _y: str) -> str:
    """1 / x."""
    return b.reciprocal(x)


@elementwise("Sqrt")
def sqrt(b: Builder, _step: Step, _x: str, y: str) -> str:
    """1 / (2 y)."""
    return b.op("Div", [b.constant(0.5), y])


@elementwise("Reciprocal")
def reciprocal(b: Builder, _step: Step, _x: str, y: str) -> str:
    """-y^2."""
    return b.op("Neg", [b.mul(y, y)])


@elementwise("Neg")
def neg(b: Builder, _step: Step, _x: str, _y: str) -> str:
    """-1."""
    return b.constant(-1.0)


@elementwise("Abs")
def absolute(b: Builder, _step: Step, x: str, _y: str) -> str:
    """The sign of x."""
    return b.sign(x)


@elementwise("Erf", since=9)
def erf(b: Builder, _step: Step, x: str, _y: str) -> str:
    """2 / sqrt(pi) exp(-x^2)."""
    density = b.op("Exp", [b.op("Neg", [b.mul(x, x)])])
    return _times(b, density, 2 / math.sqrt(math.pi))


@elementwise("Sin", since=7)
def sin(b: Builder, _step: Step, x: str, _y: str) -> str:
    """cos(x)."""
    return b.op("Cos", [x])


@elementwise("Cos", since=7)
def cos(b: Builder, _step: Step, x: str, _y: str) -> str:
    """-sin(x)."""
    return b.op("Neg", [b.op("Sin", [x])])


@elementwise("Tan", since=7)
def tan(b: Builder, _step: Step, _x: str, y: str) -> str:
    """1 + y^2."""
    return _plus(b, b.mul(y, y), 1.0)


@elementwise("Atan", since=7)
def atan(b: Builder, _step: Step, x: str, _y: str) -> str:
    """1 / (1 + x^2)."""
    return b.reciprocal(_plus(b, b.mul(x, x), 1.0))


@elementwise("Asin", since=7)
def asin(b: Builder, _step: Step, x: str, _y: str) -> str:
    """1 / sqrt(1 - x^2)."""
    return b.reciprocal(b.op("Sqrt", [b.op("Sub", [b.constant(1.0), b.mul(x, x)])]))


@elementwise("Acos", since=7)
def acos(b: Builder, _step: Step, x: str, _y: str) -> str:
    """-1 / sqrt(1 - x^2)."""
    return b.op("Neg", [asin(b, _step, x, "")])


@elementwise("Sinh", since=9)
def sinh(b: Builder, _step: Step, x: str, _y: str) -> str:
    """cosh(x)."""
    return b.op("Cosh", [x])


@elementwise("Cosh", since=9)
def cosh(b: Builder, _step: Step, x: str, _y: str) -> str:
    """sinh(x)."""
    return b.op("Sinh", [x])


@elementwise("Asinh", since=9)
def asinh(b: Builder, _step: Step, x: str, _y: str) -> str:
    """1 / sqrt(x^2 + 1)."""
    return b.reciprocal(b.op("Sqrt", [_plus(b, b.mul(x, x), 1.0)]))


@elementwise("Acosh", since=9)
def acosh(b: Builder, _step: Step, x: str, _y: str) -> str:
    """1 / sqrt(x^2 - 1)."""
    return b.reciprocal(b.op("Sqrt", [_plus(b, b.mul(x, x), -1.0)]))


@elementwise("Atanh", since=9)
def atanh(b: Builder, _step: Step, x: str, _y: str) -> str:
    """1 / (1 - x^2)."""
    return b.reciprocal(b.op("Sub", [b.constant(1.0), b.mul(x, x)]))


def _flat(op_type: str, since: int = 1) -> None:
    """Register a function of which every derivative is zero."""

    def rule(_b: Builder, _step: Step) -> Mapping[int, str]:
        """Nothing comes back."""
        return {}

    RULES.register(op_type, since=since)(rule)


for _op_type in ("Floor", "Ceil", "Round", "Sign", "ArgMax", "ArgMin", "Shape", "Size", "Not"):
    _flat(_op_type)
for _op_type in ("Greater", "Less", "Equal", "And", "Or", "Xor", "GreaterOrEqual", "LessOrEqual"):
    _flat(_op_type)
for _op_type in ("IsNaN", "IsInf", "NonZero", "Hardmax", "ConstantOfShape", "OneHot", "Range"):
    _flat(_op_type)


def _axis(b: Builder, step: Step) -> tuple[str, str, int, bool]:
    """Signal and result of a softmax, the axis, and whether both were flattened to it."""
    rank = len(b.dims(step.input(0)))
    axis = int(step.node.attributes.get("axis", -1 if b.opset >= 13 else 1))
    axis = axis + rank if axis < 0 else axis
    y, g = b.value(step.node.outputs[0]), step.signal
    if b.opset >= 13 or axis == rank - 1:
        return y, g, axis, False
    dims = b.dims(step.input(0))
    if axis == 0:
        raise CannotDifferentiate("a softmax over the axis of samples")
    rest = int(np.prod(dims[axis:]))
    return b.reshape(y, (-1, rest)), b.reshape(g, (-1, rest)), 1, True


@RULES.register("Softmax")
def softmax(b: Builder, step: Step) -> Mapping[int, str]:
    """Y (g - sum(g y))."""
    y, g, axis, flat = _axis(b, step)
    found = softmax_back(b, y, g, axis)
    return {0: b.like(found, step.input(0)) if flat else found}


def softmax_back(b: Builder, y: str, g: str, axis: int) -> str:
    """The signal at the input of a softmax: y (g - sum(g y)).

    Args:
        b: Where it is written.
        y: The softmax.
        g: The signal at it.
        axis: Its axis.
    """
    weighed = b.mul(g, y)
    total = b.sum(weighed, [axis], keep=True)
    return b.op("Sub", [weighed, b.mul(y, total)])


@RULES.register("LogSoftmax")
def log_softmax(b: Builder, step: Step) -> Mapping[int, str]:
    """G - exp(y) sum(g)."""
    y, g, axis, flat = _axis(b, step)
    total = b.sum(g, [axis], keep=True)
    found = b.op("Sub", [g, b.mul(b.op("Exp", [y]), total)])
    return {0: b.like(found, step.input(0)) if flat else found}
