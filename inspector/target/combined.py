"""Sums of targets with signs: ``sum(3; 5)`` of two classes, ``sum(cat; -dog)`` for a difference.

Parts are parted by semicolons, because commas part targets, and stand in brackets, because names of
classes hold any other sign.  A class that is itself called so is found first.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inspector.errors import UnknownTarget
from inspector.target.number import Target

__all__ = ["Sum", "parts_of", "pieces_with_sums", "summed"]

_START = re.compile(r"(?:^|,)\s*(-?\s*sum\s*\()", re.IGNORECASE)
_SUM = re.compile(r"sum\s*\((?P<parts>.*)\)", re.IGNORECASE | re.DOTALL)
_MOST = 64
"""Parts of a sum."""


@dataclass(frozen=True)
class Sum(Target):
    """The sum of several targets, of one tensor or of several.

    Attributes:
        parts: The targets, each with its own sign.
    """

    parts: tuple[Target, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors that the parts are read from, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.tensors))

    @property
    def elements(self) -> tuple[Target, ...]:
        """The targets of one tensor each, sums in sums included."""
        return tuple(one for part in self.parts for one in part.elements)

    @property
    def terms(self) -> tuple[tuple[int, int], ...]:
        """Classes and signs of all parts; empty where one of them is not a class."""
        found = [part.terms for part in self.parts]
        if not all(found):
            return ()
        return tuple((index, self.sign * sign) for part in found for index, sign in part)

    @property
    def read_from(self) -> tuple[str, ...]:
        """Tensors that the parts are measured by when the image is changed."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.read_from))

    @property
    def moves(self) -> bool:
        """Whether one of the parts changes its place when the image is changed."""
        return any(part.moves for part in self.parts)

    def measured(self, values: Mapping[str, Any]) -> float:
        """The number on a changed image, from the tensors of one sample (1, ...)."""
        return self.sign * sum(part.measured(values) for part in self.parts)

    def of(self, values: Mapping[str, Any]) -> Any:
        """The sum for each sample; see ``Target.of``."""
        total = self.parts[0].of(values)
        for part in self.parts[1:]:
            total = total + part.of(values)
        return total if self.sign > 0 else -total

    @property
    def linear(self) -> bool:
        """Whether all parts are."""
        return all(part.linear for part in self.parts)

    def slope(self, values: Mapping[str, Any], tensor: str) -> Any:
        """Derivative of the sum by a tensor of its parts; see ``Target.slope``."""
        own = [part for part in self.parts if tensor in part.tensors]
        return self.sign * sum(part.slope(values, tensor) for part in own)


def summed(named: Sequence[tuple[str, Target]]) -> Target:
    """A sum of targets; one alone is itself.

    Args:
        named: The words of each part, and what they mean, its sign included.

    Raises:
        UnknownTarget: They are none, or too many.
    """
    targets = [target for _, target in named]
    if not 1 <= len(targets) <= _MOST:
        raise UnknownTarget(f"a sum of {len(targets)} parts", hint=f"1 to {_MOST} are meant")
    if len(targets) == 1:
        return targets[0]
    return Sum(
        " + ".join(dict.fromkeys(name for target in targets for name in target.tensors)),
        (),
        _label(named),
        note="; ".join(dict.fromkeys(filter(None, (target.note for target in targets)))),
        parts=tuple(targets),
    )


def _label(named: Iterable[tuple[str, Target]]) -> str:
    """``cat - dog``."""
    words: list[str] = []
    for text, target in named:
        minus = text.lstrip().startswith("-")
        label = target.label
        if minus:
            label = label.removeprefix("not ").removeprefix("-")
        words.append(("- " if minus else "+ " if words else "") + label)
    return " ".join(words)


def parts_of(text: str) -> list[str] | None:
    """Words of the parts of ``sum(A; -B)``; None for any other text."""
    found = _SUM.fullmatch(text.strip())
    if found is None:
        return None
    return [part.strip() for part in found["parts"].split(";") if part.strip()]


def _by_commas(text: str) -> list[str]:
    """Split at commas that are not inside brackets."""
    pieces = [piece.strip() for piece in re.split(r",(?![^\[\]]*\])", text)]
    return [piece for piece in pieces if piece]


def pieces_with_sums(text: str, split: Callable[[str], Iterable[str]] = _by_commas) -> list[str]:
    """Targets of a list with commas, in which a sum is one.

    Args:
        text: The user's words.
        split: Parts a list without sums; at commas outside of brackets by default.
    """
    found: list[str] = []
    rest = text
    while start := _START.search(rest):
        end = _closing(rest, start.end() - 1)
        behind = "" if end is None else rest[end + 1 :].lstrip()
        if end is None or (behind and not behind.startswith(",")):  # part of a name
            break
        found += [*split(rest[: start.start()]), rest[start.start(1) : end + 1]]
        rest = behind.removeprefix(",")
    return [*found, *split(rest)]


def _closing(text: str, start: int) -> int | None:
    """Place of the bracket that closes the one at ``start``."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    return None
