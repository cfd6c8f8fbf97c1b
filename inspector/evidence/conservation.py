"""What relevance adds up to: pixels, constants, softmax and stabilisers hold the whole score."""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["conservation"]

Array = np.ndarray[Any, Any]

CONSERVED = 1e-2
"""Relevance that may be missing, relative to the largest part of it, before it is said."""


FEW = 0.2
"""Share of the score that the picture holds, below which it is said."""

UNSTEADY = 100.0
"""How many times the scores' peak parts may be that cancel each other, before it is said."""


def conservation(
    scores: Array, relevance: Array, kept: Mapping[str, float], peak: float
) -> tuple[dict[str, Any], str]:
    """Figures of a run under a rule of LRP, and a sentence where relevance does not add up.

    Args:
        scores: (N,) scores of the targets.
        relevance: Of the input's values, N samples.
        kept: What did not reach the input, of all samples.
        peak: Largest magnitude of the tensor that the targets are read from.

    Returns:
        ``relevance`` (the score, and what each part has of it) and ``conservation_error`` (what is
        missing, relative to the largest of these); and the sentence, or nothing.
    """
    score, pixels = float(scores.sum(dtype=np.float64)), float(relevance.sum(dtype=np.float64))
    passed = {"score": score, "pixels": pixels, **kept}
    largest = max(map(abs, passed.values()))
    missing = abs(score - pixels - sum(kept.values())) / max(largest, 1e-12)
    said = ""
    if not missing <= CONSERVED:
        said = (
            f"relevance does not add up: {missing:.0%} of it is lost or made on the way, by "
            "rounding or by a constant that no rule accounts for"
        )
    elif largest > UNSTEADY * len(scores) * peak:
        said = (
            f"parts of the relevance are {largest / (len(scores) * peak):.0e} times the scores and "
            "cancel each other: a small denominator blew them up, and the map shows that; "
            "gamma steadies it (attn-lrp:gamma=0.25)"
        )
    elif abs(pixels) < FEW * abs(score):
        said = (
            f"the picture holds {pixels / score:.0%} of the score and constants of the network "
            "the rest: the map shows that part alone (where a unit is saturated, its bias has all)"
        )
    return {"relevance": passed, "conservation_error": missing}, said
