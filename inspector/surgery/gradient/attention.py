"""Signals of attention and of rotary position embedding.

The weights of attention are computed again: the fused operator does not give them.
Shapes: N samples, Hq and Hk heads of queries and keys, L queries, S keys, E features.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from inspector.surgery.gradient.activations import softmax_back
from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []

_HIDDEN = -1e30
"""Score of a key that must not be seen."""


@RULES.register("Attention", since=23)
def attention(b: Builder, step: Step) -> Mapping[int, str]:
    """softmax(scale Q K' + mask) V: the signals at Q, K and V."""
    attributes = step.node.attributes
    if any(step.input(position) for position in (4, 5, 6)):
        raise CannotDifferentiate("a cache of keys and values")
    if any(signal is not None for signal in step.signals[1:]) or step.wanted - {0, 1, 2}:
        raise CannotDifferentiate("its mask depends on the input, or its keys or scores are read")
    names, shapes = [step.input(i) for i in range(3)], [b.dims(step.input(i)) for i in range(3)]
    flat = len(shapes[0]) == 3
    if flat:
        counts = [int(attributes.get("q_num_heads") or 0)]
        counts += [int(attributes.get("kv_num_heads") or 0)] * 2
        if not all(counts):
            raise CannotDifferentiate("tensors of three axes without the numbers of heads")
    else:
        counts = [shape[1] for shape in shapes]
    groups = counts[0] // counts[1]
    Q, K, V = (
        _heads(b, b.value(name), shape, heads) if flat else b.value(name)
        for name, shape, heads in zip(names, shapes, counts, strict=True)
    )
    if groups > 1:
        K, V = (
            _repeated(b, x, counts[1], groups, _row(s, flat, counts[1]))
            for x, s in ((K, shapes[1]), (V, shapes[2]))
        )
    size = shapes[0][-1] // (counts[0] if flat else 1)
    scale = attributes.get("scale")
    scale = 1 / math.sqrt(size) if scale is None else float(scale)
    queries, keys = shapes[0][-2], shapes[1][-2]
    scores = b.scaled(b.op("MatMul", [Q, b.transpose(K, [0, 1, 3, 2])]), scale)
    cap, slope = float(attributes.get("softcap", 0.0)), ""
    if cap:
        bent = b.op("Tanh", [b.scaled(scores, 1 / cap)])
        slope = b.op("Sub", [b.constant(1.0), b.mul(bent, bent)])
        scores = b.scaled(bent, cap)
    scores, seen = _masked(b, step, scores, queries, keys)
    weights = b.op("Softmax", [scores], axis=3)
    for allowed in seen:  # a query that may attend to nothing gives zero
        weights = b.mul(weights, allowed)
    g = _heads(b, step.signal, b.dims(step.node.outputs[0]), counts[0]) if flat else step.signal
    found = {}
    if step.wanted & {0, 1}:
        at = softmax_back(b, weights, b.op("MatMul", [g, b.transpose(V, [0, 1, 3, 2])]), 3)
        at = b.scaled(b.mul(at, slope) if slope else at, scale)
        found[0] = b.op("MatMul", [at, K])
        found[1] = b.op("MatMul", [b.transpose(at, [0, 1, 3, 2]), Q])
    found[2] = b.op("MatMul", [b.transpose(weights, [0, 1, 3, 2]), g])
    return {
        i: _joined(b, found[i], shapes[i], counts[i], groups if i else 1, flat=flat)
        for i in sorted(step.wanted)
    }


def _row(shape: Sequence[int], flat: object, heads: int) -> tuple[int, int]:
    """Places and features per head."""
    return shape[-2], shape[-1] // (heads if flat else 1)


def _heads(b: Builder, x: str, shape: Sequence[int], heads: int) -> str:
    """(N, L, heads E) to (N, heads, L, E)."""
    apart = b.reshape(x, (-1, shape[1], heads, shape[2] // heads))
    return b.transpose(apart, [0, 2, 1, 3])


def _repeated(b: Builder, x: str, heads: int, groups: int, row: tuple[int, int]) -> str:
    """Each head of keys for a group of heads of queries."""
    apart = b.op("Tile", [b.reshape(x, (-1, heads, 1, *row)), b.ints([1, 1, groups, 1, 1])])
    return b.reshape(apart, (-1, heads * groups, *row))


def _joined(
    b: Builder, x: str, shape: Sequence[int], heads: int, groups: int, *, flat: bool
) -> str:
    """The inverse of ``_repeated`` and ``_heads``: groups add up."""
    places, features = _row(shape, flat, heads)
    if groups > 1:
        x = b.sum(b.reshape(x, (-1, heads, groups, places, features)), [2], keep=False)
    if flat:
        x = b.reshape(b.transpose(x, [0, 2, 1, 3]), (-1, *shape[1:]))
    return x


def _masked(b: Builder, step: Step, scores: str, queries: int, keys: int) -> tuple[str, list[str]]:
    """Scores with what must not be seen taken off, and 1 where a key may be seen."""
    attributes, seen = step.node.attributes, []
    left = int(attributes.get("left_window_size", -1))
    right = int(attributes.get("right_window_size", -1))
    if attributes.get("is_causal"):
        right = 0 if right < 0 else min(right, 0)
    if left >= 0 or right >= 0:
        apart = np.arange(keys)[None] - np.arange(queries)[:, None]
        near = np.ones((queries, keys), bool)
        near &= apart >= -left if left >= 0 else True
        near &= apart <= right if right >= 0 else True
        scores = b.op("Add", [scores, b.constant(np.where(near, 0.0, _HIDDEN))])
        seen.append(b.constant(near))
    mask = step.input(3)
    if mask:
        if b.dims(mask)[-1] != keys:
            raise CannotDifferentiate("a mask that is shorter than the keys")
        if b.floats(mask):
            value = b.value(mask)
            allowed = b.mask(b.op("Greater", [value, b.constant(_HIDDEN)]))
            bias = b.where(
                b.op("Greater", [value, b.constant(_HIDDEN)]), value, b.constant(_HIDDEN)
            )
        else:
            allowed = b.value(mask)
            bias = b.scaled(b.op("Sub", [b.constant(1.0), allowed]), _HIDDEN)
        scores = b.op("Add", [scores, bias])
        seen.append(allowed)
    return scores, seen


@RULES.register("RotaryEmbedding", since=23)
def rotary_embedding(b: Builder, step: Step) -> Mapping[int, str]:
    """Turned back by the same angles."""
    if step.wanted != {0}:
        raise CannotDifferentiate("its angles depend on the input")
    given = [step.signal, b.value(step.input(1)), b.op("Neg", [b.value(step.input(2))])]
    given += [step.input(3)] if step.input(3) else []
    return {0: b.op("RotaryEmbedding", given, **dict(step.node.attributes))}
