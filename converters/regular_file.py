"""Regular files: the one door through which files of strangers are opened.

A name that a stranger chose, or that lies in a stranger's folder, may be a pipe that nobody ever
writes to, a device without end, a file of the kernel that waits, or a link to another user's file.
What is opened here is a regular file, looked at *after* it was opened (so that nobody can exchange
it in between), without ever waiting, and never more is read of it than it says that it holds.

=====================  ==========================================================================
:func:`read_regular`   a whole file that may not be larger than a limit
:func:`read_beside`    the same of a file in a stranger's folder, whose links stay in that folder
:func:`first_bytes`    the beginning of a file; empty for whatever cannot be opened
:func:`open_regular`   a stream, for files that are hashed or read in pieces
:func:`open_to_append` a stream behind what is kept of a file, never through a link
=====================  ==========================================================================

Every error is an ``OSError`` whose ``strerror`` is a clause for people; of a path that does not
exist it names the one that is spelled alike.
"""

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from converters.address import NOT_FETCHED, is_address
from converters.nearest_path import did_you_mean

__all__ = [
    "NoSuchFile",
    "NotRegular",
    "first_bytes",
    "open_regular",
    "open_to_append",
    "read_beside",
    "read_regular",
    "sha256_of",
]

_NOT_REGULAR = "is not a regular file"

# Windows has neither; there the look at the opened file has to do.
_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_ALWAYS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | _NO_WAITING


class NoSuchFile(FileNotFoundError):
    """A path that does not exist; its folder is searched when somebody asks for the clause."""

    @property
    def strerror(self) -> str:  # type: ignore[override]
        """Clause for people, with the path that was probably meant."""
        return "; ".join(filter(None, [os.strerror(errno.ENOENT), self.near]))

    @property
    def near(self) -> str:
        """Question with the existing path that is nearest; empty where none is near."""
        return did_you_mean(self.filename)


class NotRegular(OSError):
    """A pipe, a device or a socket where a file is meant."""


def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> BufferedReader:
    """Open a regular file for reading.

    Args:
        path: The file.
        follow: Whether it may be a link; False where a stranger chose the name.

    Raises:
        OSError: There is none, it may not be read, or it is a folder, a pipe, a device, or a
            link where none is allowed.
    """
    handle = _opened(path, os.O_RDONLY | (0 if follow else _NO_LINK))
    return os.fdopen(handle, "rb")


def read_regular(
    path: str | os.PathLike[str], limit: int, *, follow: bool = True, unit: str = "MiB"
) -> bytes:
    """Read a regular file whole.

    A file of the kernel says that it holds nothing, and nothing is read of it.

    Args:
        path: The file.
        limit: Most bytes that it may hold.
        follow: Whether it may be a link; False where a stranger chose the name.
        unit: Unit of the limit in the message, "MiB" or "KiB".

    Raises:
        OSError: It cannot be opened, see :func:`open_regular`, or holds more than the limit.

    Example:
        >>> from converters.regular_file import read_regular
        >>> read_regular("sample_models/labels.txt", limit=2**20)[:8]
        b'airplane'
    """
    with open_regular(path, follow=follow) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            number = limit >> (20 if unit == "MiB" else 10)
            raise _error(errno.EFBIG, f"more than {number} {unit}", path)
        # A file that grows meanwhile gives what it held when it was opened.
        return stream.read(size) or b""


def read_beside(folder: Path, name: str, limit: int) -> bytes:
    """Read a file that lies in a stranger's folder.

    Args:
        folder: The folder, as the user named it.
        name: The file's name in it.
        limit: Most bytes that it may hold.

    Raises:
        OSError: As :func:`read_regular`; or it is a link out of the folder. A snapshot of the
            Hugging Face cache, all of whose files are links into ``blobs``, counts as a folder.
    """
    path = folder / name
    try:
        resolved = path.resolve(strict=True)
    except (ValueError, RuntimeError) as error:  # a zero byte; a circle of links
        raise _error(errno.EINVAL, str(error), path) from None
    if not _inside(resolved, folder.resolve()):
        raise _error(errno.ELOOP, "is a link out of its folder", path)
    return read_regular(resolved, limit, follow=False)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a regular file's bytes, in hexadecimal.

    Raises:
        OSError: As :func:`open_regular`.
    """
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def first_bytes(path: str | os.PathLike[str], count: int) -> bytes:
    """The first bytes of a regular file; empty when it cannot be read."""
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            return stream.read(min(size, count)) or b""
    except OSError:
        return b""


def open_to_append(path: str | os.PathLike[str], keep: int | None = None) -> BinaryIO:
    """Open a regular file to write behind what it holds; it is made when it is missing.

    Args:
        path: The file; its folder exists.
        keep: Bytes of it that stay; None for all of them.

    Raises:
        OSError: It is a link, has a second name, is not a regular file, or cannot be written to:
            whoever prepared the folder chose what would be overwritten.
    """
    handle = _opened(path, os.O_RDWR | os.O_CREAT | _NO_LINK)
    try:
        _check_one_name(handle, path)
        end = os.fstat(handle).st_size if keep is None else keep
        os.ftruncate(handle, end)
        os.lseek(handle, end, os.SEEK_SET)
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "r+b")


def _opened(path: str | os.PathLike[str], flags: int) -> int:
    """Descriptor of a regular file."""
    try:
        handle = os.open(path, flags | _ALWAYS, 0o666)
    except ValueError as error:  # a zero byte in the path
        raise _error(errno.EINVAL, str(error), path) from None
    except FileNotFoundError:
        if is_address(path):
            raise _error(errno.EINVAL, NOT_FETCHED, path) from None
        reason = os.strerror(errno.ENOENT)
        raise NoSuchFile(errno.ENOENT, reason, os.fspath(path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP and Path(path).is_symlink():
            raise _error(errno.ELOOP, "is a link, which is not followed", path) from None
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a pipe or socket without a partner
            raise NotRegular(errno.EINVAL, _NOT_REGULAR, os.fspath(path)) from None
        raise
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise _error(errno.EISDIR, "is a folder", path)
    raise NotRegular(errno.EINVAL, _NOT_REGULAR, os.fspath(path))


def _check_one_name(handle: int, path: str | os.PathLike[str]) -> None:
    if os.fstat(handle).st_nlink > 1:
        raise _error(errno.EMLINK, "has a second name (hard link), and is left alone", path)


def _inside(resolved: Path, folder: Path) -> bool:
    """Whether a file lies in the folder, or in the blobs of the cache that it is a snapshot of."""
    if resolved.is_relative_to(folder):
        return True
    snapshots = (place for place in folder.parents if place.name == "snapshots")
    return any(resolved.parent == place.parent / "blobs" for place in snapshots)


def _error(number: int, reason: str, path: str | os.PathLike[str]) -> OSError:
    return OSError(number, reason, os.fspath(path))
