"""Signals of operators that move, cut and join numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []


@RULES.register("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal in the shape of the input."""
    return {0: b.like(step.signal, step.input(0))}


@RULES.register("Transpose")
def transpose(b: Builder, step: Step) -> Mapping[int, str]:
    """The axes back in their order."""
    rank = len(b.dims(step.input(0)))
    order = step.node.attributes.get("perm") or list(range(rank - 1, -1, -1))
    return {0: b.transpose(step.signal, [int(i) for i in np.argsort(order)])}


@RULES.register("Identity", "Dropout")
def identity(_b: Builder, step: Step) -> Mapping[int, str]:
    """The signal as it is; Dropout does nothing when a network is used."""
    return {0: step.signal}


@RULES.register("Cast")
def cast(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal as it is, except behind what rounds to a type without fractions."""
    to = int(step.node.attributes.get("to", onnx.TensorProto.FLOAT))
    floats = to in _FLOATS
    if not floats and b.floats(step.input(0)):
        return {}
    return {0: step.signal}


@RULES.register("CastLike", since=15)
def cast_like(b: Builder, step: Step) -> Mapping[int, str]:
    """As Cast, to the type of another tensor."""
    if not b.floats(step.input(1)) and b.floats(step.input(0)):
        return {}
    return {0: step.signal}


_FLOATS = frozenset(
    (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    )
)


@RULES.register("Expand", since=8)
def expand(b: Builder, step: Step) -> Mapping[int, str]:
    """Summed over the axes along which the input was repeated."""
    return {0: b.narrowed(step.signal, b.dims(step.node.outputs[0]), b.dims(step.input(0)))}


@RULES.register("Tile", since=6)
def tile(b: Builder, step: Step) -> Mapping[int, str]:
    """Summed over the repetitions."""
    dims, out = b.dims(step.input(0)), b.dims(step.node.outputs[0])
    if dims[:1] != out[:1]:
        raise CannotDifferentiate("it repeats samples")
    apart, axes = [-1], []
    for size, whole in zip(dims[1:], out[1:], strict=True):
        axes.append(len(apart))
        apart += [whole // max(size, 1), size]
    return {0: b.sum(b.reshape(step.signal, apart), axes, keep=False)}


@RULES.register("Concat", since=4)
def concat(b: Builder, step: Step) -> Mapping[int, str]:
    """Cut into the parts that were joined."""
    axis = int(step.node.attributes["axis"])
    sizes = [b.dims(name)[axis] for name in step.node.inputs]
    rank = len(b.dims(step.node.inputs[0]))
    axis = axis % rank
    if len(step.wanted) < len(sizes):
        ends = np.cumsum(sizes)
        return {
            i: b.slice(step.signal, [int(ends[i]) - sizes[i]], [int(ends[i])], [axis])
            for i in sorted(step.wanted)
        }
    if len(sizes) == 1:
        return {0: step.signal}
    if b.opset >= 13:
        parts = b.ops("Split", [step.signal, b.ints(sizes)], len(sizes), axis=axis)
    else:
        parts = b.ops("Split", [step.signal], len(sizes), axis=axis, split=sizes)
    return dict(enumerate(parts))


@RULES.register("Split")
def split(b: Builder, step: Step) -> Mapping[int, str]:
    """Joined again; zeros where no signal arrives."""
    axis = int(step.node.attributes.get("axis", 0))
    names = [name for name in step.node.outputs if name]
    if len(names) < len(step.node.outputs):
        raise CannotDifferentiate("one of its outputs has no name")
    parts = [
        b.zeros(name) if signal is None else signal
        for name, signal in zip(names, step.signals, strict=True)
    ]
    return {0: parts[0] if len(parts) == 1 else b.op("Concat", parts, axis=axis)}


def _given(b: Builder, step: Step, position: int, attribute: str) -> list[int] | None:
    """Numbers from an input, or from the attribute of older opsets."""
    name = step.input(position)
    if not name:
        value = step.node.attributes.get(attribute)
        return None if value is None else [int(v) for v in value]
    known = b.known(name)
    if known is None:
        raise CannotDifferentiate(f"its {attribute} depend on the image")
    return [int(v) for v in known.reshape(-1)]


@RULES.register("Slice")
def slice_(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal where it was cut out, and zeros around."""
    dims = b.dims(step.input(0))
    starts, ends = _given(b, step, 1, "starts") or [], _given(b, step, 2, "ends") or []
    axes = _given(b, step, 3, "axes") or list(range(len(starts)))
    steps = _given(b, step, 4, "steps") or [1] * len(starts)
    signal, out = step.signal, list(b.dims(step.node.outputs[0]))
    before, after = [0] * len(dims), [0] * len(dims)
    for raw, start, end, stride in zip(axes, starts, ends, steps, strict=True):
        axis = raw % len(dims)
        size = dims[axis]
        taken = range(size)[slice(start, None if end < -size and stride < 0 else end, stride)]
        if len(taken) != out[axis]:
            raise CannotDifferentiate("bounds that the standard leaves open")
        if abs(stride) > 1:
            if axis == 0:
                raise CannotDifferentiate("it takes some of the samples")
            factors = [1] * len(dims)
            factors[axis] = abs(stride)
        if stride < 0:
            signal = b.reversed_axis(signal, axis, out[axis])
            taken = taken[::-1]
        if abs(stride) > 1:
            signal = b.spread(signal, out, factors)
            out[axis] *= abs(stride)
        before[axis] = taken.start if len(taken) else 0
        after[axis] = size - before[axis] - out[axis]
    cut = [i for i, n in enumerate(after) if n < 0]
    if cut:
        ends_at = [out[i] + after[i] for i in cut]
        signal = b.slice(signal, [0] * len(cut), ends_at, cut)
    return {0: b.pad(signal, before, [max(0, n) for n in after])}


@RULES.register("Pad")
def pad(b: Builder, step: Step) -> Mapping[int, str]:
    """The signal inside; what a pad repeats gets a part of its signal."""
    dims = b.dims(step.input(0))
    rank, mode = len(dims), step.node.attributes.get("mode", "constant")
    pads = _given(b, step, 1, "pads") or []
    axes = _given(b, step, 3, "axes") if step.input(3) else list(range(rank))
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes or []):
        begins[axis % rank], ends[axis % rank] = pads[i], pads[i + len(axes or [])]
    if mode == "constant":
        return {0: _inside(b, step.signal, dims, begins, ends)}
    if min((*begins, *ends)) < 0:
        raise CannotDifferentiate(f"a pad of mode {mode!r} that also cuts")
    signal = step.signal
    for axis in range(rank):
        if begins[axis] or ends[axis]:
            sources = np.pad(np.arange(dims[axis]), (begins[axis], ends[axis]), mode=mode)
            matrix = np.zeros((len(sources), dims[axis]), np.float32)
            matrix[np.arange(len(sources)), sources] = 1
            signal = b.along(signal, axis, matrix, rank)
    return {0: signal}


@RULES.register("CenterCropPad", since=18)
def center_crop_pad(b: Builder, step: Step) -> Mapping[int, str]:
    """What lies inside, and zeros where something was cut off."""
    dims, out = b.dims(step.input(0)), b.dims(step.node.outputs[0])
    begins, ends = [0] * len(dims), [0] * len(dims)
    for axis, (size, wanted) in enumerate(zip(dims, out, strict=True)):
        more = wanted - size
        # Cropping rounds the first removed part down, padding the first added part.
        begins[axis] = more // 2 if more >= 0 else -(-more // 2)
        ends[axis] = more - begins[axis]
    return {0: _inside(b, step.signal, dims, begins, ends)}


@RULES.register("Col2Im", since=18)
def col2im(b: Builder, step: Step) -> Mapping[int, str]:
    """Blocks of the image: a convolution with one 1 per filter."""
    image, block = (_given(b, step, position, "sizes") or [] for position in (1, 2))
    dims, taps, rank = b.dims(step.input(0)), int(np.prod(block)), len(block)
    attributes = step.node.attributes
    filters = b.constant(np.eye(taps).reshape(taps, 1, *block))
    parts = b.op(
        "Conv",
        [b.reshape(step.signal, (-1, 1, *image)), filters],
        kernel_shape=block,
        strides=list(attributes.get("strides") or (1,) * rank),
        dilations=list(attributes.get("dilations") or (1,) * rank),
        pads=list(attributes.get("pads") or (0,) * (2 * rank)),
    )
    return {0: b.reshape(parts, (-1, *dims[1:]))}


def _inside(
    b: Builder, signal: str, dims: Sequence[int], begins: Sequence[int], ends: Sequence[int]
) -> str:
    """What lies between pads; zeros where a pad below zero cut off."""
    axes = [i for i in range(len(dims)) if begins[i] > 0 or ends[i] > 0]
    if axes:
        starts = [max(0, begins[i]) for i in axes]
        stops = [max(0, begins[i]) + dims[i] + min(0, begins[i]) + min(0, ends[i]) for i in axes]
        signal = b.slice(signal, starts, stops, axes)
    return b.pad(signal, [max(0, -v) for v in begins], [max(0, -v) for v in ends])


@RULES.register("Crop")
def crop(b: Builder, step: Step) -> Mapping[int, str]:
    """Zeros around what was kept."""
    dims, out = b.dims(step.input(0)), b.dims(step.node.outputs[0])
    left, top, *_ = [int(v) for v in step.node.attributes["border"]]
    after = [0, 0, dims[2] - top - out[2], dims[3] - left - out[3]]
    return {0: b.pad(step.signal, [0, 0, top, left], after)}


@RULES.register("DepthToSpace")
def depth_to_space(b: Builder, step: Step) -> Mapping[int, str]:
    """Blocks of pixels back into channels."""
    block = int(step.node.attributes["blocksize"])
    _, c, h, w = b.dims(step.input(0))
    blocks = b.reshape(step.signal, (-1, c // block**2, h, block, w, block))
    last = step.node.attributes.get("mode", "DCR") == "DCR"
    order = [0, 3, 5, 1, 2, 4] if last else [0, 1, 3, 5, 2, 4]
    return {0: b.reshape(b.transpose(blocks, order), (-1, c, h, w))}


@RULES.register("SpaceToDepth")
def space_to_depth(b: Builder, step: Step) -> Mapping[int, str]:
    """Channels back into blocks of pixels."""
    block = int(step.node.attributes["blocksize"])
    _, c, h, w = b.dims(step.input(0))
    blocks = b.reshape(step.signal, (-1, block, block, c, h // block, w // block))
    return {0: b.reshape(b.transpose(blocks, [0, 3, 4, 1, 5, 2]), (-1, c, h, w))}
