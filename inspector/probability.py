"""The class whose probability an experiment follows, and where that probability comes from."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import MethodRefused, UsageError

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.target import Target

__all__ = ["ASSUMED", "AS_GIVEN", "class_of", "label_of", "probabilities_of", "source_of"]

Array = np.ndarray[Any, Any]

AS_GIVEN, ASSUMED = "the scores themselves, which are probabilities", "assumed softmax"
"""Sources of probabilities besides the network's own ``softmax`` or ``sigmoid``."""


def source_of(model: "Opened", scores: Array, *, hint: str = "") -> str:
    """Where probabilities come from: the network's own activation, or a reading of its scores.

    Args:
        model: The opened model.
        scores: (K,) of one photo.
        hint: What to do instead where there is no probability.

    Raises:
        MethodRefused: One score, which no activation turns into a probability.
    """
    from inspector.target import looks_like_probabilities

    if model.scores.activation is not None:
        return str(model.scores.activation)
    if looks_like_probabilities(scores):
        return AS_GIVEN
    if scores.size < 2:
        raise MethodRefused(
            "the model gives one score and no probability", where=model.scores.tensor, hint=hint
        )
    return ASSUMED


def probabilities_of(scores: Array, source: str) -> Array:
    """Probabilities (P, K) float64 of scores (P, K), from what ``source_of`` says."""
    from inspector.target import probabilities

    rows = np.asarray(scores, np.float64)
    if source == AS_GIVEN:
        return rows
    activation: Any = None if source == ASSUMED else source
    found = probabilities(rows, activation, assume_softmax=True)
    return rows if found is None else found.values


def class_of(model: "Opened", text: str, scores: Array) -> "Target":
    """The one class that a text names.

    Args:
        model: The opened model.
        text: ``top1``, an index or a label.
        scores: (K,) of the photo.

    Raises:
        UsageError: Anything but one class.
    """
    from inspector.target import parse_target

    found = parse_target(text, scores=model.scores, labels=model.class_labels.names, values=scores)
    if len(found) != 1 or found[0].class_index is None:
        raise UsageError(f"{text!r} is not one class", hint="give top1, a class index or a label")
    return found[0]


def label_of(model: "Opened", index: int, count: int) -> str:
    """Name of a class; of one sigmoid unit 1 is the class and 0 its absence."""
    if count > 1:
        return class_of(model, str(index), np.zeros(count)).label
    one = class_of(model, "0", np.zeros(1)).label
    names = model.class_labels.names
    return one if index else names[0] if len(names) == 2 else f"not {one}"
