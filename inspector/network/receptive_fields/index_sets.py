"""Index sets per operator: which indices of its inputs an output index can depend on.

An index set per axis, carried from a tensor back to the image, gives the exact receptive field
(:mod:`~inspector.network.receptive_fields.receptive_field`).  Sets and not intervals: behind a
dilated or strided convolution an interval has gaps, and clipping a gap at a border would move the
box.

    MaxPool 2x2 stride 2     {3}        ->  {6, 7}
    Conv 3x3 dilation 2      {6, 7}     ->  {4, 5, 6, 7, 8, 9}
    GlobalAveragePool        {0}        ->  every index
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from converters.graph import Node
from converters.graph.operators import facts
from inspector.network.receptive_fields.graph_extents import GraphExtents
from inspector.network.receptive_fields.resize_taps import sources
from inspector.network.shapes import Shape

__all__ = [
    "Indices",
    "Reach",
    "Region",
    "kernel_of",
    "pad_before",
    "same_place",
    "step_back",
]

Indices = np.ndarray[Any, np.dtype[np.int64]]
# One entry per axis; None stands for every index.
Region = tuple[Indices | None, ...]
# An input and its region.
Read = tuple[str, Region]


@dataclass(frozen=True)
class Reach:
    """What one input of a node contributes.

    Attributes:
        tensor: The input.
        region: Its indices, one entry per axis.
        mixes: Space is lost on the way: some spatial axis is read as a whole.
        own: Of a normalisation that mixes, the part of the region that is not only weighed: the
            unit itself.
    """

    tensor: str
    region: Region
    mixes: bool = False
    own: Region | None = None


@dataclass(frozen=True)
class At:
    """A region of one output of a node: what a step starts from."""

    net: GraphExtents
    node: Node
    output: str
    region: Region
    bounded: bool

    @property
    def source(self) -> str:
        """The first input."""
        return self.node.inputs[0]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute of the node."""
        return self.node.attributes.get(name, default)

    def replaced(self, axis: int, indices: Indices | None) -> Region:
        """The region with other indices along one axis."""
        return (*self.region[:axis], indices, *self.region[axis + 1 :])


def step_back(
    net: GraphExtents, node: Node, output: str, region: Region, *, bounded: bool = True
) -> list[Reach]:
    """Indices of a node's inputs that a region of one of its outputs depends on.

    Args:
        net: Lengths in the graph that the node is of.
        node: The node.
        output: Which of its outputs.
        region: Indices of that output.
        bounded: Reflect and clamp at borders as the operator does; otherwise axes go on forever.

    Returns:
        One entry per input that carries data.  An operator not known here reads everything.
    """
    known = facts(node)
    at_its_place = known.elementwise or known.copies
    step = _STEPS.get(node.op_type, _elementwise if at_its_place else _everything)
    wanted = sum(indices is not None for indices in region)
    reaches = []
    at = At(net, node, output, region, bounded)
    try:
        with np.errstate(divide="raise"):
            reads = list(step(at))
    except (ArithmeticError, LookupError, TypeError, ValueError):
        # Attributes that make no sense (a permutation out of range): nothing can be left out.
        reads = list(_everything(at))
    for name, read in reads:
        if name not in net.carried:
            continue
        found = _single_indices(net, name, read)
        axes = range(1, len(found)) if name in net.channels and len(found) == 4 else ()
        blind = any(found[axis] is None for axis in axes if axis != net.channels[name])
        lost = sum(indices is not None for indices in found) < wanted
        own = region if known.normalises in _BY_THE_WHOLE and name == node.inputs[0] else None
        reaches.append(Reach(name, found, mixes=blind or lost, own=own))
    return reaches


def _single_indices(net: GraphExtents, name: str, region: Region) -> Region:
    """All of a row or column of length 1 is index 0."""
    channel = net.channels.get(name)
    if channel is None or sum(indices is None for indices in region) <= 2:
        return region
    shape = net.shape(name)
    if shape is None or len(shape) != len(region):
        return region
    return tuple(
        np.zeros(1, np.int64)
        if indices is None and length == 1 and axis not in {0, channel}
        else indices
        for axis, (indices, length) in enumerate(zip(region, shape, strict=True))
    )


def same_place(node: Node) -> tuple[str, ...]:
    """Inputs that a node reads at the place of its output and nowhere else.

    Up to broadcasting; empty for a node that reads anything else of an input.
    """
    known = facts(node)
    step = _STEPS.get(node.op_type)
    if step is _first:
        return node.inputs[:1]
    return node.inputs if step is None and (known.elementwise or known.copies) else ()


# -- the steps ----------------------------------------------------------------------------------


def _everything(at: At) -> Iterator[Read]:
    for name in at.node.inputs:
        yield name, (None,) * at.net.rank(name, len(at.region))


def _elementwise(at: At) -> Iterator[Read]:
    """Elementwise with broadcasting: an axis of length 1 is read at 0."""
    for name in at.node.inputs:
        shape = at.net.shape(name)
        aligned = at.region[len(at.region) - len(shape) :] if shape is not None else at.region
        yield (
            name,
            tuple(
                np.zeros(1, np.int64)
                if indices is not None and shape is not None and shape[axis] == 1
                else indices
                for axis, indices in enumerate(aligned)
            ),
        )


def _first(at: At) -> Iterator[Read]:
    yield at.source, at.region


def kernel_of(net: GraphExtents, node: Node) -> list[int] | None:
    """Size of a window along each axis of space; None where it is not known."""
    if "kernel_shape" in node.attributes:
        return list(node.attributes["kernel_shape"])
    position = facts(node).weights
    weight = "" if position is None else node.inputs[position]
    stored = net.graph.initialiser(weight)
    shape = list(stored.dims) if stored is not None else net.shape(weight)
    return None if shape is None or None in shape else [int(n or 0) for n in shape[2:]]


def _window(at: At) -> Iterator[Read]:
    """Convolution and pooling: input index = stride * output + dilation * tap - pad."""
    kernel = kernel_of(at.net, at.node)
    known = facts(at.node)
    first = 1 if known.channels_last else 2
    if kernel is None or len(at.region) != 4:
        yield from _everything(at)
        return
    strides = at.attribute("strides", [1, 1])
    dilations = at.attribute("dilations", [1, 1])
    found: list[Indices | None] = [None] * 4
    for i, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=False)):
        pad = pad_before(at.node, i, (k - 1) * d + 1, s, at.net.extent(at.source, first + i))
        indices = at.region[first + i]
        if indices is not None:
            taps = indices[:, None] * s + np.arange(k) * d - pad
            found[first + i] = np.unique(taps)
    yield at.source, tuple(found)
    # Weights that are computed weigh every position.
    weights = at.node.inputs[1:] if known.convolves and known.quantised is None else ()
    for name in weights:
        if name in at.net.carried:
            yield name, (None,) * at.net.rank(name, 4)


def pad_before(node: Node, axis: int, effective: int, stride: int, length: int | None) -> int:
    """Padding in front of one axis of space.

    Args:
        node: A convolution or pooling.
        axis: Position among the axes of space.
        effective: Length of the window, gaps of the dilation included.
        stride: Its stride.
        length: Length of the axis that it runs over, None where not known.
    """
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return 0
    if mode == "NOTSET":
        return int(node.attributes.get("pads", [0, 0, 0, 0])[axis])
    # Without a length: as for a length that the stride divides (with stride 1, always right).
    windows = 1 if length is None else -(-length // stride)
    length = stride if length is None else length
    total = max((windows - 1) * stride + effective - length, 0)
    return total // 2 if mode == "SAME_UPPER" else total - total // 2


def _transposed(at: At) -> Iterator[Read]:
    """ConvTranspose: every i with stride * i + dilation * tap - pad = output."""
    kernel = kernel_of(at.net, at.node)
    if kernel is None or len(at.region) != 4:
        yield from _everything(at)
        return
    strides = at.attribute("strides", [1, 1])
    dilations = at.attribute("dilations", [1, 1])
    found: list[Indices | None] = [None, None]
    for i, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=False)):
        pad = _transposed_pad(at.net, at.node, i, (k - 1) * d + 1, s)
        if pad is None:
            yield from _everything(at)
            return
        indices = at.region[2 + i]
        if indices is None:
            found.append(None)
            continue
        shifted = indices[:, None] + pad - np.arange(k) * d
        found.append(np.unique(shifted[shifted % s == 0] // s))
    yield at.source, tuple(found)


def _transposed_pad(
    net: GraphExtents, node: Node, i: int, effective: int, stride: int
) -> int | None:
    mode = node.attributes.get("auto_pad", "NOTSET")
    extra = node.attributes.get("output_padding", [0, 0])[i]
    if "output_shape" in node.attributes:
        length = net.extent(node.inputs[0], 2 + i)
        if length is None:
            return None
        wanted = node.attributes["output_shape"][-2:][i]
        total = stride * (length - 1) + extra + effective - wanted
    elif mode.startswith("SAME"):
        total = max(effective + extra - stride, 0)
    else:
        return 0 if mode == "VALID" else int(node.attributes.get("pads", [0, 0, 0, 0])[i])
    return int(total // 2 if mode == "SAME_UPPER" else total - total // 2)


def _whole(axes_of: Callable[[At], Sequence[int]]) -> "Step":
    """Make the step of an operator that reads some axes as a whole and keeps the rank."""

    def step(at: At) -> Iterator[Read]:
        rank = len(at.region)
        axes = {axis % rank for axis in axes_of(at)}
        yield at.source, tuple(None if axis in axes else at.region[axis] for axis in range(rank))

    return step


def _softmax_axes(at: At) -> Sequence[int]:
    if at.net.graph.opset() >= 13:
        return [at.attribute("axis", -1)]
    # Before opset 13 everything from the axis on is one row.
    rank = len(at.region)
    return range(at.attribute("axis", 1) % rank, rank)


def _reduce(at: At) -> Iterator[Read]:
    keep = at.attribute("keepdims", 1)
    axes = at.net.ints(at.node, 1, "axis" if at.node.op_type.startswith("Arg") else "axes")
    if axes is None and at.node.op_type.startswith("Arg"):
        axes = [0]
    rank = at.net.rank(at.source, len(at.region) + (0 if keep else len(axes or [])))
    reduced = {axis % rank for axis in axes or range(rank)}
    # Without keepdims the axes that are left are those of the output, in order.
    rest = iter(at.region if not keep else [at.region[a] for a in range(rank) if a not in reduced])
    yield at.source, tuple(None if a in reduced else next(rest, None) for a in range(rank))


def _transpose(at: At) -> Iterator[Read]:
    order = at.attribute("perm") or list(range(len(at.region)))[::-1]
    found: list[Indices | None] = [None] * len(at.region)
    for axis, source in enumerate(order):
        found[source] = at.region[axis]
    yield at.source, tuple(found)


def _reshape(at: At) -> Iterator[Read]:
    """Reshape and its kin: an axis that comes out alone, with its length, keeps its indices."""
    before, after = at.net.shape(at.source), at.net.shape(at.output)
    if before is None or after is None or len(after) != len(at.region):
        yield from _everything(at)
        return
    found: list[Indices | None] = [None] * len(before)
    old, new = _lengths(before), _lengths(after)
    if math.prod(old.values()) == math.prod(new.values()):
        for left, right in _groups(old, new):
            if len(left) == len(right) == 1:
                found[left[0]] = at.region[right[0]]
    yield at.source, tuple(found)


def _lengths(shape: Shape) -> dict[int, int]:
    """Lengths by axis, ones left out; a batch that is free stands for one image."""
    lengths = [1 if n is None and axis == 0 else n or 0 for axis, n in enumerate(shape)]
    return {axis: n for axis, n in enumerate(lengths) if n != 1}


def _groups(
    before: Mapping[int, int], after: Mapping[int, int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Cut two shapes of equal size into the smallest runs of axes with equal products."""
    left, right = list(before), list(after)
    while left and right:
        old, new = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(before[i] for i in old)) != (b := math.prod(after[i] for i in new)):
            shorter, rest = (old, left) if a < b else (new, right)
            if not rest:
                return
            shorter.append(rest.pop(0))
        yield old, new


def _matmul(at: At) -> Iterator[Read]:
    """Out[..., m, n] reads A[..., m, :] and B[..., :, n]."""
    for position, name in enumerate(at.node.inputs[:2]):
        rank = at.net.rank(name, len(at.region))
        if rank < 2 or len(at.region) < 2:
            yield name, (None,) * rank
            continue
        batch: Region = (None, *at.region)[len(at.region) + 1 - rank : len(at.region) - 1]
        tail = (at.region[-2], None) if position == 0 else (None, at.region[-1])
        yield name, (*batch, *tail)


def _concat(at: At) -> Iterator[Read]:
    axis = at.attribute("axis", 1) % len(at.region)
    indices = at.region[axis]
    if indices is None:
        for name in at.node.inputs:
            yield name, at.region
        return
    lengths = [at.net.extent(name, axis) for name in at.node.inputs]
    if None in lengths or not at.bounded:
        # Pictures side by side: no two units look alike, there is no size and stride.
        yield from _everything(at)
        return
    start = 0
    for name, length in zip(at.node.inputs, lengths, strict=True):
        end = start + (length or 0)
        inside = indices[(indices >= start) & (indices < end)] - start
        if inside.size:
            yield name, at.replaced(axis, inside)
        start = end


def _split(at: At) -> Iterator[Read]:
    axis = at.attribute("axis", 0) % len(at.region)
    indices = at.region[axis]
    if indices is not None:
        before = at.node.outputs[: at.node.outputs.index(at.output)]
        lengths = [at.net.extent(name, axis) for name in before]
        if None in lengths:
            yield from _everything(at)
            return
        indices = indices + sum(length or 0 for length in lengths)
    yield at.source, at.replaced(axis, indices)


def _slice(at: At) -> Iterator[Read]:
    name = at.source
    starts, steps = at.net.ints(at.node, 1, "starts"), at.net.ints(at.node, 4, "steps")
    axes = at.net.ints(at.node, 3, "axes") or list(range(len(starts or [])))
    found = list(at.region)
    for position, axis in enumerate(axes):
        indices = at.region[axis % len(at.region)]
        if indices is None:
            continue
        length = at.net.extent(name, axis)
        step = steps[position] if steps else 1
        start = starts[position] if starts is not None else None
        if start is None or ((start < 0 or step < 0) and length is None):
            yield from _everything(at)
            return
        if length is not None:
            start = start + length if start < 0 else start
            start = min(start, length if step > 0 else length - 1)
        found[axis % len(at.region)] = np.unique(start + step * indices)
    yield name, tuple(found)


def _pad(at: At) -> Iterator[Read]:
    name = at.source
    pads = at.net.ints(at.node, 1, "pads") or at.net.ints(at.node, 1, "paddings")
    axes = at.net.ints(at.node, 3, "axes") or list(range(len(at.region)))
    mode = at.attribute("mode", "constant")
    found = list(at.region)
    for position, axis in enumerate(axes):
        indices, length = at.region[axis % len(at.region)], at.net.extent(name, axis)
        if indices is None:
            continue
        if pads is None:
            yield from _everything(at)
            return
        shifted = indices - pads[position]
        if at.bounded and length is not None and mode != "constant":
            shifted = _mirrored(shifted, length, mode)
        found[axis % len(at.region)] = shifted
    yield name, tuple(found)


def _crop(at: At) -> Iterator[Read]:
    """Crop of the first ONNX versions; border is (left, top, right, bottom)."""
    left, top = at.attribute("border")[:2]
    rows, columns = at.region[-2:]
    yield (
        at.source,
        (
            *at.region[:-2],
            None if rows is None else rows + top,
            None if columns is None else columns + left,
        ),
    )


def _mirrored(indices: Indices, length: int, mode: str) -> Indices:
    """Where a padded index is copied from."""
    if mode == "edge":
        moved = np.clip(indices, 0, length - 1)
    elif mode == "wrap":
        moved = indices % length
    else:  # reflect: the border itself is not repeated
        period = max(2 * (length - 1), 1)
        moved = indices % period
        moved = np.where(moved >= length, period - moved, moved)
    return np.unique(moved)


def _blocks(at: At) -> Iterator[Read]:
    size = at.node.attributes["blocksize"]
    found: list[Indices | None] = [None, None]
    for indices in at.region[2:]:
        if indices is None:
            found.append(None)
        elif at.node.op_type == "DepthToSpace":
            found.append(np.unique(indices // size))
        else:
            found.append(np.unique(indices[:, None] * size + np.arange(size)))
    yield at.source, tuple(found)


def _gather(at: At) -> Iterator[Read]:
    chosen = at.net.graph.constant(at.node.inputs[1])
    axis = at.attribute("axis", 0)
    rank = at.net.rank(at.source, len(at.region) + (chosen is not None and chosen.ndim == 0))
    axis %= rank
    if chosen is None or chosen.ndim > 1:
        yield from _everything(at)
        return
    rest = (*at.region[:axis], None, *at.region[axis + chosen.ndim :])
    out = at.region[axis] if chosen.ndim else np.zeros(1, np.int64)
    if out is None or at.net.channels.get(at.source) == axis:
        yield at.source, rest
        return
    picked = chosen.ravel().astype(np.int64)
    picked = picked[out[(out >= 0) & (out < picked.size)]]
    length = at.net.extent(at.source, axis)
    if (picked < 0).any() and length is not None:
        picked = picked % length
    if picked.size:
        yield at.source, (*rest[:axis], np.unique(picked), *rest[axis + 1 :])


def _resize(at: At) -> Iterator[Read]:
    found = list(at.region)
    for axis, indices in enumerate(at.region):
        if indices is None:
            continue
        lengths = at.net.extent(at.source, axis), at.net.extent(at.output, axis)
        scale = _scale(at.net, at.node, axis, len(at.region), lengths)
        read = None if scale is None else sources(at.node, indices, scale, lengths)
        if read is None:
            yield from _everything(at)
            return
        if at.bounded and lengths[0] is not None:
            read = np.unique(np.clip(read, 0, lengths[0] - 1))
        found[axis] = read
    yield at.source, tuple(found)


def _scale(
    net: GraphExtents, node: Node, axis: int, rank: int, lengths: tuple[int | None, int | None]
) -> Fraction | None:
    """Output pixels per input pixel along one axis; None when it is not known."""
    axes = node.attributes.get("axes") or list(range(rank))
    if axis not in axes:
        return Fraction(1)
    given = node.attributes.get("scales")
    for name in node.inputs[1:3] if given is None else ():
        array = net.graph.constant(name) if name else None
        if array is not None and array.dtype.kind == "f" and array.size == len(axes):
            given = [float(v) for v in array]
    if given and len(given) == len(axes):
        return Fraction(given[axes.index(axis)]).limit_denominator(1 << 16)
    before, after = lengths
    if before is None or after is None:
        return None
    return Fraction(after, before)


# What a normalisation divides by where it reads the whole map.
_BY_THE_WHOLE = ("statistics", "norm", "sum")
Step = Callable[[At], Iterator[Read]]

_WINDOWS = (
    *("Conv", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv", "NhwcFusedConv", "MaxPool"),
    *("AveragePool", "LpPool", "QLinearAveragePool"),
)
_SPACE = _whole(lambda at: range(2, len(at.region)))
_STEPS: Mapping[str, Step] = {
    "Expand": _elementwise,
    **dict.fromkeys(_WINDOWS, _window),
    **dict.fromkeys(
        ("BatchNormalization", "QuantizeLinear", "DequantizeLinear", "LRN", "ImageScaler"), _first
    ),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _SPACE),
    **dict.fromkeys(("QLinearGlobalAveragePool", "InstanceNormalization"), _SPACE),
    **dict.fromkeys(
        ("GroupNormalization", "MeanVarianceNormalization"),
        _whole(lambda at: range(1, len(at.region))),
    ),
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"),
        _whole(lambda at: range(at.attribute("axis", -1) % len(at.region), len(at.region))),
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _whole(_softmax_axes)),
    "LpNormalization": _whole(lambda at: [at.attribute("axis", -1)]),
    **dict.fromkeys(
        (
            *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1"),
            *("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
            *("ArgMax", "ArgMin"),
        ),
        _reduce,
    ),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Concat": _concat,
    "Crop": _crop,
    "ConvTranspose": _transposed,
    "Gather": _gather,
    "MatMul": _matmul,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
}
