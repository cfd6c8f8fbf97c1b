"""Names that a gate may use: numbers of the audit's report, and where each stands in it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from converters.plain_values import finite_number
from inspector.audit.gates.grammar import Name
from inspector.errors import UsageError, nearest
from inspector.measures.signal_error import METRICS as ERRORS

__all__ = ["CHOICES", "METRICS", "STATISTICS", "Names", "Number", "numbers"]

METRICS = {
    "top1": "no photo has a label",
    "top5": "no photo has a label",
    "confidence": "no photo has a probability",
    "inside_box": "no photo has a box",
    "box_area": "no photo has a box",
    "inside_mask": "no photo has a mask",
    "mask_area": "no photo has a mask",
    "pointing": "no photo has a box",
    "pointing_centre": "no photo has a box",
    "border": "no photo has a map",
    "entropy": "no photo has a map",
    "drop": "it was not measured",
    "increase": "it was not measured",
    "empty": "no photo has a map",
    "seconds": "no photo was timed",
}
"""Metrics of a set of photos, and why one may have no value."""

STATISTICS = ("value", "mean", "low", "high", "photos")
"""Numbers of a metric; ``mean`` is another word for ``value``."""

_LISTED = 12

_NONE = {
    "class": "the data set names no classes: give labels in folders' names or in a column `label`",
    "group column": "the data set has no group columns: of a .csv or .parquet file every column "
    "beside image, label, boxes and mask is one",
}
"""What to do where a data set has nothing of a kind."""

_COUNTS = ("photos", "audited", "refused", "suspicious", "clusters", "warnings")
_FINDINGS = ("total", "confirmed", "refuted", "untested", "error", "warning", "note")
_FAITHFULNESS = ("map", "random", "edges", "centre")
_ROOTS = (
    *METRICS,
    *_COUNTS,
    "class",
    "group",
    "calibration",
    "faithfulness",
    "findings",
    "compare",
    "lock",
)
_LOCK = ("moved", "outputs", "maps", "numbers")
_Bounds = tuple[float | None, float | None]
_OF_COMPARISON: dict[str, _Bounds] = {
    "flip_rate": (0.0, 1.0),
    "probability_shift": (0.0, 1.0),
    "cosine": (-1.0, 1.0),
    "mse": (0.0, None),
    "max_abs": (0.0, None),
    "moved": (0.0, 1.0),
    "layers_apart": (0.0, None),
    "unequal": (0.0, 1.0),
}
_SHARES = set(METRICS) - {"entropy", "drop", "seconds"}

CHOICES = "metrics: " + ", ".join(METRICS) + "; others: " + ", ".join(_ROOTS[len(METRICS) :])
"""What a gate's name may begin with."""


@dataclass(frozen=True)
class Names:
    """What is known of a run before a photo is opened; None is "not known yet".

    Attributes:
        classes: Class names of the data set.
        groups: For each group column its values, None where they are not known.
        compare: Numbers of the comparison with another model; empty when there is none.
        outputs: Outputs that are compared with it.
        lock: Whether the run is checked against a lock.
    """

    classes: Collection[str] | None = None
    groups: Mapping[str, Collection[str] | None] | None = None
    compare: Collection[str] | None = None
    outputs: Collection[str] | None = None
    lock: bool | None = None


@dataclass(frozen=True)
class Number:
    """A number that a gate speaks of.

    Attributes:
        name: Its one spelling: without ``.value`` and ``.mean``.
        base: The name without its statistic: ``top1`` of ``top1.low``.
        statistic: ``value``, ``low``, ``high``, ``photos``; empty for plain numbers.
        least: Smallest number that it can be; None when it has no bound.
        most: Largest likewise.
        whole: Whether it counts something.
        reason: Why it may have no value.
        values: Its values in a report: one, or one per name that ``*`` stands for.
    """

    name: str
    base: str
    statistic: str
    least: float | None
    most: float | None
    whole: bool
    reason: str
    values: Callable[[Mapping[str, Any]], Iterator[tuple[str, float | None]]] = field(compare=False)


def numbers(name: Name, names: Names | None = None) -> Number:
    """The number that a name means.

    Raises:
        UsageError: There is no such number, with the nearest names.
    """
    return _Resolver(name, names or Names()).number()


class _Resolver:
    """One name on its way through the report's parts."""

    def __init__(self, name: Name, names: Names) -> None:
        self.name, self.names = name, names

    def number(self) -> Number:
        root, *rest = self.name.parts
        if 0 in self.name.every or root not in _ROOTS:
            raise self._unknown(root, _ROOTS, CHOICES)
        if root in METRICS:
            return self._metric(("summary",), 0)
        if root in _COUNTS:
            self._length(1)
            return self._count()
        if root == "calibration":
            return self._calibration()
        resolve = {
            "class": self._class,
            "group": self._group,
            "faithfulness": self._faithfulness,
            "findings": self._findings,
            "compare": self._compare,
            "lock": self._lock,
        }[root]
        return resolve(rest)

    def _class(self, rest: list[str]) -> Number:
        if len(rest) < 2:
            raise self._short("class.NAME.METRIC, for example class.dog.top1")
        self._known(1, self.names.classes, "class")
        return self._metric(("class", 1), 2)

    def _group(self, rest: list[str]) -> Number:
        if len(rest) < 3:
            raise self._short("group.COLUMN.VALUE.METRIC, for example group.site.A.top1")
        groups = self.names.groups
        if 1 in self.name.every:
            raise self._error("'*' cannot stand for a group column", "name the column")
        self._known(1, groups, "group column")
        self._known(2, None if groups is None else groups.get(rest[0]), "value of the group")
        return self._metric(("group", 1, 2), 3)

    def _calibration(self) -> Number:
        self._length(2)
        self._choice(1, ("error",))
        reason = "no photo has a label and a probability"
        return self._plain(("calibration", "error"), 0.0, 1.0, reason)

    def _faithfulness(self, rest: list[str]) -> Number:
        if len(rest) < 2:
            raise self._short("faithfulness.MEASURE.map, for example faithfulness.deletion.map")
        self._choice(2, _FAITHFULNESS)
        return self._statistic(("faithfulness", 1, 2), 3, "it was not measured", share=False)

    def _findings(self, rest: list[str]) -> Number:
        self._length(2, 1)
        kind = rest[0] if rest else "total"
        if rest:
            self._choice(1, _FINDINGS)

        def values(document: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
            found = document.get("findings")
            yield spelled, _findings_of(kind, found) if isinstance(found, list) else None

        spelled = f"findings.{kind}"
        return Number(spelled, spelled, "", 0.0, None, True, "findings were not looked for", values)

    def _compare(self, rest: list[str]) -> Number:
        known = self.names.compare
        if known is not None and not known:
            raise self._error(
                "this run compares with no other model", "name it with --reference MODEL"
            )
        if not rest:
            raise self._short("compare.NUMBER, for example compare.flip_rate.high")
        at = 1
        if rest[0] == "output":
            if len(rest) < 3:
                raise self._short("compare.output.NAME.ERROR, for example compare.output.y.sqnr")
            self._known(2, self.names.outputs, "output that is compared")
            self._choice(3, (*ERRORS, "unequal"))
            at = 3
        else:
            self._known(1, known, "number of the comparison")
        bounds = _OF_COMPARISON.get(self.name.parts[at], (None, None))
        return self._statistic(
            ("compare", *range(1, at + 1)),
            at + 1,
            "there is no comparison",
            share=False,
            bounds=bounds,
        )

    def _lock(self, rest: list[str]) -> Number:
        if self.names.lock is False:
            raise self._error("this run is checked against no lock", "name it with --against FILE")
        if not rest:
            raise self._short("lock.moved")
        self._length(2)
        self._choice(1, _LOCK)
        return self._plain(("lock", rest[0]), 0.0, None, "nothing was checked", whole=True)

    def _metric(self, path: tuple[str | int, ...], at: int) -> Number:
        """A metric of the photos that the path leads to."""
        metric = self.name.parts[at]
        if metric == "photos":
            self._length(at + 1)
            return self._plain((*path, "photos"), 0.0, None, "it was not counted", whole=True)
        self._choice(at, tuple(METRICS), also="photos")
        return self._statistic((*path, metric), at + 1, METRICS[metric], share=metric in _SHARES)

    def _statistic(
        self,
        path: tuple[str | int, ...],
        at: int,
        reason: str,
        *,
        share: bool,
        bounds: _Bounds = (None, None),
    ) -> Number:
        """A statistic of what the path leads to; its value when the name says none."""
        self._length(at + 1, at)
        chosen = "value"
        if len(self.name.parts) > at:
            self._choice(at, STATISTICS)
            chosen = "value" if self.name.parts[at] == "mean" else self.name.parts[at]
        seconds = "seconds" in path or "entropy" in path
        counts = chosen == "photos"
        least = 0.0 if share or counts or seconds else bounds[0]
        most = 1.0 if share and not counts else (None if counts else bounds[1])
        base = str(Name(self.name.parts[:at], self.name.every))
        spelled = base if chosen == "value" else f"{base}.{chosen}"
        return Number(
            spelled, base, chosen, least, most, counts, reason, self._reader(path, chosen)
        )

    def _plain(
        self,
        path: tuple[str | int, ...],
        least: float | None,
        most: float | None,
        reason: str,
        *,
        whole: bool = False,
    ) -> Number:
        spelled = str(self.name)
        return Number(spelled, spelled, "", least, most, whole, reason, self._reader(path, None))

    def _count(self) -> Number:
        """How many of something the report lists."""
        name = self.name.parts[0]

        def values(document: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
            data = document.get("data") or {}
            found = (data if name in data else document).get(name)
            yield name, float(len(found)) if isinstance(found, list) else finite_number(found)

        return Number(name, name, "", 0.0, None, True, "it was not counted", values)

    def _reader(
        self, path: tuple[str | int, ...], statistic: str | None
    ) -> Callable[[Mapping[str, Any]], Iterator[tuple[str, float | None]]]:
        """Function that reads the number; whole numbers of the path are parts of the name."""

        def walk(found: Any, at: int, said: tuple[str, ...]) -> Iterator[tuple[str, float | None]]:
            if at == len(path):
                # A comparison holds plain numbers and statistics alike.
                if isinstance(found, Mapping) and statistic is not None:
                    found = found.get(statistic)
                elif statistic not in {None, "value"}:
                    found = None
                yield str(Name(said, frozenset())), finite_number(found)
                return
            step = path[at]
            below = found if isinstance(found, Mapping) else {}
            if isinstance(step, int) and step in self.name.every:
                for key in below:
                    yield from walk(below[key], at + 1, _with(said, step, str(key)))
                return
            key = self.name.parts[step] if isinstance(step, int) else step
            yield from walk(below.get(key), at + 1, said)

        return lambda document: walk(document, 0, self.name.parts)

    def _known(self, at: int, names: Collection[str] | None, what: str) -> None:
        part = self.name.parts[at]
        if at in self.name.every or names is None or part in names:
            return
        listed = ", ".join(sorted(names)[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        there_are = f"there are: {listed}" if names else _NONE.get(what, "there are none")
        raise self._error(
            f"there is no {what} {part!r}",
            "; ".join(filter(None, (nearest(part, names), there_are))),
        )

    def _choice(self, at: int, choices: tuple[str, ...], also: str = "") -> None:
        part = self.name.parts[at]
        if part not in choices or at in self.name.every:
            allowed = (*choices, also) if also else choices
            raise self._unknown(part, allowed, "one of " + ", ".join(allowed))

    def _length(self, most: int, least: int | None = None) -> None:
        parts = self.name.parts
        if len(parts) > most:
            raise self._error(f"nothing stands behind {str(Name(parts[:most]))!r}", "leave it out")
        if len(parts) < (most if least is None else least):
            raise self._short(f"{parts[0]}.NAME")

    def _short(self, form: str) -> UsageError:
        return self._error("is not a number by itself", f"write {form}")

    def _unknown(self, part: str, names: Collection[str], otherwise: str) -> UsageError:
        return self._error(f"there is no {part!r}", nearest(part, names) or otherwise)

    def _error(self, what: str, hint: str) -> UsageError:
        return UsageError(what, where=f"name {str(self.name)!r} of a gate", hint=hint)


def _with(parts: tuple[str, ...], at: int, part: str) -> tuple[str, ...]:
    return (*parts[:at], part, *parts[at + 1 :])


def _findings_of(kind: str, findings: list[Mapping[str, Any]]) -> float:
    """How many findings are of a kind: a level, or what their test by intervention said."""
    tested = {"confirmed": True, "refuted": False, "untested": None}
    if kind == "total":
        return float(len(findings))
    if kind in tested:
        return float(sum(found.get("confirmed") is tested[kind] for found in findings))
    return float(sum(found.get("level") == kind for found in findings))
