"""What one photo's features and probability do along the transforms."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.passes.batches import BATCH
from inspector.passes.feature_vectors import vectors
from inspector.probability import class_of, label_of, of_target, probabilities_of, source_of
from inspector.studies.invariance.transforms import transformed

if TYPE_CHECKING:
    from collections.abc import Callable

    from inspector.opened import Opened
    from inspector.passes.feature_vectors import FeatureVector
    from inspector.passes.journal import Journal
    from inspector.studies.invariance.transforms import Sweep
    from inspector.target import Target

__all__ = ["Curve", "Seen", "follow"]

Array = np.ndarray[Any, Any]

MEMORY = 128 << 20
"""Bytes of features that are held at a time."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One photo along one transform, P values.

    Attributes:
        sweep: The transform.
        early: (P,) Euclidean distances at the early layer, raw.
        late: (P,) at the late layer.
        probability: (P,) of the class.
        label: (P,) most probable class.
    """

    sweep: "Sweep"
    early: Sequence[float]
    late: Sequence[float]
    probability: Sequence[float]
    label: Sequence[int]


@dataclass(frozen=True, eq=False)
class Seen:
    """One photo.

    Attributes:
        place: Position in the list.
        name: Its name.
        sha256: Its hash.
        target: The class.
        source: Where probabilities come from.
        probability: Of the class, untransformed.
        label: The most probable class, untransformed.
        norms: Euclidean length of the untransformed features, early and late.
        curves: One a transform.
        names: Names of the labels by index.
    """

    place: int
    name: str
    sha256: str
    target: "Target"
    source: str
    probability: float
    label: int
    norms: tuple[float, float]
    curves: tuple[Curve, ...]
    names: Mapping[int, str]

    def relative(self, at: int, which: int) -> Array:
        """Distances of curve ``at`` over the length of the untransformed features; NaN for none.

        Args:
            at: Which transform.
            which: 0 for the early layer, 1 for the late one.
        """
        raw = np.asarray((self.curves[at].early, self.curves[at].late)[which], np.float64)
        norm = self.norms[which]
        return raw / norm if norm > 0 else np.full(raw.shape, np.nan)

    def half_extent(self, at: int) -> float | None:
        """Nearest extent of a transform at which half of the probability, or more, is gone."""
        curve = self.curves[at]
        gone = np.asarray(curve.probability) <= self.probability / 2
        return float(curve.sweep.extent[gone].min()) if gone.any() else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "image": {"name": self.name, "place": self.place, "sha256": self.sha256},
            "class": {"index": self.target.shown_index, "label": self.target.label},
            "probability_from": self.source,
            "untransformed": {
                "probability": self.probability,
                "label": self.names[self.label],
                "length_early": self.norms[0],
                "length_late": self.norms[1],
            },
            "curves": {
                curve.sweep.kind: {
                    "distance_early": _plain(self.relative(at, 0)),
                    "distance_late": _plain(self.relative(at, 1)),
                    "euclidean_early": list(curve.early),
                    "euclidean_late": list(curve.late),
                    "probability": list(curve.probability),
                    "label_index": list(curve.label),
                    "halved_at": self.half_extent(at),
                }
                for at, curve in enumerate(self.curves)
            },
        }

    def table(self) -> Iterator[dict[str, Any]]:
        """One row a transformed image."""
        for at, curve in enumerate(self.curves):
            early, late = _plain(self.relative(at, 0)), _plain(self.relative(at, 1))
            for p, value in enumerate(curve.sweep.values):
                yield {
                    "image": self.name,
                    "place": self.place,
                    "transform": curve.sweep.kind,
                    "unit": curve.sweep.unit,
                    "value": value,
                    "distance_early": early[p],
                    "distance_late": late[p],
                    "euclidean_early": curve.early[p],
                    "euclidean_late": curve.late[p],
                    "class": self.target.label,
                    "probability": curve.probability[p],
                    "label": self.names[curve.label[p]],
                }


def follow(
    model: "Opened",
    layers: "tuple[FeatureVector, FeatureVector]",
    sweeps: "Sequence[Sweep]",
    image: Array,
    *,
    photo: tuple[int, str, str],
    text: str,
    colour: Array,
    journal: "Journal",
    progress: "Callable[[int], None]",
) -> Seen:
    """Take one photo along all transforms.

    Args:
        model: The opened model.
        layers: The early and the late one.
        sweeps: The transforms.
        image: (C, H, W), preprocessed.
        photo: Place, name and hash.
        text: The class, in the user's words.
        colour: (C,) values of what comes in from outside.
        journal: Keeps each transform's results.
        progress: Called with the number of images that are done.
    """
    scores_at = model.scores.tensor
    origin = vectors(model, image[None], layers, [scores_at])
    scores = origin[scores_at].astype(np.float64)
    labels = model.class_labels.names
    target = class_of(model.scores, labels, text, scores[0])
    source = source_of(model.scores, scores[0])
    norms = [float(np.linalg.norm(origin[f.tensor][0].astype(np.float64))) for f in layers]
    before = _values(scores, target, source)
    curves = []
    for sweep in sweeps:
        key = f"{photo[0]}/{photo[2][:16]}/{sweep.kind}"
        if key not in journal:
            journal.keep(
                key, _along(model, layers, sweep, image, origin, of=(target, source), colour=colour)
            )
        curves.append(Curve(sweep, **journal[key]))
        progress(len(sweep.values))
    classes = {int(label) for curve in curves for label in curve.label} | {before["label"][0]}
    return Seen(
        *photo,
        target=target,
        source=source,
        probability=before["probability"][0],
        label=before["label"][0],
        norms=(norms[0], norms[1]),
        curves=tuple(curves),
        names={
            label: label_of(model.scores, labels, label, scores.shape[1])
            for label in sorted(classes)
        },
    )


def _along(
    model: "Opened",
    layers: "tuple[FeatureVector, FeatureVector]",
    sweep: "Sweep",
    image: Array,
    origin: Mapping[str, Array],
    *,
    of: "tuple[Target, str]",
    colour: Array,
) -> dict[str, list[Any]]:
    """Distances, probabilities and labels at each value; what changes nothing is not run again."""
    step = max(1, min(BATCH, MEMORY // (4 * sum(layer.dimensions for layer in layers))))
    found: dict[str, list[Any]] = {"early": [], "late": [], "probability": [], "label": []}
    for start in range(0, len(sweep.values), step):
        values = sweep.values[start : start + step]
        moved = [i for i, value in enumerate(values) if value != sweep.neutral]
        rows = {name: np.repeat(row, len(values), axis=0) for name, row in origin.items()}
        if moved:
            images = np.stack([transformed(image, sweep.kind, values[i], colour) for i in moved])
            for name, new in vectors(model, images, layers, [model.scores.tensor]).items():
                rows[name][moved] = new
        for key, layer in zip(("early", "late"), layers, strict=True):
            found[key] += _distances(rows[layer.tensor], origin[layer.tensor][0])
        for key, listed in _values(rows[model.scores.tensor], *of).items():
            found[key] += listed
    return found


def _distances(rows: Array, origin: Array) -> list[float]:
    """Euclidean distance of each row (P, F) from the origin (F,)."""
    start = origin.astype(np.float64)
    return [float(np.linalg.norm(row.astype(np.float64) - start)) for row in rows]


def _values(scores: Array, target: "Target", source: str) -> dict[str, list[Any]]:
    """Probability of the class and most probable label, for scores (P, K)."""
    known = probabilities_of(scores, source)
    one = known.shape[1] == 1  # one sigmoid unit: its class or not
    labels = (known[:, 0] >= 0.5).astype(int) if one else known.argmax(1)
    return {
        "probability": of_target(known, target).tolist(),
        "label": labels.tolist(),
    }


def _plain(values: Array) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
