"""Flow of attention through the blocks of a transformer: which tokens reach which."""

from collections.abc import Iterable

import numpy as np

__all__ = ["flow", "read_rows"]

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def flow(mixings: Iterable[Array]) -> Array:
    """Product of the mixings of all blocks, the first one on the right.

    Args:
        mixings: (N, T, T) of each block, in order; row t says what the new token t is mixed from.

    Returns:
        (N, T, T); row t says what token t is mixed from behind the last block.
    """
    total: Array | None = None
    for mixing in mixings:
        total = mixing if total is None else mixing @ total
    if total is None:
        raise ValueError("no block")
    return total


def read_rows(total: Array, signal: Array) -> Array:
    """Mean of the rows of a flow that a score reads.

    Args:
        total: (N, T, T), from ``flow``.
        signal: (N, heads, T, T), gradient of the score by the weights of the last attention; its
            rows are zero for tokens that nothing reads.

    Returns:
        (N, T): the row of the class token where the head reads it alone, the mean of all that are
        pooled where it pools; zeros where none is read.
    """
    read = np.abs(signal).sum(axis=(1, 3)) > 0  # (N, T)
    counts = np.maximum(read.sum(axis=1, keepdims=True), 1)
    found: Array = np.einsum("nt,nts->ns", read / counts, total)
    return found
