"""Columns of an audit's rows on what a classifier predicts, and how that fits the label."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inspector.errors import ExplainedError, MethodRefused
from inspector.network.classifier.scores import Scores
from inspector.network.outputs.labels import Labels
from inspector.photos.dataset import class_indices
from inspector.probability import predictions_of_all, probabilities_of, source_of
from inspector.target import Target

__all__ = ["Predicted"]

Array = np.ndarray[Any, Any]
Row = dict[str, Any]

_TOP = 5


@dataclass(eq=False)
class Predicted:
    """What is predicted of photos, with what is asked for every photo and known since the first.

    Attributes:
        scores: Where the network's scores are.
        labels: Class names, as far as they are known.
    """

    scores: Scores
    labels: Labels
    _indices: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _targets: dict[int, Target] = field(default_factory=dict, repr=False)

    def indices(self, label: str | None) -> tuple[int, ...]:
        """Classes that a label names."""
        if label is None:
            return ()
        if label not in self._indices:
            self._indices[label] = class_indices(
                label, self.labels.names, self.scores.classes, self.labels.ids
            )
        return self._indices[label]

    def rows(self, labels: Sequence[str | None], values: Array) -> list[Row | ExplainedError]:
        """The columns of each photo, or why nothing is predicted of it.

        Args:
            labels: Of each photo.
            values: Scores (N, K).
        """
        wanted = [self.indices(label) for label in labels]
        found: list[Row | ExplainedError] = []
        # A photo whose scores are not numbers is refused, and none of those beside it.
        finite = np.isfinite(values).all()
        for some in [slice(None)] if finite else [slice(r, r + 1) for r in range(len(values))]:
            counts = [_TOP if own else 1 for own in wanted[some]]
            try:
                best = predictions_of_all(
                    self.scores, self.labels.names, values[some], counts, self._targets
                )
            except ExplainedError as error:
                found += [error] * len(values[some])
                continue
            found += map(self._row, best, wanted[some], values[some])
        return found

    def _row(self, best: Sequence[Row], wanted: Sequence[int], values: Array) -> Row:
        """The columns of one photo, by its best classes and those that its label names."""
        made: Row = {
            "predicted": best[0]["label"],
            "index": best[0]["index"],
            "probability": best[0].get("probability"),
        }
        if wanted:
            made["correct"] = best[0]["index"] in wanted
            made["in_top5"] = any(one["index"] in wanted for one in best)
            if made["probability"] is None:
                return made
            try:
                every = probabilities_of(values[None], source_of(self.scores, values))[0]
            except MethodRefused:
                return made
            if max(wanted) < every.size:
                own = every[list(wanted)]
                # Those of a softmax exclude each other; sigmoids do not, and add up to more than 1.
                excluded = self.scores.activation != "sigmoid"
                made["label_probability"] = float(own.sum() if excluded else own.max())
        return made
