"""Signals of operators that read and write elements by an index that may depend on the image.

Where the opset or the runtime has no ``ScatterElements`` (or no ``GatherElements``), an index is
compared with every place of its axis, and a matrix product moves the elements.
"""

import math
from collections.abc import Mapping

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []

_ADDS = 16
"""Opset from which ``ScatterElements`` and ``ScatterND`` can add up."""

_READS = 11
"""Opset from which they exist, and ``GatherElements`` and ``GatherND`` with them."""

_MOST = 1 << 22
"""Places that are compared with indices, at most, in one sample."""


def _hits(b: Builder, indices: str, tensor: str, axis: int) -> str:
    """1 where an index points, (..., k, places), the axis moved to the end."""
    dims, given = b.dims(tensor), b.dims(indices)
    apart = [i for i, (n, k) in enumerate(zip(dims, given, strict=True)) if i != axis and n != k]
    size = dims[axis]
    if apart or math.prod(given) * size > _MOST:
        raise CannotDifferentiate(
            "its indices are too many to be compared, or of another shape: it needs "
            f"ScatterElements of opset {_ADDS}"
        )
    rank = len(dims)
    order = [*(i for i in range(rank) if i != axis), axis]
    index = b.transpose(b.once("Cast", [indices], to=1), order)
    below = b.mask(b.op("Less", [index, b.constant(0.0)]))
    index = b.op("Add", [index, b.scaled(below, float(size))])
    places = b.constant(np.arange(size))
    return b.mask(b.equal(b.unsqueeze(index, [rank]), places))


def _by_matrix(b: Builder, signal: str, hits: str, axis: int, rank: int, *, back: bool) -> str:
    """Elements moved by a matrix of hits: to the places (``back``), or from them."""
    order = [*(i for i in range(rank) if i != axis), axis]
    moved = b.transpose(signal, order)
    if back:
        product = b.op("MatMul", [b.unsqueeze(moved, [rank - 1]), hits])
        found = b.sum(product, [rank - 1], keep=False)
    else:
        product = b.op("MatMul", [hits, b.unsqueeze(moved, [rank])])
        found = b.sum(product, [rank], keep=False)
    return b.transpose(found, [int(i) for i in np.argsort(order)])


def _placed(
    b: Builder, signal: str, indices: str, tensor: str, axis: int, *, distinct: bool
) -> str:
    """A signal added up where indices point along an axis, in the shape of a tensor."""
    oldest = _READS if distinct else _ADDS
    if b.opset < oldest or "ScatterElements" in b.avoid:
        hits = _hits(b, indices, tensor, axis)
        return _by_matrix(b, signal, hits, axis, len(b.dims(tensor)), back=True)
    more = {} if distinct else {"reduction": "add"}
    given = [b.zeros(tensor), indices, signal]
    return b.op("ScatterElements", given, axis=axis, **more)


def _taken(b: Builder, signal: str, indices: str, tensor: str, axis: int) -> str:
    """Elements of a signal, shaped like a tensor, where indices point."""
    if b.opset >= _READS and "GatherElements" not in b.avoid:
        return b.op("GatherElements", [signal, indices], axis=axis)
    hits = _hits(b, indices, tensor, axis)
    return _by_matrix(b, signal, hits, axis, len(b.dims(tensor)), back=False)


@RULES.register("TopK")
def top_k(b: Builder, step: Step) -> Mapping[int, str]:
    """Largest elements back to where they were."""
    x, node = step.input(0), step.node
    axis = int(node.attributes.get("axis", -1)) % len(b.dims(x))
    indices = node.outputs[1] if len(node.outputs) > 1 else ""
    if not indices:
        raise CannotDifferentiate("its indices have no name")
    return {0: _placed(b, step.signal, indices, x, axis, distinct=True)}


@RULES.register("GatherElements", since=11)
def gather_elements(b: Builder, step: Step) -> Mapping[int, str]:
    """Elements back to where they were taken, added up."""
    axis = int(step.node.attributes.get("axis", 0)) % len(b.dims(step.input(0)))
    found = _placed(b, step.signal, step.input(1), step.input(0), axis, distinct=False)
    return {0: found}


@RULES.register("GatherND", since=11)
def gather_nd(b: Builder, step: Step) -> Mapping[int, str]:
    """Slices back to where they were taken, added up."""
    if b.opset < _ADDS:
        raise CannotDifferentiate(f"its gradient needs ScatterND of opset {_ADDS}")
    batch = int(step.node.attributes.get("batch_dims", 0))
    indices = step.input(1)
    if batch > 1:
        raise CannotDifferentiate("more than one axis of samples of its own")
    if batch:  # the sample's own number comes first in every tuple
        count = b.op("Gather", [b.shape(step.input(0)), b.constant(0, np.int64)])
        rows = b.op("Range", [b.constant(0, np.int64), count, b.constant(1, np.int64)])
        given = b.dims(indices)
        rows = b.reshape(rows, (-1, *[1] * (len(given) - 1)))
        own = b.op("Cast", [indices], to=7)
        first = b.slice(own, [0], [1], [len(given) - 1])
        zero = b.op("Sub", [first, first])
        indices = b.op("Concat", [b.op("Add", [zero, rows]), own], axis=len(given) - 1)
    given_ = [b.zeros(step.input(0)), indices, step.signal]
    return {0: b.op("ScatterND", given_, reduction="add")}


def _require_plain(step: Step) -> bool:
    """Whether updates are added; without a reduction they replace.

    Raises:
        CannotDifferentiate: Another reduction.
    """
    reduction = str(step.node.attributes.get("reduction", "none"))
    if reduction not in {"none", "add"}:
        raise CannotDifferentiate(f"its reduction {reduction!r}")
    return reduction == "add"


@RULES.register("Scatter", since=9)
@RULES.register("ScatterElements", since=11)
def scatter_elements(b: Builder, step: Step) -> Mapping[int, str]:
    """Nothing where something was written, and that to what was."""
    data, indices, updates = (step.input(i) for i in range(3))
    axis = int(step.node.attributes.get("axis", 0)) % len(b.dims(data))
    found, adds = {}, _require_plain(step)
    if 0 in step.wanted:
        if adds:
            found[0] = step.signal
        elif b.opset < _READS or "ScatterElements" in b.avoid:
            hits = _hits(b, indices, data, axis)
            rank = len(b.dims(data))
            order = [*(i for i in range(rank) if i != axis), axis]
            count = b.transpose(
                b.sum(hits, [rank - 1], keep=False), [int(i) for i in np.argsort(order)]
            )
            kept = b.mask(b.op("Less", [count, b.constant(0.5)]))
            found[0] = b.mul(step.signal, kept)
        else:
            given = [step.signal, indices, b.zeros(updates)]
            found[0] = b.op("ScatterElements", given, axis=axis)
    if 2 in step.wanted:
        found[2] = _taken(b, step.signal, indices, data, axis)
    return found


@RULES.register("ScatterND", since=11)
def scatter_nd(b: Builder, step: Step) -> Mapping[int, str]:
    """Nothing where something was written, and that to what was."""
    found, adds = {}, _require_plain(step)
    if 0 in step.wanted:
        given = [step.signal, step.input(1), b.zeros(step.input(2))]
        found[0] = step.signal if adds else b.op("ScatterND", given)
    if 2 in step.wanted:
        found[2] = b.op("GatherND", [step.signal, step.input(1)])
    return found


@RULES.register("MaxUnpool", since=9)
def max_unpool(b: Builder, step: Step) -> Mapping[int, str]:
    """What lies at the places that the indices name."""
    x, flat = step.input(0), b.ints([-1])
    out, dims, rank = b.dims(step.node.outputs[0]), b.dims(x), len(b.dims(x)) - 2
    attributes = step.node.attributes
    strides = attributes.get("strides") or (1,) * rank
    pads = attributes.get("pads") or (0,) * (2 * rank)
    plain = [
        (n - 1) * s + k - before - behind
        for n, s, k, before, behind in zip(
            dims[2:], strides, attributes["kernel_shape"], pads[:rank], pads[rank:], strict=True
        )
    ]
    if list(out[2:]) != plain:
        raise CannotDifferentiate("a size of its own, in which the indices mean something else")
    signal = b.op("Reshape", [step.signal, flat])
    places = b.op("Reshape", [step.input(1), flat])
    return {0: b.like(b.op("Gather", [signal, places], axis=0), x)}
