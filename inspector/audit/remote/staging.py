"""Data sets and reports at remote addresses (fsspec): fetched before an audit, stored after it.

    s3://bucket/photos    gs://bucket/report    hf://datasets/owner/name    zip://photos::s3://b/a.zip

Photos are fetched into a folder of this machine and audited there.  The transfer is done by a
process of its own (``inspector.audit.remote.transfer``), so that whoever opens the model and
decodes photos has neither a network nor credentials.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from converters.conversion.environment import kept_variables
from converters.work_folder import work_folder
from inspector.audit.remote.transfer import DATA, REPORT, shown
from inspector.errors import InspectorError, LimitExceeded, UsageError

__all__ = ["Fetched", "Staged", "is_remote", "staged", "without_credentials"]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::|://)")

_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("http", "https"), "a web page is not a listing of photos; fetch them first"),
    **dict.fromkeys(
        ("reference", "data", "generic", "cached", "blockcache", "filecache", "simplecache"),
        "what it holds would name what is read",
    ),
    **dict.fromkeys(
        ("dask", "jlab", "jupyter", "pyscript", "dvc", "git", "async_wrapper", "asyncwrapper"),
        "it runs programs",
    ),
}
"""Protocols of fsspec that are refused, and why."""

_NAMES = frozenset(
    {
        *("HOME", "USERPROFILE", "USER", "LOGNAME", "SHELL", "TMPDIR", "TEMP", "TMP", "COLUMNS"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "APPDATA", "HF_HOME", "COLORTERM"),
        *("FORCE_COLOR", "CI", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "MPLCONFIGDIR", "MPLBACKEND"),
    }
)
_BEGINNINGS = ("INSPECTOR_", "CUDA_", "NVIDIA_", "ORT_", "RAY_", "SLURM_", "PYTEST_")
_CODE = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Fetched:
    """What was fetched.

    Attributes:
        url: Where from.
        failed: Photos that could not be fetched, with the reason.
        version: Hash of what the listing says of the files: their sizes, hashes, times.
        files: How many there are.
        size: Their bytes.
    """

    url: str
    failed: Mapping[str, str]
    version: str
    files: int
    size: int


@dataclass
class Staged:
    """A data set and a report's folder on this machine.

    Attributes:
        data: The data set.
        folder: Where the report is to be written.
        fetched: What was fetched; None where the data set was local.
        target: Address of the report; empty where it is local.
    """

    data: Path
    folder: Path
    fetched: Fetched | None = None
    target: str = ""
    _process: "_Process | None" = None

    def store(self) -> int:
        """Store what is new in the report's folder, or in its journal.

        Returns:
            How many files were stored.

        Raises:
            UsageError: The address cannot be written to; what was computed is kept, and where is
                said.
        """
        if not self.target or self._process is None:
            return 0
        try:
            return int(self._process.ask({"store": True})["stored"])
        except InspectorError as error:
            kept = Path(tempfile.mkdtemp(prefix="inspector-report-"))
            shutil.copytree(self.folder, kept, dirs_exist_ok=True, symlinks=True)
            raise UsageError(
                f"{error.what}; what was computed is kept in {kept}",
                where=error.where,
                hint=error.hint or "",
            ) from None


def is_remote(text: str | os.PathLike[str]) -> bool:
    """Whether a text is an address that fsspec opens, rather than a path of this machine."""
    return isinstance(text, str) and _ADDRESS.match(text) is not None


def check_address(url: str) -> str:
    """An address that may be opened.

    Raises:
        UsageError: Its protocol is refused, or it holds a password.

    Example:
        >>> from inspector.audit.remote.staging import check_address
        >>> check_address("s3://bucket/photos")
        's3://bucket/photos'
    """
    for part in url.split("::"):
        protocol, _, rest = part.partition("://")
        if re.match(r"[^/]*:[^/]*@", rest):
            raise UsageError(
                "the address holds a password, which everybody can read in a list of processes",
                where=f"{protocol}://***",
                hint="leave it out: credentials come from the environment, as fsspec reads them",
            )
        if protocol.lower() in _REFUSED:
            why = _REFUSED[protocol.lower()]
            raise UsageError(f"{protocol}:// is refused: {why}", where=shown(url))
    return url


@contextmanager
def staged(
    data: Path | str,
    folder: Path | str,
    *,
    seconds: float | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[Staged]:
    """Fetch a remote data set, and store a report remotely.

    A report is stored by ``Staged.store``; without it, the journal of the run alone is.  While the
    context is open, journal and pictures are stored every minute.

    Args:
        data: A path, or an address such as ``s3://bucket/photos``.
        folder: Where the report is to be: likewise.
        seconds: Clock of the fetching; None for none.
        progress: Called with (what, done, total).

    Raises:
        UsageError: An address is refused, or cannot be read or written to; or packages for it are
            not installed.
        LimitExceeded: The fetching takes longer than its clock.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from inspector.audit.remote.staging import staged
        >>> photos = "file://" + str(Path("sample_models/images").resolve())
        >>> with tempfile.TemporaryDirectory() as folder, staged(photos, Path(folder)) as place:
        ...     len(list(place.data.iterdir())) > 10, place.fetched.failed
        (True, {})
    """
    addresses = [check_address(str(one)) if is_remote(one) else "" for one in (data, folder)]
    if not any(addresses):
        yield Staged(Path(data), Path(folder))
        return
    with work_folder(Path(tempfile.gettempdir())) as work, _Process(seconds) as process:
        (work / DATA).mkdir()
        request = {"folder": str(work), "data": addresses[0], "report": addresses[1]}
        found = process.ask(request, progress)["fetched"]
        fetched = None
        if addresses[0]:
            fetched = Fetched(
                addresses[0],
                found["failed"],
                found["version"],
                found["files"],
                found["bytes"],
            )
        yield Staged(
            work / found["source"] if addresses[0] else Path(data),
            work / REPORT if addresses[1] else Path(folder),
            fetched,
            addresses[1],
            process,
        )


@contextmanager
def without_credentials() -> Iterator[None]:
    """Leave the processes that are started in this context no variables that may be secrets."""
    before = dict(os.environ)
    plain = kept_variables(before)
    for name in before:
        if name not in plain and name not in _NAMES and not name.startswith(_BEGINNINGS):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ |= {name: value for name, value in before.items() if name not in os.environ}


class _Process:
    """The process that transfers files.

    Args:
        seconds: Clock of each answer.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        path = [str(_CODE), os.environ.get("PYTHONPATH", "")]
        self._late = False
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "inspector.audit.remote.transfer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
            start_new_session=True,  # Ctrl-C is for the parent; this one stores the journal yet
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let it store the journal, and end it."""
        with contextlib.suppress(OSError):
            if self._child.stdin is not None:
                self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(60)
        self._kill()
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()

    def ask(
        self,
        request: Mapping[str, Any],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Send a line and wait for its answer.

        Raises:
            UsageError: What was asked is refused.
            LimitExceeded: It takes longer than its clock.
            InspectorError: The process is gone.
        """
        clock = None
        if self.seconds is not None:
            clock = threading.Timer(self.seconds, self._too_late)
            clock.daemon = True
            clock.start()
        try:
            return self._answer(request, progress)
        finally:
            if clock is not None:  # no thread is left: the work runs in a forked process
                clock.cancel()
                clock.join()

    def _answer(
        self, request: Mapping[str, Any], progress: Callable[[str, int, int], None] | None
    ) -> dict[str, Any]:
        line = ""
        with contextlib.suppress(OSError, ValueError):
            assert self._child.stdin is not None  # noqa: S101 - a pipe, see above
            assert self._child.stdout is not None  # noqa: S101
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
            for line in self._child.stdout:
                answer: dict[str, Any] = json.loads(line)
                if "refused" in answer:
                    what, where, hint = answer["refused"]
                    raise UsageError(what, where=where, hint=hint)
                if "total" not in answer:
                    return answer
                if progress is not None:
                    progress("files fetched", answer["done"], answer["total"])
        if self._late:
            raise LimitExceeded(
                f"the transfer was stopped after {self.seconds:g} s",
                hint="--timeout gives more time; 0 sets no limit",
            )
        raise InspectorError("the process that transfers files has ended", hint="try again")

    def _too_late(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            self._child.kill()
