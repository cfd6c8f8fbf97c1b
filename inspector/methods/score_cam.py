"""Score-CAM."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import UsageError
from inspector.heatmap import UNCHANGED
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence

BATCH = 32
"""Masked copies of the image that are held at a time; memory does not grow with the channels."""


@method(
    "score-cam",
    order=2020,
    space="layer",
    needs={"activation", "forward"},
    cost="(2 + C) F, with C the layer's channels: 2050 F on ResNet-50",
    quick="channels=4",
)
def score_cam(evidence: "Evidence", *, channels: int = 0) -> np.ndarray[Any, Any]:
    """Score-CAM: each feature map, weighed by the score of the image seen through it; no gradient.

    w_k = S(x M_k) - S(0) and L = ReLU(sum_k w_k A_k), with A the layer's activation (N, C, h, w),
    M_k the map A_k laid on the input and stretched to 0..1, x the preprocessed input, and S the
    target's score before softmax.  The softmax over k that the paper describes is left out, as in
    its published code for scores before softmax.

    Args:
        evidence: The samples to explain.
        channels: How many maps are weighed, those that vary most over the layer first; 0 stands
            for all.  Fewer are faster, and the map is an approximation (Faster Score-CAM).

    Source: Wang et al. 2020, equations 3 to 6.

    Raises:
        UsageError: an option out of range.
    """
    if channels < 0:
        raise UsageError(f"score-cam: channels is 0 or more, not {channels}")
    evidence.require_one_grid("score-cam")
    maps = []
    for row, (image, activation, target) in enumerate(
        zip(evidence.images, evidence.activation, evidence.targets, strict=True)
    ):
        order = np.argsort(-activation.std(axis=(1, 2), dtype=np.float64), kind="stable")
        kept = np.sort(order[: channels or None])
        nothing = float(evidence.score(np.zeros_like(image)[None], [target])[0])
        total, moved = np.zeros(activation.shape[1:]), False
        for start in range(0, len(kept), BATCH):
            chosen = activation[kept[start : start + BATCH]]
            masks = np.stack([_stretched(own) for own in evidence.on_input(chosen)])
            seen = evidence.score(image * masks[:, None], [target] * len(chosen))
            total += np.tensordot(seen - nothing, chosen, axes=1)
            moved |= bool(np.any(seen != nothing))
            evidence.progress(row * len(kept) + start, len(kept) * len(evidence.targets))
        if not moved and activation.any():
            evidence.note(
                f"{UNCHANGED}: seen through any one map of the layer the image has the score of "
                "an empty one",
                row,
            )
        maps.append(np.maximum(total, 0))
    return np.stack(maps).astype(np.float32)


def _stretched(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A mask (H, W) from 0 to 1; one without contrast hides everything."""
    low, high = float(mask.min()), float(mask.max())
    return (mask - low) / (high - low) if high > low else np.zeros_like(mask)
