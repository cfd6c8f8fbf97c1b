"""The result told: as plain data, as rows, and in sentences."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from inspector.measures.statistics import wald_difference, wilson
from inspector.photos.dataset import class_indices
from inspector.studies.transfer.classification import Fitted
from inspector.studies.transfer.curves import Curve, Task

__all__ = [
    "COLUMNS",
    "counts_of",
    "differences_of",
    "row_of",
    "sentences_of",
    "warnings_of",
]

Array = np.ndarray[Any, Any]

COLUMNS = (
    "number",
    "layer",
    "dimensions",
    "accuracy",
    "low",
    "high",
    "mean_class_accuracy",
    "median_cost",
)
"""Numbers of a layer that stand in the table."""


def counts_of(task: Task) -> dict[str, int]:
    """Photos by class."""
    return {name: int(n) for name, n in zip(task.names, np.bincount(task.y), strict=True)}


def _right(fitted: Fitted, task: Task) -> Array:
    found: Array = fitted.predicted == task.y
    return found


def row_of(curve: Curve, at: int, task: Task) -> dict[str, Any]:
    """Numbers of one layer: accuracy with its interval, by class and by fold."""
    fitted = curve.fitted[at]
    right = _right(fitted, task)
    low, high = wilson(int(right.sum()), len(right))
    each = [float(right[task.y == index].mean()) for index in range(len(task.names))]
    return {
        "number": at + 1,
        "layer": curve.layers[at].tensor,
        "shape": curve.layers[at].shape,
        "dimensions": curve.read.features.widths[at],
        "right": int(right.sum()),
        "accuracy": float(right.mean()),
        "low": low,
        "high": high,
        "mean_class_accuracy": float(np.mean(each)),
        "class_accuracy": dict(zip(task.names, each, strict=True)),
        "fold_accuracy": [float(right[test].mean()) for _, test in task.plan.parts],
        "costs": fitted.costs,
        "median_cost": median(fitted.costs),
        "fits": fitted.fits,
        "unconverged": fitted.unconverged,
    }


def _best(rows: Sequence[Mapping[str, Any]]) -> int:
    return max(range(len(rows)), key=lambda at: (rows[at]["right"], -at))


def differences_of(
    curves: Sequence[Curve], rows: Sequence[Sequence[Mapping[str, Any]]], task: Task
) -> list[dict[str, Any]]:
    """Paired differences: best layer to first and last one, and each other model's best."""
    first, best = curves[0], _best(rows[0])
    pairs = [
        (curves[0], at, what)
        for what, at in (("first layer", 0), ("last layer", len(rows[0]) - 1))
        if at != best
    ]
    pairs += [(c, _best(r), "best layer") for c, r in zip(curves[1:], rows[1:], strict=True)]
    found = []
    for curve, at, what in pairs:
        gap, low, high = wald_difference(
            _right(first.fitted[best], task), _right(curve.fitted[at], task)
        )
        found.append(
            {
                "of": {"model": first.name, "layer": first.layers[best].tensor},
                "to": {"model": curve.name, "layer": curve.layers[at].tensor, "what": what},
                "difference": gap,
                "low": low,
                "high": high,
            }
        )
    return found


def sentences_of(
    curves: Sequence[Curve], rows: Sequence[Sequence[Mapping[str, Any]]], task: Task
) -> tuple[str, ...]:
    """The result in plain language."""
    kind = {"logistic": "softmax regression", "svm": "linear SVM"}[task.plan.classifier]
    first = (
        f"{len(task.y)} photos of {len(task.names)} classes, {len(task.plan.parts)} folds, {kind} "
        f"on {len(curves[0].layers)} layer(s); always guessing the most frequent class is right on "
        f"{task.majority:.1%}"
    )
    text = [first]
    for curve, found in zip(curves, rows, strict=True):
        best, last = found[_best(found)], found[-1]
        named = f"{curve.name}: " if len(curves) > 1 else ""
        span = f"{best['accuracy']:.1%} ({best['low']:.1%} to {best['high']:.1%})"
        where = "the last" if best is last else f"number {best['number']}"
        text.append(
            f"{named}{found[0]['accuracy']:.1%} on the first layer, {last['accuracy']:.1%} on the "
            f"last; best is {where}, {best['layer']}: {span}"
            if len(found) > 1
            else f"{named}{best['layer']}: {span}"
        )
        idle = [str(row["number"]) for row in found if row["low"] <= task.majority]
        if idle:
            text.append(
                f"{named}no better than guessing, as far as these photos tell: layer(s) "
                + ", ".join(idle)
            )
    text += [_told(gap) for gap in differences_of(curves, rows, task)]
    text.append(
        "intervals take the photos for independent; folds share training photos, so they are "
        "approximate, and a layer that was picked as the best looks a little better than it is"
    )
    return tuple(text)


def _told(gap: Mapping[str, Any]) -> str:
    to = gap["to"]
    other = to["what"] if to["model"] == gap["of"]["model"] else f"{to['what']} of {to['model']}"
    points, low, high = (100 * gap[key] for key in ("difference", "low", "high"))
    clear = "" if low > 0 or high < 0 else ", which these photos do not settle"
    way = "ahead of" if points >= 0 else "behind"
    return (
        f"the best layer is {abs(points):.1f} points {way} the {other} "
        f"(95 %: {low:+.1f} to {high:+.1f}, paired){clear}"
    )


def warnings_of(curves: Sequence[Curve], task: Task) -> tuple[str, ...]:
    """What must be known when the result is read."""
    found: list[str] = []
    for curve in curves:
        model, named = curve.read.model, f"{curve.name}: " if len(curves) > 1 else ""
        found += [named + text for text in model.preprocessing.warnings]
        own = [
            n
            for n in task.names
            if not n.isdecimal()
            and class_indices(n, model.class_labels.names, model.scores.classes)
        ]
        if own:
            found.append(
                f"{named}{len(own)} of {len(task.names)} classes are the model's own: that is no "
                "other data set, and its features were trained to tell these classes apart"
            )
        slow = sum(fitted.unconverged for fitted in curve.fitted)
        if slow:
            fits = sum(fitted.fits for fitted in curve.fitted)
            at = [str(n) for n, fitted in enumerate(curve.fitted, 1) if fitted.unconverged]
            found.append(
                f"{named}{slow} of {fits} classifiers did not converge (layer(s) {', '.join(at)}): "
                "their accuracy may be too low"
            )
        said = dict.fromkeys(text for fitted in curve.fitted for text in fitted.said)
        found += [f"{named}scikit-learn: {text}" for text in said]
    return tuple(dict.fromkeys(found))
