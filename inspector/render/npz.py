"""Maps as arrays: the heatmap on the photo, and the attribution in its own space."""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from inspector.heatmap import Heatmap
from inspector.render import File, Result, file_format
from inspector.whole_file import write_whole

__all__ = ["dumps", "files", "write"]


@file_format("npz")
def files(result: Result) -> Iterator[File]:
    """Each heatmap of a result."""
    for name, heatmap in result.maps().items():
        yield File(f"{name}.npz", partial(dumps, heatmap))


def dumps(heatmap: Heatmap) -> bytes:
    """A heatmap as a compressed NPZ of ``heatmap``, ``seen`` and ``attribution``.

    ``heatmap`` is float32 (H, W) in the photo's pixels, not normalised, NaN where the network
    saw nothing; ``seen`` its mask; ``attribution`` float32 in its own space: (h, w) of the
    layer, (T, h, w) of a layer that holds the image as T parts, or (C, H, W) of the input. Of a
    signal they are (L,) and (l,) or (C, L), of a volume (D, H, W) and (d, h, w) or (C, D, H, W).
    """
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        heatmap=heatmap.own,
        seen=heatmap.seen.reshape(heatmap.own.shape),
        attribution=heatmap.attribution.own,
    )
    return buffer.getvalue()


def write(path: str | Path, heatmap: Heatmap) -> Path:
    """Write a heatmap as `dumps` makes it, whole or not at all.

    Raises:
        UsageError: The place cannot be written to.
    """
    return write_whole(path, dumps(heatmap))
