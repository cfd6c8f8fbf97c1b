"""Signals of convolutions and transposed convolutions.

The signal at the input of a convolution is a transposed convolution of that at its output. At
stride 1 that is a convolution with flipped weights, for which runtimes have their best kernels; a
depthwise one always is (runtimes do transposed depthwise convolutions channel by channel), behind
zeros between its elements where the stride is larger. Flipped weights are made by nodes that read
the file's own: a runtime does so once, when it loads the file.
"""

from collections.abc import Mapping, Sequence

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step
from inspector.surgery.gradient.windows import Window, window_of

__all__ = ["convolved_back", "fitted"]


@RULES.register("Conv")
def conv(b: Builder, step: Step) -> Mapping[int, str]:
    """Convolution: the signal at X, from constant weights or computed ones."""
    found: dict[int, str] = {}
    X, W = step.input(0), step.input(1)
    kernel = b.dims(W)[2:]
    window = window_of(step.node, b.dims(X)[2:], kernel, b.dims(step.node.outputs[0])[2:])
    group = int(step.node.attributes.get("group", 1))
    if 0 in step.wanted:
        found[0] = convolved_back(
            b,
            step.signal,
            b.value(W),
            shape=b.dims(W),
            channels=b.dims(X)[1],
            window=window,
            group=group,
        )
    if 1 in step.wanted:
        found[1] = _weights_back(b, step.signal, X, window, group)
    if 2 in step.wanted:
        axes = [0, *range(2, 2 + len(kernel))]
        found[2] = b.sum(step.signal, axes, keep=False)
    return found


def _weights_back(b: Builder, signal: str, X: str, window: Window, group: int) -> str:
    """The signal at weights that the image decides, (M, C / group, kh kw).

    A convolution of X by the signal, samples in the place of channels; strides and dilations
    change places.
    """
    channels, rank = b.dims(X)[1], len(window.kernel)
    space = list(range(2, 2 + rank))
    apart = b.reshape(b.value(X), (-1, group, channels // group, *window.size))
    samples = b.transpose(apart, [2, 1, 0, *range(3, 3 + rank)])
    found = b.op(
        "Conv",
        [
            b.reshape(samples, (channels // group, -1, *window.size)),
            b.transpose(signal, [1, 0, *space]),
        ],
        strides=list(window.dilations),
        dilations=list(window.strides),
        pads=[*window.begin, *window.end],
        group=group,
    )
    given = [
        (n + p + e - (o - 1) * s - 1) // d + 1
        for n, p, e, o, s, d in zip(
            window.size,
            window.begin,
            window.end,
            window.outputs,
            window.strides,
            window.dilations,
            strict=True,
        )
    ]
    return fitted(b, b.transpose(found, [1, 0, *space]), given, window.kernel)


def convolved_back(
    b: Builder,
    signal: str,
    weights: str,
    *,
    shape: Sequence[int],
    channels: int,
    window: Window,
    group: int,
) -> str:
    """The signal at the input of a convolution.

    Args:
        b: Where it is written.
        signal: That at the output, (N, M, h w).
        weights: Name of the weights in float32, (M, C / group, kh kw).
        shape: Their shape.
        channels: C.
        window: Where the windows lie.
        group: Groups of channels.
    """
    outputs = (1, shape[0], *window.outputs)
    single = all(k == 1 for k in window.kernel)
    unit = all(s == 1 for s in window.strides)
    depthwise = group == channels
    if single and not unit and not any((*window.begin, *window.end)):
        # Fewer products before the zeros come in between than behind them.
        turned = _turned(b, weights, shape, group, channels)
        small = _flipped(b, signal, turned, window, group)
        spread = b.spread(small, (1, channels, *window.outputs), (1, 1, *window.strides))
        return fitted(b, spread, _multiplied(window), window.size)
    if unit or depthwise:
        spread = b.spread(signal, outputs, (1, 1, *window.strides))
        return _flipped(b, spread, _turned(b, weights, shape, group, channels), window, group)
    full = [
        (o - 1) * s + span
        for o, s, span in zip(window.outputs, window.strides, window.spans, strict=True)
    ]
    cut = [n + p - f for n, p, f in zip(window.size, window.begin, full, strict=True)]
    # What lies behind the last window got no signal (extra > 0), or was a pad (cut > 0).
    extra = [max(0, c) for c in cut]
    end = [max(0, -c) for c in cut]
    if all(e < max(s, d) for e, s, d in zip(extra, window.strides, window.dilations, strict=True)):
        return b.op(
            "ConvTranspose",
            [signal, weights],
            strides=list(window.strides),
            dilations=list(window.dilations),
            kernel_shape=list(window.kernel),
            group=group,
            pads=[*window.begin, *end],
            output_padding=extra,
        )
    whole = b.op(
        "ConvTranspose",
        [signal, weights],
        strides=list(window.strides),
        dilations=list(window.dilations),
        kernel_shape=list(window.kernel),
        group=group,
    )
    return fitted(b, whole, full, window.size, window.begin)


def fitted(
    b: Builder,
    signal: str,
    given: Sequence[int],
    wanted: Sequence[int],
    offset: Sequence[int] | None = None,
) -> str:
    """A map cut off or filled with zeros at its ends: (N, C, given) to (N, C, wanted).

    Args:
        b: Where it is written.
        signal: The map.
        given: Its axes of space.
        wanted: Those asked for.
        offset: Pixels to cut at the beginning of each axis.
    """
    starts = list(offset or [0] * len(given))
    ends = [min(g, s + w) for g, s, w in zip(given, starts, wanted, strict=True)]
    axes = [i for i, (g, s, e) in enumerate(zip(given, starts, ends, strict=True)) if s or e != g]
    if axes:
        signal = b.slice(
            signal, [starts[i] for i in axes], [ends[i] for i in axes], [i + 2 for i in axes]
        )
    behind = [w - (e - s) for w, e, s in zip(wanted, ends, starts, strict=True)]
    return b.pad(signal, [0] * (len(given) + 2), [0, 0, *behind])


def _multiplied(window: Window) -> tuple[int, ...]:
    return tuple(o * s for o, s in zip(window.outputs, window.strides, strict=True))


def _flipped(
    b: Builder,
    signal: str,
    turned: str,
    window: Window,
    group: int,
) -> str:
    """A convolution at stride 1 with the weights the other way round, in space and in channels."""
    steps = window.strides
    single = all(k == 1 for k in window.kernel)
    spread = all(s == 1 for s in steps) or not (single and not any((*window.begin, *window.end)))
    if not spread:
        return b.op("Conv", [signal, turned], kernel_shape=list(window.kernel), group=group)
    begin: list[int] = []
    end: list[int] = []
    for n, span, s, p, o in zip(
        window.size, window.spans, steps, window.begin, window.outputs, strict=True
    ):
        begin.append(span - 1 - p)
        # The spread signal has o s elements; the result must have n.
        end.append(n - (o * s + begin[-1] - (span - 1)))
    low = [max(0, v) for v in begin]
    high = [max(0, v) for v in end]
    result = b.op(
        "Conv",
        [signal, turned],
        kernel_shape=list(window.kernel),
        dilations=list(window.dilations),
        group=group,
        pads=[*low, *high],
    )
    if low == begin and high == end:
        return result
    given = [
        o * s + lo + hi - (span - 1)
        for o, s, lo, hi, span in zip(window.outputs, steps, low, high, window.spans, strict=True)
    ]
    offset = [lo - v for lo, v in zip(low, begin, strict=True)]
    return fitted(b, result, given, window.size, offset)


def _turned(b: Builder, weights: str, shape: Sequence[int], group: int, channels: int) -> str:
    """Weights (M, C / group, k) as (C, M / group, k), flipped in space."""
    rank = len(shape)
    kernel = shape[2:]
    if group == 1:
        if shape[0] > 1 or shape[1] > 1:
            order = [1, 0, *range(2, rank)]
            weights = b.once("Transpose", [weights], perm=order)
    elif not (shape[1] == 1 and shape[0] == group):
        inner = b.once("Reshape", [weights, b.ints([group, shape[0] // group, shape[1], *kernel])])
        order = [0, 2, 1, *range(3, rank + 1)]
        swapped = b.once("Transpose", [inner], perm=order)
        weights = b.once("Reshape", [swapped, b.ints([channels, shape[0] // group, *kernel])])
    for axis in range(2, rank):
        if shape[axis] > 1:
            weights = b.reversed_axis(weights, axis, shape[axis])
    return weights


@RULES.register("ConvTranspose")
def conv_transpose(b: Builder, step: Step) -> Mapping[int, str]:
    """Transposed convolution: a convolution with the same weights."""
    if step.wanted != {0}:
        raise CannotDifferentiate("its weights depend on the input")
    X, W, Y = step.input(0), step.input(1), step.node.outputs[0]
    size, outputs, shape = b.dims(X)[2:], b.dims(Y)[2:], b.dims(W)
    attributes = step.node.attributes
    rank, kernel = len(size), shape[2:]
    strides = list(attributes.get("strides") or (1,) * rank)
    dilations = list(attributes.get("dilations") or (1,) * rank)
    extra = list(attributes.get("output_padding") or (0,) * rank)
    mode = attributes.get("auto_pad", "NOTSET") or "NOTSET"
    full = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(size, strides, dilations, kernel, strict=True)
    ]
    pads = list(attributes.get("pads") or (0,) * (2 * rank))
    begin = pads[:rank]
    if mode in {"SAME_UPPER", "SAME_LOWER"} or attributes.get("output_shape"):
        total = [f + e - o for f, e, o in zip(full, extra, outputs, strict=True)]
        half = [max(0, t) // 2 for t in total]
        rest = [max(0, t) - h for t, h in zip(total, half, strict=True)]
        begin = half if mode == "SAME_UPPER" else rest
    elif mode == "VALID":
        begin = [0] * rank
    # The full result is (full + extra) long, of which `outputs` from `begin` on were kept.
    end = [f - p - o for f, p, o in zip(full, begin, outputs, strict=True)]
    signal = step.signal
    behind = [max(0, -v) for v in end]
    if any(behind):  # what lies behind the full result has no signal: it is cut off
        kept = [o - c for o, c in zip(outputs, behind, strict=True)]
        signal = fitted(b, signal, outputs, kept)
    return {
        0: b.op(
            "Conv",
            [signal, b.value(W)],
            kernel_shape=list(kernel),
            strides=strides,
            dilations=dilations,
            group=int(attributes.get("group", 1)),
            pads=[*begin, *(max(0, v) for v in end)],
        )
    }
