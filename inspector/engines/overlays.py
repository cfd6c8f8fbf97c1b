"""The backward rules in torch: overlays of the twin's operator table.

An overlay sees every activation *node*, so functional, re-used and in-place activations cannot
escape it.  With R the incoming signal, x an activation's input, y its output and f its function,
a rule has three formulas:

    =======  ===================================================  ===========================
    relu     a rectifier max(x, 0), from its output               [y > 0] R  (plain gradient)
    smooth   any other activation, from its input and function    f'(x) R
    clamp    a quantiser that does the work of a Relu or Relu6    [inside] R
    =======  ===================================================  ===========================
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from converters.graph.activations import Activation
from converters.graph.operators import facts_of
from converters.to_torch.optable import OPS, Op, OpTable
from converters.to_torch.program import ACTIVATION_DOMAIN, Program
from inspector.engines.rules import RECTIFIERS, Rule
from inspector.network.quantisation.fused_activations import Mark, find_marks

__all__ = ["Deconvnet", "Gradient", "Guided", "GuidedGradientFirst", "clamps", "overlay_of"]

Forward = Callable[[Tensor], Tensor]


class Gradient:
    """The derivative itself: f'(x) R."""

    reads_input = True
    """Whether the formulas need what the forward pass computed."""

    def relu(self, y: Tensor, signal: Tensor) -> Tensor:
        """[y > 0] R."""
        passed: Tensor = torch.ops.aten.threshold_backward(signal, y, 0)
        return passed

    def smooth(self, x: Tensor, f: Forward, signal: Tensor) -> Tensor:
        """f'(x) R."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (result,) = torch.autograd.grad(f(leaf), leaf, signal)
        return result

    def clamp(self, inside: Tensor, signal: Tensor) -> Tensor:
        """[inside] R."""
        return torch.where(inside, signal, 0)


class Deconvnet(Gradient):
    """Zeiler & Fergus 2014, section 2.1: max(R, 0), whatever came in."""

    reads_input = False

    def relu(self, y: Tensor, signal: Tensor) -> Tensor:
        """max(R, 0)."""
        del y
        return signal.clamp(min=0)

    def smooth(self, x: Tensor, f: Forward, signal: Tensor) -> Tensor:
        """max(R, 0)."""
        del f
        return signal.clamp(min=0).expand_as(x)

    def clamp(self, inside: Tensor, signal: Tensor) -> Tensor:
        """max(R, 0)."""
        del inside
        return signal.clamp(min=0)


class Guided(Gradient):
    """Springenberg et al. 2015, section 3.4: f'(x) max(R, 0)."""

    def relu(self, y: Tensor, signal: Tensor) -> Tensor:
        """[y > 0] max(R, 0): R passes where both are positive."""
        # max([y > 0] R, 0) is the same, and the second half needs no memory of its own.
        return super().relu(y, signal).clamp_(min=0)

    def smooth(self, x: Tensor, f: Forward, signal: Tensor) -> Tensor:
        """f'(x) max(R, 0)."""
        return super().smooth(x, f, signal.clamp(min=0))

    def clamp(self, inside: Tensor, signal: Tensor) -> Tensor:
        """[inside] max(R, 0)."""
        return super().clamp(inside, signal.clamp(min=0))


class GuidedGradientFirst(Guided):
    """The other reading of the guided rule for smooth activations: max(f'(x) R, 0)."""

    def smooth(self, x: Tensor, f: Forward, signal: Tensor) -> Tensor:
        """max(f'(x) R, 0)."""
        return Gradient.smooth(self, x, f, signal).clamp(min=0)


_FORMULAS = {"gradient": Gradient(), "deconvnet": Deconvnet(), "guided": Guided()}


def _formulas(rule: Rule, kind: str) -> Gradient:
    """The formulas of a rule for a kind of activation."""
    gradient_first = rule.extension == "gradient-first" and kind not in RECTIFIERS
    if rule.name == "guided" and gradient_first:
        return GuidedGradientFirst()
    return _FORMULAS[rule.name]


def overlay_of(program: Program, rule: Rule) -> OpTable | None:
    """Overlay that applies a rule to the activations of a program.

    Args:
        program: The twin.
        rule: The rule.

    Returns:
        The overlay; None for the plain gradient of a network without fused activations.
    """
    behind = clamps(program, _FORMULAS[rule.name])
    if rule.name == "gradient":
        return OpTable(behind=behind) if behind else None
    exempt = [a.output for a in program.activations if not rule.replaces(a)]
    table = OpTable(exempt=exempt, behind=behind)
    for domain, op_type, since, op in OPS:
        known = facts_of(domain, op_type)
        if domain == "" and known.activation and not known.softmax:
            call = _single(op, _formulas(rule, op_type), op_type)
            table.register(op_type, since=since)(call)
    for kind in sorted({a.kind for a in program.composites.values()}):
        table.register(kind, domain=ACTIVATION_DOMAIN)(_composite(_formulas(rule, kind)))
    return table


def clamps(program: Program, formulas: Gradient = _FORMULAS["gradient"]) -> dict[str, Forward]:
    """What a rule does behind quantisers that do the work of an activation, by tensor."""
    marks = find_marks(program.graph, program.activations)
    return {mark.tensor: _clamped(mark, formulas) for mark in marks}


class _Relu(torch.autograd.Function):
    """max(x, 0) under a rule, without a second forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Gradient) -> Tensor:
        """Compute max(x, 0)."""
        y = x.relu()
        ctx.rule = rule
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        """Apply the rule to the incoming signal."""
        (y,) = ctx.saved_tensors
        return ctx.rule.relu(y, signal), None


class _Smooth(torch.autograd.Function):
    """Any activation under a rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Forward, rule: Gradient) -> Tensor:
        """Compute f(x)."""
        ctx.f, ctx.rule = f, rule
        ctx.save_for_backward(x)
        return f(x)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None]:
        """Apply the rule to the incoming signal."""
        (x,) = ctx.saved_tensors
        return ctx.rule.smooth(x, ctx.f, signal), None, None


class _Clamp(torch.autograd.Function):
    """A quantiser that is a Relu or a Relu6, under a rule; the values stay as they are."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, mark: Mark, rule: Gradient) -> Tensor:
        """Keep where the value lies between the bounds."""
        ctx.rule = rule
        if rule.reads_input:
            # Rounded as the quantiser behind it rounds, to even.
            levels = value if mark.step is None else torch.round(value / mark.step)
            inside = levels > mark.low
            ctx.save_for_backward(inside if mark.high is None else inside & (levels < mark.high))
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None]:
        """Apply the rule to the incoming signal."""
        inside = ctx.saved_tensors[0] if ctx.saved_tensors else signal
        return ctx.rule.clamp(inside, signal), None, None


def _clamped(mark: Mark, rule: Gradient) -> Forward:
    def behind(value: Tensor) -> Tensor:
        if not value.requires_grad:
            return value
        result: Tensor = _Clamp.apply(value, mark, rule)  # type: ignore[no-untyped-call]
        return result

    return behind


def _single(op: Op, rule: Gradient, op_type: str) -> Callable[..., Tensor]:
    """An activation operator with another backward pass; the signature stays."""

    @functools.wraps(op.function)
    def call(x: Tensor, *rest: Any, **attributes: Any) -> Tensor:
        if op_type == "Relu":
            return _Relu.apply(x, rule)  # type: ignore[no-any-return, no-untyped-call]

        def f(value: Tensor) -> Tensor:
            result: Tensor = op.function(value, *rest, **attributes)
            return result

        return _Smooth.apply(x, f, rule)  # type: ignore[no-any-return, no-untyped-call]

    return call


def _composite(rule: Gradient) -> Callable[..., Tensor]:
    """An activation built from several nodes, replaced as a whole."""

    def call(x: Tensor, *, program: Program, activation: Activation) -> Tensor:
        def f(value: Tensor) -> Tensor:
            return program.run({activation.input: value}, [activation.output])[activation.output]

        return _Smooth.apply(x, f, rule)  # type: ignore[no-any-return, no-untyped-call]

    return call
