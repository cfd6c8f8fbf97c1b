"""Probability of the class that an experiment follows, and where that probability comes from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from inspector.errors import MethodRefused, UsageError
from inspector.network.scores import Scores
from inspector.target import Target, looks_like_probabilities, parse_target, probabilities

__all__ = ["ASSUMED", "AS_GIVEN", "class_of", "label_of", "probabilities_of", "source_of"]

Array = np.ndarray[Any, Any]

AS_GIVEN, ASSUMED = "the scores themselves, which are probabilities", "assumed softmax"
"""Sources of probabilities besides the network's own ``softmax`` or ``sigmoid``."""


def source_of(scores: Scores, values: Array, *, hint: str = "") -> str:
    """Where probabilities come from: the network's own activation, or a reading of its scores.

    Args:
        scores: Where the network's scores are, and what stands behind them.
        values: (K,) scores of one photo.
        hint: What to do instead where there is no probability.

    Raises:
        MethodRefused: One score, which no activation turns into a probability.
    """
    if scores.activation is not None:
        return str(scores.activation)
    if looks_like_probabilities(values):
        return AS_GIVEN
    if values.size < 2:
        raise MethodRefused(
            "the model gives one score and no probability", where=scores.tensor, hint=hint
        )
    return ASSUMED


def probabilities_of(scores: Array, source: str) -> Array:
    """Probabilities (P, K) float64 of scores (P, K), from what ``source_of`` says."""
    rows = np.asarray(scores, np.float64)
    if source == AS_GIVEN:
        return rows
    activation: Any = None if source == ASSUMED else source
    found = probabilities(rows, activation, assume_softmax=True)
    return rows if found is None else found.values


def class_of(scores: Scores, labels: Sequence[str], text: str, values: Array) -> Target:
    """The one class that a text names.

    Args:
        scores: Where the network's scores are.
        labels: Class names, as far as they are known.
        text: ``top1``, an index or a label.
        values: (K,) scores of the photo.

    Raises:
        UsageError: Anything but one class.
    """
    found = parse_target(text, scores=scores, labels=labels, values=values)
    if len(found) != 1 or found[0].class_index is None:
        raise UsageError(f"{text!r} is not one class", hint="give top1, a class index or a label")
    return found[0]


def label_of(scores: Scores, labels: Sequence[str], index: int, count: int) -> str:
    """Name of a class; of one sigmoid unit 1 is the class and 0 its absence.

    Args:
        scores: Where the network's scores are.
        labels: Class names, as far as they are known.
        index: The class.
        count: K, the number of scores.
    """
    if count > 1:
        return class_of(scores, labels, str(index), np.zeros(count)).label
    one = class_of(scores, labels, "0", np.zeros(1)).label
    return one if index else labels[0] if len(labels) == 2 else f"not {one}"
