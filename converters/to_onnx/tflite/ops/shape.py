"""Operators that move values: shapes, axes, parts and copies."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph, carried_type, is_quantised, to_first, to_last
from converters.to_onnx.tflite.model import Operator, Tensor
from converters.to_onnx.tflite.ops.activation import give_activated
from converters.to_onnx.tflite.ops.reduction import axes_of
from converters.to_onnx.tflite.optable import OPS

__all__: list[str] = []

_TO_THE_END = (1 << 31) - 1
_MOST_MIRRORED = 1 << 16  # places of an axis
_MOST_REPLACED = 1 << 22  # numbers that name the places of a part


@OPS.register("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def reshape(graph: Graph, x: Tensor, other: Tensor | None = None, *, outputs: list[Tensor]) -> None:
    """Write the same values in the shape of the output.

    A map of one place keeps its order with channels first, and so does a map that gets back what
    it lost.
    """
    del other  # the output's own shape says the same
    out = outputs[0]
    if int(np.prod(x.shape, dtype=np.int64)) != int(np.prod(out.shape, dtype=np.int64)):
        raise ConversionFailed(f"makes {list(out.shape)} of {list(x.shape)}")
    if graph.is_constant(x) and x.quantisation is None:
        graph.keep(out, graph.stored(x).reshape(out.shape))
        return
    if x.shape == out.shape:
        first = graph.is_first(x)
        graph.give(out, graph.of(x, first=first), first=first, moved=x)
        return
    first = graph.is_first(x) and sum(n > 1 for n in x.shape[1:]) <= 1
    target = graph.integers(out.shape, f"{out.name}_shape")
    name = graph.emit("Reshape", [graph.of(x, first=first), target], out.name)
    graph.give(out, name, moved=x)


@OPS.register("TRANSPOSE")
def transpose(graph: Graph, x: Tensor, order: Tensor, *, outputs: list[Tensor]) -> None:
    """Write axes in another order; none, where one of the layouts is in that order already."""
    out, rank = outputs[0], len(x.shape)
    wanted = [n % rank for n in graph.whole_numbers(order)] if rank else []
    if sorted(wanted) != list(range(rank)):
        raise ConversionFailed(f"an order of {wanted} over {rank} axes")
    if graph.is_constant(x) and x.quantisation is None:
        graph.keep(out, graph.stored(x).transpose(wanted))
        return
    first = graph.is_first(x)
    name = graph.of(x, first=first)
    if first:
        made = to_first(rank)
        wanted = [made.index(axis) for axis in wanted]
    turned = [wanted[axis] for axis in to_first(rank)] if rank > 2 else wanted
    if rank > 2 and turned == list(range(rank)):
        graph.give(out, name, first=True, moved=x)
    else:
        graph.give(out, graph.turned(name, wanted, out.name), moved=x)


@OPS.register("CONCATENATION")
def concatenation(
    graph: Graph,
    *xs: Tensor,
    axis: int = 0,
    fused_activation_function: int = 0,
    outputs: list[Tensor],
) -> None:
    """Write tensors one behind the other along an axis."""
    out, rank = outputs[0], len(outputs[0].shape)
    if not xs or not -rank <= axis < rank or any(len(x.shape) != rank for x in xs):
        raise ConversionFailed(f"joins along axis {axis} of {rank}")
    axis, first = axis % rank, any(graph.is_first(x) for x in xs)
    names = [graph.of(x, first=first) for x in xs]
    along = to_first(rank).index(axis) if first else axis
    name = graph.emit("Concat", names, out.name, axis=along)
    same = [x for x in xs if out.quantisation and out.quantisation.same_as(x.quantisation)]
    if not fused_activation_function and len(same) == len(xs):
        graph.give(out, name, first=first, moved=xs[0])
    else:
        give_activated(graph, out, name, fused_activation_function, first=first)


@OPS.register("PACK")
def pack(graph: Graph, *xs: Tensor, axis: int = 0, outputs: list[Tensor]) -> None:
    """Write tensors one behind the other along a new axis."""
    out, rank = outputs[0], len(outputs[0].shape)
    if not xs or not -rank <= axis < rank:
        raise ConversionFailed(f"joins along axis {axis} of {rank}")
    target = graph.integers([axis % rank], f"{out.name}_axis")
    parts = [graph.emit("Unsqueeze", [graph.last(x), target], f"{x.name}_part") for x in xs]
    graph.give(out, graph.emit("Concat", parts, out.name, axis=axis % rank), moved=xs[0])


@OPS.register("UNPACK")
def unpack(graph: Graph, x: Tensor, *, num: int = 0, axis: int = 0, outputs: list[Tensor]) -> None:
    """Write the slices of an axis, without it."""
    rank = len(x.shape)
    if not -rank <= axis < rank or x.shape[axis] != len(outputs) or num != len(outputs):
        raise ConversionFailed(f"makes {len(outputs)} of axis {axis} of {list(x.shape)}")
    target = graph.integers([axis % rank], f"{outputs[0].name}_axis")
    parts = [graph.last(x)]
    if len(outputs) > 1:
        hints = [f"{out.name}_part" for out in outputs]
        parts = graph.emit_many("Split", parts, hints, axis=axis % rank, num_outputs=len(outputs))
    for out, part in zip(outputs, parts, strict=True):
        graph.give(out, graph.emit("Squeeze", [part, target], out.name), moved=x)


def _split(graph: Graph, x: Tensor, axis: int, sizes: list[int], outputs: list[Tensor]) -> None:
    first, rank = graph.is_first(x), len(x.shape)
    along = to_first(rank).index(axis) if first else axis
    lengths = graph.integers(sizes, f"{outputs[0].name}_sizes")
    names = graph.emit_many(
        "Split", [graph.of(x, first=first), lengths], [out.name for out in outputs], axis=along
    )
    for out, name in zip(outputs, names, strict=True):
        graph.give(out, name, first=first, moved=x)


@OPS.register("SPLIT")
def split(
    graph: Graph, axis: Tensor, x: Tensor, *, num_splits: int = 0, outputs: list[Tensor]
) -> None:
    """Write equal parts of an axis."""
    (along,) = axes_of(graph, axis, len(x.shape))
    if num_splits != len(outputs) or x.shape[along] % num_splits:
        raise ConversionFailed(f"makes {num_splits} of axis {along} of {list(x.shape)}")
    _split(graph, x, along, [x.shape[along] // num_splits] * num_splits, outputs)


@OPS.register("SPLIT_V")
def split_v(
    graph: Graph,
    x: Tensor,
    sizes: Tensor,
    axis: Tensor,
    *,
    num_splits: int = 0,
    outputs: list[Tensor],
) -> None:
    """Write parts of an axis; -1 is the rest."""
    (along,) = axes_of(graph, axis, len(x.shape))
    lengths, whole = graph.whole_numbers(sizes), x.shape[along]
    if lengths.count(-1) == 1:
        lengths[lengths.index(-1)] = whole - sum(n for n in lengths if n != -1)
    if sum(lengths) != whole or min(lengths) < 0 or not len(lengths) == len(outputs) == num_splits:
        raise ConversionFailed(f"makes {lengths} of axis {along} of {list(x.shape)}")
    _split(graph, x, along, lengths, outputs)


def _sliced(
    graph: Graph, x: Tensor, hint: str, parts: tuple[list[int], list[int], list[int]]
) -> tuple[str, bool]:
    """Write starts, ends and steps per axis; the value, and whether its channels are first."""
    first, rank = graph.is_first(x), len(x.shape)
    order = to_first(rank) if first else list(range(rank))
    cut = [
        n
        for n, axis in enumerate(order)
        if tuple(values[axis] for values in parts) != (0, _TO_THE_END, 1)
    ]
    name = graph.of(x, first=first)
    if not cut:
        return name, first
    known = [[values[order[n]] for n in cut] for values in parts]
    rows = [known[0], known[1], cut, known[2]]
    words = ("starts", "ends", "axes", "steps")
    named = [graph.integers(row, f"{hint}_{word}") for row, word in zip(rows, words, strict=True)]
    return graph.emit("Slice", [name, *named], hint), first


@OPS.register("SLICE")
def slice_(graph: Graph, x: Tensor, begin: Tensor, size: Tensor, *, outputs: list[Tensor]) -> None:
    """Write a part of a tensor; a size of -1 reaches to the end."""
    if not (graph.is_constant(begin) and graph.is_constant(size)):
        graph.give(outputs[0], _computed_slice(graph, x, begin, size, outputs[0].name), moved=x)
        return
    starts, sizes, rank = graph.whole_numbers(begin), graph.whole_numbers(size), len(x.shape)
    if len(starts) != rank or len(sizes) != rank or min([*starts, 0]) < 0:
        raise ConversionFailed(f"cuts {sizes} at {starts} out of {list(x.shape)}")
    ends = [
        _TO_THE_END if n == -1 or at + n == whole else at + n
        for at, n, whole in zip(starts, sizes, x.shape, strict=True)
    ]
    name, first = _sliced(graph, x, outputs[0].name, (starts, ends, [1] * rank))
    graph.give(outputs[0], name, first=first, moved=x)


def _computed_slice(graph: Graph, x: Tensor, begin: Tensor, size: Tensor, hint: str) -> str:
    """Write a part whose place or size is computed, as the steps of a loop are."""
    starts, sizes = _as_int64(graph, begin), _as_int64(graph, size)
    behind = graph.emit("Add", [starts, sizes], f"{hint}_behind")
    end = graph.integers([_TO_THE_END], f"{hint}_end")
    open_ = graph.emit("Less", [sizes, graph.integers([0], f"{hint}_zero")], f"{hint}_open")
    ends = graph.emit("Where", [open_, end, behind], f"{hint}_ends")
    return graph.emit("Slice", [graph.last(x), starts, ends], hint)


@OPS.register("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(
    graph: Graph, x: Tensor, update: Tensor, begin: Tensor, *, outputs: list[Tensor]
) -> None:
    """Write a tensor with a part replaced, at a place that stays inside of it."""
    hint, rank = outputs[0].name, len(x.shape)
    count = int(np.prod(update.shape, dtype=np.int64))
    room = [whole - n for whole, n in zip(x.shape, update.shape, strict=True)]
    if not rank or min(room) < 0 or count * rank > _MOST_REPLACED:
        raise ConversionFailed(f"puts {list(update.shape)} into {list(x.shape)}")
    zeros, most = graph.integers([0] * rank, f"{hint}_zeros"), graph.integers(room, f"{hint}_room")
    start = graph.emit("Max", [_as_int64(graph, begin), zeros], f"{hint}_least")
    start = graph.emit("Min", [start, most], f"{hint}_start")
    grid = graph.store(np.moveaxis(np.indices(update.shape), 0, -1), f"{hint}_grid")
    places = graph.emit("Add", [grid, start], f"{hint}_places")
    name = graph.emit("ScatterND", [graph.last(x), places, graph.last(update)], hint)
    graph.give(outputs[0], name, moved=x)


@OPS.register("STRIDED_SLICE")
def strided_slice(
    graph: Graph,
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    strides: Tensor,
    *,
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
    offset: bool = False,
    outputs: list[Tensor],
) -> None:
    """Write a part of a tensor as Python's slices name it; an index takes its axis away."""
    given = [graph.whole_numbers(t) for t in (begin, end, strides)]
    if len({len(values) for values in given}) != 1 or not all(given[2]):
        raise ConversionFailed("begins, ends and strides of different lengths")
    masks = (begin_mask, end_mask, shrink_axis_mask)
    added: list[int] = []
    out, rank, cut = outputs[0], len(x.shape), _Cut(x.shape)
    count = len(given[0])
    left = rank - sum(not (ellipsis_mask | new_axis_mask) >> n & 1 for n in range(count))
    if left < 0:
        raise ConversionFailed(f"{count} slices of {rank} axes")
    for n in range(count):
        if ellipsis_mask >> n & 1:
            cut.whole(left)
            left = 0
        elif new_axis_mask >> n & 1:
            added.append(len(cut.starts) + len(added) - len(cut.gone))
        else:
            at, to, step = (values[n] for values in given)
            cut.part(at, at + to if offset else to, step, [mask >> n & 1 for mask in masks])
    cut.whole(left)
    name, first = _sliced(graph, x, out.name, (cut.starts, cut.ends, cut.steps))
    if first and (cut.gone or added):
        name, first = graph.turned(name, to_last(rank), f"{out.name}_channels_last"), False
    if cut.gone:
        axes = graph.integers(cut.gone, f"{out.name}_gone")
        name = graph.emit("Squeeze", [name, axes], out.name)
    if added:
        axes = graph.integers(added, f"{out.name}_added")
        name = graph.emit("Unsqueeze", [name, axes], out.name)
    graph.give(out, name, first=first, moved=x)


@dataclass
class _Cut:
    """Slices of the axes of a tensor, axis by axis.

    Attributes:
        shape: Of the tensor.
        starts: Where each slice begins.
        ends: Where it ends.
        steps: Its stride.
        gone: Axes of which one place is taken.
    """

    shape: Sequence[int]
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)

    def whole(self, count: int) -> None:
        """Keep the next axes as they are."""
        self.starts += [0] * count
        self.ends += [_TO_THE_END] * count
        self.steps += [1] * count

    def part(self, at: int, to: int, step: int, masks: Sequence[int]) -> None:
        """Cut the next axis; ``masks`` are those of its begin, its end, and of a single place."""
        whole = self.shape[len(self.starts)]
        if masks[2]:
            if not -whole <= at < whole:
                raise ConversionFailed(f"takes place {at} of an axis of {whole}")
            self.gone.append(len(self.starts))
            at %= whole
            to, step = at + 1, 1
        else:
            at = (0 if step > 0 else _TO_THE_END) if masks[0] else at
            to = (_TO_THE_END if step > 0 else -_TO_THE_END) if masks[1] else to
            to = _TO_THE_END if step > 0 and to >= whole else to
        self.starts.append(at)
        self.ends.append(to)
        self.steps.append(step)


@OPS.register("GATHER")
def gather(
    graph: Graph,
    x: Tensor,
    places: Tensor,
    *,
    axis: int = 0,
    batch_dims: int = 0,
    outputs: list[Tensor],
) -> None:
    """Write the slices of an axis that a tensor names."""
    rank = len(x.shape)
    if not -rank <= axis < rank or batch_dims not in (0, axis % rank):
        raise ConversionFailed(f"gathers along axis {axis} of {rank}, {batch_dims} of a batch")
    hint = outputs[0].name
    if batch_dims:
        last = graph.integers([-1], f"{hint}_axis")
        rows = graph.emit("Unsqueeze", [_as_int64(graph, places), last], f"{hint}_rows")
        name = graph.emit("GatherND", [graph.last(x), rows], hint, batch_dims=batch_dims)
    else:
        names = [graph.last(x), graph.last(places)]
        name = graph.emit("Gather", names, hint, axis=axis % rank)
    graph.give(outputs[0], name, moved=x)


@OPS.register("GATHER_ND")
def gather_nd(graph: Graph, x: Tensor, places: Tensor, *, outputs: list[Tensor]) -> None:
    """Write the elements or slices whose indices a tensor holds."""
    wide = _as_int64(graph, places)
    graph.give(outputs[0], graph.emit("GatherND", [graph.last(x), wide], outputs[0].name), moved=x)


@OPS.register("SCATTER_ND")
def scatter_nd(
    graph: Graph, places: Tensor, updates: Tensor, shape: Tensor, *, outputs: list[Tensor]
) -> None:
    """Write values at the places of a tensor of zeros; those of one place are added."""
    out = outputs[0]
    sizes = graph.integers(graph.whole_numbers(shape), f"{out.name}_shape")
    value = helper.make_tensor("value", carried_type(updates), [1], [0])
    zeros = graph.emit("ConstantOfShape", [sizes], f"{out.name}_zeros", value=value)
    inputs = [zeros, _as_int64(graph, places), graph.last(updates)]
    graph.give(out, graph.emit("ScatterND", inputs, out.name, reduction="add"), moved=updates)


def _as_int64(graph: Graph, tensor: Tensor) -> str:
    name = graph.last(tensor)
    if tensor.dtype == "int64":
        return name
    return graph.emit("Cast", [name], f"{tensor.name}_wide", to=TensorProto.INT64)


@OPS.register("PAD", "PADV2")
def pad(
    graph: Graph, x: Tensor, paddings: Tensor, value: Tensor | None = None, *, outputs: list[Tensor]
) -> None:
    """Write a tensor with a border of zeros, or of another constant."""
    name, first = _padded(graph, x, paddings, outputs[0].name, mode="constant", value=value)
    graph.give(outputs[0], name, first=first, moved=x)


@OPS.register("MIRROR_PAD")
def mirror_pad(
    graph: Graph, x: Tensor, paddings: Tensor, *, mode: int = 0, outputs: list[Tensor]
) -> None:
    """Write a tensor with a border that mirrors it, without its edge (0) or with it (1)."""
    if mode == 0:
        name, first = _padded(graph, x, paddings, outputs[0].name, mode="reflect")
        graph.give(outputs[0], name, first=first, moved=x)
        return
    # Symmetric: the places are gathered, axis by axis.
    first, rank, hint = graph.is_first(x), len(x.shape), outputs[0].name
    pairs = np.reshape(graph.whole_numbers(paddings), (rank, 2))
    name = graph.of(x, first=first)
    for axis, (before, behind) in enumerate(pairs.tolist()):
        whole = x.shape[axis]
        if not (0 <= before <= whole and 0 <= behind <= whole <= _MOST_MIRRORED):
            raise ConversionFailed(f"mirrors {before} and {behind} of an axis of {whole}")
        if before or behind:
            places = np.pad(np.arange(whole), (before, behind), mode="symmetric")
            along = to_first(rank).index(axis) if first else axis
            inputs = [name, graph.integers(places.tolist(), f"{hint}_places")]
            name = graph.emit("Gather", inputs, hint, axis=along)
    graph.give(outputs[0], name, first=first, moved=x)


def _padded(
    graph: Graph, x: Tensor, paddings: Tensor, hint: str, *, mode: str, value: Tensor | None = None
) -> tuple[str, bool]:
    first, rank = graph.is_first(x), len(x.shape)
    found = graph.whole_numbers(paddings)
    if len(found) != 2 * rank or min([*found, 0]) < 0 or max([*found, 0]) > 1 << 20:
        raise ConversionFailed(f"padding of {found} on {rank} axes")
    order = to_first(rank) if first else range(rank)
    ends = [found[2 * axis] for axis in order] + [found[2 * axis + 1] for axis in order]
    inputs = [graph.of(x, first=first), graph.integers(ends, f"{hint}_pads")]
    if value is not None:
        constant = float(graph.array(value).reshape(()))
        floats = is_quantised(x) or x.dtype == "float16"
        dtype = "float32" if floats else x.dtype
        inputs.append(graph.number(constant, f"{hint}_value", dtype))
    return graph.emit("Pad", inputs, hint, mode=mode), first


@OPS.register("TILE")
def tile(graph: Graph, x: Tensor, multiples: Tensor, *, outputs: list[Tensor]) -> None:
    """Write a tensor repeated along its axes."""
    repeats = graph.integers(graph.whole_numbers(multiples), f"{outputs[0].name}_repeats")
    graph.give(outputs[0], graph.emit("Tile", [graph.last(x), repeats], outputs[0].name), moved=x)


@OPS.register("BROADCAST_TO")
def broadcast_to(graph: Graph, x: Tensor, shape: Tensor, *, outputs: list[Tensor]) -> None:
    """Write a tensor repeated to a shape."""
    del shape  # the output's own says the same
    target = graph.integers(outputs[0].shape, f"{outputs[0].name}_shape")
    graph.give(outputs[0], graph.emit("Expand", [graph.last(x), target], outputs[0].name), moved=x)


@OPS.register("FILL")
def fill(graph: Graph, shape: Tensor, value: Tensor, *, outputs: list[Tensor]) -> None:
    """Write a tensor of one value."""
    del shape  # as above
    target = graph.integers(outputs[0].shape, f"{outputs[0].name}_shape")
    name = graph.emit("Expand", [graph.last(value), target], outputs[0].name)
    graph.give(outputs[0], name, moved=value)


@OPS.register("REVERSE_V2")
def reverse_v2(graph: Graph, x: Tensor, axes: Tensor, *, outputs: list[Tensor]) -> None:
    """Write axes from behind."""
    rank, chosen = len(x.shape), axes_of(graph, axes, len(x.shape))
    starts = [_TO_THE_END if n in chosen else 0 for n in range(rank)]
    ends = [-_TO_THE_END if n in chosen else _TO_THE_END for n in range(rank)]
    steps = [-1 if n in chosen else 1 for n in range(rank)]
    name, first = _sliced(graph, x, outputs[0].name, (starts, ends, steps))
    graph.give(outputs[0], name, first=first, moved=x)


@OPS.register("SHAPE", "RANK")
def shape_of(graph: Graph, x: Tensor, *, operator: Operator, outputs: list[Tensor]) -> None:
    """Take the lengths of axes, or their number, for constants: the file says them."""
    found = x.shape if operator.op_type == "SHAPE" else len(x.shape)
    graph.keep(outputs[0], np.array(found, outputs[0].dtype))


@OPS.register("RANGE")
def range_(
    graph: Graph, start: Tensor, limit: Tensor, delta: Tensor, *, outputs: list[Tensor]
) -> None:
    """Write numbers of equal distance."""
    names = [graph.last(t) for t in (start, limit, delta)]
    graph.give(outputs[0], graph.emit("Range", names, outputs[0].name))


@OPS.register("ONE_HOT")
def one_hot(
    graph: Graph,
    places: Tensor,
    depth: Tensor,
    on: Tensor,
    off: Tensor,
    *,
    axis: int = -1,
    outputs: list[Tensor],
) -> None:
    """Write a value at each place that a tensor names, and another one elsewhere."""
    hint = outputs[0].name
    ends = [
        graph.emit("Reshape", [graph.last(t), graph.integers([1], f"{hint}_one")], f"{t.name}_flat")
        for t in (off, on)
    ]
    values = graph.emit("Concat", ends, f"{hint}_values", axis=0)
    name = graph.emit("OneHot", [graph.last(places), graph.last(depth), values], hint, axis=axis)
    graph.give(outputs[0], name)


@OPS.register("WHERE")
def where(graph: Graph, condition: Tensor, *, outputs: list[Tensor]) -> None:
    """Write the indices of what is true, a row each."""
    hint = outputs[0].name
    found = graph.emit("NonZero", [graph.last(condition)], f"{hint}_columns")
    graph.give(outputs[0], graph.emit("Transpose", [found], hint, perm=[1, 0]))
