"""The two networks of a comparison, opened, and which classes of them are the same."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inspector.errors import UsageError
from inspector.explain import Explainer, load
from inspector.network.outputs.labels import Labels

__all__ = ["Classes", "blank_of", "opened_pair"]


def blank_of(model: Explainer) -> np.ndarray[Any, Any]:
    """An input of zeros, (1, C, H, W)."""
    size = model.size(*model.preprocessing.preprocess.size)
    return np.zeros((1, model.input.channels, *size), np.float32)


def opened_pair(
    a: str | Path | Explainer, b: str | Path | Explainer
) -> tuple[Explainer, Explainer, list[str]]:
    """Both networks; preprocessing that one of them does not tell is taken from the other."""
    left, right = (m if isinstance(m, Explainer) else load(m) for m in (a, b))
    for one in (left, right):
        one.require_pictures("comparing")
    notes = []
    count = left.scores.classes, right.scores.classes
    if left.scores.classifier != right.scores.classifier or (
        None not in count and count[0] != count[1]
    ):
        shown = [
            f"{c or 'unknown'} classes" if m.scores.classifier else "no class scores"
            for m, c in zip((left, right), count, strict=True)
        ]
        raise UsageError(
            f"not two networks of one task: {shown[0]} against {shown[1]}",
            where=f"{left.path.name} and {right.path.name}",
        )
    if _may_borrow(right, left):
        right = _borrowing(right, left)
        notes.append("B does not tell its preprocessing: that of A is used")
    elif _may_borrow(left, right):
        left = _borrowing(left, right)
        notes.append("A does not tell its preprocessing: that of B is used")
    return left, right, notes


def _may_borrow(to: Explainer, of: Explainer) -> bool:
    # A guessed scale of 1 means that the graph normalises by itself.
    same = to.input.channels == of.input.channels and to.input.bounds == of.input.bounds
    guess = to.preprocessing.guessed and to.preprocessing.preprocess.scale != 1
    return same and guess and not of.preprocessing.guessed


def _borrowing(to: Explainer, of: Explainer) -> Explainer:
    settings = replace(of.preprocessing.preprocess, layout=to.input.layout)
    size = to.size(*settings.size)
    labels = to.class_labels.names or of.class_labels.names
    return Explainer(
        to.file,
        device=to.device,
        preprocess=replace(settings, size=size),
        labels=labels or None,
        execution=to.model.execution,
    )


@dataclass(frozen=True)
class Classes:
    """Which class of B is a class of A: by index, or by label where labels are in other order."""

    to_b: tuple[int, ...] = ()
    note: str = ""

    @classmethod
    def of(cls, a: Labels, b: Labels) -> "Classes":
        """From the labels of both."""
        if not a.names or not b.names or a.names == b.names:
            return cls()
        places = {name: index for index, name in enumerate(b.names)}
        if set(a.names) == set(places) and len(places) == len(a.names) == len(b.names):
            order = tuple(places[name] for name in a.names)
            return cls(order, "the classes stand in another order in B: matched by their labels")
        return cls(note="the networks' labels differ: classes are matched by their index")

    def in_b(self, index: int) -> int:
        """B's index of a class of A."""
        return self.to_b[index] if self.to_b and index < len(self.to_b) else index

    def in_a(self, index: int) -> int:
        """A's index of a class of B."""
        return self.to_b.index(index) if index in self.to_b else index
