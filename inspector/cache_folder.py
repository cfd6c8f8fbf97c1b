"""The user's cache folder, and entries in it that nobody else can have written.

    INSPECTOR_CACHE                  the folder, if set; ``off`` for no cache at all
    LOCALAPPDATA/onnx-inspector      on Windows
    XDG_CACHE_HOME/onnx-inspector    elsewhere, or ~/.cache/onnx-inspector

The folder and what is in it must be the user's own and writable by nobody else.  Each entry carries
a code (HMAC-SHA-256 of its name and content under a random key that only the user can read), so
that an entry which was edited, or copied here, is not an entry.  What is not believed is said, and
computed anew.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.plain_values import parse_json
from converters.regular_file import open_regular
from converters.work_folder import temporary_file
from inspector.errors import InspectorWarning, UsageError
from inspector.whole_file import write_whole

__all__ = ["cache_folder", "read_entry", "usable_folder", "why_unwritable", "write_entry"]

LARGEST_ENTRY = 2**20
"""Bytes beyond which a file cannot be an entry."""

_ANEW = "it is computed anew"
_KEY = "key"
_KEY_BYTES = 32
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path | None:
    """Where the cache lies; None when the user wants none, or has no home."""
    named = os.environ.get("INSPECTOR_CACHE", "")
    if named:
        return None if named.lower() == "off" else Path(named)
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    # The specification of XDG: a path that is not absolute is to be ignored.
    if base and Path(base).is_absolute():
        return Path(base) / "onnx-inspector"
    try:
        return Path.home() / ".cache" / "onnx-inspector"
    except RuntimeError:
        return None


def usable_folder(*inner: str) -> Path | None:
    """The cache folder, or one inside it, made with mode 0700 where it is missing.

    Args:
        inner: Names of folders inside it, from the outside in.

    Returns:
        None when there is no cache, it cannot be made, or (which is said) it is another user's or
        others can write to it.
    """
    folder = cache_folder()
    if folder is None:
        return None
    for place in (folder, *(folder.joinpath(*inner[: n + 1]) for n in range(len(inner)))):
        try:
            if place == folder:
                place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                place.mkdir(mode=0o700)
            status = place.stat()
        except OSError as error:
            _say_unwritable(folder, error.strerror or str(error))
            return None
        if not stat.S_ISDIR(status.st_mode):
            _say_unwritable(folder, "is not a folder")
            return None
        problem = _problem(status)
        if problem:
            _say(place, problem, f"chmod 700 {place}, or name another one with INSPECTOR_CACHE")
            return None
    return folder.joinpath(*inner)


def write_entry(name: str, content: Mapping[str, Any]) -> Path | None:
    """Keep an entry.

    Args:
        name: Its path below the cache folder, with ``/``.
        content: Plain data.

    Returns:
        Where it is kept; None where that is not possible.
    """
    *inner, _ = name.split("/")
    folder, key = usable_folder(*inner), _key(make=True)
    if folder is None or not key:
        if folder is not None and key is not None:
            _say_unwritable(folder, "no key can be kept in it")
        return None
    place = folder / name.rpartition("/")[2]
    document = {"content": content, "code": _code(key, name, content)}
    data = (json.dumps(document, sort_keys=True) + "\n").encode()
    try:
        write_whole(place, data)
    except UsageError as error:
        _say_unwritable(folder, error.what)
        return None
    # What is replaced hands its mode down, which may have been the reason to replace it.
    with contextlib.suppress(OSError):
        place.chmod(0o600)
    return place


def read_entry(name: str) -> Any:
    """Content of an entry; None where there is none, or (which is said) it is not believed.

    Args:
        name: As for :func:`write_entry`.
    """
    folder = cache_folder()
    place = None if folder is None else folder.joinpath(*name.split("/"))
    if place is None or not os.path.lexists(place):
        return None
    *inner, _ = name.split("/")
    if usable_folder(*inner) is None:
        return None
    try:
        document = parse_json(_own_bytes(place, LARGEST_ENTRY))
    except (OSError, ValueError) as error:
        _say(place, getattr(error, "strerror", None) or str(error), _ANEW)
        return None
    content = document.get("content") if isinstance(document, dict) else None
    said = document.get("code") if isinstance(document, dict) else None
    key = _key()
    if key is None:
        return None  # which was said
    if key and isinstance(said, str) and content is not None:
        known = _code(key, name, content)
        if hmac.compare_digest(said.encode("utf-8", "replace"), known.encode()):
            return content
    _say(place, "this program did not write it, or it was changed since", _ANEW)
    return None


def _code(key: bytes, name: str, content: Any) -> str:
    text = json.dumps([name, content], sort_keys=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _key(*, make: bool = False) -> bytes | None:
    """The user's key; empty where there is none, None where (which is said) it is not trusted."""
    folder = usable_folder()
    if folder is None:
        return None
    place = folder / _KEY
    if make and not os.path.lexists(place):
        with contextlib.suppress(OSError):
            handle, draft = temporary_file(folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(secrets.token_bytes(_KEY_BYTES))
                _name_once(draft, place)
            finally:
                draft.unlink(missing_ok=True)
    try:
        key = _own_bytes(place, _KEY_BYTES, single=False)
    except FileNotFoundError:
        return b""
    except OSError as error:
        _say(place, error.strerror or str(error), f"rm -f {place}")
        return None
    return key if len(key) == _KEY_BYTES else b""


def _name_once(draft: Path, place: Path) -> None:
    """Give a file a name that is not taken: of two processes, the first one's key is for both."""
    try:
        os.link(draft, place)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        draft.replace(place)


def _own_bytes(place: Path, limit: int, *, single: bool = True) -> bytes:
    """Content of a file that is the user's own, has one name, and that only the user can write.

    Raises:
        OSError: It is not, or cannot be read.
    """
    with open_regular(place, follow=False) as stream:
        status = os.fstat(stream.fileno())
        problem = _problem(status)
        if single and status.st_nlink > 1:
            problem = problem or "has a second name (hard link)"
        if status.st_size > limit:
            problem = problem or f"is larger than {limit:,} bytes"
        if problem:
            raise PermissionError(1, problem)
        return stream.read(status.st_size)


def _problem(status: os.stat_result) -> str:
    """Why a file or folder cannot be trusted to be the user's."""
    if not hasattr(os, "geteuid"):
        return ""
    if status.st_uid != os.geteuid():
        return "is another user's"
    return "can be written to by others" if status.st_mode & _OTHERS_WRITE else ""


_unwritable: list[str] = []
"""Why nothing could be kept in this process, first reason first."""


def _say_unwritable(folder: Path, problem: str) -> None:
    _unwritable.append(f"nothing is kept in the cache, {cache_folder() or folder} ({problem})")


def why_unwritable() -> str:
    """Why nothing could be kept in the cache by this process; empty where all was kept.

    That is not a fault of a model or a photo, and changes no result: only the command line says it,
    once per run.
    """
    return _unwritable[0] if _unwritable else ""


def _say(place: Path, problem: str, fix: str) -> None:
    warnings.warn(f"{place} in the cache is ignored ({problem}); {fix}", InspectorWarning, 2)
