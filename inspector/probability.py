"""Probability of the class that an experiment follows, and where that probability comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspector.errors import MethodRefused, UsageError
from inspector.network.classifier.before_activation import final_activation
from inspector.network.classifier.scores import Activation, Scores
from inspector.printable import clean_text
from inspector.target import Target, best_targets, parse_target

__all__ = [
    "ASSUMED",
    "AS_GIVEN",
    "Probabilities",
    "class_of",
    "has_shares",
    "label_of",
    "looks_like_probabilities",
    "of_target",
    "predictions",
    "predictions_of_all",
    "probabilities",
    "probabilities_of",
    "score_warnings",
    "source_of",
]

Array = np.ndarray[Any, Any]

AS_GIVEN, ASSUMED = "the scores themselves, which are probabilities", "assumed softmax"
"""Sources of probabilities besides the network's own ``softmax`` or ``sigmoid``."""


@dataclass(frozen=True)
class Probabilities:
    """Probabilities, and whether the model itself says so.

    Attributes:
        values: float64, the shape of the scores.
        assumed: The network ends without an activation; "softmax of the logits" is a reading.
    """

    values: NDArray[np.float64]
    assumed: bool


def probabilities(
    values: ArrayLike, activation: Activation | None, *, assume_softmax: bool = False
) -> Probabilities | None:
    """Probabilities that the network gives, from its scores.

    Args:
        values: (..., K) scores before the activation.
        activation: The network's own, from :class:`Scores`.
        assume_softmax: Without an activation, read the scores as logits of a softmax.

    Returns:
        None when the network has no final activation and none is assumed, or when there is
        only one class to take a softmax over.
    """
    z = np.asarray(values, dtype=np.float64)
    if activation == "sigmoid":
        # exp of a non-positive number only: never an overflow.
        e = np.exp(-np.abs(z))
        return Probabilities(np.where(z >= 0, 1.0, e) / (1.0 + e), assumed=False)
    if activation is None and (not assume_softmax or z.shape[-1] < 2):
        return None
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return Probabilities(e / e.sum(axis=-1, keepdims=True), assumed=activation is None)


def looks_like_probabilities(values: ArrayLike) -> str:
    """A warning when scores are a softmax's result already; empty when they are not.

    Such a graph hides its softmax (in a custom or fused form): gradients of its scores vanish
    on confident images.

    Args:
        values: (K,) scores of one image.
    """
    z = np.asarray(values, dtype=np.float64).ravel()
    if not has_shares(z[None])[0]:
        return ""
    return (
        "the scores lie between 0 and 1 and sum to 1: they are probabilities, not logits, so "
        "gradients are those of a saturated softmax; name the logits with --target TENSOR[i]"
    )


def has_shares(values: ArrayLike) -> NDArray[np.bool_]:
    """Which rows (N,) of scores (N, K) lie between 0 and 1 and sum to 1, as a softmax's do."""
    z = np.asarray(values, dtype=np.float64)
    if z.shape[1] < 2:
        return np.zeros(len(z), bool)
    inside = ((z >= 0) & (z <= 1)).all(1)
    if inside.any():
        inside &= np.abs(z.sum(1) - 1) <= 2e-3
    return np.asarray(inside)


def of_target(values: ArrayLike, target: Target) -> NDArray[np.float64]:
    """The probabilities (N,) of a target that is a class, from those of all classes (N, K).

    That of the opposite direction is 1 - p.

    Args:
        values: (N, K) probabilities.
        target: The class.
    """
    own: NDArray[np.float64] = np.asarray(values, np.float64)[:, int(target.class_index or 0)]
    return own if target.sign > 0 else 1 - own


def predictions(
    scores: Scores, labels: Sequence[str], values: Array, count: int
) -> list[dict[str, Any]]:
    """The best classes of one photo, as a report lists them.

    A probability is given where the network ends in a softmax or sigmoid, where the scores are
    probabilities already, and, as an assumed softmax, where it is known that they are the scores
    of classes.

    Args:
        scores: Where the network's scores are.
        labels: Class names, as far as they are known.
        values: (K,) scores.
        count: How many classes to list at most.
    """
    return predictions_of_all(scores, labels, values[None], [count])[0]


def predictions_of_all(
    scores: Scores,
    labels: Sequence[str],
    values: Array,
    counts: Sequence[int],
    known: dict[int, Target] | None = None,
) -> list[list[dict[str, Any]]]:
    """The best classes of some photos; see :func:`predictions`.

    Args:
        scores: Where the network's scores are.
        labels: Class names, as far as they are known.
        values: (N, K) scores.
        counts: How many classes to list of each at most.
        known: As for :func:`inspector.target.best_targets`.
    """
    two = scores.unit is not None or (values.shape[1] == 1 and len(labels) == 2)
    most = 2 if two else values.shape[1]
    shares = has_shares(values).tolist() if scores.activation is None else [False] * len(values)
    classes = scores.classifies or any(labels)
    read = probabilities(values, scores.activation, assume_softmax=classes)
    found = []
    for row, (own, share, count) in enumerate(zip(values, shares, counts, strict=True)):
        best = best_targets(min(count, most), scores=scores, labels=labels, values=own, known=known)
        chances = np.asarray(own, np.float64) if share else None
        if chances is None and read is not None:
            chances = read.values[row]
        found.append(
            [
                {
                    "index": target.shown_index,
                    "label": target.label,
                    "score": float(target.sign * own[int(target.class_index or 0)]),
                    "probability": None
                    if chances is None
                    else float(of_target(chances[None], target)[0]),
                    "assumed_softmax": bool(not share and read is not None and read.assumed),
                    **({"output": scores.output} if scores.heads else {}),
                    **({"opposed": True} if target.opposed else {}),
                }
                for target in best
            ]
        )
    return found


def score_warnings(scores: Scores, labels: Sequence[str], values: Array) -> list[str]:
    """What must be known when the scores of a photo are read.

    Args:
        scores: Where the network's scores are.
        labels: Class names, as far as they are known.
        values: (K,) scores.
    """
    found = []
    if scores.activation is None:
        found.append(looks_like_probabilities(values))
        if not scores.classifies and not any(labels) and not found[0]:
            output, count = clean_text(scores.output), values.size
            ends = "" if scores.graph is None else final_activation(scores.graph, scores.tensor)
            if ends:  # some of its numbers, or several, put together
                found.append(
                    f"the numbers of {output!r} come from {clean_text(ends)} and are not all of "
                    "it: no percentages are given, and their gradients vanish where it saturates; "
                    f"--target {output}[0] explains the score before it"
                )
                return [*filter(None, found), *_other_heads(scores)]
            found.append(
                f"the file does not say what the {count} numbers of {output!r} are (no softmax, "
                "sigmoid or class names): no percentages are given, and top1 is the largest number"
                if count > 1
                else f"the file does not say what the number {output!r} is (no sigmoid or class "
                "names): no percentage is given"
            )
    return [*filter(None, found), *_other_heads(scores)]


def _other_heads(scores: Scores) -> list[str]:
    """A sentence on outputs that hold scores too, if there are any."""
    if not scores.heads:
        return []
    shown = [
        f"{clean_text(name)!r}" + ("" if count is None else f" ({count})")
        for name, count in scores.heads[:8]
    ]
    text = (
        f"predictions are those of output {clean_text(scores.output)!r}; other outputs are "
        f"{', '.join(shown)}: name an element with --target {clean_text(scores.heads[0][0])}[0]"
    )
    return [text]


def source_of(scores: Scores, values: Array, *, hint: str = "") -> str:
    """Where probabilities come from: the network's own activation, or a reading of its scores.

    Args:
        scores: Where the network's scores are, and what stands behind them.
        values: (K,) scores of one photo.
        hint: What to do instead where there is no probability.

    Raises:
        MethodRefused: One score, which no activation turns into a probability; or one that falls
            where the output rises.
    """
    if scores.flipped:
        raise MethodRefused(
            "the output is 1 minus a probability, which experiments on classes do not follow",
            where=scores.output,
            hint=hint or "`inspector explain` does",
        )
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
    if scores.unit is not None or len(labels) == 2:
        return class_of(scores, labels, str(index), np.zeros(1)).label
    one = class_of(scores, labels, "0", np.zeros(1)).label
    return one if index else f"not {one}"
