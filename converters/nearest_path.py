"""Paths in messages: as a command takes them, and the nearest one where one does not exist."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

__all__ = ["as_typed", "did_you_mean"]

_MOST_ENTRIES = 4000  # of a folder; comparing names takes time
_LONGEST_NAME = 200
_ALIKE = 0.75  # one letter off in "a.png", two in "net.onnx"
_LEVELS = 8  # folders above it that may be misspelt


def did_you_mean(path: str | os.PathLike[str]) -> str:
    """Question with the existing path that is nearest; empty where none is near.

    Args:
        path: A path that does not exist; its folder may be misspelt as well.

    Example:
        >>> from pathlib import Path
        >>> from converters.nearest_path import did_you_mean
        >>> did_you_mean(Path("sample_models") / "lables.txt")
        'did you mean sample_models/labels.txt?'
    """
    try:
        found = _near(Path(path), _LEVELS)
    except (OSError, ValueError, RuntimeError):  # not readable; a zero byte; a circle of links
        return ""
    return "" if found is None else f"did you mean {as_typed(found)}?"


def as_typed(path: str | os.PathLike[str]) -> str:
    """A path as a shell takes it: quoted, and never read as an option.

    Args:
        path: Any path.

    Example:
        >>> from converters.nearest_path import as_typed
        >>> as_typed("a model.pb"), as_typed("-rf.pb"), as_typed("net.pb")
        ("'a model.pb'", './-rf.pb', 'net.pb')
    """
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _near(path: Path, levels: int) -> Path | None:
    """The existing path that is spelled like this one."""
    if not path.name or path.name == ".." or not levels:
        return None
    folder = path.parent
    if not folder.is_dir():
        nearest = _near(folder, levels - 1)
        if nearest is None or not nearest.is_dir():
            return None
        folder = nearest
        if (folder / path.name).exists():
            return folder / path.name
    name = _nearest(path.name, list(_names(folder)))
    return None if name is None else folder / name


def _names(folder: Path) -> Iterator[str]:
    """Names in a folder that a terminal can show."""
    with os.scandir(folder) as entries:
        for _, entry in zip(range(_MOST_ENTRIES), entries, strict=False):
            name = entry.name
            if len(name) <= _LONGEST_NAME and name.isprintable() and os.path.exists(entry.path):  # noqa: PTH110 - false for links that lead nowhere
                yield name


def _is_picture(name: str) -> bool | None:
    """Whether a name is that of a picture; None where its ending does not tell."""
    import mimetypes  # only for what is wrong

    if name.lower().endswith(".onnx"):
        return False
    return (mimetypes.guess_type(name)[0] or "").startswith("image/") or None


def _nearest(name: str, names: list[str]) -> str | None:
    """The name that is most like another: but for case, for its ending, for few letters."""
    wanted = name.lower()[:_LONGEST_NAME]
    known: dict[str, str] = {}
    for one in sorted(names):  # the folder's own order differs between file systems
        if _is_picture(wanted) in {None, _is_picture(one)}:
            known.setdefault(one.lower(), one)
    if wanted in known:
        return known[wanted]
    stem = Path(wanted).stem
    same = [one for low, one in known.items() if stem in {low, Path(low).stem}]
    if same:
        return same[0]
    import difflib  # only for what is wrong

    close = difflib.get_close_matches(wanted, known, n=1, cutoff=_ALIKE)
    return known[close[0]] if close else None
