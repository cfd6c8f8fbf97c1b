"""HiResCAM."""

from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence

APART = 0.5
"""Overlap of a map with what each place adds to the score, below which it is said."""


def weighted_map(activation: Any, gradient: Any) -> Any:
    """ReLU(sum_k g_k * A_k), place by place: (N, C, h, w) twice to (N, h, w)."""
    xp = array_namespace(activation, gradient)
    combined = xp.sum(gradient * activation, axis=1)
    return xp.where(combined > 0, combined, xp.zeros_like(combined))


def compare_places(evidence: "Evidence", averaged: Any, *, against: bool = False) -> None:
    """Note samples whose map lies elsewhere than what each place adds to the score.

    A gradient that is averaged over places says how much a feature counts, not where: behind a head
    that reads places apart (a flattened map, an item of a list) the two part.

    Args:
        evidence: The samples, with their gradient.
        averaged: Maps (N, h, w) of a method that averages the gradient, not below 0.
        against: Whether they show what speaks against the targets.
    """
    gradient = -evidence.gradient if against else evidence.gradient
    sides = [
        evidence.by_sample(np.asarray(side, np.float64)).reshape(len(evidence.targets), -1)
        for side in (averaged, weighted_map(evidence.activation, gradient))
    ]
    for row, (own, kept) in enumerate(zip(*sides, strict=True)):
        if own.any() and kept.any():
            common = float(np.minimum(own / own.sum(), kept / kept.sum()).sum())
            if common < APART:
                evidence.note(
                    "this method averages a gradient that differs from place to place: only "
                    f"{common:.0%} of the map agree with what each place adds to the score; "
                    "hires-cam keeps the place",
                    row,
                )


@method(
    "hires-cam",
    order=2020,
    space="layer",
    needs={"activation", "gradient"},
    cost="1 F and the tail, forwards and backwards",
)
def hires_cam(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """HiResCAM: gradient times activation at every place, summed over the maps; positive part.

    L = ReLU(sum_k g_k * A_k), with A the layer's activation (N, C, h, w) and g = dS/dA, S the
    target's score before softmax.  Unlike Grad-CAM, the gradient is not averaged over places, so
    that what one place alone contributes (a box of a detector, a pixel of a mask) stays there.
    Where the layer is pooled by a mean and one linear layer follows, it equals Grad-CAM.

    Source: Draelos & Carin 2020, section 3.2; the ReLU as in Grad-CAM.
    """
    result: np.ndarray[Any, Any] = weighted_map(evidence.activation, evidence.gradient)
    evidence.compare_evidence(result, weighted_map(evidence.activation, -evidence.gradient))
    return result
