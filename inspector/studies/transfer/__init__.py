"""How well a network's features serve another data set: a linear classifier on each layer."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.passes.batches import Progress
from inspector.passes.journal import Journal
from inspector.photos.dataset import LabelledPhoto
from inspector.studies import Findings, check_seed, study
from inspector.studies.transfer.classification import (
    CLASSIFIERS,
    class_counts,
)
from inspector.studies.transfer.curves import Curve, ModelFeatures, Task, curve_of, task_of
from inspector.studies.transfer.extraction import Pool, extract
from inspector.studies.transfer.feature_layers import chosen_layers
from inspector.studies.transfer.summary import (
    COLUMNS,
    counts_of,
    differences_of,
    row_of,
    sentences_of,
    warnings_of,
)

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["transfer"]

Array = np.ndarray[Any, Any]

MOST_FOLDS = 20


@study("transfer", images=True, labelled=True, needs=("scikit-learn", "scipy"), draws=True)
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
        UsageError: options out of range; classes with too few photos.
        MissingExtra: scikit-learn or matplotlib is not installed.
        ImageRefused: none of the photos can be read.
    """
    pooling, journal, images = Pool.read(pool), journal or Journal(), list(images)
    check_seed(seed)
    _check(classifier, folds, cost, per_class)
    class_counts([photo.label for photo in images], folds)
    models = [model, *(model.sibling(path) for path in against)]
    found = list[ModelFeatures]()
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
        found.append(ModelFeatures(one, chosen, why, features, tuple(gone)))
        if features.places != found[0].features.places:
            raise gone[0] if gone else UsageError("the photos changed while they were read")
    task = task_of(
        images,
        found[0].features,
        classifier=classifier,
        folds=folds,
        cost=cost,
        per_class=per_class,
        seed=seed,
    )
    curves = [
        curve_of(read, number, task, progress=progress, journal=journal)
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


# -- the result -----------------------------------------------------------------------------------


def _findings(
    model: "Opened",
    curves: Sequence[Curve],
    task: Task,
    pool: Pool,
    *,
    refused: Sequence[ImageRefused],
    options: Mapping[str, Any],
) -> Findings:
    rows = [[row_of(curve, at, task) for at in range(len(curve.layers))] for curve in curves]
    sentences = sentences_of(curves, rows, task)
    warnings = warnings_of(curves, task)
    return Findings(
        study="transfer",
        context=model.context(None),
        options=options,
        numbers={
            "classes": counts_of(task),
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
            "differences": differences_of(curves, rows, task),
        },
        table=[
            {"model": curve.name, **{k: v for k, v in row.items() if k in COLUMNS}}
            for curve, found in zip(curves, rows, strict=True)
            for row in found
        ],
        sentences=sentences,
        draw=partial(_figure, curves, rows, task, pool, sentences=sentences, warnings=warnings),
        images=len(task.y),
        refused=tuple(refused),
        warnings=warnings,
    )


def _figure(
    curves: Sequence[Curve],
    rows: Sequence[Sequence[Mapping[str, Any]]],
    task: Task,
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
