"""Two engines in one: what the first does not cover, the second does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from converters.errors import UnsupportedOperator
from inspector.engines import GradientEngine, Objective, Signals, tensors_of
from inspector.engines.relevance import RELEVANCE_RULES
from inspector.engines.rules import Coverage, Rule

__all__ = ["EitherEngine"]

Array = np.ndarray[Any, Any]


class EitherEngine:
    """Gradients by the first of two engines that covers what is asked; see ``GradientEngine``.

    Args:
        first: It refuses what it does not cover.
        other: Makes the engine for the rest, when it is first needed.
    """

    def __init__(self, first: GradientEngine, other: Callable[[], GradientEngine]) -> None:
        self._first, self._other = first, other
        self._refused: set[tuple[str | None, tuple[str, ...]]] = set()

    def signals(
        self,
        start: Mapping[str, Array],
        frontier: Mapping[str, Array],
        targets: Sequence[Objective],
        rule: Rule | None = None,
        *,
        known: Mapping[str, Array] | None = None,
    ) -> Signals:
        """Send the targets' scores back; see ``GradientEngine.signals``."""
        asked = (None if rule is None else rule.name, (*start, "", *tensors_of(targets)))
        relevance = rule is not None and rule.name in RELEVANCE_RULES
        if not relevance and asked not in self._refused:
            try:
                return self._first.signals(start, frontier, targets, rule, known=known)
            except UnsupportedOperator:
                self._refused.add(asked)
        return self._other().signals(start, frontier, targets, rule)

    def reads(self, start: Mapping[str, Array], targets: Sequence[str]) -> tuple[str, ...]:
        """Tensors that a forward pass had better keep; see ``GradientEngine.reads``."""
        return self._first.reads(start, targets)

    def scores(
        self,
        start: Mapping[str, Array],
        frontier: Mapping[str, Array],
        targets: Sequence[Objective],
    ) -> Array:
        """Scores from other values of some tensors; see ``GradientEngine.scores``."""
        return self._first.scores(start, frontier, targets)

    def coverage(self, start: str, targets: Sequence[str], rule: Rule) -> Coverage:
        """Which activations a rule reaches; see ``GradientEngine.coverage``."""
        relevance = rule.name in RELEVANCE_RULES
        return (self._other() if relevance else self._first).coverage(start, targets, rule)

    def require(self, start: str, target: str) -> None:
        """Refuse what neither covers; see ``GradientEngine.require``."""
        try:
            self._first.require(start, target)
        except UnsupportedOperator:
            self._other().require(start, target)
