"""Accuracy by layer: a model's features of the photos, and what classifiers on them say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.errors import ImageRefused
from inspector.opened import Opened
from inspector.passes.batches import Progress
from inspector.passes.journal import Journal
from inspector.photos.dataset import LabelledPhoto
from inspector.studies.transfer.classification import Fitted, Plan, class_counts, fit, plan
from inspector.studies.transfer.extraction import Features
from inspector.studies.transfer.feature_layers import FeatureLayer

__all__ = ["Curve", "ModelFeatures", "Task", "curve_of", "task_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ModelFeatures:
    """A model and the features that it has of the photos."""

    model: Opened
    layers: tuple[FeatureLayer, ...]
    why: str
    features: Features
    refused: tuple[ImageRefused, ...]


@dataclass(frozen=True, eq=False)
class Task:
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


def task_of(images: Sequence[LabelledPhoto], features: Features, **options: Any) -> Task:
    """Classes and folds of the photos that could be read; options as for ``plan``."""
    labels = [images[place].label for place in features.places]
    names = tuple(sorted(class_counts(labels, options["folds"])))
    index = {name: at for at, name in enumerate(names)}
    y = np.array([index[label] for label in labels])
    return Task(features.places, names, y, plan(y, **options))


@dataclass(frozen=True, eq=False)
class Curve:
    """What classifiers on each of a model's layers said."""

    read: ModelFeatures
    fitted: tuple[Fitted, ...]

    @property
    def name(self) -> str:
        """The model's."""
        return self.read.model.path.name

    @property
    def layers(self) -> tuple[FeatureLayer, ...]:
        """The layers."""
        return self.read.layers


def curve_of(
    read: ModelFeatures, number: int, task: Task, *, progress: Progress | None, journal: Journal
) -> Curve:
    """Classifiers on each layer of a model, those in the journal not again."""
    found = []
    for at, layer in enumerate(read.layers):
        key = f"fit {number} {layer.tensor}"
        if key not in journal:
            told = _telling(progress, at, len(read.layers))
            journal.keep(key, fit(read.features.of(at), task.y, task.plan, told).to_plain())
        found.append(Fitted.of_plain(journal[key]))
    return Curve(read, tuple(found))


def _telling(
    progress: Progress | None, layer: int, layers: int
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress("classifiers", layer * total + done, layers * total)
