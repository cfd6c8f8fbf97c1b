"""Work folders and temporary files that do not outlive the program, however it ends.

A name says whose it is::

    .inspector-HOST-BOOT-SPACE-PID-START-RANDOM

Whoever makes something in a folder first removes what processes that are gone left there; the
command line does so once more when its child was killed.  A process of another machine, or of
another container, cannot be asked for: what it left goes when it is a week old.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

__all__ = ["announce_to", "sweep", "temporary_file", "work_folder"]

OLD_SECONDS = 7 * 24 * 3600.0
"""Age from which what an unknown process left is removed."""

_NAME = re.compile(
    r"\.inspector-(?P<host>[0-9a-f]{6})-(?P<boot>[0-9a-f]{6})-(?P<space>\d*)"
    r"-(?P<pid>\d+)-(?P<start>\d*)-[a-z0-9_]+"
)
_TRIES = 5
_listener: list[int] = []
_told: set[Path] = set()


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """New folder of mode 0700, removed at the end with all that is in it.

    Args:
        parent: Where to make it; what processes that are gone left there is removed.

    Raises:
        OSError: It cannot be made.

    Example:
        >>> from pathlib import Path
        >>> from converters.work_folder import work_folder
        >>> with work_folder(Path(".")) as folder:
        ...     folder.is_dir()
        True
    """
    _begin(parent)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=_mark()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_file(parent: Path) -> tuple[int, Path]:
    """New file of mode 0600: its descriptor, opened for writing, and its path.

    Raises:
        OSError: It cannot be made.
    """
    _begin(parent)
    handle, path = tempfile.mkstemp(dir=parent, prefix=_mark())
    return handle, Path(path)


def announce_to(descriptor: int) -> None:
    """Tell somebody each folder in which this process makes something.

    Args:
        descriptor: Takes a path per line, ended by NUL; it never blocks.
    """
    os.set_blocking(descriptor, False)
    _listener[:] = [descriptor]
    _told.clear()


def sweep(folder: Path) -> None:
    """Remove what processes that are gone left in a folder; nothing of a living one.

    Args:
        folder: The folder; one that cannot be read is left alone.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name)
            if found and _is_mine(entry) and _is_left(found, entry):
                _remove(Path(entry.path))


def _remove(path: Path) -> None:
    """Remove a file or folder into which a process that is just being killed may still write."""
    for _ in range(_TRIES):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        if not os.path.lexists(path):
            return
        time.sleep(0.05)


def _begin(parent: Path) -> None:
    """Sweep a folder and announce it, the first time that this process works in it."""
    parent = parent.absolute()
    if parent in _told:
        return
    _told.add(parent)
    sweep(parent)
    for descriptor in _listener:
        with contextlib.suppress(OSError):  # full: the next run sweeps
            os.write(descriptor, os.fsencode(parent) + b"\0")


def _mark() -> str:
    return f".inspector-{_host()}-{_boot()}-{_space()}-{os.getpid()}-{_start(os.getpid())}-"


def _is_mine(entry: "os.DirEntry[str]") -> bool:
    owner = entry.stat(follow_symlinks=False).st_uid
    return not hasattr(os, "geteuid") or owner == os.geteuid()


def _is_left(found: re.Match[str], entry: "os.DirEntry[str]") -> bool:
    """Whether the process that made it is gone, as far as can be known."""
    if found["host"] == _host() and os.name == "posix":
        if found["boot"] != _boot():
            return True
        if found["space"] == _space():
            return not _lives(int(found["pid"]), found["start"])
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > OLD_SECONDS


def _lives(pid: int, start: str) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    now = _start(pid)
    return not now or not start or now == start


def _start(pid: int) -> str:
    """Time at which a process started, in clock ticks; empty where that cannot be known."""
    try:
        # The name of the program, in brackets, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError, ValueError):
        return ""


@cache
def _host() -> str:
    machine = ""
    with contextlib.suppress(OSError, ValueError):
        machine = Path("/etc/machine-id").read_text()
    return _short(f"{platform.node()}\n{machine}")


@cache
def _boot() -> str:
    with contextlib.suppress(OSError, ValueError):
        return _short(Path("/proc/sys/kernel/random/boot_id").read_text())
    return _short(sys.platform)


@cache
def _space() -> str:
    """Number of the namespace that process numbers are of: containers have their own."""
    with contextlib.suppress(OSError):
        return str(os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116 - a link of the kernel
    return ""


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:6]
