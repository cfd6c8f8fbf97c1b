"""Ablation-CAM."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import UsageError
from inspector.heatmap import UNCHANGED
from inspector.methods import method
from inspector.network.classifier.head import LinearHead

if TYPE_CHECKING:
    from inspector.evidence import Evidence

BATCH = 32
"""Copies of the layer that are held at a time."""

RESIDUAL_TOLERANCE = 1e-4
"""Distance of a linear head's own score from the network's, as a share of the largest score."""


@method(
    "ablation-cam",
    order=2020,
    space="layer",
    needs={"activation", "tail"},
    cost="1 F and C tails, with C the layer's channels; 1 F before a pooling and a linear layer",
    quick="channels=4",
)
def ablation_cam(evidence: "Evidence", *, channels: int = 0) -> np.ndarray[Any, Any]:
    """Ablation-CAM: feature maps, weighted by the drop of the score without them; no gradient.

    w_k = (S - S_k) / |S| and L = ReLU(sum_k w_k A_k), with A the layer's activation (N, C, h, w), S
    the target's score before softmax and S_k the score with the map A_k set to 0.  The magnitude of
    S stands below the fraction, so that a negative score does not turn the map around.  Only the
    nodes behind the layer run again; where these are one pooling and one linear layer with the
    weights W, S - S_k is W_k mean(A_k), and nothing runs again.

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
        known = _by_head(evidence, row)
        if known is not None:
            weights[kept] = known[kept] / scale
        for start in range(0, len(kept) if known is None else 0, BATCH):
            chosen = kept[start : start + BATCH]
            copies = np.repeat(activation[None], len(chosen), axis=0)
            copies[np.arange(len(chosen)), chosen] = 0
            weights[chosen] = evidence.drops_at_layer(copies, row) / scale
            evidence.progress(row * len(kept) + start, len(kept) * len(evidence.targets))
        if not weights.any() and activation.any():
            evidence.note(f"{UNCHANGED}: without any one map of the layer it is the same", row)
        maps.append(np.maximum(np.tensordot(weights, activation, axes=1), 0))
    return np.stack(maps).astype(np.float32)


def _by_head(evidence: "Evidence", row: int) -> np.ndarray[Any, Any] | None:
    """Drop of a sample's score without each map (C,), where a linear head reads their means.

    None where it does not, or where its score is not the network's: rounding lies between.
    """
    terms, layer = evidence.targets[row].terms, evidence.layer or ""
    head = evidence.model.head if terms else None
    if not isinstance(head, LinearHead) or head.features != layer or head.quantised:
        return None
    features = np.asarray(evidence.values[layer][row : row + 1])
    residual = head.residual_of(features, terms, evidence.scores[row : row + 1]).max()
    peak = float(np.abs(evidence.values[evidence.targets[row].tensor][row]).max())
    if not residual <= RESIDUAL_TOLERANCE * peak:
        return None
    weights = sum(sign * head.weights[index] for index, sign in terms)
    activation = evidence.activation[row].astype(np.float64)
    means = activation.mean(axis=(1, 2)) * head.factor(activation[0].size)
    return np.asarray(weights * means)
