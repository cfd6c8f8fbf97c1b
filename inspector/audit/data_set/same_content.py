"""Photos of a data set that are copies of one another, byte by byte."""

from collections.abc import Iterable, Sequence

from converters.regular_file import sha256_of
from inspector.audit.data_set.described import few
from inspector.audit.data_set.entries import Entry

__all__ = ["copies_named"]

_MOST_BYTES = 4 << 30
"""Bytes that are compared; files of a size of their own are not read."""


def copies_named(entries: Sequence[Entry]) -> list[str]:
    """What is said of photos that have another one's content: they are not draws of their own.

    Args:
        entries: The photos.

    Returns:
        Sentences: on copies, and on copies that have another label; none where there are none.
    """
    sizes: dict[int, list[Entry]] = {}
    for entry in entries:
        try:
            sizes.setdefault(entry.path.stat().st_size, []).append(entry)
        except OSError:  # said in its row
            continue
    left = _MOST_BYTES
    copies, contradicted = list[str](), list[str]()
    for size, own in sorted(sizes.items()):
        if len(own) < 2 or size == 0:
            continue
        left -= size * len(own)
        if left < 0:
            break
        for same in _by_content(own):
            first, *others = same
            copies += [f"{one.photo} (as {first.photo})" for one in others]
            labels = [one for one in others if one.label != first.label]
            contradicted += [
                f"{one.photo} ({one.label}; {first.photo}: {first.label})" for one in labels
            ]
    said = []
    if copies:
        said.append(
            f"photos with the content of another one, which intervals count twice: {few(copies)}"
        )
    if contradicted:
        said.append(
            f"photos with the content of another one and another label: {few(contradicted)}"
        )
    return said


def _by_content(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Entries with the same bytes, two or more each; one file under several names is a copy."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        try:
            found.setdefault(sha256_of(entry.path), []).append(entry)
        except OSError:
            continue
    return [same for same in found.values() if len(same) > 1]
