"""Results of a long run, kept as they come, so that an interrupted run goes on where it was.

A journal is a file of JSON lines. The first says what run it belongs to; each further line is
one result under a key. A last line that was cut off is forgotten, and a journal of another run
(other model, options or photos) is not taken over. Floats come back exactly as they were.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from converters.regular_file import open_to_append, read_regular
from inspector.errors import UsageError
from inspector.whole_file import refused

__all__ = ["Journal", "discard", "identity_of"]

SCHEMA = 1
"""Version of the lines; raised when old ones can no longer be taken over."""

MOST_BYTES = 2**31
"""Bytes of the longest journal that is read: two kilobytes for each of a million photos."""


class Journal:
    """Results by key; on disk when there is a path, else only in memory.

    Args:
        path: The file; its folder is made when the first result comes.
        identity: Names the run, from ``identity_of``.

    Attributes:
        found: How many results of an earlier run were taken over.
    """

    def __init__(self, path: Path | None = None, identity: str = "") -> None:
        self.path, self.identity = path, identity
        self._results: dict[str, Any] = {}
        self._file: BinaryIO | None = None
        self._end = 0
        if path is not None:
            self._read(path)
        self.found = len(self._results)

    def __contains__(self, key: str) -> bool:
        return key in self._results

    @property
    def kept(self) -> int:
        """How many results there are, those taken over included."""
        return len(self._results)

    def __getitem__(self, key: str) -> Any:
        return self._results[key]

    def keep(self, key: str, result: Any) -> None:
        """Keep one result.

        Args:
            key: Names it within the run.
            result: Plain data: what JSON can say, finite.

        Raises:
            UsageError: The file cannot be written to.
        """
        line = json.dumps([key, result], ensure_ascii=True, allow_nan=False)
        self._results[key] = json.loads(line)[1]  # the same now as after a resumption
        if self.path is None:
            return
        try:
            self._writing(self.path).write(line.encode("ascii") + b"\n")
            self._writing(self.path).flush()
        except OSError as error:
            raise refused(self.path, error) from None

    def finish(self) -> None:
        """Remove the file: the run is done and its results are written."""
        self.close()
        if self.path is not None:
            discard(self.path)

    def close(self) -> None:
        """Close the file, which stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what a full disk did not take was said already
                self._file.close()
            self._file = None

    def _read(self, path: Path) -> None:
        """Take over the whole lines of a journal of the same run.

        Raises:
            UsageError: The name is a link's, a pipe's or a folder's: whoever prepared the folder
                chose what would be read or overwritten.
        """
        try:
            data = read_regular(path, MOST_BYTES, follow=False)
            open_to_append(path).close()  # what could not be written to is refused before the work
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(
                f"cannot be the journal of this run: {reason}",
                where=str(path),
                hint="remove it, add --fresh, or choose another folder with -o",
            ) from None
        head, *lines = data.splitlines(keepends=True) or [b""]
        if _parsed(head) != self._head:
            return
        self._end = len(head)
        for line in lines:
            entry = _parsed(line)
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
                break
            self._results[entry[0]] = entry[1]
            self._end += len(line)

    @property
    def _head(self) -> dict[str, Any]:
        return {"journal": SCHEMA, "run": self.identity}

    def _writing(self, path: Path) -> BinaryIO:
        """The open file, behind the last whole line."""
        if self._file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_to_append(path, keep=self._end)
            if not self._end:
                self._file.write(json.dumps(self._head).encode() + b"\n")
        return self._file


def _parsed(line: bytes) -> Any:
    """Parsed line; None if it is cut off or not JSON."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def discard(path: Path) -> None:
    """Remove a journal, whatever it is; of a link only the link."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def identity_of(facts: Mapping[str, Any], files: list[Path]) -> str:
    """Name of a run: a hash of what it depends on.

    Args:
        facts: Plain data: the model's hash, the options, versions.
        files: Files that it reads; their names, sizes and times count.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for path in files:
        entry = str(path).encode("utf-8", "surrogateescape")
        with contextlib.suppress(OSError, ValueError):
            status = path.stat()
            entry += f"\0{status.st_size}\0{status.st_mtime_ns}".encode()
        digest.update(entry + b"\n")
    return digest.hexdigest()
