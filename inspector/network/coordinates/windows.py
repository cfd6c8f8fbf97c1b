"""Coordinates behind windows: convolutions, poolings, reductions and resizing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from converters.graph import Node
from converters.graph.operators import facts
from inspector.network.coordinates.moves import rearranged
from inspector.network.coordinates.units import (
    Array,
    Lost,
    Placed,
    Step,
    over_windows,
    reduced,
    squeezed,
)
from inspector.network.receptive_fields.index_sets import kernel_of, pad_before
from inspector.network.receptive_fields.kernel_taps import taps_along

__all__ = ["depth_to_space", "reduce", "resize", "transposed_window", "window"]


def window(step: Step) -> Placed:
    """Convolution and pooling: the place of the middle of the window."""
    node, source, known = step.node, step.first, facts(step.node)
    if known.convolves:
        weights = [step.states[n] for n in node.inputs[1:] if n in step.states]
        if any(isinstance(w, Lost) and w.scattered for w in weights):
            raise step.lost("has computed weights")
    rank = len(source.shape)
    last = known.channels_last or bool(step.attribute("channels_last", 0))
    axes = list(range(1, rank - 1)) if last else list(range(2, rank))
    kernel = kernel_of(step.net, node)
    if kernel is None or len(kernel) != len(axes):
        raise step.lost("has a kernel whose size is not known")
    strides = step.attribute("strides") or [1] * len(axes)
    dilations = step.attribute("dilations") or [1] * len(axes)
    shape, moves = list(source.shape), []
    used = taps_along(step.net.graph, node, kernel)
    for i, (axis, k, s, d) in enumerate(zip(axes, kernel, strides, dilations, strict=True)):
        length, effective = source.shape[axis], (k - 1) * d + 1
        pad = pad_before(node, i, effective, s, length)
        count = _windows_along(node, i, length, effective, s)
        starts = np.arange(count, dtype=np.float64) * s - pad
        taps = starts[:, None] + np.arange(used[i].first, used[i].last + 1) * d
        moves.append(_Windows(axis, starts, used[i].centres * d, s, taps, used[i].aside))
        shape[axis] = count
    channel = rank - 1 if last else 1

    def change(coordinate: Array) -> Array:
        if known.convolves:
            coordinate = _grouped(step, coordinate, channel)
        for move in moves:
            coordinate = move.over(coordinate, channel)
        return coordinate

    if known.convolves:
        shape[channel] = _filters(step, shape[channel])
    return source.map(shape, change)


@dataclass(frozen=True, eq=False)
class _Windows:
    """The windows of one node along one axis, in cells of its input.

    Attributes:
        axis: The axis.
        starts: (O,) where each begins.
        centres: From there to what it looks at: (1,), or (M,) for M filters that look far apart.
        stride: From one to the next.
        taps: (O, k) cells that each reads.
        aside: Its weights lie to one side.
    """

    axis: int
    starts: Array
    centres: Array
    stride: float
    taps: Array
    aside: bool

    def over(self, coordinate: Array, channel: int) -> Array:
        """Coordinates of the windows, from those of the cells."""
        if not self.aside:
            settled = _settled(self.starts + self.centres[0], self.stride, coordinate, self.axis)
            return over_windows(coordinate, self.axis, settled, self.taps)
        if len(self.centres) == 1:
            return over_windows(coordinate, self.axis, self.starts + self.centres[0], self.taps)
        parts, order = [], []
        # Filters by the hundred look from few places: on a tap, or between two.
        for centre in set(self.centres.tolist()):
            filters = np.flatnonzero(self.centres == centre)
            varies = coordinate.shape[channel + 1] > 1
            own = coordinate.take(filters, channel + 1) if varies else coordinate
            part = over_windows(own, self.axis, self.starts + centre, self.taps)
            parts.append(part if varies else part.repeat(len(filters), channel + 1))
            order.append(filters)
        found = np.concatenate(parts, channel + 1)
        return squeezed(found.take(np.concatenate(order).argsort(), channel + 1))


def _settled(places: Array, stride: float, coordinate: Array, axis: int) -> Array:
    """Middles of windows; spread evenly where they cover the map within half a stride.

    The middles of padded windows of stride 2 lie half a cell aside of the cells that they
    replace.  Over many layers, and up a pyramid again, that would add up.
    """
    others = tuple(a for a in range(coordinate.ndim - 1) if a != axis)
    inside = np.flatnonzero(np.isfinite(coordinate[1]).any(axis=others))  # not a border
    if not inside.size:
        return places
    start, length = int(inside[0]), int(inside[-1] - inside[0]) + 1
    low, high = places[0] - stride / 2 - start, places[-1] + stride / 2 - start
    slack = stride / 2 + 1e-6
    if abs(low + 0.5) <= slack and abs(high - length + 0.5) <= slack:
        return start + _spread(length, len(places))
    return places


def _windows_along(node: Node, i: int, length: int, effective: int, stride: int) -> int:
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        return -(-length // stride)
    pads = node.attributes.get("pads") if mode == "NOTSET" else None
    total = 0 if not pads else int(pads[i]) + int(pads[i + len(pads) // 2])
    free = length + total - effective
    if node.attributes.get("ceil_mode", 0):
        count = -(-free // stride) + 1
        # The last window has to begin inside the map or its first padding.
        return count - (1 if (count - 1) * stride >= length + int((pads or [0] * 8)[i]) else 0)
    return max(free // stride + 1, 1)


def _filters(step: Step, otherwise: int) -> int:
    position = facts(step.node).weights
    shape = step.net.shape(step.node.inputs[position]) if position is not None else None
    if shape is None or shape[0] is None:
        return otherwise
    if step.node.op_type.endswith("ConvTranspose"):
        return int(shape[1] or 1) * int(step.attribute("group", 1))
    return int(shape[0])


def _grouped(step: Step, coordinate: Array, channel: int) -> Array:
    """Channels of each group of a convolution made one place."""
    count = coordinate.shape[channel + 1]
    groups = int(step.attribute("group", 1))
    if count == 1:
        return coordinate
    if groups == 1:
        return reduced(step, coordinate, [channel])
    shape = coordinate.shape
    split = coordinate.reshape(
        *shape[: channel + 1], groups, count // groups, *shape[channel + 2 :]
    )
    split = reduced(step, split, [channel + 1])
    split = split.reshape(*shape[: channel + 1], split.shape[channel + 1], *shape[channel + 2 :])
    each = _filters(step, groups) // groups
    return split if split.shape[channel + 1] == 1 else np.repeat(split, each, channel + 1)


def transposed_window(step: Step) -> Placed:
    """ConvTranspose: the place of the middle of the cells that a result is made of."""
    node, source = step.node, step.first
    kernel, rank = kernel_of(step.net, node), len(source.shape)
    if kernel is None or len(kernel) != rank - 2:
        raise step.lost("has a kernel whose size is not known")
    strides = step.attribute("strides") or [1] * (rank - 2)
    dilations = step.attribute("dilations") or [1] * (rank - 2)
    pads = step.attribute("pads") or [0] * (2 * (rank - 2))
    extra = step.attribute("output_padding") or [0] * (rank - 2)
    mode = step.attribute("auto_pad", "NOTSET")
    wanted = step.attribute("output_shape")
    shape, moves = list(source.shape), []
    used = taps_along(step.net.graph, node, kernel)
    for i, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        axis, effective = 2 + i, (k - 1) * d + 1
        full = s * (source.shape[axis] - 1) + extra[i] + effective
        if wanted or mode.startswith("SAME"):
            length = wanted[-(rank - 2) :][i] if wanted else source.shape[axis] * s
            total = max(full - length, 0)
            pad = total // 2 if mode == "SAME_UPPER" else total - total // 2
        else:
            pad = 0 if mode == "VALID" else int(pads[i])
            length = full - (0 if mode == "VALID" else int(pads[i]) + int(pads[i + rank - 2]))
        starts = (np.arange(length) + float(pad)) / s
        places = starts - (effective - 1) / 2 / s
        reach = np.stack([np.ceil(places - k / 2 / s), np.floor(places + k / 2 / s)], axis=1)
        centres = -used[i].centres * d / s
        moves.append(_Windows(axis, starts, centres, 1 / s, reach, used[i].aside))
        shape[axis] = int(length)
    shape[1] = _filters(step, shape[1])

    def change(coordinate: Array) -> Array:
        coordinate = _grouped(step, coordinate, 1)
        for move in moves:
            coordinate = move.over(coordinate, 1)
        return coordinate

    return source.map(shape, change)


def resize(step: Step) -> Placed:
    """Places at the middles of the new cells, whatever the corners are aligned to."""
    found = step.first
    shape = _resized_shape(step, found.shape)
    mode = step.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize" and shape != found.shape:
        raise step.lost("cuts and resizes at once")
    for axis, (before, after) in enumerate(zip(found.shape, shape, strict=True)):
        if before == after:
            continue
        places = _spread(before, after)
        size = (*found.shape[:axis], after, *found.shape[axis + 1 :])
        taps = np.stack([np.floor(places), np.ceil(places)], axis=1)
        found = found.map(size, _along(axis, places, taps))
    return found


def _resized_shape(step: Step, before: tuple[int, ...]) -> tuple[int, ...]:
    shape = step.net.shape(step.node.outputs[0])
    if shape is not None and len(shape) == len(before) and None not in shape[1:]:
        return (before[0], *(int(n or 1) for n in shape[1:]))
    rank = len(before)
    axes = step.attribute("axes") or list(range(rank))
    found = list(before)
    given = step.attribute("scales")
    for name in step.node.inputs[1:4] if given is None else ():
        array = step.net.graph.constant(name) if name else None
        if array is None or array.size != len(axes):
            continue
        if array.dtype.kind == "f":
            given = array.tolist()
        else:
            for axis, size in zip(axes, array.ravel().tolist(), strict=True):
                found[axis] = int(size)
            return tuple(found)
    if given is None:
        raise step.lost("resizes to a size that is not known")
    for axis, scale in zip(axes, given, strict=True):
        found[axis] = math.floor(before[axis] * scale + 1e-6)
    return tuple(found)


def depth_to_space(step: Step) -> Placed:
    """Channels made blocks of space."""
    source, b = step.first, int(step.attribute("blocksize"))
    n, c, h, w = source.shape
    shape = (n, c // (b * b), h * b, w * b)
    if source.rows.shape[2] == 1 and source.columns.shape[2] == 1:
        found = source
        for axis in (2, 3):
            places = _spread(source.shape[axis], shape[axis])
            found = found.map(shape, _along(axis, places, np.rint(places)[:, None]))
        return found
    if step.attribute("mode", "DCR") == "DCR":
        split, order = (n, b, b, shape[1], h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (n, shape[1], b, b, h, w), (0, 1, 4, 2, 5, 3)
    return rearranged(step, source, split, order, shape)


def _along(axis: int, places: Array, taps: Array) -> Callable[[Array], Array]:
    return lambda coordinate: over_windows(coordinate, axis, places, taps)


def _spread(before: int, after: int) -> Array:
    """Positions of the middles of cells that divide a map evenly."""
    return (np.arange(after, dtype=np.float64) + 0.5) * (before / after) - 0.5


def reduce(step: Step) -> Placed:
    """One place for all units along the reduced axes."""
    node, source = step.node, step.first
    rank = len(source.shape)
    arg = node.op_type.startswith("Arg")
    axes: Sequence[int] | None
    if "Global" in node.op_type:
        axes, keep = range(2, rank), 1
        if step.attribute("channels_last", 0):
            axes = range(1, rank - 1)
    else:
        axes = step.ints(1, "axis" if arg else "axes")
        keep = int(step.attribute("keepdims", 1))
        if axes is None:
            computed = not arg and len(node.inputs) > 1 and bool(node.inputs[1])
            if computed and step.net.graph.constant(node.inputs[1]) is None:
                raise step.lost("reduces axes that are computed")
            axes = [0] if arg else range(rank)
    whole = {axis % rank for axis in axes}

    def change(coordinate: Array) -> Array:
        found = reduced(step, coordinate, sorted(whole))
        if keep:
            return found
        return found.reshape(3, *(n for a, n in enumerate(found.shape[1:]) if a not in whole))

    lengths = [1 if axis in whole else n for axis, n in enumerate(source.shape)]
    left = [n for axis, n in enumerate(lengths) if keep or axis not in whole]
    return source.map(left, change)
