"""Process that fetches a remote data set and stores a report: the only one with credentials.

    parent                                          this process
    one line: addresses, staging folder        ->   lists and fetches
                                               <-   lines {"done", "total"}, then {"fetched"}
    (the audit runs, in another process)            stores pictures and the journal, every minute
    one line: {"store": true}                  ->   stores the report, report.json last
                                               <-   {"stored"}
    closes the pipe                                 stores the journal, and ends

Lines are JSON.  Names of a listing are a stranger's: each becomes a file below the staging folder
or is refused.  Credentials come from the environment, as fsspec reads them, and no message holds
the value of an environment variable.

Source: fsspec (https://filesystem-spec.readthedocs.io), ``url_to_fs`` and ``walk``.
"""

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from converters.conversion.environment import kept_variables
from converters.regular_file import open_regular
from inspector.errors import InspectorError, MissingExtra, UsageError
from inspector.photos.dataset import PICTURES
from inspector.printable import clean_text

__all__ = ["DATA", "JOURNAL", "REPORT", "Transfer", "main", "names_below", "redacted"]

DATA, REPORT = "data", "report"
"""Folders of the staging folder: what was fetched, and what is stored."""

JOURNAL = "audit.partial.jsonl"
_DOCUMENT = "report.json"

MOST_FILES = 1_000_000
MOST_BYTES = 1 << 30
"""Files of a listing, and bytes of one file."""

_SPARE = 1 << 30
"""Bytes that stay free on the disk."""

_DEPTH = 32
_CHUNK = 1 << 20
_TRIES = 3
_SIDE_BY_SIDE = 8
_EVERY = 60.0
"""Seconds between two stores of a run that is under way."""

_DESCRIBING = frozenset({".json", ".xml", ".txt", ".yaml", ".yml"})
"""Suffixes of files that may describe the photos of a folder."""

_EXTRA = frozenset({"s3", "s3a", "gs", "gcs", "hf"})
"""Protocols whose packages the extra brings."""

_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "hf", "abfs", "az", "adl", "oss", "memory"})
"""Stores without folders: none is made, so that nobody makes a bucket by a slip."""

_VERSION = (
    *("etag", "ETag", "md5Hash", "md5", "blob_id", "checksum", "crc32c", "CRC", "mtime"),
    *("LastModified", "last_modified", "updated", "modified", "date_time"),
)
"""What a listing says of a file that changes when its content does."""

_FINAL = (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError)
"""What does not go away when it is tried again."""

_SHORTEST = 6
"""Characters from which the value of a variable may be a secret."""


@dataclass
class Transfer:
    """What is fetched and stored.

    Attributes:
        folder: The staging folder.
        data: Address of the data set; empty where it is local.
        report: Address of the report's folder; empty where it is local.
        told: Called with (done, total) while files are fetched; None for nobody.
    """

    folder: Path
    data: str = ""
    report: str = ""
    told: Callable[[int, int], None] | None = None
    _kept: dict[str, tuple[int, int]] = field(default_factory=dict)
    _target: tuple[Any, str] | None = None

    def fetch(self) -> dict[str, Any]:
        """Fetch the data set, and what an earlier run left in the report's folder.

        Returns:
            ``source``, the data set's place below the staging folder; ``failed``, reasons by photo;
            ``version``, a hash of what the listing says; ``files`` and ``bytes``.

        Raises:
            UsageError: An address cannot be read or written to, or holds more than fits.
            MissingExtra: Packages for its protocol are not installed.
        """
        if self.report:
            self._begin_report()
        if not self.data:
            return {"source": "", "failed": {}, "version": "", "files": 0, "bytes": 0}
        system, root = opened(self.data)
        with refusing(self.data, "cannot be read"):
            of_root = system.info(root)
        single = of_root.get("type") == "file"
        above, _, last = root.rstrip("/").rpartition("/")
        name = re.sub(r"[^\w.-]+", "_", last).strip("._")[:100] or "data"
        begin = above if single else root
        place = self.folder / DATA if single else self.folder / DATA / name
        with refusing(self.data, "cannot be listed"):
            listed, failed = self._listed(system, begin, root if single else "")
        total = sum(size or 0 for _, _, size, _ in listed)
        free = shutil.disk_usage(self.folder).free - _SPARE
        if total > free:
            raise UsageError(
                f"holds {total / 1e9:.1f} GB, and {max(free, 0) / 1e9:.1f} GB are free in "
                f"{self.folder.parent}",
                where=shown(self.data),
                hint="TMPDIR=FOLDER names another place for it",
            )
        budget = _Budget(free)
        done = 0

        def one(entry: tuple[str, str, int | None, str]) -> tuple[str, str]:
            nonlocal done
            reason = _tried(lambda: _copied(system, entry, place, budget))
            done += 1
            if self.told is not None and done % 50 == 0:
                self.told(done, len(listed))
            return entry[1], reason

        broken = {name: why for name, why in _each(system, one, listed) if why}
        failed |= broken
        described = [n for n in failed if PurePosixPath(n).suffix.lower() not in PICTURES]
        if described:
            raise UsageError(
                f"{clean_text(described[0])} cannot be fetched: {failed[described[0]]}",
                where=shown(self.data),
            )
        version = hashlib.sha256(
            json.dumps([[name, size, text] for _, name, size, text in listed]).encode()
        )
        return {
            "source": str((place / last if single else place).relative_to(self.folder)),
            "failed": failed,
            "version": version.hexdigest(),
            "files": len(listed) - len(broken),
            "bytes": free - budget.left,
        }

    def _listed(
        self, system: Any, begin: str, single: str
    ) -> tuple[list[tuple[str, str, int | None, str]], dict[str, str]]:
        """Address, name, size and version of each file to fetch; names that lead nowhere."""
        listed: list[tuple[str, str, int | None, str]] = []
        failed: dict[str, str] = {}
        count = 0
        suffixes = PICTURES if single else PICTURES | _DESCRIBING
        for folder, below, files in system.walk(
            begin, maxdepth=_DEPTH, detail=True, on_error="raise"
        ):
            count += len(files) + len(below)
            if count > MOST_FILES:
                raise UsageError(f"holds more than {MOST_FILES} files", where=shown(self.data))
            for name, info in sorted(files.items()):
                address = str(info.get("name") or f"{folder}/{name}")
                relative = f"{folder[len(begin) :].strip('/')}/{name}".removeprefix("/")
                if Path(name).suffix.lower() not in suffixes and address != single:
                    continue
                if names_below(relative) is None:
                    failed[clean_text(relative, limit=200)] = "its name leads out of the folder"
                    continue
                size = info.get("size")
                text = json.dumps([str(info[key]) for key in _VERSION if info.get(key)])
                listed.append((address, relative, size if isinstance(size, int) else None, text))
        return sorted(listed, key=lambda one: one[1]), failed

    # -- the report ---------------------------------------------------------------------------

    def _begin_report(self) -> None:
        """Look whether the report can be stored, and fetch what an interrupted run left there."""
        system, root = opened(self.report)
        self._target = system, root.rstrip("/")
        folder = self.folder / REPORT
        folder.mkdir(exist_ok=True)
        with refusing(self.report, "cannot be read"):
            there = [n for n in (_DOCUMENT, JOURNAL) if system.exists(f"{root.rstrip('/')}/{n}")]
        budget = _Budget(shutil.disk_usage(self.folder).free - _SPARE)
        for name in there:
            entry = (f"{root.rstrip('/')}/{name}", name, None, "")
            reason = _tried(lambda entry=entry: _copied(system, entry, folder, budget))  # type: ignore[misc]
            if reason:
                raise UsageError(f"{name} cannot be fetched: {reason}", where=shown(self.report))
            self._kept[name] = _state(folder / name)
        if JOURNAL not in there:
            with refusing(self.report, "cannot be written to"):
                self._written(JOURNAL, b"")

    def store(self, *, whole: bool) -> int:
        """Store files that are new or have changed; the document last, and no journal that is done.

        Args:
            whole: Whether the run is over: else its pictures and journal alone are stored.

        Returns:
            How many files were stored.

        Raises:
            UsageError: The address cannot be written to.
        """
        if self._target is None:
            return 0
        folder = self.folder / REPORT
        journal = _bytes(folder / JOURNAL)  # before the pictures that its rows name
        names = [
            name
            for name in _files(folder)
            if name not in {JOURNAL, _DOCUMENT}
            and (whole or "/" in name)
            and self._kept.get(name) != _state(folder / name)
        ]
        with refusing(self.report, "cannot be written to"):
            for _ in _each(self._target[0], self._stored, names):
                pass
            if whole and self._kept.get(_DOCUMENT) != _state(folder / _DOCUMENT):
                self._stored(_DOCUMENT)
                names.append(_DOCUMENT)
            if journal:
                self._written(JOURNAL, journal)
            elif whole:
                with contextlib.suppress(FileNotFoundError):
                    self._target[0].rm_file(f"{self._target[1]}/{JOURNAL}")
        return len(names)

    def _stored(self, name: str) -> None:
        state = _state(self.folder / REPORT / name)
        self._written(name, _bytes(self.folder / REPORT / name))
        self._kept[name] = state

    def _written(self, name: str, data: bytes) -> None:
        """Write one file, again where that fails."""
        assert self._target is not None  # noqa: S101 - asked before
        system, root = self._target
        path = f"{root}/{name}"
        for left in reversed(range(_TRIES)):
            try:
                if not _OBJECTS & set(_protocols(system)):
                    system.makedirs(path.rpartition("/")[0], exist_ok=True)
                system.pipe_file(path, data)
            except Exception as error:
                if not left or isinstance(error, _FINAL):
                    raise
                time.sleep(_TRIES - left)
            else:
                return


# -- parts ------------------------------------------------------------------------------------


def opened(url: str) -> tuple[Any, str]:
    """The file system of an address, and its path there.

    Raises:
        MissingExtra: Packages for it are not installed.
        UsageError: fsspec does not know it, or it cannot be opened.
    """
    protocol = re.split(r"::|://", url, maxsplit=1)[0]
    try:
        import fsspec
    except ImportError:
        raise MissingExtra(f"{protocol}://", "remote") from None
    try:
        system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        if any(part.partition("://")[0] in _EXTRA for part in url.split("::")):
            raise MissingExtra(f"{protocol}://", "remote") from None
        raise UsageError(redacted(str(error)), where=shown(url)) from None
    except ValueError as error:
        known = "fsspec does not know this protocol" if "Protocol" in str(error) else str(error)
        raise UsageError(redacted(known), where=shown(url)) from None
    except Exception as error:  # noqa: BLE001 - file systems raise anything
        raise UsageError(f"cannot be opened: {reason_of(error)}", where=shown(url)) from None
    return system, str(root)


@contextlib.contextmanager
def refusing(url: str, what: str) -> Iterator[None]:
    """Turn whatever a file system raises into one refusal without secrets.

    Raises:
        UsageError: The file system raises something.
    """
    try:
        yield
    except InspectorError:
        raise
    except Exception as error:  # noqa: BLE001 - file systems raise anything
        raise UsageError(
            f"{what}: {reason_of(error)}",
            where=shown(url),
            hint="look at the address; its credentials come from the environment, as fsspec "
            "reads them (AWS_*, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN, FSSPEC_*)",
        ) from None


def reason_of(error: BaseException) -> str:
    """What a file system says, in one line without secrets."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = str(said).strip().splitlines()
    return redacted(lines[0] if lines else type(error).__name__)


def redacted(text: str) -> str:
    """A text without values of the user's environment variables, and without signatures of URLs."""
    plain = kept_variables(os.environ)
    places = {"HOME", "PWD", "OLDPWD", "USER", "LOGNAME", "TMPDIR", "SHELL"}
    for name, value in os.environ.items():
        if name not in plain and name not in places and len(value) >= _SHORTEST:
            text = text.replace(value, "***")
    text = re.sub(r"\?[^\s'\"]*", "?***", re.sub(r"//[^/\s@]*:[^/\s@]*@", "//***@", text))
    return clean_text(text, limit=300)


def shown(url: str) -> str:
    """An address as messages show it."""
    return clean_text(url, limit=200)


def names_below(name: str) -> tuple[str, ...] | None:
    """Parts of a path that stays below its folder; None where it leads out or names nothing."""
    parts = tuple(name.split("/"))
    wrong = any(p in {"", ".", ".."} or "\0" in p or "\\" in p or ":" in p[1:2] for p in parts)
    return None if wrong or not parts else parts


class _Budget:
    """Bytes that may still be fetched."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise UsageError("the disk is full", hint="TMPDIR=FOLDER names another place")


def _copied(
    system: Any, entry: tuple[str, str, int | None, str], folder: Path, budget: _Budget
) -> None:
    """Copy one file below a folder that is this program's own; nothing of one that is too large."""
    address, name, size, _ = entry
    target = folder.joinpath(*(names_below(name) or ("",)))
    _check_size(size or 0)
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(target, flags, 0o600), "wb") as file, system.open(address) as source:
            count = 0
            while data := source.read(_CHUNK):
                count += len(data)
                _check_size(count)  # whatever the listing said
                budget.take(len(data))
                file.write(data)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _check_size(count: int) -> None:
    """Refuse a file that is too large.

    Raises:
        ValueError: It is.
    """
    if count > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")


def _tried(work: Callable[[], None]) -> str:
    """Do some work, again where it fails; the reason of the last failure, empty where none.

    Raises:
        InspectorError: Nothing more can be fetched.
    """
    reason = ""
    for again in range(_TRIES):
        try:
            work()
        except InspectorError:
            raise
        except (*_FINAL, ValueError) as error:
            return reason_of(error)
        except Exception as error:  # noqa: BLE001 - file systems raise anything
            reason = reason_of(error)
            time.sleep(0.5 * again)
        else:
            return ""
    return reason


def _each(system: Any, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results of some work, side by side where the file system allows it."""
    if not getattr(system, "async_impl", False):
        yield from map(work, items)
        return
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        yield from pool.map(work, items)


def _protocols(system: Any) -> tuple[str, ...]:
    inner = getattr(system, "fs", None)
    own = system.protocol
    found = (own,) if isinstance(own, str) else tuple(own)
    return (*found, *_protocols(inner)) if inner is not None else found


def _files(folder: Path) -> list[str]:
    """Names of the regular files below a folder, temporary ones left out."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink() and not name.startswith(".inspector-"):
                found.append(path.relative_to(folder).as_posix())
    return sorted(found)


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _bytes(path: Path) -> bytes:
    """Content of a file of the report; empty where there is none."""
    try:
        with open_regular(path, follow=False) as file:
            return file.read()
    except OSError:
        return b""


# -- the process ------------------------------------------------------------------------------


def main() -> None:
    """Answer the parent until it closes the pipe."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request: Mapping[str, Any] = json.loads(sys.stdin.readline() or "{}")
    if not request:
        return
    transfer = Transfer(
        Path(request["folder"]),
        request["data"],
        request["report"],
        lambda done, total: _answer(answers, {"done": done, "total": total}),
    )
    try:
        _answer(answers, {"fetched": transfer.fetch()})
        while not _asked():
            with contextlib.suppress(InspectorError):  # said when the report is stored
                transfer.store(whole=False)
        if sys.stdin.readline():
            _answer(answers, {"stored": transfer.store(whole=True)})
        else:
            transfer.store(whole=False)
    except InspectorError as error:
        parts = [error.what, error.where, error.hint]
        _answer(answers, {"refused": parts})


def _asked() -> bool:
    """Whether the parent says something, or is gone, before the next store is due."""
    if os.name != "posix":
        return True
    return bool(select.select([sys.stdin], [], [], _EVERY)[0])


def _answer(answers: TextIO, what: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError, ValueError):  # the parent is gone: the journal is stored
        answers.write(json.dumps(what) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
