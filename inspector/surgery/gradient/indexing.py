"""Signals of operators that read elements by index."""

from collections.abc import Mapping

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []

_SCATTER_ADDS = 16
_LARGE = 1 << 16


def _require(b: Builder, op_type: str) -> None:
    if b.opset < _SCATTER_ADDS:
        raise CannotDifferentiate(
            f"indices that depend on the image need {op_type} of opset {_SCATTER_ADDS}"
        )


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
    if axis == 0:
        raise CannotDifferentiate("it takes some of the samples")
    flat = indices.reshape(-1)
    if indices.ndim > 1:
        joined = (*dims[:axis], len(flat), *dims[axis + 1 :])
        signal = b.reshape(signal, b.with_batch(joined))
    if len(flat) and np.array_equal(flat, np.arange(flat[0], flat[0] + len(flat))):
        before, after = [0] * rank, [0] * rank
        before[axis], after[axis] = int(flat[0]), size - int(flat[-1]) - 1
        return {0: b.pad(signal, before, after)}
    if len(flat) * size > _LARGE and len(set(flat.tolist())) == size == len(flat):
        return {0: b.op("Gather", [signal, b.ints(np.argsort(flat).tolist())], axis=axis)}
    matrix = np.zeros((len(flat), size), np.float32)
    matrix[np.arange(len(flat)), flat] = 1
    return {0: b.along(signal, axis, matrix, rank)}


@RULES.register("GatherElements", since=11)
def gather_elements(b: Builder, step: Step) -> Mapping[int, str]:
    """Elements back to where they were taken, added up."""
    _require(b, "ScatterElements")
    axis = int(step.node.attributes.get("axis", 0))
    given = [b.zeros(step.input(0)), step.input(1), step.signal]
    return {0: b.op("ScatterElements", given, axis=axis, reduction="add")}


@RULES.register("GatherND", since=11)
def gather_nd(b: Builder, step: Step) -> Mapping[int, str]:
    """Slices back to where they were taken, added up."""
    _require(b, "ScatterND")
    if int(step.node.attributes.get("batch_dims", 0)):
        raise CannotDifferentiate("axes of samples of its own")
    given = [b.zeros(step.input(0)), step.input(1), step.signal]
    return {0: b.op("ScatterND", given, reduction="add")}


@RULES.register("Trilu", since=14)
def trilu(b: Builder, step: Step) -> Mapping[int, str]:
    """The same triangle of the signal."""
    given = [step.signal, *step.node.inputs[1:]]
    return {0: b.op("Trilu", given, upper=int(step.node.attributes.get("upper", 1)))}
