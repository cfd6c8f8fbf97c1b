"""Signals of normalisations over batches, channels, layers and groups."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__ = ["normalised_back"]

EPSILON = 9.999999747378752e-06


def _epsilon(step: Step) -> float:
    return float(step.node.attributes.get("epsilon", EPSILON))


@RULES.register("BatchNormalization")
def batch_normalization(b: Builder, step: Step) -> Mapping[int, str]:
    """G scale / sqrt(variance + epsilon), with given statistics."""
    attributes = step.node.attributes
    trains = attributes.get("training_mode", 0) or (
        len([n for n in step.node.outputs if n]) > 1 and not attributes.get("is_test")
    )
    if trains or not int(attributes.get("spatial", 1)) or step.wanted != {0}:
        raise CannotDifferentiate("statistics that depend on the input, or are per pixel")
    rank = len(b.dims(step.input(0)))
    scale, variance = b.value(step.input(1)), b.value(step.input(4))
    spread = b.once("Sqrt", [b.once("Add", [variance, b.constant(_epsilon(step))])])
    factor = b.once("Div", [scale, spread])
    if rank > 2:
        key = list(range(1, rank - 1))
        factor = b.unsqueeze(factor, key)
    return {0: b.mul(step.signal, factor)}


def normalised_back(
    b: Builder, x: str, g: str, axes: Sequence[int], epsilon: float, *, centred: bool = True
) -> str:
    """The signal at x, of ``(x - mean) / sqrt(variance + epsilon)`` over some axes.

    Args:
        b: Where it is written.
        x: What is normalised.
        g: The signal at the result.
        axes: The axes.
        epsilon: Added to the variance.
        centred: Whether the mean is taken off first.
    """
    d = b.op("Sub", [x, b.mean(x, axes)]) if centred else x
    variance = b.mean(b.mul(d, d), axes)
    spread = b.op("Sqrt", [b.op("Add", [variance, b.constant(epsilon)])])
    unit = b.op("Div", [d, spread])
    along = b.mul(unit, b.mean(b.mul(g, unit), axes))
    rest = b.op("Sub", [g, b.mean(g, axes)]) if centred else g
    return b.op("Div", [b.op("Sub", [rest, along]), spread])


@RULES.register("InstanceNormalization")
def instance_normalization(b: Builder, step: Step) -> Mapping[int, str]:
    """Each map of each sample by its own mean and variance."""
    if step.wanted != {0}:
        raise CannotDifferentiate("its scale depends on the input")
    rank = len(b.dims(step.input(0)))
    x = b.value(step.input(0))
    g = b.mul(step.signal, b.vector(step.input(1), rank, 1))
    return {0: normalised_back(b, x, g, range(2, rank), _epsilon(step))}


@RULES.register("LayerNormalization", since=17)
@RULES.register("LayerNormalization", domain="com.microsoft")
@RULES.register("LayerNormalization", since=1)
def layer_normalization(b: Builder, step: Step) -> Mapping[int, str]:
    """All axes from one on together."""
    if step.wanted != {0} or any(s is not None for s in step.signals[1:]):
        raise CannotDifferentiate("its scale depends on the input, or its statistics are read")
    rank = len(b.dims(step.input(0)))
    axis = int(step.node.attributes.get("axis", -1)) % rank
    g = b.mul(step.signal, b.value(step.input(1)))
    return {0: normalised_back(b, b.value(step.input(0)), g, range(axis, rank), _epsilon(step))}


@RULES.register("RMSNormalization", since=23)
def rms_normalization(b: Builder, step: Step) -> Mapping[int, str]:
    """By the root mean square, without a mean."""
    if step.wanted != {0}:
        raise CannotDifferentiate("its scale depends on the input")
    rank = len(b.dims(step.input(0)))
    axis = int(step.node.attributes.get("axis", -1)) % rank
    g, x = b.mul(step.signal, b.value(step.input(1))), b.value(step.input(0))
    axes = range(axis, rank)
    return {0: normalised_back(b, x, g, axes, _epsilon(step), centred=False)}


@RULES.register("GroupNormalization", since=18)
def group_normalization(b: Builder, step: Step) -> Mapping[int, str]:
    """Groups of channels together."""
    if step.wanted != {0}:
        raise CannotDifferentiate("its scale depends on the input")
    dims, groups = b.dims(step.input(0)), int(step.node.attributes["num_groups"])
    scale = b.value(step.input(1))
    if b.opset < 21:  # one number per group
        column = b.reshape(scale, (-1, 1))
        scale = b.reshape(b.op("Tile", [column, b.ints([1, dims[1] // groups])]), (-1,))
    g = b.mul(step.signal, b.unsqueeze(scale, list(range(1, len(dims) - 1))))
    rows = (-1, groups, math.prod(dims[1:]) // groups)
    x = b.reshape(b.value(step.input(0)), rows)
    found = normalised_back(b, x, b.reshape(g, rows), [2], _epsilon(step))
    return {0: b.like(found, step.input(0))}


@RULES.register("LRN")
def lrn(b: Builder, step: Step) -> Mapping[int, str]:
    """By (bias + alpha / size * squares of the neighbouring channels) ** beta."""
    attributes = step.node.attributes
    size, dims = int(attributes["size"]), b.dims(step.input(0))
    alpha = float(attributes.get("alpha", 9.999999747378752e-05))
    beta, bias = float(attributes.get("beta", 0.75)), float(attributes.get("bias", 1.0))
    x, y, g = b.value(step.input(0)), b.value(step.node.outputs[0]), step.signal
    before, behind = (size - 1) // 2, size // 2

    def neighbours(tensor: str, first: int, last: int) -> str:
        """Sums over the channels from c - first to c + last."""
        rows = b.reshape(tensor, (-1, 1, dims[1], math.prod(dims[2:])))
        padded = b.pad(rows, [0, 0, first, 0], [0, 0, last, 0])
        means = b.op("AveragePool", [padded], kernel_shape=[size, 1], strides=[1, 1])
        return b.reshape(means, (-1, *dims[1:]))

    means = neighbours(b.mul(x, x), before, behind)
    base = b.op("Add", [b.scaled(means, alpha), b.constant(bias)])
    direct = b.mul(g, b.op("Pow", [base, b.constant(-beta)]))
    # The neighbours whose sums hold c lie the other way round.
    around = neighbours(b.op("Div", [b.mul(g, y), base]), behind, before)
    indirect = b.mul(b.scaled(x, 2 * alpha * beta), around)
    return {0: b.op("Sub", [direct, indirect])}


@RULES.register("LpNormalization")
def lp_normalization(b: Builder, step: Step) -> Mapping[int, str]:
    """By the p-norm along an axis."""
    axis = int(step.node.attributes.get("axis", -1)) % len(b.dims(step.input(0)))
    p = int(step.node.attributes.get("p", 2))
    x, y, g = b.value(step.input(0)), b.value(step.node.outputs[0]), step.signal
    sign = b.sign(x)
    if p == 2:
        norm = b.op("Sqrt", [b.sum(b.mul(x, x), [axis], keep=True)])
        slope = y
    else:
        norm, slope = b.sum(b.mul(x, sign), [axis], keep=True), sign
    safe = b.where(b.op("Greater", [norm, b.constant(0.0)]), norm, b.constant(1.0))
    along = b.mul(slope, b.sum(b.mul(g, y), [axis], keep=True))
    return {0: b.op("Div", [b.op("Sub", [g, along]), safe])}


@RULES.register("MeanVarianceNormalization", since=9)
def mean_variance_normalization(b: Builder, step: Step) -> Mapping[int, str]:
    """(x - mean) / standard deviation over the axes."""
    axes = [int(axis) for axis in step.node.attributes.get("axes", (0, 2, 3))]
    if 0 in axes:
        raise CannotDifferentiate("statistics over the axis of samples")
    return {0: normalised_back(b, b.value(step.input(0)), step.signal, axes, 1e-18)}


@RULES.register("ImageScaler")
def image_scaler(b: Builder, step: Step) -> Mapping[int, str]:
    """G scale."""
    return {0: b.scaled(step.signal, float(np.float32(step.node.attributes.get("scale", 1.0))))}


@RULES.register("Affine")
def affine(b: Builder, step: Step) -> Mapping[int, str]:
    """G alpha."""
    return {0: b.scaled(step.signal, float(np.float32(step.node.attributes.get("alpha", 1.0))))}
