"""Gates that contradict one another: ranges of numbers that pass them all.

What passes a gate is a list of cases; each gives numbers of the report a range.  Several gates can
be passed when some case of all of them together leaves every number a place.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from inspector.audit.gates.grammar import Comparison, Name, Node, Not
from inspector.audit.gates.names import Number

__all__ = ["STEPS", "Budget", "can_hold"]

STEPS = 20_000
"""Ranges that are joined; gates that need more are taken as not contradicting one another."""

_CONTRARY = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_ORDER = ("low", "value", "high")


@dataclass(frozen=True)
class _Range:
    """Numbers between two ends, which belong to it or not."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    @property
    def empty(self) -> bool:
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def __and__(self, other: "_Range") -> "_Range":
        low = max((self.low, self.low_open), (other.low, other.low_open))
        high = min((self.high, not self.high_open), (other.high, not other.high_open))
        return _Range(low[0], high[0], low[1], not high[1])

    def whole(self) -> "_Range":
        """The whole numbers of it."""
        low, high = self.low, self.high
        if math.isfinite(low):
            low = math.floor(low) + 1 if self.low_open else math.ceil(low)
        if math.isfinite(high):
            high = math.ceil(high) - 1 if self.high_open else math.floor(high)
        return _Range(float(low), float(high))


_Case = dict[str, _Range]


class Budget:
    """Work that a search for contradictions may cost.

    Args:
        steps: Ranges that may be joined.
    """

    def __init__(self, steps: int = STEPS) -> None:
        self.left = steps

    def take(self, steps: int) -> None:
        """Count some steps.

        Raises:
            OverflowError: So many are not left.
        """
        self.left -= steps
        if self.left < 0:
            raise OverflowError


def can_hold(
    conditions: Iterable[tuple[Node, bool]],
    numbers: Mapping[Name, Number],
    budget: Budget | None = None,
) -> bool:
    """Whether conditions can hold together, as far as ranges of numbers show.

    Args:
        conditions: Each with whether it is to hold (True) or its contrary (False).
        numbers: What the names in them mean.
        budget: What the search may cost; :data:`STEPS` when None.

    Returns:
        False when no numbers meet them all; True otherwise, and when the budget runs out.
    """
    search = _Search(numbers, budget or Budget())
    try:
        return bool(search.all_of(conditions))
    except OverflowError:
        return True


class _Search:
    """Cases of conditions, of which those without a place for a number are dropped."""

    def __init__(self, numbers: Mapping[Name, Number], budget: Budget) -> None:
        self.numbers, self.budget = numbers, budget
        self.known = {number.name: number for number in numbers.values()}

    def all_of(self, conditions: Iterable[tuple[Node, bool]]) -> list[_Case]:
        """Cases in which all conditions hold; each stands for itself once."""
        cases: list[_Case] = [{}]
        for node, holds in conditions:
            more = self.of(node, holds=holds)
            found = []
            for case in cases:
                for other in more:
                    self.budget.take(1 + len(other) + len(case) // 16)
                    joined = _together(case, other)
                    if _possible(joined, other, self.known):
                        found.append(joined)
            cases = found
        return cases

    def of(self, node: Node, *, holds: bool) -> list[_Case]:
        """Cases in which a condition, or its contrary, holds."""
        if isinstance(node, Not):
            return self.of(node.inner, holds=not holds)
        if isinstance(node, Comparison):
            return list(_of_comparison(node, self.numbers, holds=holds))
        if (node.word == "or") is holds:
            return [case for part in node.parts for case in self.of(part, holds=holds)]
        return self.all_of((part, holds) for part in node.parts)


def _of_comparison(
    node: Comparison, numbers: Mapping[Name, Number], *, holds: bool
) -> Iterator[_Case]:
    left, sign, right = node.left, node.sign, node.right
    if not isinstance(left, Name):
        left, sign, right = right, _TURNED[sign], left
    if not isinstance(left, Name) or isinstance(right, Name):
        yield {}  # two numbers of the report: nothing is known of them
        return
    number = numbers[left]
    cases = _ranges_of(number.name, sign if holds else _CONTRARY[sign], right)
    if not (left.every and holds):
        yield from cases
    elif any(_possible(case, case, {number.name: number}) for case in cases):
        yield {}  # any of them: each such comparison may hold for another one


def _ranges_of(name: str, sign: str, right: float) -> Iterator[_Case]:
    if sign == "!=":
        yield {name: _Range(high=right, high_open=True)}
        yield {name: _Range(low=right, low_open=True)}
    elif sign == "==":
        yield {name: _Range(right, right)}
    elif sign.startswith("<"):
        yield {name: _Range(high=right, high_open=sign == "<")}
    else:
        yield {name: _Range(low=right, low_open=sign == ">")}


def _together(one: _Case, other: _Case) -> _Case:
    joined = dict(one)
    for name, part in other.items():
        joined[name] = joined.get(name, _Range()) & part
    return joined


def _possible(case: _Case, changed: Iterable[str], known: Mapping[str, Number]) -> bool:
    """Whether every number that changed has a place, also with low <= value <= high."""
    for name in changed:
        number = known[name]
        if _bounded(case[name], number).empty:
            return False
        if number.statistic in _ORDER and not _in_order(case, number, known):
            return False
    return True


def _bounded(part: _Range, number: Number) -> _Range:
    """The part of a range that the number can be in."""
    least = -math.inf if number.least is None else number.least
    most = math.inf if number.most is None else number.most
    found = part & _Range(least, most)
    return found.whole() if number.whole else found


def _in_order(case: _Case, number: Number, known: Mapping[str, Number]) -> bool:
    """Whether a statistic's lower end, value and upper end can be in ascending order."""
    low, low_open = -math.inf, False
    for statistic in _ORDER:
        name = number.base if statistic == "value" else f"{number.base}.{statistic}"
        if name not in case:
            continue
        part = _bounded(case[name], known[name]) & _Range(low=low, low_open=low_open)
        if part.empty:
            return False
        low, low_open = part.low, part.low_open
    return True
