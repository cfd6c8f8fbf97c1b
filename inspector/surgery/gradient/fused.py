"""Signals of the fused float operators that ONNX Runtime writes when it saves an optimised model.

A fused activation is differentiated from its result, which is the one tensor that such a node
gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from inspector.surgery.gradient.activations import gelu_slope
from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.convolution import conv
from inspector.surgery.gradient.matrix import gemm_rule
from inspector.surgery.gradient.normalisation import normalised_back
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []

DOMAIN = "com.microsoft"


def _below(b: Builder, y: str, parameters: Sequence[float]) -> str:
    alpha = parameters[0] if parameters else 0.01
    if alpha <= 0:
        raise CannotDifferentiate("a fused LeakyRelu whose result does not show the side")
    above = b.scaled(b.positive(y), 1 - alpha)
    return b.op("Add", [above, b.constant(alpha)])


def _elu(b: Builder, y: str, parameters: Sequence[float]) -> str:
    alpha = parameters[0] if parameters else 1.0
    above = b.op("Greater", [y, b.constant(0.0)])
    return b.where(above, b.constant(1.0), b.op("Add", [y, b.constant(alpha)]))


def _between(b: Builder, y: str, low: float, high: float, slope: float = 1.0) -> str:
    inside = [b.mask(b.op("Greater", [y, b.constant(low)]))]
    inside += [b.mask(b.op("Less", [y, b.constant(high)]))]
    return b.scaled(b.mul(*inside), slope)


def _clip(b: Builder, y: str, parameters: Sequence[float]) -> str:
    low, high = [*parameters, *(-1.0, 1.0)[len(parameters) :]][:2]
    return _between(b, y, low, high)


def _hard_sigmoid(b: Builder, y: str, parameters: Sequence[float]) -> str:
    return _between(b, y, 0.0, 1.0, parameters[0] if parameters else 0.2)


def _one_minus(b: Builder, tensor: str) -> str:
    return b.op("Sub", [b.constant(1.0), tensor])


def _softsign(b: Builder, y: str, _parameters: Sequence[float]) -> str:
    rest = _one_minus(b, b.op("Abs", [y]))
    return b.mul(rest, rest)


_FROM_RESULT: dict[str, Callable[[Builder, str, Sequence[float]], str]] = {
    "Relu": lambda b, y, _: b.positive(y),
    "Sigmoid": lambda b, y, _: b.mul(y, _one_minus(b, y)),
    "Tanh": lambda b, y, _: _one_minus(b, b.mul(y, y)),
    "LeakyRelu": _below,
    "Elu": _elu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Softplus": lambda b, y, _: _one_minus(b, b.op("Exp", [b.op("Neg", [y])])),
    "Softsign": _softsign,
}
"""Derivatives of activations, from their result and their parameters."""


def _before(b: Builder, step: Step, parameters: Sequence[float]) -> Step:
    """The step with the signal before its fused activation."""
    name = str(step.node.attributes.get("activation") or "")
    if not name:
        return step
    if name not in _FROM_RESULT:
        raise CannotDifferentiate(f"its fused activation {name!r} is not known from its result")
    slope = _FROM_RESULT[name](b, b.value(step.node.outputs[0]), parameters)
    return replace(step, signals=(b.mul(step.signal, slope),))


@RULES.register("FusedConv", domain=DOMAIN)
def fused_conv(b: Builder, step: Step) -> Mapping[int, str]:
    """Conv, then the addition of Z, then an activation function."""
    inner = _before(b, step, list(step.node.attributes.get("activation_params") or ()))
    found = dict(conv(b, replace(inner, wanted=step.wanted - {3})))
    return found | ({3: inner.signal} if 3 in step.wanted else {})


@RULES.register("FusedGemm", domain=DOMAIN)
def fused_gemm(b: Builder, step: Step) -> Mapping[int, str]:
    """Gemm, then an activation function."""
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    given = [step.node.attributes[name] for name in names if name in step.node.attributes]
    return gemm_rule(b, _before(b, step, given))


@RULES.register("FusedMatMul", domain=DOMAIN)
def fused_matmul(b: Builder, step: Step) -> Mapping[int, str]:
    """``alpha A B`` with either matrix transposed first."""
    attributes = step.node.attributes
    if attributes.get("transBatchA") or attributes.get("transBatchB"):
        raise CannotDifferentiate("a transposed axis of samples")
    A, B = step.input(0), step.input(1)
    a, c, out = b.dims(A), b.dims(B), b.dims(step.node.outputs[0])
    if min(len(a), len(c)) < 2:
        raise CannotDifferentiate("a product with a vector")

    def turned(tensor: str, rank: int, turn: object) -> str:
        order = [*range(rank - 2), rank - 1, rank - 2]
        return b.transpose(tensor, order) if turn else tensor

    ta, tb = attributes.get("transA", 0), attributes.get("transB", 0)
    g, found = b.scaled(step.signal, float(attributes.get("alpha", 1.0))), {}
    if 0 in step.wanted:  # of A as the product reads it: g B^T
        part = b.op("MatMul", [g, turned(b.value(B), len(c), not tb)])
        part = turned(part, max(len(out), len(c)), ta)
        found[0] = b.narrowed(part, (*out[:-2], *a[-2:]), a)
    if 1 in step.wanted:
        part = b.op("MatMul", [turned(b.value(A), len(a), not ta), g])
        part = turned(part, max(len(out), len(a)), tb)
        found[1] = b.narrowed(part, (*out[:-2], *c[-2:]), c)
    return found


@RULES.register("BiasGelu", domain=DOMAIN)
@RULES.register("FastGelu", domain=DOMAIN)
def bias_gelu(b: Builder, step: Step) -> Mapping[int, str]:
    """Gelu of a sum; FastGelu by the tanh approximation, where the second term may be missing."""
    x = b.value(step.input(0))
    if step.input(1):
        x = b.op("Add", [x, b.value(step.input(1))])
    slope = gelu_slope(b, x, by_tanh=step.node.op_type == "FastGelu")
    signal, whole = b.mul(step.signal, slope), b.dims(step.node.outputs[0])
    return {i: b.narrowed(signal, whole, b.dims(step.input(i))) for i in step.wanted}


@RULES.register("SimplifiedLayerNormalization")
def simplified_layer_normalization(b: Builder, step: Step) -> Mapping[int, str]:
    """By the root mean square, without a mean."""
    if step.wanted != {0} or any(s is not None for s in step.signals[1:]):
        raise CannotDifferentiate("its scale depends on the input, or its statistics are read")
    rank = len(b.dims(step.input(0)))
    axes = range(int(step.node.attributes.get("axis", -1)) % rank, rank)
    epsilon = float(step.node.attributes.get("epsilon", 9.999999747378752e-06))
    g, x = b.mul(step.signal, b.value(step.input(1))), b.value(step.input(0))
    return {0: normalised_back(b, x, g, axes, epsilon, centred=False)}


@RULES.register("SkipLayerNormalization", domain=DOMAIN)
@RULES.register("SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip_layer_normalization(b: Builder, step: Step) -> Mapping[int, str]:
    """Normalisation of a sum; the fourth output is the sum."""
    centred = step.node.op_type == "SkipLayerNormalization"
    bias = step.input(4 if centred else 3)
    if step.wanted - {0, 1} or any(s is not None for s in step.signals[1:3]):
        raise CannotDifferentiate("its scale depends on the input, or its statistics are read")
    names = [step.input(0), step.input(1), *([bias] if bias else [])]
    total = b.value(names[0])
    for name in names[1:]:
        total = b.op("Add", [total, b.value(name)])
    parts = [s for s in step.signals[3:] if s is not None]
    if step.signals[0] is not None:
        epsilon = float(step.node.attributes.get("epsilon", 9.999999960041972e-13))
        g = b.mul(step.signals[0], b.value(step.input(2)))
        last = [len(b.dims(step.node.outputs[0])) - 1]
        parts.append(normalised_back(b, total, g, last, epsilon, centred=centred))
    signal, whole = b.add(*parts), b.dims(step.input(0))
    return {i: b.narrowed(signal, whole, b.dims(step.input(i))) for i in step.wanted}
