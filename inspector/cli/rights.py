"""What a command's child process may read and write: what its own options name.

    a file that an option names   its folder: labels, weights and side files lie beside it; also as
                                  NAME=FILE and mask:FILE
    a folder                      the folder, and pictures that links directly in it name
    --python                      what its modules are read from
    -o                            written into; made before, removed again when it stays empty
    the cache                     written into

Where a file lies directly in the home folder (or above it), hidden files and folders are left out:
that is where keys and tokens are kept.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.rights import Rights, environment_folders, restrict
from converters.work_folder import work_folder
from inspector.cache_folder import cache_folder
from inspector.photos.sources import PICTURES

__all__ = ["child_rights", "parts_of", "take_away"]

_MOST_ENTRIES = 200_000
_PATTERN = re.compile(r"[*?\[]")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@contextmanager
def child_rights(
    named: Iterable[str], outputs: Iterable[Path], seconds: float | None, python: str = ""
) -> Iterator[Rights]:
    """Rights of a child process, whose output folders are there while it runs.

    Args:
        named: Every text that an option or argument was given; those that are paths count.
        outputs: Folders that it writes into.
        seconds: Its clock.
        python: Another Python that it starts.

    Yields:
        The rights; the first folder to write into is for temporary files.
    """
    with contextlib.ExitStack() as stack:
        writes = []
        with contextlib.suppress(OSError):  # no place for temporary files: most need none
            writes.append(stack.enter_context(work_folder(Path(tempfile.gettempdir()))))
        for folder in outputs:
            stack.callback(_remove_empty, _made(folder))
            writes.append(folder)
        cache = cache_folder()
        if cache is not None:
            with contextlib.suppress(OSError):
                cache.parent.mkdir(parents=True, exist_ok=True)
                cache.mkdir(mode=0o700, exist_ok=True)
            writes.append(cache)
        writes.append(_settings("XDG_CACHE_HOME", ".cache") / "matplotlib")
        reads = [_settings("XDG_CONFIG_HOME", ".config") / "matplotlib"]
        lists: list[Path] = []
        if python:
            reads += environment_folders(str(Path(shutil.which(python) or python).absolute()))
        for text in (part for one in named for part in parts_of(one)):
            for path in _readable(text):
                (lists if path in _homes() else reads).append(path)
        yield Rights(
            reads=tuple(dict.fromkeys(reads)),
            writes=tuple(dict.fromkeys(writes)),
            lists=tuple(dict.fromkeys(lists)),
            seconds=seconds,
        )


def take_away(rights: Rights, kept: Iterable[int]) -> None:
    """Leave this process nothing but these rights and descriptors; called in the child.

    Args:
        rights: From :func:`child_rights`.
        kept: Descriptors that stay open, beside the standard streams.
    """
    _close_all_but({0, 1, 2, *kept})
    temporary = next(iter(rights.writes), None)
    if temporary is not None:
        tempfile.tempdir = str(temporary)
        os.environ["TMPDIR"] = str(temporary)
        if not (_settings("XDG_CACHE_HOME", ".cache") / "matplotlib").is_dir():
            # It would look for another place, and say so, when it may not make its own.
            os.environ.setdefault("MPLCONFIGDIR", str(temporary))
    restrict(rights)


def parts_of(text: str) -> Iterator[str]:
    """A text, and the paths that may stand inside it: ``NAME=FILE`` and ``mask:FILE``."""
    yield text
    if "=" in text:
        yield text.rpartition("=")[2]
    for rest in text.split("mask:")[1:]:  # of targets that are joined, others may follow
        yield from dict.fromkeys((rest, rest.partition(",")[0]))


def _readable(text: str) -> Iterator[Path]:
    """Paths that must be readable where an option has this value."""
    if _FACTORY.fullmatch(text):  # a module of the folder in which the user stands
        yield from _around(Path.cwd())
    pattern = _PATTERN.search(text)
    if pattern and not os.path.lexists(text):  # a quoted one is expanded in the child
        text = os.path.dirname(text[: pattern.start()]) or "."  # noqa: PTH120 - of a part of a name
    try:
        named = Path(text)
        places = {named.absolute(), named.resolve(strict=True)}
    except (OSError, RuntimeError, ValueError):
        return
    for path in places:
        if path.is_dir():
            yield from _around(path)
            yield from _linked_pictures(path)
        else:
            yield path
            yield from _around(path.parent)


def _around(folder: Path) -> Iterator[Path]:
    """A folder; of the home folder, and those above it, what is not hidden."""
    yield folder
    if folder in _homes():
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if not path.name.startswith(".") and path not in _homes():
                    yield path


def _homes() -> tuple[Path, ...]:
    try:
        home = Path.home().resolve()
    except (OSError, RuntimeError):
        return ()
    return (home, *home.parents)


def _linked_pictures(folder: Path) -> Iterator[Path]:
    """Pictures that links at any depth below a folder name."""
    waiting, count = [folder], 0
    while waiting:
        place = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                count += 1
                if count > _MOST_ENTRIES:
                    return
                if entry.is_symlink():
                    with contextlib.suppress(OSError, RuntimeError):
                        target = Path(entry.path).resolve(strict=True)
                        if target.suffix.lower() in PICTURES:
                            yield target
                elif entry.is_dir() and not entry.name.startswith("."):
                    waiting.append(Path(entry.path))


def _settings(variable: str, name: str) -> Path:
    named = os.environ.get(variable, "")
    with contextlib.suppress(RuntimeError):
        return Path(named) if Path(named).is_absolute() else Path.home() / name
    return Path("/nowhere")


def _made(folder: Path) -> list[Path]:
    """Make a folder; those that were made, from the inside out."""
    made: list[Path] = []
    for place in (*reversed(folder.absolute().parents), folder.absolute()):
        try:
            place.mkdir()
        except FileExistsError:
            continue
        except OSError:
            break  # said when something is to be written
        made.insert(0, place)
    return made


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _close_all_but(kept: set[int]) -> None:
    """Close descriptors that this process was given by whoever started the program."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir("/dev/fd")  # noqa: PTH208 - names, not paths
    for name in names:
        if name.isdigit() and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))
