"""Signals of functions of two or more tensors, element by element, with NumPy's broadcasting."""

from collections.abc import Callable, Mapping

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []

Parts = Callable[[Builder, Step], Mapping[int, str]]


def _broadcasting(*op_types: str, since: int = 1) -> Callable[[Parts], Parts]:
    """Register signals in the result's shape; each is summed up to that of its input."""

    def register(parts: Parts) -> Parts:
        def rule(b: Builder, step: Step) -> Mapping[int, str]:
            if step.node.attributes.get("broadcast") or "axis" in step.node.attributes:
                raise CannotDifferentiate("broadcasting as before opset 7")
            found = parts(b, step)
            if len(step.node.inputs) == 1:
                return found
            whole = b.dims(step.node.outputs[0])
            return {
                i: b.narrowed(signal, whole, b.dims(step.node.inputs[i]))
                for i, signal in found.items()
            }

        rule.__doc__ = parts.__doc__
        RULES.register(*op_types, since=since)(rule)
        return parts

    return register


@_broadcasting("Add", "Sum")
def add(_b: Builder, step: Step) -> Mapping[int, str]:
    """The signal goes to each."""
    return dict.fromkeys(step.wanted, step.signal)


@_broadcasting("Mean")
def mean(b: Builder, step: Step) -> Mapping[int, str]:
    """A share goes to each."""
    return dict.fromkeys(step.wanted, b.scaled(step.signal, 1 / len(step.node.inputs)))


@_broadcasting("Sub")
def sub(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal, and its negative."""
    return {i: b.op("Neg", [step.signal]) if i else step.signal for i in step.wanted}


@_broadcasting("Mul")
def mul(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal times the other factor."""
    return {i: b.mul(step.signal, b.value(step.input(1 - i))) for i in step.wanted}


@_broadcasting("Div")
def div(b: Builder, step: Step) -> Mapping[int, str]:
    """G / B, and -g y / B."""
    share = b.op("Div", [step.signal, b.value(step.input(1))])
    found = {0: share} if 0 in step.wanted else {}
    if 1 in step.wanted:
        found[1] = b.op("Neg", [b.mul(share, b.value(step.node.outputs[0]))])
    return found


@_broadcasting("Pow")
def power(b: Builder, step: Step) -> Mapping[int, str]:
    """G Y X^(Y - 1), and g y log(X)."""
    X, g, found = b.value(step.input(0)), step.signal, {}
    exponent = b.graph.constant(step.input(1))
    if 0 in step.wanted:
        if exponent is not None and np.all(exponent == 2):
            slope = b.scaled(X, 2.0)
        elif exponent is not None:
            e = exponent.astype(np.float32)
            less = b.op("Pow", [X, b.constant(np.where(e == 0, 1, e - 1))])
            slope = b.mul(less, b.constant(e))
        else:
            Y = b.value(step.input(1))
            less = b.op("Pow", [X, b.op("Sub", [Y, b.constant(1.0)])])
            slope = b.mul(Y, less)
        found[0] = b.mul(g, slope)
    if 1 in step.wanted:
        found[1] = b.mul(g, b.mul(b.value(step.node.outputs[0]), b.op("Log", [X])))
    return found


@_broadcasting("Max", "Min")
def extreme(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal goes to the extreme; two that are equal share it, pair by pair."""
    names = [b.value(name) for name in step.node.inputs]
    if len(names) == 1:
        return {0: step.signal}
    op_type, found, g = step.node.op_type, {}, step.signal
    so_far = [names[0]]
    for name in names[1:]:
        so_far.append(b.op(op_type, [so_far[-1], name]) if len(so_far) < len(names) - 1 else "")
    for position in range(len(names) - 1, 0, -1):
        left, right = so_far[position - 1], names[position]
        order = [left, right] if op_type == "Max" else [right, left]
        half = b.scaled(b.mask(b.equal(left, right)), 0.5)
        first = b.op("Add", [b.mask(b.op("Greater", order)), half])
        if position in step.wanted:
            found[position] = b.mul(g, b.op("Sub", [b.constant(1.0), first]))
        g = b.mul(g, first)
    if 0 in step.wanted:
        found[0] = g
    return found


@_broadcasting("Where", since=9)
def where(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal goes to what was taken."""
    condition, zero, found = step.input(0), b.constant(0.0), {}
    if 1 in step.wanted:
        found[1] = b.where(condition, step.signal, zero)
    if 2 in step.wanted:
        found[2] = b.where(condition, zero, step.signal)
    return found


@_broadcasting("Mod", since=10)
def mod(_b: Builder, step: Step) -> Mapping[int, str]:
    """The signal goes to the dividend."""
    if 1 in step.wanted:
        raise CannotDifferentiate("the divisor depends on the input")
    return {0: step.signal}
