"""Grammar of the gates of `inspector audit`: from text to comparisons; nothing is executed.

    gate       = both { "or" both } ;
    both       = negated { "and" negated } ;
    negated    = "not" negated | "(" gate ")" | comparison ;
    comparison = operand ( "<" | "<=" | ">" | ">=" | "==" | "!=" ) operand ;
    operand    = number | name ;
    name       = word { "." part } ;
    part       = word | quoted text | "*" ;

A word is made of letters, digits, ``_`` and ``-``.  Text of other characters, such as a class name
with a space or a dot, stands in single or double quotes; a backslash takes the next character as it
is.  Numbers are decimal, with an optional sign and exponent.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from converters.plain_values import finite_number
from inspector.errors import UsageError
from inspector.printable import clean_text

__all__ = ["DEPTH", "LENGTH", "Comparison", "Joined", "Name", "Node", "Not", "read", "written"]

LENGTH = 2_000
"""Most characters of a gate."""

DEPTH = 16
"""Most parentheses and ``not`` within one another."""

_EXAMPLE = "write it like 'top1 < 0.8' or 'class.\"tiger cat\".inside_box.low < 0.5'"
_WORD = r"[^\W\d][\w-]*"
_QUOTED = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'"
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    |(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
    |(?P<name>{_WORD}(?:\.(?:[\w-]+|\*|{_QUOTED}))*(?![\w."'*]))
    |(?P<sign><=|>=|==|!=|<|>)
    |(?P<bracket>[()])""",
    re.VERBOSE | re.DOTALL,
)
_PART = re.compile(rf"(?:^|\.)(?:([\w-]+|\*)|({_QUOTED}))", re.DOTALL)
_PLAIN = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Name:
    """A number of the report: its parts, as in ``class.dog.top1``.

    Attributes:
        parts: The parts; quotes are taken off.
        every: Positions of the parts that stand for every name (an unquoted ``*``).
    """

    parts: tuple[str, ...]
    every: frozenset[int] = frozenset()

    def __str__(self) -> str:
        """The name as it can be written in a gate."""
        return ".".join(
            part if i in self.every else written(part) for i, part in enumerate(self.parts)
        )


@dataclass(frozen=True)
class Comparison:
    """Two operands and the sign between them."""

    left: Name | float
    sign: str
    right: Name | float


@dataclass(frozen=True)
class Not:
    """The contrary of a condition."""

    inner: "Node"


@dataclass(frozen=True)
class Joined:
    """Several conditions with ``and`` or ``or`` between them."""

    word: str
    parts: tuple["Node", ...]


Node = Comparison | Not | Joined


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int


def read(text: str) -> Node:
    """The condition that a gate states.

    Raises:
        UsageError: It does not follow the grammar, is too long, or is nested too deeply.

    Example:
        >>> from inspector.audit.gates.grammar import read
        >>> str(read('class."tiger cat".top1 < 0.8').left)
        'class."tiger cat".top1'
    """
    if len(text) > LENGTH:
        raise UsageError(
            f"the gate {clean_text(text, limit=40)!r} has more than {LENGTH:,} characters",
            hint="split it into several gates at its outermost 'or'",
        )
    return _Reader(unicodedata.normalize("NFC", text)).whole()


def written(part: str) -> str:
    """A part of a name as it stands in a gate: in quotes where it needs them."""
    if _PLAIN.fullmatch(part):
        return part
    return '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Reader:
    """Recursive descent, one function per line of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens())
        self.next = 0

    def whole(self) -> Node:
        if not self.tokens:
            raise self._error("the gate is empty")
        node = self._either(0)
        if self.next < len(self.tokens):
            raise self._unexpected("'and', 'or' or the end")
        return node

    def _tokens(self) -> Iterator[_Token]:
        place = 0
        while place < len(self.text):
            found = _TOKEN.match(self.text, place)
            if found is None:
                rest = clean_text(self.text[place:], limit=20)
                raise self._error(f"cannot be read at character {place + 1} ({rest!r})")
            kind = str(found.lastgroup)
            if kind != "space":
                yield _Token(kind, found.group(), place)
            place = found.end()

    def _either(self, depth: int) -> Node:
        return self._joined("or", self._both, depth)

    def _both(self, depth: int) -> Node:
        return self._joined("and", self._negated, depth)

    def _joined(self, word: str, inner: Callable[[int], Node], depth: int) -> Node:
        parts = [inner(depth)]
        while self._takes("name", word):
            parts.append(inner(depth))
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _negated(self, depth: int) -> Node:
        if depth > DEPTH:
            raise self._error(f"is nested more than {DEPTH} deep")
        if self._takes("name", "not"):
            return Not(self._negated(depth + 1))
        if self._takes("bracket", "("):
            inner = self._either(depth + 1)
            if not self._takes("bracket", ")"):
                raise self._unexpected("')'")
            return inner
        return self._comparison()

    def _comparison(self) -> Node:
        left = self._operand()
        sign = self._peek()
        if sign is None or sign.kind != "sign":
            raise self._unexpected("a comparison (<, <=, >, >=, == or !=)")
        self.next += 1
        right = self._operand()
        after = self._peek()
        if after is not None and after.kind == "sign":
            raise self._error("compares three values", "join two comparisons with 'and'")
        return Comparison(left, sign.text, right)

    def _operand(self) -> Name | float:
        token = self._peek()
        if token is None or token.kind not in {"number", "name"}:
            raise self._unexpected("a name or a number")
        if token.kind == "name" and token.text in {"and", "or", "not"}:
            raise self._unexpected("a name or a number")
        self.next += 1
        if token.kind == "name":
            return _name(token.text)
        number = finite_number(float(token.text))
        if number is None:
            raise self._error(f"{clean_text(token.text, limit=20)} is too large a number")
        return number

    def _peek(self) -> _Token | None:
        return self.tokens[self.next] if self.next < len(self.tokens) else None

    def _takes(self, kind: str, text: str) -> bool:
        token = self._peek()
        if token is None or (token.kind, token.text) != (kind, text):
            return False
        self.next += 1
        return True

    def _unexpected(self, wanted: str) -> UsageError:
        token = self._peek()
        if token is None:
            return self._error(f"ends where {wanted} is expected")
        found = clean_text(token.text, limit=40)
        return self._error(f"has {found!r} at character {token.place + 1} in place of {wanted}")

    def _error(self, reason: str, hint: str = _EXAMPLE) -> UsageError:
        return UsageError(f"{reason}", where=f"gate {clean_text(self.text)!r}", hint=hint)


def _name(text: str) -> Name:
    parts, every = [], set()
    for i, found in enumerate(_PART.finditer(text)):
        plain, quoted = found.groups()
        if plain == "*":
            every.add(i)
        parts.append(plain or re.sub(r"\\(.)", r"\1", quoted[1:-1], flags=re.DOTALL))
    return Name(tuple(parts), frozenset(every))
