"""One hash for all that a source consists of: a file, a folder, or nothing that can be hashed."""

import hashlib
from pathlib import Path

from converters.errors import ConversionFailed
from converters.regular_file import sha256_of
from converters.source import as_path

__all__ = ["content_hash"]

_MOST_FILES = 20_000


def content_hash(*parts: str) -> str:
    """Hash of a source's files, as lower-case hexadecimal.

    Args:
        parts: The paths that it consists of (a name of a factory, for that); the hash of a folder
            is of the names and contents of all files in it, an empty part is none.

    Returns:
        Empty for a factory without weights: what it makes lies in programs elsewhere.

    Raises:
        ConversionFailed: A folder of more files than a model has.
    """
    digest, known = hashlib.sha256(), False
    for text in filter(None, parts):
        path = as_path(text)
        if path is None:
            digest.update(text.encode("utf-8", "surrogateescape") + b"\n")
            continue
        known = True
        if path.is_file():
            digest.update(sha256_of(path).encode() + b"\n")
            continue
        for inner in _files(path):
            name = inner.relative_to(path).as_posix().encode("utf-8", "surrogateescape")
            digest.update(name + b"\0" + sha256_of(inner).encode() + b"\n")
    return digest.hexdigest() if known else ""


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in folder.rglob("*"):
        if path.is_file():
            found.append(path)
        if len(found) > _MOST_FILES:
            raise ConversionFailed(
                f"more than {_MOST_FILES} files: no model's folder", where=str(folder)
            )
    return sorted(found)
