"""Classes and their probabilities as an occluded photo's scores give them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import MethodRefused, UsageError

if TYPE_CHECKING:
    from inspector.explain import Explainer
    from inspector.target import Target

__all__ = ["ASSUMED", "AS_GIVEN", "class_of", "label_of", "probabilities_from", "probabilities_of"]

Array = np.ndarray[Any, Any]

AS_GIVEN, ASSUMED = "the scores themselves, which are probabilities", "assumed softmax"
"""Sources of probabilities besides the network's own ``softmax`` or ``sigmoid``."""


def probabilities_from(model: "Explainer", scores: Array) -> str:
    """Where probabilities come from: the network's own activation, or a reading of its scores.

    Args:
        model: The opened model.
        scores: (K,) of the unoccluded photo.

    Raises:
        MethodRefused: One score, which no activation turns into a probability.
    """
    from inspector.target import looks_like_probabilities  # noqa: PLC0415 - late: imports onnx

    activation = model.scores.activation
    if activation is not None:
        return str(activation)
    if looks_like_probabilities(scores):
        return AS_GIVEN
    if scores.size < 2:
        raise MethodRefused(
            "the model gives one score and no probability", where=model.scores.tensor,
            hint="`inspector explain -m occlusion:measure=score` draws the score's drop",
        )  # fmt: skip
    return ASSUMED


def probabilities_of(scores: Array, how: str) -> Array:
    """Probabilities (P, K) of scores (P, K), from what ``probabilities_from`` says."""
    from inspector.target import probabilities  # noqa: PLC0415 - late: imports onnx

    if how == AS_GIVEN:
        return scores
    known = probabilities(scores, None if how == ASSUMED else how, assume_softmax=True)  # type: ignore[arg-type]
    return scores if known is None else known.values


def class_of(model: "Explainer", text: str, scores: Array) -> "Target":
    """The one class that a text names.

    Args:
        model: The opened model.
        text: ``top1``, an index or a label.
        scores: (K,) of the unoccluded photo.

    Raises:
        UsageError: Anything but one class.
    """
    from inspector.target import parse_target  # noqa: PLC0415 - late: imports onnx

    found = parse_target(text, scores=model.scores, labels=model.class_labels.names, values=scores)
    if len(found) != 1 or found[0].class_index is None:
        raise UsageError(f"{text!r} is not one class", hint="give top1, a class index or a label")
    return found[0]


def label_of(model: "Explainer", index: int, count: int) -> str:
    """Name of a class; of one sigmoid unit 1 is the class and 0 its absence."""
    if count > 1:
        return class_of(model, str(index), np.zeros(count)).label
    one = class_of(model, "0", np.zeros(1)).label
    names = model.class_labels.names
    return one if index else names[0] if len(names) == 2 else f"not {one}"
