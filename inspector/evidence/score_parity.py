"""Scores that an engine computes on its way back, against those of ONNX Runtime: a free check."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["DIFFERENCES", "QUANTISED_TOLERANCE", "TOLERANCE", "score_difference"]

Array = np.ndarray[Any, Any]

TOLERANCE = 1e-3
"""Largest difference of an engine's score from ONNX Runtime's, relative to the scores' peak."""

QUANTISED_TOLERANCE = 5e-2
"""The same for a quantised network, where a level that falls the other way is one of 256."""

DIFFERENCES = {
    True: ("twin_difference", "twin"),
    False: ("score_difference", "backward pass"),
}
"""Name of the fact, and who computed, by whether it is the twin; "auto" may take either engine."""


def score_difference(scores: Array, known: Array, peaks: Sequence[float]) -> float:
    """The largest difference of scores, relative to the peaks.

    Args:
        scores: (P,) scores of the engine.
        known: (P,) scores of ONNX Runtime.
        peaks: P largest magnitudes of the tensors that the scores are read from.

    Returns:
        0 or more. What is not a number in one of them alone is as far off as can be; in both, it
        agrees.
    """
    with np.errstate(invalid="ignore"):
        difference = np.abs(scores - known) / peaks
    agree = (scores == known) | (np.isnan(scores) & np.isnan(known))
    difference = np.where(agree, 0.0, np.nan_to_num(difference, nan=1.0))
    return float(difference.max(initial=0.0))
