"""Words that name items of tasks other than classification: a box, a point, a mask, a character."""

import re
from collections.abc import Sequence

__all__ = ["either", "tasks_named"]

_NUMBER = r"\s*[+-]?\d+(?:\.\d+)?\s*"
_START = r"(?:^|[,;(])\s*-?\s*"
_KINDS = (
    (re.compile(_START + "box:", re.ASCII), ("detector",)),
    (re.compile(_START + "mask:", re.ASCII), ("segmenter", "dense")),
    (re.compile(_START + "(?:char|row):", re.ASCII), ("sequence",)),
    (re.compile(rf"@{_NUMBER},{_NUMBER}", re.ASCII), ("detector", "segmenter", "dense")),
    (re.compile(r"[^#]#\d+\s*(?:$|[,;)])", re.ASCII), ("detector", "sequence")),
    (re.compile(_START + r"similarity\s*(?:$|[,;)])"), ("embedding",)),
    (re.compile(_START + r"(?:maximum|detail)\s*(?:$|[,;)])"), ("dense",)),
)


def tasks_named(text: str) -> tuple[str, ...]:
    """Tasks whose items are named by words like these; empty for words of no task.

    Args:
        text: What the user asks for, one item or several.

    Example:
        >>> from inspector.target.item_words import tasks_named
        >>> tasks_named("box:10,20,30,40"), tasks_named("@3,3"), tasks_named("cat")
        (('detector',), ('detector', 'segmenter', 'dense'), ())
    """
    return next((tasks for pattern, tasks in _KINDS if pattern.search(text)), ())


def either(tasks: Sequence[str]) -> str:
    """Names of tasks in a sentence: ``segmenter or dense prediction``."""
    words = {"dense": "dense prediction", "sequence": "reader of text"}
    named = [words.get(task, task) for task in tasks]
    return " or ".join(filter(None, (", ".join(named[:-1]), named[-1])))
