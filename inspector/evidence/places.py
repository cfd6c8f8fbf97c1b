"""Maps that average the gradient over places, beside what each place adds to the score."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from inspector.evidence import Evidence

__all__ = ["compare_places"]

APART = 0.5
"""Overlap of a map with what each place adds to the score, below which it is said."""


def compare_places(evidence: "Evidence", averaged: Any, *, against: bool = False) -> None:
    """Note samples whose map lies elsewhere than what each place adds to the score.

    A gradient that is averaged over places says how much a feature counts, not where: behind a head
    that reads places apart (a flattened map, an item of a list) the two part.  What a place adds is
    sum_k g_k A_k (HiResCAM, Draelos & Carin 2020).

    Args:
        evidence: The samples, with their gradient.
        averaged: Maps (N, h, w) of a method that averages the gradient, not below 0.
        against: Whether they show what speaks against the targets.
    """
    added = np.einsum("nchw,nchw->nhw", evidence.gradient, evidence.activation)
    kept = np.maximum(-added if against else added, 0)
    sides = [
        evidence.by_sample(np.asarray(side, np.float64)).reshape(len(evidence.targets), -1)
        for side in (averaged, kept)
    ]
    there = [bool(own.any() and other.any()) for own, other in zip(*sides, strict=True)]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [side / side.sum(1, keepdims=True) for side in sides]
    for row, common in enumerate(np.minimum(*shares).sum(1).tolist()):
        if there[row] and common < APART:
            evidence.note(
                "this method averages a gradient that differs from place to place: only "
                f"{common:.0%} of the map agrees with what each place adds to the score; "
                "hires-cam keeps the place",
                row,
            )
