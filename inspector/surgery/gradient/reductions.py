"""Signals of reductions over axes.

``axes`` was an attribute up to opset 17 (12 for ReduceSum) and is an input since.
"""

import math
from collections.abc import Mapping

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []


def _axes(b: Builder, step: Step) -> tuple[int, ...]:
    """Axes that are reduced, not below 0; none where nothing is."""
    rank = len(b.dims(step.input(0)))
    attributes = step.node.attributes
    given = attributes.get("axes")
    if step.input(1):
        known = b.known(step.input(1))
        if known is None:
            raise CannotDifferentiate("its axes depend on the input")
        given = [int(axis) for axis in known.reshape(-1)]
    if given:
        return tuple(sorted(axis % rank for axis in given))
    return () if attributes.get("noop_with_empty_axes") else tuple(range(rank))


def _kept(b: Builder, step: Step, tensor: str, axes: tuple[int, ...]) -> str:
    """A tensor of the result's shape with the reduced axes back in place, of size 1."""
    if int(step.node.attributes.get("keepdims", 1)) or not axes:
        return tensor
    return b.unsqueeze(tensor, list(axes))


@RULES.register("ReduceSum", "ReduceMean")
def reduce_sum(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal, or its share, for every element."""
    axes = _axes(b, step)
    g = _kept(b, step, step.signal, axes)
    if step.node.op_type == "ReduceMean":
        dims = b.dims(step.input(0))
        g = b.scaled(g, 1 / math.prod(dims[axis] for axis in axes))
    return {0: b.expanded(g, step.input(0)) if axes else g}


@RULES.register("ReduceMax", "ReduceMin")
def reduce_extreme(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal goes to the extreme; those that are equal share it."""
    axes = _axes(b, step)
    if not axes:
        return {0: step.signal}
    x = b.value(step.input(0))
    y = _kept(b, step, b.value(step.node.outputs[0]), axes)
    hit = b.mask(b.equal(x, y))
    share = b.op("Div", [_kept(b, step, step.signal, axes), b.sum(hit, axes, keep=True)])
    return {0: b.mul(hit, share)}


@RULES.register("ReduceSumSquare")
def reduce_sum_square(b: Builder, step: Step) -> Mapping[int, str]:
    """2 x g."""
    axes = _axes(b, step)
    x = b.scaled(b.value(step.input(0)), 2.0)
    return {0: b.mul(x, _kept(b, step, step.signal, axes))}


@RULES.register("ReduceL1")
def reduce_l1(b: Builder, step: Step) -> Mapping[int, str]:
    """sign(x) g."""
    axes, x = _axes(b, step), b.value(step.input(0))
    sign = b.sign(x)
    return {0: b.mul(sign, _kept(b, step, step.signal, axes))}


@RULES.register("ReduceL2")
def reduce_l2(b: Builder, step: Step) -> Mapping[int, str]:
    """X / y g, and zero where y is."""
    axes, x = _axes(b, step), b.value(step.input(0))
    y = _kept(b, step, b.value(step.node.outputs[0]), axes)
    safe = b.where(b.op("Greater", [y, b.constant(0.0)]), y, b.constant(1.0))
    return {0: b.mul(x, b.op("Div", [_kept(b, step, step.signal, axes), safe]))}


@RULES.register("ReduceLogSum")
def reduce_log_sum(b: Builder, step: Step) -> Mapping[int, str]:
    """G exp(-y) for every element."""
    axes = _axes(b, step)
    y = _kept(b, step, b.value(step.node.outputs[0]), axes)
    share = b.op("Div", [_kept(b, step, step.signal, axes), b.op("Exp", [y])])
    return {0: b.expanded(share, step.input(0))}


@RULES.register("ReduceLogSumExp")
def reduce_log_sum_exp(b: Builder, step: Step) -> Mapping[int, str]:
    """G exp(x - y)."""
    axes = _axes(b, step)
    y = _kept(b, step, b.value(step.node.outputs[0]), axes)
    weight = b.op("Exp", [b.op("Sub", [b.value(step.input(0)), y])])
    return {0: b.mul(weight, _kept(b, step, step.signal, axes))}


@RULES.register("ReduceProd")
def reduce_prod(b: Builder, step: Step) -> Mapping[int, str]:
    """G y / x, which is not defined where x is 0."""
    axes = _axes(b, step)
    y = _kept(b, step, b.value(step.node.outputs[0]), axes)
    share = b.mul(_kept(b, step, step.signal, axes), y)
    return {0: b.op("Div", [share, b.value(step.input(0))])}
