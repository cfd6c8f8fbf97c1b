"""The rules of layer-wise relevance propagation in torch: overlays of the twin's operator table.

In the place of a gradient the engine carries m = R / y, relevance by value, so that whatever is
linear and whatever scales with its input passes by its own derivative, and relevance at the image
is x m; ``relevance`` has the table of rules.  Relevance that constants keep is added up in the
``Ledger`` of the overlay while the signal passes.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from converters.graph.activations import Activation
from converters.graph.operators import facts_of
from converters.to_torch.ops.normalisation import EPSILON
from converters.to_torch.optable import OPS, Op, OpTable
from converters.to_torch.program import ACTIVATION_DOMAIN, Program
from inspector.engines.overlays import clamps
from inspector.engines.relevance import PLUS, without_relevance
from inspector.engines.relevance_formulas import (
    Formula,
    Layer,
    Ruled,
    epsilon_rule,
    gamma_rule,
    plus_rule,
)
from inspector.engines.rules import Rule

__all__ = ["Ledger", "RelevanceTable", "relevance_overlay"]

Call = Callable[..., Any]


class Ledger:
    """Relevance that did not pass on, of all samples of one run.

    Attributes:
        leaves: Constants that were added on the way; the engine differentiates by them, too.
        softmax: What softmax kept.
        rounding: What rounding to levels kept.
        stabilisers: What the stabilisers of denominators kept.
    """

    def __init__(self) -> None:
        self.leaves: list[Tensor] = []
        self.softmax = self.rounding = self.stabilisers = 0.0

    def clear(self) -> None:
        """Begin another run."""
        self.leaves = []
        self.softmax = self.rounding = self.stabilisers = 0.0

    def stabilise(self, kept: float) -> None:
        """Add to what stabilisers kept."""
        self.stabilisers += kept

    def kept(self, signals: Sequence[Tensor]) -> dict[str, float]:
        """What constants and softmax kept, once the signals at the leaves are known."""
        pairs = zip(self.leaves, signals, strict=True)
        own = [
            torch.where(m == 0, 0, leaf.detach() * m).sum(dtype=torch.float64) for leaf, m in pairs
        ]
        return {
            "constants": float(sum(own)),
            "softmax": self.softmax,
            "rounding": self.rounding,
            "stabilisers": self.stabilisers,
        }


class RelevanceTable(OpTable):
    """The overlay of a rule, and the ledger of its last run."""

    def __init__(self, behind: Mapping[str, Call]) -> None:
        super().__init__(behind=behind)
        self.ledger = Ledger()


def relevance_overlay(program: Program, rule: Rule) -> RelevanceTable:
    """Overlay that passes relevance down instead of a gradient.

    Args:
        program: The twin.
        rule: One of ``RELEVANCE_RULES``, with its epsilon and gamma.

    Returns:
        The overlay.
    """
    stopped = without_relevance(program.graph, program.activations, rule)
    table = RelevanceTable(clamps(program) | dict.fromkeys(sorted(stopped), Tensor.detach))
    made = _Operators(rule, table.ledger)
    for domain, op_type, since, op in OPS:
        call = made.of(domain, op_type, op)
        if call is not None:
            table.register(op_type, since=since, domain=domain)(call)
    for kind in sorted({a.kind for a in program.composites.values()}):
        table.register(kind, domain=ACTIVATION_DOMAIN)(made.composite(kind))
    return table


# -- other nodes -----------------------------------------------------------------------------------


class _Identity(torch.autograd.Function):
    """A function of one value: all relevance goes to what it is a function of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Call) -> Tensor:
        """Compute f(x)."""
        value: Tensor = f(x)
        ctx.save_for_backward(x, value)
        return value

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        """M f(x) / x; nothing passes to a zero, which contributes to nothing."""
        x, value = ctx.saved_tensors
        zero = x == 0
        return torch.where(zero, 0, signal * value / torch.where(zero, 1, x)), None


class _Scaled(torch.autograd.Function):
    """A signal times a number; the value stays."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        """Hand the value on."""
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        """Scale the signal."""
        return signal * ctx.factor, None


class _Tap(torch.autograd.Function):
    """Counts the relevance that passes for one column of the ledger; values and signal stay."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ledger: Ledger, column: str, sign: int) -> Tensor:
        """Hand the value on."""
        ctx.ledger, ctx.column, ctx.sign = ledger, column, sign
        ctx.save_for_backward(value)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None, None]:
        """Count what passes; what is masked by minus infinity has no signal."""
        (value,) = ctx.saved_tensors
        passing = torch.where(signal == 0, 0, value * signal).sum(dtype=torch.float64)
        before = getattr(ctx.ledger, ctx.column)
        setattr(ctx.ledger, ctx.column, before + ctx.sign * float(passing))
        return signal, None, None, None


def _scaled(value: Tensor, factor: float) -> Tensor:
    return _Scaled.apply(value, factor)  # type: ignore[no-any-return, no-untyped-call]


def _identity(x: Tensor, f: Call) -> Tensor:
    if not x.requires_grad:
        return f(x)  # type: ignore[no-any-return]
    return _Identity.apply(x, f)  # type: ignore[no-any-return, no-untyped-call]


def _carries(*values: Any) -> list[bool]:
    return [isinstance(value, Tensor) and value.requires_grad for value in values]


_SUMS = ("Add", "Sub", "Sum", "Mean", "Max", "Min", "Concat", "Where")
_BILINEAR = ("Mul", "MatMul", "Gemm", "FusedMatMul", "Einsum")
_CENTRED = ("LayerNormalization", "MeanVarianceNormalization")
_NOT_IDENTITY = ("Pow", "Identity", "Neg", "Affine", "ImageScaler")


class _Operators:
    """Functions of operators under one rule.

    Args:
        rule: The rule.
        ledger: Where kept relevance is added up.
    """

    def __init__(self, rule: Rule, ledger: Ledger) -> None:
        self.ledger = ledger
        dense: Formula = functools.partial(epsilon_rule, epsilon=rule.epsilon)
        if rule.gamma:
            dense = functools.partial(gamma_rule, gamma=rule.gamma)
        self.dense: Formula = dense
        self.convolution: Formula = plus_rule if rule.name == PLUS else dense
        self._special: Mapping[str, Callable[[Op], Call]] = {
            "Attention": self._attention,
            "BatchNormalization": self._batch_normalised,
            "Div": self._divided,
            "QuantizeLinear": self._quantised,
            "DequantizeLinear": self._dequantised,
        }

    def of(self, domain: str, op_type: str, op: Op) -> Call | None:
        """The function of an operator; None where its own derivative is the rule."""
        known = facts_of(domain, op_type)
        if op_type in self._special and (domain == "" or known.rounds):
            return _signed(op, self._special[op_type](op))
        if domain == "" and op_type in ("Conv", "ConvTranspose"):
            return _signed(op, self._convolving(op, op_type))
        if op_type in _BILINEAR:
            return _signed(op, self._product(op, op_type))
        if op_type in _SUMS and domain == "":
            return _signed(op, self._sum(op, op_type))
        if known.normalises == "statistics":
            return _signed(op, self._normalised(op, op_type))
        if known.normalises in {"norm", "neighbours"}:
            return _signed(op, _divided(op))
        if known.softmax:
            return _signed(op, self._tapped(op)) if op_type == "Softmax" else None
        first = known.elementwise == "first" and not known.logical and not known.constant_slope
        if (known.activation or first) and not known.carries and op_type not in _NOT_IDENTITY:
            return _signed(op, self._one_value(op, op_type))
        return _signed(op, self._one_value(op, op_type)) if op_type == "Pow" else None

    def composite(self, kind: str) -> Call:
        """An activation that is built from several nodes, as a whole."""

        def call(x: Tensor, *, program: Program, activation: Activation) -> Tensor:
            def f(value: Tensor) -> Tensor:
                found = program.run({activation.input: value}, [activation.output])
                return found[activation.output]

            if kind == "Softmax":
                return self._through_taps(f, x)
            return _identity(x, f)

        return call

    # -- sums and constants --------------------------------------------------------------------

    def _kept(self, constant: Tensor) -> Tensor:
        """A constant whose relevance is put on the ledger."""
        if not constant.is_floating_point():
            return constant
        leaf = constant.detach().requires_grad_()
        self.ledger.leaves.append(leaf)
        return leaf

    def _sum(self, op: Op, op_type: str) -> Call:
        def call(*values: Tensor, **attributes: Any) -> Any:
            parts = values[1:] if op_type == "Where" else values
            carries = _carries(*parts)
            if not any(carries):
                return op.function(*values, **attributes)
            if op_type in ("Add", "Sub") and sum(carries) == 1 and not attributes:
                found = self._shifted(op_type, values, carries)
                if found is not None:
                    return found
            kept = [v if own else self._kept(v) for v, own in zip(parts, carries, strict=True)]
            if op_type == "Where":
                kept.insert(0, values[0])
            return op.function(*kept, **attributes)

        return call

    def _shifted(
        self, op_type: str, values: Sequence[Tensor], carries: Sequence[bool]
    ) -> Tensor | None:
        """A linear layer and the constant that is added to it, as one layer."""
        data, constant = (values[0], values[1]) if carries[0] else (values[1], values[0])
        layer: Layer | None = getattr(data, "relevance_layer", None)
        if layer is None or (op_type == "Sub" and not carries[0]):
            return None
        shift = constant if op_type == "Add" else -constant
        joined = layer.followed(data, None, shift)
        if joined is None:
            return None
        formula = data.relevance_formula  # type: ignore[attr-defined]
        return self._ruled((data + shift).detach(), joined, formula)

    # -- linear layers and products ------------------------------------------------------------

    def _ruled(self, value: Tensor, layer: Layer, formula: Formula) -> Tensor:
        """A linear layer's value under its rule; what follows may still become part of it."""
        bias = None if layer.bias is None else self._kept(layer.bias)
        found: Tensor = Ruled.apply(value, layer.x, bias, layer, formula, self.ledger.stabilise)  # type: ignore[no-untyped-call]
        found.relevance_layer, found.relevance_formula = layer, formula  # type: ignore[attr-defined]
        return found

    def _convolving(self, op: Op, op_type: str) -> Call:
        def call(X: Tensor, W: Tensor, B: Tensor | None = None, **attributes: Any) -> Tensor:
            if not X.requires_grad:
                return op.function(X, W, B, **attributes)  # type: ignore[no-any-return]

            def f(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
                return op.function(x, weight, bias, **attributes)  # type: ignore[no-any-return]

            rows = 0 if op_type == "Conv" else None
            layer = Layer(f, X, W.detach(), B, rows, 1)
            with torch.no_grad():
                value = f(X, W, B)
            return self._ruled(value, layer, self.convolution)

        return call

    def _product(self, op: Op, op_type: str) -> Call:
        def call(*values: Any, **attributes: Any) -> Any:
            factors = values if op_type == "Einsum" else values[:2]
            carries = _carries(*factors)
            if sum(carries) > 1 and op_type == "Gemm":
                return self._product_and_sum(op, values, attributes)
            if sum(carries) > 1:
                return _scaled(op.function(*values, **attributes), 1 / sum(carries))
            if not any(carries):
                return op.function(*values, **attributes)
            if op_type == "Mul":
                data, constant = factors if carries[0] else factors[::-1]
                return self._weighed(op, values, data, constant, attributes)
            if op_type not in ("MatMul", "Gemm"):
                return op.function(*values, **attributes)
            return self._matrix(op, values, carries[0], attributes)

        return call

    def _product_and_sum(self, op: Op, values: Sequence[Any], attributes: Any) -> Tensor:
        """Gemm of two tensors that depend on the image: half to each, and C besides."""
        gemm = dict(attributes)
        beta = float(gemm.pop("beta", 1.0))
        product = op.function(*values[:2], values[0].new_zeros(1), **gemm)
        found = _scaled(product, 0.5)
        if len(values) < 3 or values[2] is None:
            return found
        carried = values[2].requires_grad
        return found + (beta * values[2] if carried else self._kept(beta * values[2]))

    def _weighed(
        self, op: Op, values: Sequence[Tensor], data: Tensor, constant: Tensor, attributes: Any
    ) -> Tensor:
        """A tensor times a constant: part of the linear layer before it where that is one."""
        layer: Layer | None = getattr(data, "relevance_layer", None)
        value: Tensor = op.function(*values, **attributes)
        if layer is None or attributes or value.shape != data.shape:
            return value
        joined = layer.followed(data, constant.detach(), None)
        formula = getattr(data, "relevance_formula", self.dense)
        return value if joined is None else self._ruled(value.detach(), joined, formula)

    def _matrix(
        self, op: Op, values: Sequence[Any], first: bool, attributes: dict[str, Any]
    ) -> Tensor:
        """A matrix product with weights, MatMul or Gemm."""
        gemm = dict(attributes)
        beta = float(gemm.pop("beta", 1.0))
        bias = values[2] if len(values) > 2 else None
        flips = gemm.get("transB", 0) if first else gemm.get("transA", 0)
        x, weight = (values[0], values[1]) if first else (values[1], values[0])

        def f(data: Tensor, weights: Tensor, shift: Tensor | None) -> Tensor:
            pair = (data, weights) if first else (weights, data)
            none = () if op.inputs[-1].name == "B" else (data.new_zeros(1),)
            found: Tensor = op.function(*pair, *none, **gemm)
            return found if shift is None else found + shift

        rows = None
        if first and weight.dim() >= 2:
            rows = weight.dim() - 2 if flips else weight.dim() - 1
        carried = bias is not None and bias.requires_grad
        shift = None if bias is None or carried else beta * bias
        layer = Layer(f, x, weight.detach(), shift, rows, -1)
        with torch.no_grad():
            value = f(x, weight, shift)
        found = self._ruled(value, layer, self.dense)
        return found + beta * bias if carried and bias is not None else found

    def _batch_normalised(self, op: Op) -> Call:
        """With given statistics: part of the linear layer before it where there is one."""

        def call(
            X: Tensor, scale: Tensor, B: Tensor, mean: Tensor, var: Tensor, **attributes: Any
        ) -> Any:
            spatial = attributes.get("spatial", 1) and not attributes.get("training_mode", 0)
            if not X.requires_grad or not spatial:
                return op.function(X, scale, B, mean, var, **attributes)
            factor = scale / torch.sqrt(var + attributes.get("epsilon", EPSILON))
            shape = [1, -1] + [1] * (X.dim() - 2)
            gain, shift = factor.reshape(shape), (B - mean * factor).reshape(shape)
            layer: Layer | None = getattr(X, "relevance_layer", None)
            joined = None
            if layer is not None and layer.axis % X.dim() == 1:
                joined = layer.followed(X, gain, shift)
            if joined is None:
                return X * gain + self._kept(shift)
            return self._ruled((X * gain + shift).detach(), joined, X.relevance_formula)  # type: ignore[attr-defined]

        return call

    # -- functions of one value, normalisations, attention --------------------------------------

    def _one_value(self, op: Op, op_type: str) -> Call:
        def call(x: Tensor, *rest: Any, **attributes: Any) -> Any:
            if op_type in ("BiasGelu", "FastGelu") and rest and isinstance(rest[0], Tensor):
                bias = rest[0] if rest[0].requires_grad else self._kept(rest[0])
                none = torch.zeros_like(rest[0])
                return _identity(x + bias, lambda v: op.function(v, none, **attributes))
            return _identity(x, lambda value: op.function(value, *rest, **attributes))

        return call

    def _divided(self, op: Op) -> Call:
        """The numerator takes all: statistics that it is divided by are constants."""

        def call(A: Tensor, B: Tensor, **attributes: Any) -> Any:
            if A.requires_grad and not B.requires_grad:
                inverse = 1 / B if B.is_floating_point() else B
                return self._weighed(op, (A, B), A, inverse, attributes)
            return op.function(A, B.detach(), **attributes)

        return call

    def _normalised(self, op: Op, op_type: str) -> Call:
        """Mean and deviation: the mean is a sum, the deviation a constant."""
        skips = op_type.startswith("Skip")
        centred = "Simplified" not in op_type and not op_type.startswith("RMS")

        def call(X: Tensor, *rest: Any, **attributes: Any) -> Any:
            found = op.function(X, *rest, **attributes)
            value = found[0] if isinstance(found, tuple) else found
            if not value.requires_grad:
                return found
            more: tuple[Any, ...] = rest
            if skips:
                bias = rest[3] if len(rest) > 3 else None
                own = [p if p.requires_grad else self._kept(p) for p in (X, rest[0])]
                X = own[0] + own[1] + (0 if bias is None else self._kept(bias))
                more = (rest[1], rest[2] if centred and len(rest) > 2 else None)
            made = self._standardised(X, more, op_type, attributes, centred=centred)
            if not isinstance(found, tuple):
                return made
            others = [v.detach() if isinstance(v, Tensor) else v for v in found[1:]]
            if skips:
                others[-1] = X
            return (made, *others)

        return call

    def _standardised(
        self, X: Tensor, rest: Sequence[Any], op_type: str, attributes: Any, *, centred: bool
    ) -> Tensor:
        scale, bias = (*rest, None, None)[:2]
        shape = X.shape
        epsilon = attributes.get("epsilon", EPSILON)
        if op_type.startswith("Skip"):
            epsilon = attributes.get("epsilon", 1e-12)
        if op_type in ("InstanceNormalization", "GroupNormalization", "GroupNorm"):
            groups = attributes.get("num_groups", shape[1])
            x = X.reshape(shape[0], groups, -1)
            axes: tuple[int, ...] = (2,)
            if scale is not None:
                scale, bias = (_by_channel(part, X, groups) for part in (scale, bias))
        else:
            x = X
            first = attributes.get("axis", -1)
            axes = tuple(range(first % X.dim(), X.dim()))
            if op_type == "MeanVarianceNormalization":
                axes, epsilon = attributes.get("axes", (0, 2, 3)), 1e-18
        if centred:
            x = x - x.mean(axes, keepdim=True)
        deviation = torch.sqrt(x.square().mean(axes, keepdim=True) + epsilon).detach()
        value = (x / deviation).reshape(shape)
        if scale is not None:
            value = value * scale
        return value if bias is None else value + self._kept(bias)

    def _attention(self, op: Op) -> Call:
        """Attention in one operator: the product of queries and keys, and that with the values."""

        def call(Q: Tensor, K: Tensor, V: Tensor, *rest: Any, **attributes: Any) -> Any:
            of_q, of_k, of_v = _carries(Q, K, V)
            if not (of_q or of_k or of_v):
                return op.function(Q, K, V, *rest, **attributes)
            weights = of_q or of_k
            outer = 0.5 if weights and of_v else 1.0
            inner = outer * (0.5 if of_q and of_k else 1.0)
            parts = [
                _scaled(self._out(part), factor) if own else part
                for part, own, factor in (
                    (Q, of_q, inner),
                    (K, of_k, inner),
                    (V, of_v, outer),
                )
            ]
            mixed, *others = op.function(*parts, *rest, **attributes)
            return self._into(mixed), *others

        return call

    # -- rounding ------------------------------------------------------------------------------

    def _quantised(self, op: Op) -> Call:
        """Levels: relevance passes straight, and what rounding adds or takes is counted."""

        def call(x: Tensor, *rest: Any, **attributes: Any) -> Any:
            counted = self._out(x, "rounding") if x.requires_grad else x
            return op.function(counted, *rest, **attributes)

        return call

    def _dequantised(self, op: Op) -> Call:
        def call(x: Tensor, *rest: Any, **attributes: Any) -> Any:
            found = op.function(x, *rest, **attributes)
            return self._into(found, "rounding") if found.requires_grad else found

        return call

    # -- softmax -------------------------------------------------------------------------------

    def _out(self, value: Tensor, column: str = "softmax") -> Tensor:
        return _Tap.apply(value, self.ledger, column, -1)  # type: ignore[no-any-return, no-untyped-call]

    def _into(self, value: Tensor, column: str = "softmax") -> Tensor:
        return _Tap.apply(value, self.ledger, column, 1)  # type: ignore[no-any-return, no-untyped-call]

    def _through_taps(self, f: Call, x: Tensor) -> Tensor:
        return self._into(f(self._out(x))) if x.requires_grad else f(x)

    def _tapped(self, op: Op) -> Call:
        def call(x: Tensor, *rest: Any, **attributes: Any) -> Any:
            return self._through_taps(lambda v: op.function(v, *rest, **attributes), x)

        return call


def _signed(op: Op, call: Call) -> Call:
    """A function with the signature of the operator's own, by which arguments are bound."""
    return functools.wraps(op.function)(call)


def _divided(op: Op) -> Call:
    """Norms that a tensor is divided by are constants."""

    def call(x: Tensor, *rest: Any, **attributes: Any) -> Any:
        if not x.requires_grad:
            return op.function(x, *rest, **attributes)
        return _identity(x, lambda value: op.function(value, *rest, **attributes))

    return call


def _by_channel(part: Tensor | None, X: Tensor, groups: int) -> Tensor | None:
    """Scale or bias by channel or by group, to be broadcast against (N, C, ...)."""
    if part is None:
        return None
    if part.numel() != X.shape[1]:
        part = part.repeat_interleave(X.shape[1] // groups)
    return part.reshape(1, -1, *[1] * (X.dim() - 2))
