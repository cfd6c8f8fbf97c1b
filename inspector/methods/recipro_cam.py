"""Recipro-CAM."""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.heatmap import UNCHANGED
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence

BATCH = 32
"""Copies of the layer that are held at a time."""

KERNEL = np.array([1, 2, 1]) / 4
"""Along each axis, the paper's window of 3x3 places with falling weights."""


@method(
    "recipro-cam",
    order=2022,
    space="layer",
    needs={"activation", "tail"},
    signed=True,
    cost="1 F and h w tails: 49 on ResNet-50",
)
def recipro_cam(evidence: "Evidence", *, window: bool = True) -> np.ndarray[Any, Any]:
    """Recipro-CAM: the score of the network that sees one place of a layer at a time; no gradient.

    L_ij = S(A W_ij) - S(0), with A the layer's activation (N, C, h, w), W_ij a mask over its places
    that is 1/4 at the place (i, j), 1/8 beside it, 1/16 at its corners and 0 elsewhere (along each
    axis 1/2 and 1/4, also of signals and volumes), and S the target's score before softmax.  The
    paper stretches the scores of each photo to 0..1; here the score of an empty layer is taken off
    instead, so that 0 means "adds nothing" and negative values speak against the target.  Class
    tokens and the like are kept as they are.  Only the nodes behind the layer run again.

    Args:
        evidence: The samples to explain.
        window: Take the neighbours along; no leaves one place alone, with the weight 1.

    Source: Byun & Lee 2022, section 3.2.
    """
    evidence.require_one_grid("recipro-cam")
    height, width = evidence.activation.shape[2:]
    lattice = evidence.lattice(evidence.layer or "")
    cells = (height, width) if lattice is None else lattice.cells
    masks = _masks(cells, window=window).reshape(-1, height, width)
    maps = []
    for row, activation in enumerate(evidence.activation):
        empty = float(evidence.drops_at_layer(np.zeros_like(activation)[None], row)[0])
        drops: list[float] = []
        for start in range(0, len(masks), BATCH):
            copies = activation * masks[start : start + BATCH, None]
            drops += evidence.drops_at_layer(copies, row).tolist()
            evidence.progress(row * len(masks) + start, len(masks) * len(evidence.targets))
        gains = empty - np.asarray(drops)
        if not gains.any() and activation.any():
            evidence.note(
                f"{UNCHANGED}: any one place of the layer alone has the score of an empty one", row
            )
        maps.append(gains.reshape(height, width))
    return np.stack(maps).astype(np.float32)


def _masks(cells: Sequence[int], *, window: bool) -> np.ndarray[Any, Any]:
    """One mask (*cells) per place, cut off at the borders: (places, *cells)."""
    places = list(np.ndindex(*cells))
    masks = np.zeros((len(places), *(size + 2 for size in cells)), np.float32)
    kernel = reduce(np.multiply.outer, [KERNEL if window else np.array([0, 1, 0])] * len(cells))
    for mask, place in zip(masks, places, strict=True):
        mask[tuple(slice(at, at + 3) for at in place)] = kernel
    return masks[(slice(None), *[slice(1, -1)] * len(cells))]
