"""Sparse weights of TFLite, written out.

A sparse tensor is stored like a tree: axis by axis in an order of its own (``traversal_order``),
blocks after the axes that they divide (``block_map``).  An axis is dense (every place), or lists
the places that hold something (compressed sparse row: segments and indices).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["densified"]

Array = NDArray[Any]

_COMPRESSED = 1


def densified(values: Array, shape: tuple[int, ...], sparsity: Any) -> Array:
    """A tensor with its zeros.

    Args:
        values: (V,) what is stored.
        shape: Lengths of the tensor's axes.
        sparsity: Table ``SparsityParameters`` of the package ``tflite``.

    Returns:
        An array of ``shape``.

    Raises:
        ValueError: Axes, segments or indices do not fit the shape.

    Source:
        ``tensorflow/lite/kernels/internal/utils/sparsity_format_converter.h``.
    """
    order = [int(n) for n in _array(sparsity, "TraversalOrder")]
    blocks = [int(n) for n in _array(sparsity, "BlockMap")]
    rank = len(shape)
    if sorted(order) != list(range(rank + len(blocks))) or any(
        b not in range(rank) for b in blocks
    ):
        raise ValueError(f"a traversal order of {order} over {rank} axes")
    if sparsity.DimMetadataLength() != len(order):
        raise ValueError(f"{sparsity.DimMetadataLength()} sparse axes of {len(order)}")
    metadata = [sparsity.DimMetadata(n) for n in range(len(order))]
    # Length of the block of each divided axis: blocks come last in the order, and are dense.
    lengths = {axis: metadata[place].DenseSize() for place, axis in enumerate(order)}
    block = [1] * rank
    for position, axis in enumerate(blocks):
        block[axis] = lengths[rank + position]
        if block[axis] < 1 or shape[axis] % block[axis]:
            raise ValueError(f"blocks of {block[axis]} along an axis of {shape[axis]}")
    places = np.zeros(1, np.int64)  # of each stored value so far, as an index into the flat result
    strides = [int(np.prod(shape[n + 1 :], dtype=np.int64)) for n in range(rank)]
    rows = np.zeros(1, np.int64)  # number of each node on the level above
    for place, axis in enumerate(order):
        inner = axis >= rank
        own = blocks[axis - rank] if inner else axis
        stride = strides[own] * (1 if inner else block[own])
        length = block[own] if inner else shape[own] // block[own]
        places, rows = _level(
            metadata[place], (places, rows), length=length, stride=stride, most=len(values)
        )
    if len(places) != len(values):
        raise ValueError(f"{len(values)} stored values for {len(places)} places")
    dense = np.zeros(int(np.prod(shape, dtype=np.int64)), values.dtype)
    dense[places] = values
    return dense.reshape(shape)


def _level(
    metadata: Any, above: tuple[Array, Array], *, length: int, stride: int, most: int
) -> tuple[Array, Array]:
    """Places and numbers of the nodes of one level, from those of the level above."""
    places, rows = above
    if metadata.Format() != _COMPRESSED:
        if metadata.DenseSize() != length:
            raise ValueError(f"a dense axis of {metadata.DenseSize()} in the place of {length}")
        _require_room(len(places) * length, most)
        steps = np.arange(length)
        grown = (places[:, None] + steps * stride).ravel()
        return grown, (rows[:, None] * length + steps).ravel()
    segments = _union(metadata, "ArraySegments")
    indices = _union(metadata, "ArrayIndices")
    if len(rows) and (int(rows.max()) + 1 >= len(segments)):
        raise ValueError("segments of a sparse axis that do not reach its end")
    starts, ends = segments[rows], segments[rows + 1]
    counts = ends - starts
    if (counts < 0).any() or (ends > len(indices)).any() or (starts < 0).any():
        raise ValueError("segments of a sparse axis out of order")
    _require_room(int(counts.sum()), most)
    numbers = np.repeat(starts - np.concatenate([[0], counts.cumsum()[:-1]]), counts)
    numbers = numbers + np.arange(int(counts.sum()))
    found = indices[numbers]
    if len(found) and (found.min() < 0 or found.max() >= length):
        raise ValueError("an index beyond its sparse axis")
    return np.repeat(places, counts) + found * stride, numbers


def _require_room(nodes: int, most: int) -> None:
    """A level never holds more nodes than there are values below it."""
    if nodes > max(most, 1):
        raise ValueError("more sparse places than stored values")


def _array(table: Any, name: str) -> NDArray[np.int64]:
    found = getattr(table, f"{name}AsNumpy")()
    return np.zeros(0, np.int64) if isinstance(found, int) else np.asarray(found[:64], np.int64)


def _union(metadata: Any, name: str) -> NDArray[np.int64]:
    """A vector of indices, which is stored in 32, 16 or 8 bits."""
    from tflite.Int32Vector import Int32Vector
    from tflite.Uint8Vector import Uint8Vector
    from tflite.Uint16Vector import Uint16Vector

    kinds = {1: Int32Vector, 2: Uint16Vector, 3: Uint8Vector}
    table, kind = getattr(metadata, name)(), getattr(metadata, f"{name}Type")()
    if table is None or kind not in kinds:
        raise ValueError("a sparse axis without its vectors")
    vector = kinds[kind]()
    vector.Init(table.Bytes, table.Pos)
    values = vector.ValuesAsNumpy()
    return np.zeros(0, np.int64) if isinstance(values, int) else np.asarray(values, np.int64)
