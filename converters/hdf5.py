"""HDF5 files that reach for other files: found before a framework's loader opens them.

An HDF5 file can name other files in three ways, and whoever opens it reads them with the user's
rights: an external link (a group or a data set of another file), external storage (the bytes of a
data set in any file), and a virtual data set (put together from parts of other files).
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

from converters.errors import ConversionFailed, first_few

__all__ = ["refuse_other_files"]

_MOST_OBJECTS = 1_000_000
_MOST_BYTES = 16 << 30
_MAGIC = b"\x89HDF\r\n\x1a\n"
_SHOWN = 5


def refuse_other_files(path: Path) -> None:
    """Refuse an HDF5 file, or an archive with some, that names other files.

    Args:
        path: A ``.h5`` file, or a ``.keras`` archive with ``model.weights.h5`` in it.

    Raises:
        ConversionFailed: It does; or it cannot be read.
        ImportError: h5py is not installed.
    """
    import h5py

    found: list[str] = []
    try:
        if is_zipfile(path):
            with ZipFile(path) as archive:
                for entry in archive.infolist():
                    with archive.open(entry) as head:
                        inside = head.read(len(_MAGIC)) == _MAGIC
                    if inside and entry.file_size <= _MOST_BYTES:
                        with h5py.File(io.BytesIO(archive.read(entry)), "r") as file:
                            found += _other_files(file, h5py)
        else:
            with h5py.File(path, "r") as file:
                found += _other_files(file, h5py)
    except (OSError, ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConversionFailed(
            f"its HDF5 data cannot be read: {said}",
            where=path.name,
            hint="the file is damaged: ask for it anew",
        ) from None
    if found:
        raise ConversionFailed(
            "its HDF5 data lies in other files: " + first_few(found, _SHOWN),
            where=path.name,
            hint="ask for a file that holds all of its weights",
        )


def _other_files(file: Any, h5py: Any) -> Iterator[str]:
    """Every object of a file that names another one; links are looked at, never followed."""
    waiting, count = [file], 0
    seen: set[tuple[int, int]] = set()
    while waiting:
        group = waiting.pop()
        for name in group:
            count += 1
            if count > _MOST_OBJECTS:
                raise ValueError(f"more than {_MOST_OBJECTS:,} objects")
            where = ascii(f"{group.name.rstrip('/')}/{name}"[:120])[1:-1]
            kind, item = _kind(group, name, h5py)
            if kind:
                yield f"{where} ({kind})"
            elif isinstance(item, h5py.Group):
                place = h5py.h5o.get_info(item.id)
                if (place.fileno, place.addr) not in seen:
                    seen.add((place.fileno, place.addr))
                    waiting.append(item)


def _kind(group: Any, name: str, h5py: Any) -> tuple[str, Any]:
    """How an entry reaches for another file, if it does; and what it is, if it is here."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return "external link", None
    if not isinstance(link, h5py.HardLink):
        return "", None  # another name of what is met elsewhere
    item = group[name]
    if isinstance(item, h5py.Dataset):
        if item.external:
            return "external storage", item
        if item.is_virtual:
            return "virtual data set", item
    return "", item
