"""Test files in which no test can be among those that ``-m`` asks for, by their text alone.

To import all test files takes half a minute of processor time in each process, most of it for
frameworks that the chosen tests do not use. So a file is left unread where it cannot hold a test
that the expression selects: its tests have the marks at its top, and at most those that it names.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import chain, combinations
from pathlib import Path

from _pytest.mark.expression import Expression

__all__ = ["MARKS", "can_hold", "named_marks"]

MARKS = ("conformance", "converters", "apart")
_NAMED = re.compile(rf"\bmark\.({'|'.join(MARKS)})\b")
_OF_ALL = re.compile(r"^pytestmark = (?:\[[^\]]*\]|.*)", re.MULTILINE)


@cache
def named_marks(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The marks that a file names: for all of its tests, and for any of them."""
    text = path.read_text(encoding="utf-8")
    of_all = _OF_ALL.search(text)
    return (
        frozenset(_NAMED.findall(of_all[0]) if of_all else ()),
        frozenset(_NAMED.findall(text)),
    )


def can_hold(path: Path, expression: str) -> bool:
    """Whether a test file, or a file below a folder, can hold a test that is asked for.

    Args:
        path: A test file or a folder.
        expression: Of ``-m``.
    """
    if set(re.findall(r"\w+", expression)) - {*MARKS, "not", "and", "or"}:
        return True
    if path.is_dir():
        files = list(path.rglob("test_*.py"))
        return not files or any(can_hold(file, expression) for file in files)
    if not expression or not path.match("test_*.py"):
        return True
    wanted = Expression.compile(expression)
    return any(wanted.evaluate(marks.__contains__) for marks in _possible(path))


def _possible(path: Path) -> Iterator[frozenset[str]]:
    """The sets of marks that a test of this file may have."""
    of_all, of_any = named_marks(path)
    others = sorted(of_any - of_all)
    for more in chain.from_iterable(combinations(others, n) for n in range(len(others) + 1)):
        yield of_all | set(more)
