"""Linear layers under the rules of layer-wise relevance propagation: epsilon, z+ and gamma.

A rule takes and gives m = R / value, relevance by value, in the place of a gradient.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Formula", "Layer", "Ruled", "Share", "epsilon_rule", "gamma_rule", "plus_rule"]

STABILISER = 1e-6
"""Added to the denominators of z+ and gamma, in the scale of the activations."""

Call = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer y = f(x, W) + b, from which later additions and scales are not apart.

    Attributes:
        call: f(x, W, b).
        x: Its input.
        weight: W.
        bias: b, in the form that ``call`` takes; None for none.
        rows: Axis of the weights along which the channels of y lie; None where scales are left
            to nodes of their own.
        axis: Axis of these channels in y.
    """

    call: Call
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    rows: int | None
    axis: int

    def followed(self, value: Tensor, scale: Tensor | None, shift: Tensor | None) -> "Layer | None":
        """The layer with a scale and a shift per channel behind it, as one layer.

        Args:
            value: Its output.
            scale: Broadcast against it; None for 1.
            shift: Broadcast against it; None for 0.

        Returns:
            None where they are not one number per channel.
        """
        count = value.shape[self.axis]
        scales, shifts = (self._per_channel(c, value) for c in (scale, shift))
        if (scale is not None and scales is None) or (shift is not None and shifts is None):
            return None
        if scales is not None:
            if self.rows is None:
                return None
            shape = [1] * self.weight.dim()
            shape[self.rows] = count
            weight = self.weight * scales.reshape(shape)
        else:
            weight = self.weight
        bias = self.bias
        if scales is not None and bias is not None:
            bias = bias * scales
        if shifts is not None:
            bias = shifts if bias is None else bias + shifts
        return replace(self, weight=weight, bias=bias)

    def _per_channel(self, constant: Tensor | None, value: Tensor) -> Tensor | None:
        """One number per channel (C,) of a constant; None where it varies along other axes."""
        if constant is None:
            return None
        axis, count = self.axis % value.dim(), value.shape[self.axis]
        if constant.dim() > value.dim():
            return None
        shape = [1] * (value.dim() - constant.dim()) + list(constant.shape)
        if any(size != 1 for at, size in enumerate(shape) if at != axis):
            return None
        return constant.reshape(-1).expand(count)


@dataclass(frozen=True, eq=False)
class Share:
    """What a rule makes of the relevance of a layer's output.

    Attributes:
        at_input: m at the input.
        at_bias: m at the bias; None where there is none.
        kept: Relevance that the stabiliser of the denominators keeps.
    """

    at_input: Tensor
    at_bias: Tensor | None
    kept: float


Formula = Callable[[Layer, Tensor, Tensor], Share]
"""Takes a layer, its value, and m there."""


class Ruled(torch.autograd.Function):
    """A linear layer under a rule; its value is computed already."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd's functions are called by position
        ctx: Any,
        value: Tensor,
        x: Tensor,
        bias: Tensor | None,
        layer: Layer,
        formula: Formula,
        keep: Callable[[float], None],
    ) -> Tensor:
        """Hand the value on."""
        del x, bias
        ctx.layer, ctx.formula, ctx.keep = layer, formula, keep
        ctx.save_for_backward(value)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[None, Tensor, Tensor | None, None, None, None]:
        """Apply the rule."""
        (value,) = ctx.saved_tensors
        share = ctx.formula(ctx.layer, value, signal)
        ctx.keep(share.kept)
        return None, share.at_input, share.at_bias, None, None, None


def epsilon_rule(layer: Layer, value: Tensor, signal: Tensor, *, epsilon: float) -> Share:
    """In proportion to the contributions w x and b (Bach et al. 2015, equation 58)."""
    kept = 0.0
    if epsilon:
        passed = signal * (value / _stable(value, epsilon))
        kept = _total((signal - passed) * value)
        signal = passed
    with torch.enable_grad():
        found, x, bias = _run(layer, layer.x, layer.weight, layer.bias)
    grads = torch.autograd.grad(found, [x] if bias is None else [x, bias], signal)
    return Share(grads[0], None if bias is None else grads[1], kept)


def plus_rule(layer: Layer, value: Tensor, signal: Tensor) -> Share:
    """In proportion to the positive contributions (Bach et al. 2015, equation 60, alpha 1)."""
    bias = None if layer.bias is None else layer.bias.clamp(min=0)
    parts = [_Part(layer.x.clamp(min=0), layer.weight.clamp(min=0), bias)]
    if bool((layer.x < 0).any()):
        parts.append(_Part(layer.x.clamp(max=0), layer.weight.clamp(max=0), None))
    return _in_parts(layer, signal * value, parts)


def gamma_rule(layer: Layer, value: Tensor, signal: Tensor, *, gamma: float) -> Share:
    """Contributions of the value's own sign count 1 + gamma times (Montavon et al. 2019, 10.1).

    For inputs of either sign: contributions to y > 0 are raised where they are positive, those to
    y < 0 where they are negative.
    """
    relevance = signal * value
    positive = _raised(layer, torch.where(value > 0, relevance, 0), gamma, positive=True)
    negative = _raised(layer, torch.where(value < 0, relevance, 0), gamma, positive=False)
    bias = negative.at_bias if positive.at_bias is None else positive.at_bias
    if positive.at_bias is not None and negative.at_bias is not None:
        bias = positive.at_bias + negative.at_bias
    return Share(positive.at_input + negative.at_input, bias, positive.kept + negative.kept)


def _raised(layer: Layer, relevance: Tensor, gamma: float, *, positive: bool) -> Share:
    """Relevance of outputs of one sign, with contributions of that sign raised."""

    def of_sign(part: Tensor, *, own: bool) -> Tensor:
        return part.clamp(min=0) if own else part.clamp(max=0)

    weight, bias = layer.weight, layer.bias
    raised = None if bias is None else bias + gamma * of_sign(bias, own=positive)
    first = weight + gamma * of_sign(weight, own=positive)
    second = weight + gamma * of_sign(weight, own=not positive)
    parts = [_Part(layer.x.clamp(min=0), first, raised), _Part(layer.x.clamp(max=0), second, None)]
    return _in_parts(layer, relevance, parts)


@dataclass(frozen=True, eq=False)
class _Part:
    """Inputs of one sign (the positive ones first), and what they are weighed with."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None


def _in_parts(layer: Layer, relevance: Tensor, parts: Sequence[_Part]) -> Share:
    """Relevance of a layer's output in proportion to what the parts of its input give."""
    with torch.enable_grad():
        runs = [_run(layer, part.x, part.weight, part.bias) for part in parts]
    total = functools.reduce(torch.add, (value.detach() for value, _, _ in runs))
    share = relevance / _stable(total, STABILISER)
    at_bias: Tensor | None = None
    at_input = torch.zeros_like(layer.x)
    for number, (value, x, bias) in enumerate(runs):
        own = layer.x > 0 if number == 0 else layer.x < 0
        grads = torch.autograd.grad(value, [x] if bias is None else [x, bias], share)
        at_input = torch.where(own, grads[0], at_input)
        if bias is not None and layer.bias is not None:
            # By the layer's own bias, of which the part may be cut off or raised.
            at_bias = grads[1] * torch.where(layer.bias == 0, 0, bias.detach() / layer.bias)
    return Share(at_input, at_bias, _total(relevance - share * total))


def _run(
    layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Value of a layer on other numbers, and the leaves to differentiate it by."""
    leaf = x.detach().requires_grad_()
    at_bias = None if bias is None else bias.detach().requires_grad_()
    return layer.call(leaf, weight, at_bias), leaf, at_bias


def _stable(value: Tensor, epsilon: float) -> Tensor:
    return value + torch.where(value < 0, -epsilon, epsilon)


def _total(value: Tensor) -> float:
    return float(value.sum(dtype=torch.float64))
