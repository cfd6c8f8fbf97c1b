"""How well a network's features serve another data set: a linear classifier on each layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.measures.statistics import require_scipy, wald_difference, wilson
from inspector.passes.batches import Progress
from inspector.passes.journal import Journal
from inspector.photos.dataset import LabelledPhoto, class_indices
from inspector.render.drawing.chart import require_matplotlib
from inspector.studies import Findings, check_seed, study
from inspector.studies.transfer.classification import (
    CLASSIFIERS,
    Fitted,
    Plan,
    class_counts,
    fit,
    plan,
    require_scikit_learn,
)
from inspector.studies.transfer.extraction import Features, Pool, extract
from inspector.studies.transfer.feature_layers import FeatureLayer, chosen_layers

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["transfer"]

Array = np.ndarray[Any, Any]

MOST_FOLDS = 20


@study("transfer", images=True, labelled=True)
def transfer(
    model: "Opened",
    images: Sequence[LabelledPhoto],
    *,
    layers: tuple[str, ...] = (),
    pool: str = "mean",
    classifier: str = "logistic",
    cost: float = 0.0,
    folds: int = 5,
    per_class: int = 0,
    against: tuple[str, ...] = (),
    seed: int = 0,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Accuracy of a linear classifier on each layer's features, over a labelled folder.

    How well features that were learned on one data set tell the classes of another apart, and at
    which layer (Zeiler & Fergus 2014, sections 5.2 and 5.3, table 7): the network stays as it is,
    and only a linear classifier is trained, on the features of one layer at a time. Judged by
    cross-validation, beside always guessing the most frequent class.

    Args:
        model: The opened model.
        images: Photos and their classes.
        layers: A layer to read, as tensor name or index, or several of them set apart by commas;
            at most 8 from first to last when not given.
        pool: How a map becomes numbers: mean, max, grid:G (means over GxG cells) or flat.
        classifier: logistic or svm.
        cost: C, the inverse strength of the classifier's regularisation; chosen inside of each
            training part when 0.
        folds: Parts of the cross-validation.
        per_class: Training photos of each class, drawn at random, as in the paper's curves; all
            of a training part when 0.
        against: Another model to compare with, for example before its training.
        seed: Of the folds and the draw.
        progress: Called with (what, done, total) during long work.
        journal: Keeps the features of each batch of photos, and what classifiers said.

    Returns:
        The figure; for each model and layer the accuracy with its interval.

    Raises:
        UsageError: options that cannot be meant; classes with too few photos.
        MissingExtra: scikit-learn or matplotlib is not installed.
        ImageRefused: none of the photos can be read.
    """
    require_scikit_learn()
    require_scipy()
    require_matplotlib()
    pooling, journal, images = Pool.read(pool), journal or Journal(), list(images)
    check_seed(seed)
    _check(classifier, folds, cost, per_class)
    class_counts([photo.label for photo in images], folds)
    models = [model, *(model.sibling(path) for path in against)]
    found = list[_Read]()
    for number, one in enumerate(models):
        chosen, why = chosen_layers(one, layers if not number else ())
        gone: list[ImageRefused] = []
        features = extract(
            one,
            chosen,
            pooling,
            [photo.path for photo in images],
            refused=gone,
            name=str(number),
            progress=progress,
            journal=journal,
        )
        found.append(_Read(one, chosen, why, features, tuple(gone)))
        if features.places != found[0].features.places:
            raise gone[0] if gone else UsageError("the photos changed while they were read")
    task = _task(
        images,
        found[0].features,
        classifier=classifier,
        folds=folds,
        cost=cost,
        per_class=per_class,
        seed=seed,
    )
    curves = [
        _curve(read, number, task, progress=progress, journal=journal)
        for number, read in enumerate(found)
    ]
    return _findings(
        model,
        curves,
        task,
        pooling,
        refused=found[0].refused,
        options={
            "layers": layers,
            "pool": pool,
            "classifier": classifier,
            "cost": cost,
            "folds": folds,
            "per_class": per_class,
            "against": against,
            "seed": seed,
        },
    )


def _check(classifier: str, folds: int, cost: float, per_class: int) -> None:
    if classifier not in CLASSIFIERS:
        known = ", ".join(CLASSIFIERS)
        raise UsageError(f"no classifier {classifier!r}", hint=f"one of {known}")
    if not 2 <= folds <= MOST_FOLDS:
        raise UsageError(f"{folds} folds", hint=f"2 to {MOST_FOLDS}")
    if not 0 <= cost < 1e9:
        raise UsageError(f"C = {cost:g}", hint="more than 0; 0 to have it chosen")
    if per_class < 0:
        raise UsageError(f"{per_class} photos a class", hint="0 for all")


# -- the work -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Read:
    """A model and the features that it has of the photos."""

    model: "Opened"
    layers: tuple[FeatureLayer, ...]
    why: str
    features: Features
    refused: tuple[ImageRefused, ...]


@dataclass(frozen=True, eq=False)
class _Task:
    """Photos that could be read, their classes, and the folds.

    Attributes:
        places: Positions in the list.
        names: Classes in alphabetical order.
        y: (N,) class of each photo.
        plan: What is trained on what.
    """

    places: tuple[int, ...]
    names: tuple[str, ...]
    y: Array
    plan: Plan

    @property
    def majority(self) -> float:
        """Accuracy of always guessing the most frequent class."""
        return float(np.bincount(self.y).max() / len(self.y))


def _task(images: Sequence[LabelledPhoto], features: Features, **options: Any) -> _Task:
    labels = [images[place].label for place in features.places]
    names = tuple(sorted(class_counts(labels, options["folds"])))
    index = {name: at for at, name in enumerate(names)}
    y = np.array([index[label] for label in labels])
    return _Task(features.places, names, y, plan(y, **options))


@dataclass(frozen=True, eq=False)
class _Curve:
    """What classifiers on each of a model's layers said."""

    read: _Read
    fitted: tuple[Fitted, ...]

    @property
    def name(self) -> str:
        """The model's."""
        return self.read.model.path.name

    @property
    def layers(self) -> tuple[FeatureLayer, ...]:
        """The layers."""
        return self.read.layers


def _curve(
    read: _Read, number: int, task: _Task, *, progress: Progress | None, journal: Journal
) -> _Curve:
    found = []
    for at, layer in enumerate(read.layers):
        key = f"fit {number} {layer.tensor}"
        if key not in journal:
            told = _telling(progress, at, len(read.layers))
            journal.keep(key, fit(read.features.of(at), task.y, task.plan, told).to_plain())
        found.append(Fitted.of_plain(journal[key]))
    return _Curve(read, tuple(found))


def _telling(
    progress: Progress | None, layer: int, layers: int
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress("classifiers", layer * total + done, layers * total)


# -- the result -----------------------------------------------------------------------------------


def _findings(
    model: "Opened",
    curves: Sequence[_Curve],
    task: _Task,
    pool: Pool,
    *,
    refused: Sequence[ImageRefused],
    options: Mapping[str, Any],
) -> Findings:
    rows = [[_row(curve, at, task) for at in range(len(curve.layers))] for curve in curves]
    sentences = _sentences(curves, rows, task)
    warnings = _warnings(curves, task)
    return Findings(
        study="transfer",
        context=model.context(None),
        options=options,
        numbers={
            "classes": _counts(task),
            "majority": task.majority,
            "chance": 1 / len(task.names),
            "pool": pool.meaning,
            "classification": task.plan.to_dict(),
            "interval": "95 %, Wilson, over the predictions of all folds as if independent",
            "models": [
                {
                    "name": curve.name,
                    "sha256": curve.read.model.file.sha256,
                    "preprocess": curve.read.model.preprocessing.to_dict(),
                    "layers_chosen": curve.read.why,
                    "layers": found,
                }
                for curve, found in zip(curves, rows, strict=True)
            ],
            "differences": _differences(curves, rows, task),
        },
        table=[
            {"model": curve.name, **{k: v for k, v in row.items() if k in _COLUMNS}}
            for curve, found in zip(curves, rows, strict=True)
            for row in found
        ],
        sentences=sentences,
        draw=partial(_figure, curves, rows, task, pool, sentences=sentences, warnings=warnings),
        images=len(task.y),
        refused=tuple(refused),
        warnings=warnings,
    )


_COLUMNS = (
    "number",
    "layer",
    "dimensions",
    "accuracy",
    "low",
    "high",
    "mean_class_accuracy",
    "median_cost",
)


def _counts(task: _Task) -> dict[str, int]:
    return {name: int(n) for name, n in zip(task.names, np.bincount(task.y), strict=True)}


def _right(fitted: Fitted, task: _Task) -> Array:
    found: Array = fitted.predicted == task.y
    return found


def _row(curve: _Curve, at: int, task: _Task) -> dict[str, Any]:
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


def _differences(
    curves: Sequence[_Curve], rows: Sequence[Sequence[Mapping[str, Any]]], task: _Task
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


def _sentences(
    curves: Sequence[_Curve], rows: Sequence[Sequence[Mapping[str, Any]]], task: _Task
) -> tuple[str, ...]:
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
    text += [_told(gap) for gap in _differences(curves, rows, task)]
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


def _warnings(curves: Sequence[_Curve], task: _Task) -> tuple[str, ...]:
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


def _figure(
    curves: Sequence[_Curve],
    rows: Sequence[Sequence[Mapping[str, Any]]],
    task: _Task,
    pool: Pool,
    *,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.transfer.figure import transfer_sheet

    drawn = task.plan.to_dict()
    names = ", ".join(dict.fromkeys(curve.name for curve in curves))
    return transfer_sheet(
        [(curve.name, found) for curve, found in zip(curves, rows, strict=True)],
        majority=task.majority,
        title=f"what each layer of {names} knows of {len(task.names)} classes",
        subtitle=f"{drawn['classifier']}; {pool.meaning}; {drawn['folds']} folds",
        sentences=sentences,
        notes=warnings,
    )
