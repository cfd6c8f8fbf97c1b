"""A child process that converts, under a memory cap and a clock, and hands back files.

Converting may run a stranger's program.  It gets a folder of its own to work in, no GPU, few of
the user's environment variables, and nothing of this process but its standard streams.  Where the
system allows it (see ``converters.rights``), it reads the source and Python's own folders, writes
into its work folder, and opens no socket to anywhere.  ``SECURITY.md`` says what remains.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from converters.conversion.environment import environment_of
from converters.errors import (
    DISK_FULL,
    ConversionFailed,
    ConversionLimit,
    NotWritten,
    says_disk_full,
    says_out_of_memory,
)
from converters.rights import Rights, environment_folders, restrict, wanted

__all__ = ["Sandbox"]

_CODE = Path(__file__).resolve().parents[2]
_TAIL = 4000  # characters of the child's last words that are kept
_GRACE = 5.0
_LONGEST = 64 << 20  # characters of an answer: a hundred thousand labels have a tenth
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "JAX_PLATFORMS": "cpu",
    "PYTHONDONTWRITEBYTECODE": "1",
    "NO_COLOR": "1",
}


class Sandbox:
    """One child process; use it as a context manager.

    Args:
        folder: Where it works; its temporary files and caches go there.
        seconds: Wall clock for all of its work; None for no limit.
        memory: Bytes that it may allocate; None for no limit.
        where: The source, for messages.
        python: The interpreter, of another environment perhaps; this one when empty.
        reads: Files and folders that it may read beside Python's own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float | None,
        memory: int | None,
        where: str,
        python: str = "",
        reads: tuple[Path, ...] = (),
    ) -> None:
        self._python = _interpreter(python)
        self.folder, self.seconds, self.memory, self.where = folder, seconds, memory, where
        self._reads = reads
        self._late = threading.Event()

    def __enter__(self) -> Self:
        """Start the child."""
        self._noise = tempfile.TemporaryFile(dir=self.folder)
        self._child = subprocess.Popen(  # noqa: S603 - the user's own word, never a file's
            [self._python, "-m", "converters.conversion.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            text=True,
            encoding="utf-8",
            cwd=self.folder,
            env=self._environment(),
            **_isolated(self.memory, os.getpid(), self._rights()),
        )
        self._clock: threading.Timer | None = None
        if self.seconds is not None:
            self._clock = threading.Timer(self.seconds, self._too_late)
            self._clock.daemon = True
            self._clock.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child, whatever it does."""
        if self._clock is not None:
            self._clock.cancel()
        for stream in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        if kind is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_GRACE)
        self._kill()
        self._child.wait()
        self._noise.close()

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send one request and wait for its answer.

        Raises:
            ConversionFailed: The converter refuses the source, or fails.
            ConversionLimit: Time or memory ran out.
        """
        line = ""
        with contextlib.suppress(OSError, ValueError):  # a child that is gone
            if self._child.stdin is not None and self._child.stdout is not None:
                self._child.stdin.write(json.dumps(request) + "\n")
                self._child.stdin.flush()
                line = self._child.stdout.readline(_LONGEST)
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            raise self._ended() from None
        if not isinstance(answer, dict):
            raise self._ended()
        if "done" in answer:
            return answer["done"]
        if says_disk_full(" ".join(map(str, answer.values()))):
            raise NotWritten("no room is left for the result", where=self.where, hint=DISK_FULL)
        if "refused" in answer:
            what, where, hint = answer["refused"]
            raise ConversionFailed(what, where=where or self.where, hint=_lifted(what) or hint)
        said = str(answer.get("failed", ""))
        if "memory" in answer or says_out_of_memory(said):
            raise self._no_memory()
        raise ConversionFailed(said[:400], where=self.where, hint=_lifted(said))

    def _ended(self) -> Exception:
        """Error for a child that ended without an answer."""
        if self._late.is_set():
            return ConversionLimit(
                f"stopped after {self.seconds:g} s",
                where=self.where,
                hint="raise --timeout, or distrust the source",
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_GRACE)
        status = self._child.poll()
        said = self._last_words()
        if status == -signal.SIGKILL or says_out_of_memory(said):
            return self._no_memory()
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        # A crash handler talks on behind the line that says why.
        last = next((n for n in reversed(lines) if "[ERROR]" in n), lines[-1] if lines else "")
        code = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        return ConversionFailed(
            f"the framework crashed ({code})" + (f": {ascii(last[:200])[1:-1]}" if last else ""),
            where=self.where,
            hint=f"{self._python} must bring numpy and onnx" if "No module named" in last else "",
        )

    def _no_memory(self) -> Exception:
        cap = f" (limit {self.memory / 2**30:.1f} GiB)" if self.memory else ""
        return ConversionLimit(
            f"memory ran out{cap}",
            where=self.where,
            hint="raise --memory, or distrust the source",
        )

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            size = self._noise.seek(0, os.SEEK_END)
            self._noise.seek(max(0, size - _TAIL))
            return self._noise.read().decode("utf-8", "replace")
        return ""

    def _environment(self) -> dict[str, str]:
        """What is kept of the user's environment, with caches of frameworks in the folder."""
        here = str(self.folder)
        places = (
            "TMPDIR",
            "TEMP",
            "TMP",
            "HF_HOME",
            "KERAS_HOME",
            "TORCH_HOME",
            "XDG_CACHE_HOME",
            "TORCHINDUCTOR_CACHE_DIR",
            "MPLCONFIGDIR",
        )
        path = [str(_CODE), os.environ.get("PYTHONPATH", "")]
        if self._python != sys.executable:
            # Nothing of this environment but the converters: its packages are for another Python.
            path = [str(self._alone(_CODE / "converters"))]
        return {
            **environment_of(self.folder),
            **_OFFLINE,
            **dict.fromkeys(places, here),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        }

    def _rights(self) -> Rights:
        reads = (_CODE / "converters", *environment_folders(self._python), *self._reads)
        lists = tuple(dict.fromkeys(path.parent for path in self._reads))
        return Rights(reads=reads, writes=(self.folder,), lists=lists, seconds=self.seconds)

    def _alone(self, package: Path) -> Path:
        """A folder that holds the converters and nothing else."""
        folder = self.folder / "converters-alone"
        shutil.copytree(
            package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        return folder

    def _too_late(self) -> None:
        self._late.set()
        self._kill()

    def _kill(self) -> None:
        """End the child and whatever it started."""
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._child.pid, signal.SIGKILL)
            else:
                self._child.kill()


def _lifted(said: str) -> str:
    """What to do where the source missed a right; nothing for another failure."""
    if not wanted() or "ermission denied" not in said:
        return ""
    return (
        "a source may read itself and Python's folders, and has no network; give what it needs "
        "beside it, or INSPECTOR_SANDBOX=off if you trust it with all that you can do"
    )


def _interpreter(python: str) -> str:
    """The interpreter's path.

    Raises:
        ConversionFailed: There is none.
    """
    if not python:
        return sys.executable
    found = shutil.which(python)
    if found is None:
        raise ConversionFailed(
            "is not a program that can be run",
            where=python,
            hint="--python takes the Python of an environment, such as jax-env/bin/python",
        )
    return str(Path(found).absolute())  # not resolved: its own path tells it its environment


def _isolated(memory: int | None, parent: int, rights: Rights) -> dict[str, Any]:
    """How the child is started on this system: a session of its own, capped, and mortal."""
    if os.name != "posix":
        return {}
    return {"start_new_session": True, "preexec_fn": _prepare(memory, parent, rights)}


def _prepare(memory: int | None, parent: int, rights: Rights) -> Callable[[], None]:
    import resource

    prctl = None
    if sys.platform == "linux":
        import ctypes

        prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        if prctl is not None:
            prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)
        if memory is not None:
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            value = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_DATA, (value, value))
        restrict(rights)

    return prepare
