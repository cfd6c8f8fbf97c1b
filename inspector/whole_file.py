"""Files that are written whole or not at all, and the folders that they are written into."""

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path, PurePosixPath

from converters.address import is_address
from converters.errors import DISK_FULL
from converters.work_folder import temporary_file
from inspector.errors import UsageError

__all__ = [
    "check_file",
    "check_folder",
    "inside",
    "make_folder",
    "refused",
    "require_new",
    "write_whole",
]

_HINT = "choose another folder with -o"
_LINK_HINT = "remove it, or choose another folder with -o"
_FILE_HINT = "choose another file with -o"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ASKING = threading.Lock()


def check_folder(path: Path) -> None:
    """Refuse a folder that could not be written into, without making it.

    Args:
        path: A folder, or where one would be made.

    Raises:
        UsageError: The folder, or the nearest one above it that exists, is a file or cannot be
            written into; it is an address.
    """
    if is_address(path):
        raise UsageError("is an address, and nothing is uploaded", where=str(path), hint=_HINT)
    path = path.absolute()
    _check_name(path)
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    if not there.is_dir():
        what = "is a file, not a folder" if there.exists() else "is not a folder"
        raise UsageError(what, where=str(there), hint=_HINT)
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError("the folder cannot be written into", where=str(there), hint=_HINT)


def check_file(path: Path) -> None:
    """Refuse a file that could not be written, without touching it.

    Args:
        path: A file, or where one would be made.

    Raises:
        UsageError: Its folder cannot be written into, or the name is a folder's, a pipe's or a
            device's, which a file would take the place of.
    """
    check_folder(path.parent)
    _check_name(path)
    try:
        mode = path.stat().st_mode if os.path.exists(path) else None  # noqa: PTH110 - never raises
    except OSError as error:
        raise refused(path, error) from None
    if mode is not None and not stat.S_ISREG(mode):
        raise UsageError("is not a regular file", where=str(path), hint=_FILE_HINT)


def require_new(path: Path, hint: str) -> None:
    """Refuse the name of a file that is never written over, whatever has it.

    Args:
        path: The file.
        hint: What to do.

    Raises:
        UsageError: There is a file, or a link, even one that leads nowhere.
    """
    if os.path.lexists(path):
        what = "is a link that leads nowhere" if not path.exists() else "exists already"
        raise UsageError(what, where=str(path), hint=hint)


def _check_name(path: Path) -> None:
    """Refuse a name that no file can have."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except OSError as error:  # too long; a circle of links
        raise refused(path, error) from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they do not exist.

    Raises:
        UsageError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(path, error) from None


def inside(folder: Path, name: str) -> Path:
    """Path of a file or folder below an output folder.

    Args:
        folder: The output folder; the user's own, link or not.
        name: Its name below it, with ``/``.

    Raises:
        UsageError: A folder on the way is a link: whoever prepared the output folder chose where
            it leads to.
    """
    path = folder
    for part in PurePosixPath(name).parts:
        path /= part
        if path.is_symlink() and not path.is_file():
            raise UsageError("is a link to another folder", where=str(path), hint=_LINK_HINT)
    return path


def write_whole(path: str | Path, data: bytes) -> Path:
    """Write a file so that nobody ever sees a part of it.

    The bytes go into a temporary file in the same folder, reach the disk, and take the name in
    one step; whatever interrupts that (an error, Ctrl-C) leaves the folder as it was. A file
    that is there already keeps its content until then, and its permissions.

    Args:
        path: Where to; its folder is made when it is missing.
        data: The whole content.

    Returns:
        The path.

    Raises:
        UsageError: The folder cannot be made or written to.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not called like the file, whose name may be as long as names can be.
        handle, temporary = temporary_file(path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_mode(path))
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise refused(path, error) from None
        raise
    return path


def refused(path: Path, error: OSError) -> UsageError:
    """Error for a place that cannot be written to, which says when the disk is full."""
    reason = error.strerror or str(error)
    hint = DISK_FULL if error.errno in _FULL else _HINT
    return UsageError(f"cannot be written ({reason})", where=str(path), hint=hint)


def _mode(path: Path) -> int:
    """Permissions of the file that is replaced, or those that the user's umask gives."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            return status.st_mode & 0o777
    with _ASKING:  # it can only be asked for by setting it, which is the whole process's
        mask = os.umask(0)
        os.umask(mask)
    return 0o666 & ~mask
