"""Signals of operators that read slices by an index that is known, and of running sums."""

from collections.abc import Mapping

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []

_LARGE = 1 << 16


@RULES.register("Gather")
def gather(b: Builder, step: Step) -> Mapping[int, str]:
    """Slices back to where they were taken; those taken twice add up."""
    dims = b.dims(step.input(0))
    rank, axis = len(dims), int(step.node.attributes.get("axis", 0)) % len(dims)
    known = b.known(step.input(1))
    if known is None:
        raise CannotDifferentiate("its indices depend on the image")
    size = dims[axis]
    indices = np.where(known < 0, known + size, known).astype(np.int64)
    signal = step.signal
    if indices.ndim == 0:
        place = int(indices)
        before, after = [0] * rank, [0] * rank
        before[axis], after[axis] = place, size - 1 - place
        return {0: b.pad(b.unsqueeze(signal, [axis]), before, after)}
    if indices.ndim > 1:
        joined = (*dims[:axis], indices.size, *dims[axis + 1 :])
        signal = b.reshape(signal, b.with_batch(joined))
    return {0: _slices_back(b, signal, step.input(0), axis, indices.reshape(-1))}


def _slices_back(b: Builder, signal: str, x: str, axis: int, flat: np.ndarray) -> str:
    """Slices along an axis back to where they were taken, (..., taken, ...) to the shape of x."""
    if axis == 0:
        raise CannotDifferentiate("it takes some of the samples")
    if not len(flat):
        return b.zeros(x)
    dims = b.dims(x)
    rank, size = len(dims), dims[axis]
    if np.array_equal(flat, np.arange(flat[0], flat[0] + len(flat))):
        before, after = [0] * rank, [0] * rank
        before[axis], after[axis] = int(flat[0]), size - int(flat[-1]) - 1
        return b.pad(signal, before, after)
    if len(flat) * size > _LARGE and len(set(flat.tolist())) == size == len(flat):
        return b.op("Gather", [signal, b.ints(np.argsort(flat).tolist())], axis=axis)
    matrix = np.zeros((len(flat), size), np.float32)
    matrix[np.arange(len(flat)), flat] = 1
    return b.along(signal, axis, matrix, rank)


@RULES.register("Compress", since=9)
def compress(b: Builder, step: Step) -> Mapping[int, str]:
    """Slices back to where they were taken."""
    dims, kept = b.dims(step.input(0)), b.known(step.input(1))
    axis = step.node.attributes.get("axis")
    if kept is None or axis is None:
        raise CannotDifferentiate("its condition depends on the image, or it joins all axes")
    flat = np.flatnonzero(kept.reshape(-1))
    return {0: _slices_back(b, step.signal, step.input(0), int(axis) % len(dims), flat)}


@RULES.register("CumSum", since=11)
def cum_sum(b: Builder, step: Step) -> Mapping[int, str]:
    """The running sum from the other end."""
    attributes = dict(step.node.attributes)
    attributes["reverse"] = 1 - int(attributes.get("reverse", 0))
    return {0: b.op("CumSum", [step.signal, step.input(1)], **attributes)}


@RULES.register("ReverseSequence", since=10)
def reverse_sequence(b: Builder, step: Step) -> Mapping[int, str]:
    """The same steps the other way round again."""
    given = [step.signal, step.input(1)]
    return {0: b.op("ReverseSequence", given, **dict(step.node.attributes))}


@RULES.register("Trilu", since=14)
def trilu(b: Builder, step: Step) -> Mapping[int, str]:
    """The same triangle of the signal."""
    given = [step.signal, *step.node.inputs[1:]]
    return {0: b.op("Trilu", given, upper=int(step.node.attributes.get("upper", 1)))}
