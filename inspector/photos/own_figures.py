"""Figures that this package wrote, told from photos by a mark in the PNG file."""

from pathlib import Path

from converters.regular_file import first_bytes

__all__ = ["MARK", "is_own_figure"]

MARK = ("Software", "onnx-inspector")
"""Keyword and text of the PNG text chunk that every figure carries."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = b"tEXt" + b"\0".join(word.encode("ascii") for word in MARK)
_HEAD = 512
"""Bytes that are read: text chunks of a figure stand directly behind its header."""


def is_own_figure(path: Path) -> bool:
    """Whether a file is a figure of this package; False where it cannot be read."""
    head = first_bytes(path, _HEAD)
    return head.startswith(_SIGNATURE) and _CHUNK in head.partition(b"IDAT")[0]
