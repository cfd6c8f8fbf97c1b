"""Signals of pools over windows and over whole maps."""

import math
from collections.abc import Mapping

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.convolution import fitted
from inspector.surgery.gradient.table import RULES, Step
from inspector.surgery.gradient.windows import Window, window_of

__all__ = ["averaged_back", "first_maximum_back", "summed_back"]

_SCATTER_ADDS = 16
"""Opset from which ``ScatterElements`` can add up."""

_SCATTERS = 11


def _window(b: Builder, step: Step) -> Window:
    X, Y = step.input(0), step.node.outputs[0]
    kernel = step.node.attributes["kernel_shape"]
    return window_of(step.node, b.dims(X)[2:], kernel, b.dims(Y)[2:])


@RULES.register("MaxPool")
def max_pool(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal goes to the place of the maximum, the first of equals; several add up.

    By ``ScatterElements`` on the indices of the same node; windows that do not overlap need no
    adding up.  Where the opset or the runtime has no such operator, the places are found by
    comparing all taps of a window with its maximum.
    """
    window, node = _window(b, step), step.node
    overlap = any(span > s for span, s in zip(window.spans, window.strides, strict=True))
    oldest = _SCATTER_ADDS if overlap else _SCATTERS
    integers = not b.floats(step.input(0))
    if b.opset < oldest or "ScatterElements" in b.avoid or integers:
        return {0: _by_comparison(b, step, window)}
    indices = node.outputs[1] if len(node.outputs) > 1 else ""
    if int(node.attributes.get("storage_order", 0)):
        return {0: _by_comparison(b, step, window)}
    if not indices:
        indices = b.indexed.setdefault(node.index, "") or b.name(f"{node.outputs[0]}/indices")
        b.indexed[node.index] = indices
    flat = b.ints([-1])
    empty = b.op("Reshape", [b.zeros(step.input(0)), flat])
    given = [empty, b.op("Reshape", [indices, flat]), b.op("Reshape", [step.signal, flat])]
    attributes = {"reduction": "add"} if overlap else {}
    found = b.op("ScatterElements", given, axis=0, **attributes)
    return {0: b.like(found, step.input(0))}


def _by_comparison(b: Builder, step: Step, window: Window) -> str:
    x, y = b.value(step.input(0)), b.value(step.node.outputs[0])
    channels = b.dims(step.input(0))[1]
    return first_maximum_back(b, x, y, step.signal, window=window, channels=channels)


def first_maximum_back(
    b: Builder, x: str, y: str, signal: str, *, window: Window, channels: int
) -> str:
    """Places of the maxima without indices: every tap of a window as a channel.

    A convolution with one 1 per filter lays the taps side by side, its transpose adds them up.
    What is a pad counts as no tap.

    Args:
        b: Where it is written.
        x: What is pooled, (N, C, h w).
        y: Its maxima.
        signal: The signal at them.
        window: Where the windows lie.
        channels: C.
    """
    taps = math.prod(window.kernel)
    one = np.eye(taps, dtype=np.float32).reshape(taps, 1, *window.kernel)
    filters = b.constant(one)
    rank = len(window.kernel)
    # Windows may reach beyond the pads (ceil_mode): the end is filled up to the last one.
    end = [
        (o - 1) * s + span - n - p
        for o, s, span, n, p in zip(
            window.outputs, window.strides, window.spans, window.size, window.begin, strict=True
        )
    ]
    kept = [n + min(0, e) for n, e in zip(window.size, end, strict=True)]
    options = {
        "kernel_shape": list(window.kernel),
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "pads": [*window.begin, *(max(0, e) for e in end)],
    }
    single = (-1, 1, *window.size)
    image = fitted(b, b.reshape(x, single), window.size, kept)
    unfolded = b.op("Conv", [image, filters], **options)
    real = b.op("Conv", [b.constant(np.ones((1, 1, *kept))), filters], **options)
    y, g = (b.reshape(tensor, (-1, 1, *window.outputs)) for tensor in (y, signal))
    reached = b.mul(b.mask(b.op("Not", [b.op("Less", [unfolded, y])])), real)
    # The first of equals: those before it are counted by a product with a triangle of ones.
    before = np.tril(np.ones((taps, taps), np.float32), -1).reshape(taps, taps, *[1] * rank)
    counted = b.op("Conv", [reached, b.constant(before)], kernel_shape=[1] * rank)
    first = b.mul(reached, b.mask(b.op("Less", [counted, b.constant(0.5)])))
    folded = b.op("ConvTranspose", [b.mul(first, g), filters], **options)
    back = fitted(b, folded, kept, window.size)
    return b.reshape(back, (-1, channels, *window.size))


@RULES.register("AveragePool")
def average_pool(b: Builder, step: Step) -> Mapping[int, str]:
    """Every window's share goes to all of its pixels: a sum over windows, at stride 1."""
    channels = b.dims(step.input(0))[1]
    return {0: averaged_back(b, step, step.signal, _window(b, step), channels)}


def averaged_back(b: Builder, step: Step, signal: str, window: Window, channels: int) -> str:
    """The signal at the input of an average pool, from that at its output.

    Args:
        b: Where it is written.
        step: The pool.
        signal: (N, C, outputs).
        window: Where the windows lie.
        channels: C.
    """
    counts, taps = _counts(step, window), math.prod(window.kernel)
    share = b.mul(signal, b.constant((1 / counts).astype(np.float32)))
    if np.all(counts == taps):
        share = b.scaled(signal, 1 / taps)
    return summed_back(b, share, window, channels)


def summed_back(b: Builder, share: str, window: Window, channels: int) -> str:
    """Every window's number to all of its pixels, added up: (N, C, outputs) to (N, C, size).

    Args:
        b: Where it is written.
        share: One number per window.
        window: Where the windows lie.
        channels: C.
    """
    rank, taps = len(window.kernel), math.prod(window.kernel)
    if window.plain:
        apart, wide = [-1, channels], [1, 1]
        for o, k in zip(window.outputs, window.kernel, strict=True):
            apart += [o, 1]
            wide += [1, k]
        repeated = b.op("Tile", [b.reshape(share, apart), b.ints(wide)])
        return b.reshape(repeated, (-1, channels, *window.size))
    if any(d != 1 for d in window.dilations):
        return _dilated_back(b, share, window, channels)
    spread = b.spread(share, (1, channels, *window.outputs), (1, 1, *window.strides))
    begin = [k - 1 for k in window.kernel]
    length = [o * s for o, s in zip(window.outputs, window.strides, strict=True)]
    # From the pad before the input to the end of the input.
    reach = [n + p for n, p in zip(window.size, window.begin, strict=True)]
    end = [max(0, r - n) for r, n in zip(reach, length, strict=True)]
    padded = b.pad(spread, [0, 0, *begin], [0, 0, *end])
    sums = b.scaled(
        b.op("AveragePool", [padded], kernel_shape=list(window.kernel), strides=[1] * rank),
        float(taps),
    )
    given = [n + e for n, e in zip(length, end, strict=True)]
    return fitted(b, sums, given, window.size, window.begin)


def _dilated_back(b: Builder, share: str, window: Window, channels: int) -> str:
    """The same by a transposed convolution with ones, map by map: taps lie apart."""
    ones = b.constant(np.ones((1, 1, *window.kernel)))
    single = b.reshape(share, (-1, 1, *window.outputs))
    options = {"strides": list(window.strides), "dilations": list(window.dilations)}
    kernel = list(window.kernel)
    whole = b.op("ConvTranspose", [single, ones], kernel_shape=kernel, **options)
    full = [
        (o - 1) * s + span
        for o, s, span in zip(window.outputs, window.strides, window.spans, strict=True)
    ]
    found = fitted(b, whole, full, window.size, window.begin)
    return b.reshape(found, (-1, channels, *window.size))


@RULES.register("LpPool", since=2)
def lp_pool(b: Builder, step: Step) -> Mapping[int, str]:
    """p-norm of every window: sign(x) |x|^(p - 1) times the sum of g y^(1 - p)."""
    p, window = int(step.node.attributes.get("p", 2)), _window(b, step)
    x, y, share = b.value(step.input(0)), b.value(step.node.outputs[0]), step.signal
    if p > 1:
        safe = b.where(b.op("Greater", [y, b.constant(0.0)]), y, b.constant(1.0))
        share = b.op("Div", [share, b.op("Pow", [safe, b.constant(float(p - 1))])])
    spread = summed_back(b, share, window, b.dims(step.input(0))[1])
    return {0: b.mul(_root_slope(b, x, p), spread)}


def _counts(step: Step, window: Window) -> np.ndarray:
    """How many pixels each window's mean is over, (1, 1, outputs)."""
    include = bool(step.node.attributes.get("count_include_pad", 0))
    found = np.ones((1, 1))
    for o, s, k, d, n, p, e in zip(
        window.outputs,
        window.strides,
        window.kernel,
        window.dilations,
        window.size,
        window.begin,
        window.end,
        strict=True,
    ):
        places = np.arange(o)[:, None] * s + np.arange(k)[None] * d - p
        inside = (places >= (-p if include else 0)) & (places < (n + e if include else n))
        found = found[..., None] * inside.sum(1)
    return np.asarray(found, np.float64)


@RULES.register("GlobalAveragePool")
def global_average_pool(b: Builder, step: Step) -> Mapping[int, str]:
    """The same share for every pixel."""
    pixels = math.prod(b.dims(step.input(0))[2:])
    return {0: b.expanded(b.scaled(step.signal, 1 / pixels), step.input(0))}


@RULES.register("GlobalMaxPool")
def global_max_pool(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal goes to the first maximum."""
    dims = b.dims(step.input(0))
    x = b.reshape(b.value(step.input(0)), (-1, dims[1], math.prod(dims[2:])))
    return {0: b.like(_at_first(b, x, step.signal, dims), step.input(0))}


def _at_first(b: Builder, x: str, signal: str, dims: tuple[int, ...]) -> str:
    """The signal (N, C, 1 ...) at the first maximum of (N, C, P)."""
    pixels = math.prod(dims[2:])
    where = b.op("ArgMax", [x], axis=2, keepdims=1)
    places = b.constant(np.arange(pixels, dtype=np.float32).reshape(1, 1, pixels))
    hit = b.mask(b.equal(places, b.op("Cast", [where], to=1)))
    return b.mul(hit, b.reshape(signal, (-1, dims[1], 1)))


def _root_slope(b: Builder, x: str, p: int) -> str:
    """|x|^(p - 1) sign(x)."""
    sign = b.sign(x)
    if p == 1:
        return sign
    power = b.op("Pow", [b.op("Abs", [x]), b.constant(float(p - 1))])
    return b.mul(sign, power)


@RULES.register("GlobalLpPool", since=2)
def global_lp_pool(b: Builder, step: Step) -> Mapping[int, str]:
    """p-norm over all axes of space: sign(x) (|x| / y)^(p - 1)."""
    p = int(step.node.attributes.get("p", 2))
    x, y = b.value(step.input(0)), b.value(step.node.outputs[0])
    safe = b.where(b.op("Greater", [y, b.constant(0.0)]), y, b.constant(1.0))
    share = step.signal
    if p > 1:
        share = b.op("Div", [share, b.op("Pow", [safe, b.constant(float(p - 1))])])
    return {0: b.mul(_root_slope(b, x, p), share)}
