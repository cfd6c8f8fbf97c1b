"""Backward rules: what an activation function does to the signal that comes down.

With R the incoming signal, x the node's input and f the activation:

    ============  =======================================  =================
    rule          backward                                 source
    ============  =======================================  =================
    gradient      f'(x) R                                  -
    deconvnet     max(R, 0)                                Zeiler & Fergus 2014, section 2.1
    guided        f'(x) max(R, 0)                          Springenberg et al. 2015, section 3.4
    ============  =======================================  =================

The papers define the last two for rectifiers.  For smooth activations (SiLU, GELU ...) there
are two readings, neither of which the papers give; they are refused unless asked for by name
and then labelled as an extension.  Gates (squeeze-excite) and Softmax always pass the gradient.

A rule is an overlay of the operator table: every activation *node* is seen, so functional,
re-used and in-place activations cannot escape it.  Where a quantiser does an activation's work
(see ``fused``), the rule acts on the quantised tensor: f'(x) is 0 where the value lies at the
bound that cuts it off, and 1 elsewhere.  Under the plain gradient this is an overlay as well, for
quantisation by itself is straight-through: rounding and the range's other end are not there.
"""

import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from converters.graph import Graph, Node
from converters.graph.activations import Activation, unknown_nonlinearities
from converters.to_torch.optable import OPS, Op, OpTable
from converters.to_torch.program import ACTIVATION_DOMAIN, Program
from inspector.errors import MethodRefused
from inspector.network.fused_activations import Mark, find_marks

__all__ = ["EXTENSIONS", "RULES", "Coverage", "backward_rules", "coverage"]

RULES = ("gradient", "deconvnet", "guided")

EXTENSIONS = ("refuse", "signal-first", "gradient-first")
"""Readings for smooth activations: f'(x) max(R, 0), or max(f'(x) R, 0); deconvnet: max(R, 0)."""

RECTIFIERS = {"Relu", "Clip", "LeakyRelu", "PRelu", "ThresholdedRelu"}
"""Kinds that the papers' rules are defined for (Clip: when its lower bound is zero)."""

_SINGLE_NODES = {
    *RECTIFIERS,
    "Elu",
    "Selu",
    "Celu",
    "Softplus",
    "Softsign",
    "Tanh",
    "Mish",
    "HardSwish",
    "Gelu",
    "Swish",
    "Sigmoid",
    "HardSigmoid",
}

Forward = Callable[[Tensor], Tensor]


def is_rectifier(activation: Activation) -> bool:
    """Whether the papers' rules apply to an activation as they stand."""
    if activation.kind == "Clip":
        return activation.low == 0
    return activation.kind in RECTIFIERS


class _Ruled(torch.autograd.Function):
    """An activation with another backward pass than its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Forward, backward: Callable[..., Tensor]) -> Tensor:
        """Compute f(x)."""
        ctx.f, ctx.rule = f, backward
        ctx.save_for_backward(x)
        return f(x)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None]:
        """Apply the rule to the incoming signal."""
        (x,) = ctx.saved_tensors
        return ctx.rule(x, ctx.f, signal), None, None


class _GuidedRelu(torch.autograd.Function):
    """Relu under the guided rule, without a second forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Compute max(x, 0)."""
        y = x.relu()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        """[x > 0] max(R, 0): R passes where both are positive."""
        (y,) = ctx.saved_tensors
        # max([x > 0] R, 0) is the same, and the second half needs no memory of its own.
        passed: Tensor = torch.ops.aten.threshold_backward(signal, y, 0)
        return passed.clamp_(min=0)


class _FusedClamp(torch.autograd.Function):
    """What a rule does at a quantiser that is a ReLU or a ReLU6; forwards nothing."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, mark: Mark, rule: str) -> Tensor:
        """Keep where the value lies between the bounds."""
        ctx.rule = rule
        if rule != "deconvnet":
            # Rounded as the quantiser behind it rounds, to even.
            levels = value if mark.step is None else torch.round(value / mark.step)
            inside = levels > mark.low
            ctx.save_for_backward(inside if mark.high is None else inside & (levels < mark.high))
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None]:
        """[inside] R, max(R, 0), or both."""
        if ctx.rule != "gradient":
            signal = signal.clamp(min=0)
        if ctx.rule != "deconvnet":
            (inside,) = ctx.saved_tensors
            signal = torch.where(inside, signal, 0)
        return signal, None, None


def _clamped(mark: Mark, rule: str) -> Callable[[Tensor], Tensor]:
    def behind(value: Tensor) -> Tensor:
        if not value.requires_grad:
            return value
        result: Tensor = _FusedClamp.apply(value, mark, rule)  # type: ignore[no-untyped-call]
        return result

    return behind


def _derivative(x: Tensor, f: Forward, signal: Tensor) -> Tensor:
    """f'(x) R."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (result,) = torch.autograd.grad(f(leaf), leaf, signal)
    return result


def _deconvnet(x: Tensor, f: Forward, signal: Tensor) -> Tensor:
    del f
    return signal.clamp(min=0).expand_as(x)


def _guided(x: Tensor, f: Forward, signal: Tensor) -> Tensor:
    return _derivative(x, f, signal.clamp(min=0))


def _guided_after(x: Tensor, f: Forward, signal: Tensor) -> Tensor:
    return _derivative(x, f, signal).clamp(min=0)


def backward_rules(program: Program, rule: str, extension: str = "refuse") -> OpTable | None:
    """Overlay that applies a rule to the activations of a program.

    Args:
        program: The twin.
        rule: One of ``RULES``.
        extension: One of ``EXTENSIONS``, for smooth activations under the guided rule.

    Returns:
        The overlay; None for the plain gradient of a network without fused activations.
    """
    marks = find_marks(program.graph, program.activations)
    behind = {mark.tensor: _clamped(mark, rule) for mark in marks}
    if rule == "gradient":
        return OpTable(behind=behind) if behind else None
    exempt = [a.output for a in program.activations if a.gate or not _ruled(a, extension)]
    table = OpTable(exempt=exempt, behind=behind)
    for op_type in sorted(_SINGLE_NODES):
        for domain, known, since, op in OPS:
            if known == op_type and domain == "":
                backward = _backward(rule, extension, op_type)
                table.register(op_type, since=since)(_overlay(op, backward, rule, op_type))
    for kind in sorted({a.kind for a in program.composites.values()}):
        backward = _backward(rule, extension, kind)
        table.register(kind, domain=ACTIVATION_DOMAIN)(_composite(backward))
    return table


def _ruled(activation: Activation, extension: str) -> bool:
    return activation.kind != "Softmax" and (extension != "refuse" or is_rectifier(activation))


def _backward(rule: str, extension: str, kind: str) -> Callable[..., Tensor]:
    if rule == "deconvnet":
        return _deconvnet
    after = extension == "gradient-first" and kind not in RECTIFIERS
    return _guided_after if after else _guided


def _overlay(
    op: Op, backward: Callable[..., Tensor], rule: str, op_type: str
) -> Callable[..., Tensor]:
    """The operator with another backward pass; the signature stays."""

    @functools.wraps(op.function)
    def call(x: Tensor, *rest: Any, **attributes: Any) -> Tensor:
        if rule == "guided" and op_type == "Relu":
            return _GuidedRelu.apply(x)  # type: ignore[no-any-return, no-untyped-call]

        def f(value: Tensor) -> Tensor:
            result: Tensor = op.function(value, *rest, **attributes)
            return result

        return _Ruled.apply(x, f, backward)  # type: ignore[no-any-return, no-untyped-call]

    return call


def _composite(backward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An activation built from several nodes, replaced as a whole."""

    def call(x: Tensor, *, program: Program, activation: Activation) -> Tensor:
        def f(value: Tensor) -> Tensor:
            return program.run({activation.input: value}, [activation.output])[activation.output]

        return _Ruled.apply(x, f, backward)  # type: ignore[no-any-return, no-untyped-call]

    return call


@dataclass(frozen=True)
class Coverage:
    """Which activations between the input and the target a rule reaches.

    Attributes:
        rule: The rule.
        ruled: Activations under the rule, counted by kind.
        extended: Activations under an extension of the rule, counted by kind.
        gates: Activations that gate, and pass the gradient.
        unknown: Names of nonlinear nodes that no rule is defined for; they pass the gradient.
    """

    rule: str
    ruled: dict[str, int]
    extended: dict[str, int]
    gates: int
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        """One line, as it is printed with every map."""
        covered = sum(self.ruled.values()) + sum(self.extended.values())
        kinds = Counter(self.ruled) + Counter(self.extended)
        listing = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"
        line = f"{covered} of {covered + len(self.unknown)} activations under the {self.rule} rule"
        line += f": {listing}; {len(self.unknown)} unknown"
        return f"{line}; {self.gates} gates pass the gradient" if self.gates else line


def coverage(
    graph: Graph,
    activations: Iterable[Activation],
    nodes: Collection[Node],
    rule: str,
    extension: str = "refuse",
) -> Coverage:
    """Count the activations that a rule reaches, and refuse those it is not defined for.

    Args:
        graph: The network.
        activations: What ``find_activations`` found in it.
        nodes: The nodes between the input and the target.
        rule: One of ``RULES``.
        extension: One of ``EXTENSIONS``.

    Returns:
        The coverage.

    Raises:
        MethodRefused: smooth activations on the way, and no extension was asked for.
    """
    activations = tuple(activations)
    on_path = {name for node in nodes for name in node.outputs}
    found = [a for a in activations if a.output in on_path and a.kind != "Softmax"]
    acting = [a for a in found if not a.gate]
    smooth = [a for a in acting if not is_rectifier(a)]
    if rule != "gradient" and smooth and extension == "refuse":
        kinds = Counter(a.kind for a in smooth).most_common()
        listing = ", ".join(f"{count} {kind}" for kind, count in kinds)
        raise MethodRefused(
            f"the {rule} rule is defined for rectifiers, and this model has {listing}",
            where=f"node {smooth[0].nodes[-1].name!r}",
            hint="use gradient or a CAM method, or ask for an extension of the rule with "
            "the option extension=signal-first (or gradient-first)",
        )
    unknown = [node.name for node in unknown_nonlinearities(graph) if node in set(nodes)]
    marks = [mark.kind for mark in find_marks(graph, activations) if mark.tensor in on_path]
    return Coverage(
        rule=rule,
        ruled=dict(Counter([*(_kind(a) for a in acting if is_rectifier(a)), *marks])),
        extended=dict(Counter(_kind(a) for a in smooth)),
        gates=len(found) - len(acting),
        unknown=tuple(unknown),
    )


def _kind(activation: Activation) -> str:
    if activation.kind != "Clip":
        return activation.kind
    low, high = activation.low, activation.high
    return f"Clip[{'' if low is None else f'{low:g}'},{'' if high is None else f'{high:g}'}]"
