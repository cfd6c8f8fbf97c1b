"""Maps as arrays: the heatmap on the photo, and the attribution in its own space."""

import io
from pathlib import Path

import numpy as np

from inspector.heatmap import Heatmap
from inspector.whole_file import write_whole

__all__ = ["write"]


def write(path: str | Path, heatmap: Heatmap) -> Path:
    """Write ``heatmap``, ``seen`` and ``attribution`` as a compressed NPZ, whole or not at all.

    ``heatmap`` is float32 (H, W) in the photo's pixels, not normalised, NaN where the network
    saw nothing; ``seen`` its mask; ``attribution`` float32 in its own space: (h, w) of the
    layer or (C, H, W) of the input.

    Raises:
        UsageError: The place cannot be written to.
    """
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        heatmap=heatmap.values,
        seen=heatmap.seen,
        attribution=heatmap.attribution.values,
    )
    return write_whole(path, buffer.getvalue())
