"""Ablation-CAM."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import UsageError
from inspector.heatmap import UNCHANGED
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence

BATCH = 32
"""Copies of the layer that are held at a time."""


@method(
    "ablation-cam",
    order=2020,
    space="layer",
    needs={"activation", "tail"},
    cost="1 F and C tails, with C the layer's channels",
    quick="channels=4",
)
def ablation_cam(evidence: "Evidence", *, channels: int = 0) -> np.ndarray[Any, Any]:
    """Ablation-CAM: feature maps, weighted by the drop of the score without them; no gradient.

    w_k = (S - S_k) / |S| and L = ReLU(sum_k w_k A_k), with A the layer's activation (N, C, h, w), S
    the target's score before softmax and S_k the score with the map A_k set to 0.  The magnitude of
    S stands below the fraction, so that a negative score does not turn the map around.  Only the
    nodes behind the layer run again.

    Args:
        evidence: The samples to explain.
        channels: How many maps are taken out, those with the largest sum of magnitudes first; 0
            stands for all.  The others get the weight 0.

    Source: Desai & Ramaswamy 2020, equations 3 and 5.

    Raises:
        UsageError: an option out of range.
    """
    if channels < 0:
        raise UsageError(f"ablation-cam: channels is 0 or more, not {channels}")
    evidence.require_one_grid("ablation-cam")
    maps = []
    for row, activation in enumerate(evidence.activation):
        order = np.argsort(-np.abs(activation).sum(axis=(1, 2)), kind="stable")
        kept = order[: channels or None]
        scale = abs(float(evidence.scores[row])) or 1.0
        weights = np.zeros(len(activation))
        for start in range(0, len(kept), BATCH):
            chosen = kept[start : start + BATCH]
            copies = np.repeat(activation[None], len(chosen), axis=0)
            copies[np.arange(len(chosen)), chosen] = 0
            weights[chosen] = evidence.drops_at_layer(copies, row) / scale
            evidence.progress(row * len(kept) + start, len(kept) * len(evidence.targets))
        if not weights.any() and activation.any():
            evidence.note(f"{UNCHANGED}: without any one map of the layer it is the same", row)
        maps.append(np.maximum(np.tensordot(weights, activation, axes=1), 0))
    return np.stack(maps).astype(np.float32)
