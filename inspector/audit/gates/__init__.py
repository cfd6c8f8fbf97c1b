"""Gates of `inspector audit`: bounds on numbers of its report, read before the first photo.

``--fail-if 'top1 < 0.8'`` states what must *not* be.  A gate is read and its names are looked up
before a photo is opened (:func:`parse`), a list of gates that no report can pass is refused
(:func:`check`), and the report's numbers are put in when the run is done (:meth:`Gate.evaluate`).
What has no value could not be checked, which is never "passed".  The grammar stands in
:mod:`inspector.audit.gates.grammar` and in ``docs/gates.md``.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.plain_values import parse_toml
from converters.regular_file import read_regular
from inspector.audit.gates.grammar import Comparison, Name, Node, Not, read
from inspector.audit.gates.names import Names, Number, numbers
from inspector.audit.gates.ranges import Budget, can_hold
from inspector.errors import UsageError, nearest
from inspector.printable import clean_text

__all__ = ["GATES", "Gate", "Names", "Outcome", "check", "parse", "read_gates", "verdict"]

GATES = 200
"""Most gates of a run."""

COMMAND_LINE = "command line"

_MAX_BYTES = 2**20
_SAID = 3

_TESTS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_WORDS = {
    "<": ("below", "not below"),
    "<=": ("at most", "above"),
    ">": ("above", "not above"),
    ">=": ("at least", "below"),
    "==": ("equal to", "not equal to"),
    "!=": ("not equal to", "equal to"),
}


@dataclass(frozen=True)
class Outcome:
    """What a report says of a gate.

    Attributes:
        value: The number that the gate speaks of; None when it has none, or speaks of several.
        failed: Whether the gate failed; None when it could not be checked.
        text: The sentence for people.
    """

    value: float | None
    failed: bool | None
    text: str


@dataclass(frozen=True)
class Gate:
    """A condition under which the audit fails.

    Attributes:
        text: The condition as it was written.
        source: Where it was declared: "command line" or a file's name.
        condition: The condition, read.
        numbers: What the names in it mean.
    """

    text: str
    source: str
    condition: Node
    numbers: Mapping[Name, Number]

    def evaluate(self, document: Mapping[str, Any]) -> Outcome:
        """Put the numbers of a report in.

        Args:
            document: The report as plain data, as `report.json` holds it.

        Example:
            >>> from inspector.audit.gates import parse
            >>> report = {"summary": {"top1": {"value": 0.75, "low": 0.7, "high": 0.8}}}
            >>> parse("top1 < 0.8").evaluate(report).text
            'top1 is 0.75, below 0.8'
            >>> parse("inside_box < 0.5").evaluate(report).failed is None
            True
        """
        found = _evaluated(self.condition, self.numbers, document)
        values = dict(
            value for number in self.numbers.values() for value in number.values(document)
        )
        value = next(iter(values.values())) if len(values) == 1 else None
        text = "; ".join(dict.fromkeys(found.said))
        if found.holds is None:
            text = f"could not be checked: {text}"
        return Outcome(value, found.holds, clean_text(text, limit=1_000))

    def row(self, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The gate as an entry of the report's ``thresholds``.

        Args:
            document: The report; None before the run, when nothing is known yet.
        """
        declared: dict[str, Any] = {"fail_if": self.text, "source": self.source}
        if document is None:
            return declared
        found = self.evaluate(document)
        return {**declared, "value": found.value, "failed": found.failed, "text": found.text}


def parse(text: str, names: Names | None = None, *, source: str = COMMAND_LINE) -> Gate:
    """Read a gate.

    Args:
        text: The condition under which the audit fails, such as ``top1 < 0.8``.
        names: Classes, groups and comparisons of the run, as far as they are known.
        source: Where it was declared.

    Raises:
        UsageError: It does not follow the grammar, names a number that no report has, or can
            never fail, or always does.
    """
    condition = read(text)
    meant: dict[Name, Number] = {}
    where = f"gate {clean_text(text)!r}"
    for comparison in _comparisons(condition):
        used = [side for side in (comparison.left, comparison.right) if isinstance(side, Name)]
        if not used:
            raise UsageError(
                "compares two constants", where=where, hint="name a number of the report"
            )
        for name in used:
            meant.setdefault(name, numbers(name, names))
        if len(used) == 2:
            _check_pair(used, meant, where)
    if not can_hold([(condition, True)], meant):
        raise UsageError("can never fail", where=where, hint=_ranges(meant))
    if not can_hold([(condition, False)], meant):
        raise UsageError("always fails", where=where, hint=_ranges(meant))
    return Gate(text, source, condition, meant)


def check(gates: Sequence[Gate]) -> None:
    """Refuse gates that cannot be passed together.

    Raises:
        UsageError: There are too many, or no report passes all of them: ``top1 < 0.8`` beside
            ``top1 > 0.5`` leaves `top1` no value.
    """
    if len(gates) > GATES:
        raise UsageError(f"{len(gates):,} gates; at most {GATES} are checked")
    if _passable(gates):
        return
    budget = Budget()
    pairs = ((a, b) for i, a in enumerate(gates) for b in gates[i + 1 :])
    contrary = next((pair for pair in pairs if not _passable(pair, budget)), None) or gates
    raise UsageError(
        "no report can pass these gates together: "
        + ", ".join(repr(clean_text(gate.text)) for gate in contrary),
        hint="a gate states what must not be: 'top1 < 0.8' fails below 0.8",
    )


def read_gates(path: Path, names: Names | None = None) -> list[Gate]:
    """Gates of the table ``[thresholds]`` of a TOML file.

    Args:
        path: The file, such as `audit.toml`, with ``fail-if = ["top1 < 0.8"]`` in that table.
        names: As :func:`parse`.

    Raises:
        UsageError: It cannot be read, is not TOML, has no such table, or other keys in it; or as
            :func:`parse`.  Whoever names a file of thresholds must not pass for want of any.
    """
    where = str(path)
    try:
        contents = parse_toml(read_regular(path, _MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=where) from None
    except ValueError as error:
        raise UsageError(f"not valid TOML ({clean_text(str(error))})", where=where) from None
    hint = "write [thresholds] and below it fail-if = ['top1 < 0.8']"
    table = _thresholds_in(contents, where, hint)
    texts = table.get("fail-if", [])
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError("fail-if is not a list of texts", where=where, hint=hint)
    if len(texts) > GATES:
        raise UsageError(f"{len(texts):,} gates; at most {GATES} are checked", where=where)
    try:
        return [parse(text, names, source=path.name) for text in texts]
    except UsageError as error:
        raise UsageError(
            error.what, where=f"{where}: {error.where}" if error.where else where, hint=error.hint
        ) from None


def _thresholds_in(contents: Mapping[str, Any], where: str, hint: str) -> Mapping[str, Any]:
    """The table ``[thresholds]``, which holds nothing but ``fail-if``.

    Raises:
        UsageError: It is not there, or something else is.
    """
    loose = next((key for key in contents if key.replace("_", "-") == "fail-if"), None)
    if loose is not None:
        raise UsageError(f"{loose} stands outside of [thresholds]", where=where, hint=hint)
    if "thresholds" not in contents:
        near = next(filter(None, (nearest(key, ["thresholds"]) for key in contents)), "")
        raise UsageError("has no table [thresholds]", where=where, hint=near or hint)
    table = contents["thresholds"]
    if not isinstance(table, dict):
        raise UsageError("thresholds is not a table", where=where, hint=hint)
    for key in table:
        if key != "fail-if":
            what = f"[thresholds] has no key {clean_text(key)!r}"
            raise UsageError(what, where=where, hint=nearest(key, ["fail-if"]) or hint)
    return table


def verdict(thresholds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict over the report's ``thresholds``, as an entry of the report.

    Args:
        thresholds: Rows of :meth:`Gate.row`.

    Returns:
        ``passed``: True when every gate was checked and none failed; None when there are no
        gates.  ``sentence`` and ``reasons`` say it in words.
    """
    if not thresholds:
        text = "No thresholds were declared, so nothing passed or failed."
        return {"passed": None, "sentence": text, "reasons": []}
    failed = [row for row in thresholds if row["failed"]]
    unknown = [row for row in thresholds if row["failed"] is None]
    if not failed and not unknown:
        text = f"Passed: {_thresholds(len(thresholds))} met."
        return {"passed": True, "sentence": text, "reasons": []}
    parts = [f"{_thresholds(len(failed))} not met"] if failed else []
    parts += [f"{_thresholds(len(unknown))} not checked"] if unknown else []
    text = f"Not passed, of {len(thresholds)} declared: {', '.join(parts)}."
    return {"passed": False, "sentence": text, "reasons": [r["text"] for r in (*failed, *unknown)]}


@dataclass(frozen=True)
class _Found:
    """Whether a condition holds (None: not known), and what is said of it."""

    holds: bool | None
    said: list[str]


def _evaluated(node: Node, meant: Mapping[Name, Number], document: Mapping[str, Any]) -> _Found:
    """A condition with three values: what has no number is neither true nor false (Kleene)."""
    if isinstance(node, Comparison):
        return _compared(node, meant, document)
    if isinstance(node, Not):
        found = _evaluated(node.inner, meant, document)
        return _Found(None if found.holds is None else not found.holds, found.said)
    parts = [_evaluated(part, meant, document) for part in node.parts]
    decides = node.word == "or"
    if any(part.holds is decides for part in parts):
        holds: bool | None = decides
    else:
        holds = None if any(part.holds is None for part in parts) else not decides
    return _Found(holds, [text for part in parts if part.holds is holds for text in part.said])


def _compared(
    node: Comparison, meant: Mapping[Name, Number], document: Mapping[str, Any]
) -> _Found:
    """One comparison; of a name with ``*`` it holds when it holds for any."""
    found = [
        _pair(node.sign, left, right)
        for left in _values(node.left, meant, document)
        for right in _values(node.right, meant, document)
    ]
    if not found:
        names = [str(side) for side in (node.left, node.right) if isinstance(side, Name)]
        return _Found(None, [f"there is no {' or '.join(names)}"])
    holds: bool | None = None if any(part.holds is None for part in found) else False
    if any(part.holds for part in found):
        holds = True
    said = [text for part in found if part.holds is holds for text in part.said]
    more = len(said) - _SAID
    return _Found(holds, said if more <= 0 else [*said[:_SAID], f"and {more:,} more"])


_Value = tuple[str | None, float | None, str]


def _values(
    side: Name | float, meant: Mapping[Name, Number], document: Mapping[str, Any]
) -> Iterator[_Value]:
    """Name (None of a constant), value, and why there may be none."""
    if isinstance(side, Name):
        number = meant[side]
        for name, value in number.values(document):
            yield name, value, number.reason
    else:
        yield None, side, ""


def _pair(sign: str, left: _Value, right: _Value) -> _Found:
    missing = [
        f"{name} has no value, {reason}" for name, value, reason in (left, right) if value is None
    ]
    if left[1] is None or right[1] is None:
        return _Found(None, missing)
    holds = _TESTS[sign](left[1], right[1])
    if left[0] is None:  # "0.8 > top1" is said as "top1 < 0.8"
        sign = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(sign, sign)
        left, right = right, left
    first, second = _shown(float(left[1] or 0), float(right[1] or 0))
    other = second if right[0] is None else f"{right[0]} ({second})"
    return _Found(holds, [f"{left[0]} is {first}, {_WORDS[sign][not holds]} {other}"])


def _shown(one: float, other: float) -> tuple[str, str]:
    """Two numbers as text, with so many digits that they differ when they do."""
    short = _digits(one), _digits(other)
    return (repr(one), repr(other)) if one != other and short[0] == short[1] else short


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 and value.is_integer() else f"{value:.4g}"


def _comparisons(node: Node) -> Iterator[Comparison]:
    if isinstance(node, Comparison):
        yield node
    elif isinstance(node, Not):
        yield from _comparisons(node.inner)
    else:
        for part in node.parts:
            yield from _comparisons(part)


def _check_pair(used: Sequence[Name], meant: Mapping[Name, Number], where: str) -> None:
    if meant[used[0]].name == meant[used[1]].name:
        raise UsageError("compares a number with itself", where=where)
    if used[0].every and used[1].every:
        raise UsageError("has '*' on both sides", where=where, hint="name one of the two")


def _passable(gates: Sequence[Gate], budget: Budget | None = None) -> bool:
    meant = {name: number for gate in gates for name, number in gate.numbers.items()}
    return can_hold([(gate.condition, False) for gate in gates], meant, budget)


def _ranges(meant: Mapping[Name, Number]) -> str:
    """What the numbers can be, where that is bounded."""
    texts = []
    for number in meant.values():
        if number.least is not None and number.most is not None:
            texts.append(f"{number.name} lies between {number.least:g} and {number.most:g}")
        elif number.least is not None:
            texts.append(f"{number.name} is never below {number.least:g}")
    return ", ".join(dict.fromkeys(texts))


def _thresholds(count: int) -> str:
    return f"{count} threshold{'' if count == 1 else 's'}"
