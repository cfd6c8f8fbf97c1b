"""Plain values of a stranger or a user: the one reader of numbers, JSON, TOML, YAML, literals.

Python reads integers of thousands of digits, infinities and lists nested without end; NumPy and
the formatting of a message then fail on them.  What is read here is bounded: whole numbers of 64
bits, lists within lists to a depth that settings have, text of a length that names have.  Every
error is a ``ValueError`` whose text is a clause for people.
"""

import ast
import json
import math
import re
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "LARGEST",
    "NESTING",
    "finite_number",
    "parse_json",
    "parse_literal",
    "parse_toml",
    "parse_yaml",
    "quoted",
    "real_number",
    "whole_number",
]

LARGEST = 2**63 - 1
"""Largest whole number, as in TOML and in ONNX."""

NESTING = 16
"""Lists and objects within one another; the deepest file that is read has six."""

_LITERAL_BYTES = 4 << 20  # a syntax tree takes a hundred times its text
_YAML_BYTES = 1 << 20  # its parser is slow: a second for 100 KiB
_SHOWN = 80
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)

Pairs = Sequence[tuple[str, Any]]


def whole_number(text: str) -> int | None:
    """A whole number of at most 64 bits, in ASCII digits with or without a sign; else None.

    Example:
        >>> from converters.plain_values import whole_number
        >>> whole_number(" -3 "), whole_number("9" * 5000), whole_number("1.5")
        (-3, None, None)
    """
    text = text.strip()
    number = int(text) if len(text) <= 20 and _WHOLE.fullmatch(text) else None
    return number if number is not None and abs(number) <= LARGEST else None


def finite_number(value: object) -> float | None:
    """A number as a float; None for whatever is not a number, or not finite.

    Example:
        >>> from converters.plain_values import finite_number
        >>> finite_number(3), finite_number(float("nan")), finite_number(10**400)
        (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def real_number(text: str) -> float | None:
    """A number out of text; None for whatever is not a number, or not finite.

    Example:
        >>> from converters.plain_values import real_number
        >>> real_number(" 1.5 "), real_number("inf"), real_number("1,5")
        (1.5, None, None)
    """
    try:
        return finite_number(float(text))
    except ValueError:
        return None


def parse_json(
    text: str | bytes,
    *,
    finite: bool = True,
    pairs: Callable[[Pairs], Any] | None = None,
) -> Any:
    """Plain data of a JSON document.

    Args:
        text: The document; bytes are UTF-8, with or without a byte order mark.
        finite: Whether infinities and NaN are refused.
        pairs: Makes an object of its members; a dictionary when None.

    Raises:
        ValueError: It is not JSON, nested too deeply, or holds numbers that are not finite or
            of more than 64 bits.
    """
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    try:
        constant = _no_number if finite else None
        found = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(_shortened(error)) from None
    return _bounded(found, finite=finite)


def parse_toml(text: str) -> dict[str, Any]:
    """Plain data of a TOML document.

    Raises:
        ValueError: As :func:`parse_json`.
    """
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and integers of thousands of digits
        raise ValueError(_shortened(error)) from None
    checked: dict[str, Any] = _bounded(found)
    return checked


def parse_literal(text: str) -> Any:
    """Plain data of a Python literal: numbers, text, lists, tuples, dictionaries.

    Constants are built and nothing is executed.

    Raises:
        ValueError: It is none, too long, nested too deeply, or holds such numbers as
            :func:`parse_json` refuses.
    """
    if len(text) > _LITERAL_BYTES:
        raise ValueError(f"more than {_LITERAL_BYTES >> 20} MiB are not a literal")
    try:
        found = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError("is not a Python literal") from None
    return _bounded(found)


def parse_yaml(text: str) -> Any:
    """Plain data of a YAML document that refers to nothing, itself included.

    An alias stands for another part of the document: a kilobyte of them names a list of millions,
    which whoever writes it as text writes out.

    Args:
        text: The document.

    Raises:
        ImportError: PyYAML is not installed.
        ValueError: It is not YAML, too long, has aliases, or is nested too deeply.
    """
    import yaml  # type: ignore[import-untyped]

    if len(text) > _YAML_BYTES:
        raise ValueError(f"more than {_YAML_BYTES >> 20} MiB are not read as YAML")

    class Plain(yaml.SafeLoader):  # type: ignore[misc]  # of a package without types
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has aliases (*name), which are not read")
            return super().compose_node(parent, index)

    try:
        found = yaml.load(text, Plain)  # noqa: S506 - a safe loader
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - `!!int ""` is an IndexError, `!!bool x` a KeyError
        raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from None
    return _bounded(found, finite=False)


def quoted(value: object) -> str:
    """A value for a message: as Python writes it, in printable ASCII, and cut short."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # digits without end; nested too deeply to be written
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _bounded(value: Any, nesting: int = NESTING, *, finite: bool = True) -> Any:
    """The value itself, whose nesting is bounded, and whose numbers have at most 64 bits."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth >= nesting and isinstance(item, dict | list | tuple | set):
            raise ValueError(f"nested too deeply (more than {nesting} levels)")
        if isinstance(item, dict):
            waiting += [(key, depth + 1) for key in item if not isinstance(key, str)]
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple | set):
            waiting += [(inner, depth + 1) for inner in item]
        elif isinstance(item, int) and abs(item) > LARGEST:
            raise ValueError("a whole number of more than 64 bits")
        elif finite and isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{item} is not a number")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _shortened(error: ValueError) -> str:
    text = " ".join(str(error).split())
    if "integer string conversion" in text:  # says how Python's own limit could be raised
        return "a whole number of thousands of digits"
    return text[:120]
