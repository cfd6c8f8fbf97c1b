"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path

from inspector.errors import UsageError

__all__ = ["write_whole"]


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
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A fixed short prefix: the name itself may be as long as names can be.
        handle, temporary = tempfile.mkstemp(prefix=".inspector-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(_mode(path))
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            hint = "choose another folder with -o"
            raise UsageError(f"cannot be written ({reason})", where=str(path), hint=hint) from None
        raise
    return path


def _mode(path: Path) -> int:
    """Permissions of the file that is replaced, or those that the user's umask gives."""
    with contextlib.suppress(OSError):
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
