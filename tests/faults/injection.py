"""Faults of the disk at each step of writing, in a forked child.

A *step* is whatever touches the disk: a file opened for writing, bytes brought to the disk, a
name given, a folder made. A run counts its steps; another run fails at the n-th of them.

Children are forked by a program of its own, which imports what a command needs and starts no
thread: in the fork of a test process, a lock that another thread held would stay shut for ever.
"""

import builtins
import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

__all__ = ["FAULTS", "contents", "leftovers", "run"]

FAULTS = ("ENOSPC", "EIO", "kill")

_WRITING = frozenset("wax+")


class _Steps:
    """Counts steps and fails at one of them."""

    def __init__(self, at: int, fault: str, below: Path) -> None:
        self.count, self.at, self.fault, self.below = 0, at, fault, str(below)

    def _is_below(self, path: str | os.PathLike[str]) -> bool:
        return str(Path.cwd() / path).startswith(self.below)

    def take(self, path: object) -> None:
        if isinstance(path, str | os.PathLike) and not self._is_below(path):
            return
        self.count += 1
        if self.count != self.at:
            return
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.fault)
        raise OSError(number, os.strerror(number))


def _patch(steps: _Steps) -> None:
    """Let the functions that everything is written with count; for a child that ends soon."""

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(path: object, *rest: object, **named: object) -> object:
            steps.take(path)
            return function(path, *rest, **named)

        return call

    for name in ("replace", "rename", "mkdir", "link", "truncate", "ftruncate", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    mkstemp, opened = tempfile.mkstemp, io.open

    def make(*parts: object, **named: object) -> object:
        steps.take(named.get("dir") or (parts[2] if len(parts) > 2 else tempfile.gettempdir()))
        return mkstemp(*parts, **named)

    def open_(file: object, mode: str = "r", *rest: object, **named: object) -> object:
        if _WRITING & set(mode):
            steps.take(file)
        return opened(file, mode, *rest, **named)

    tempfile.mkstemp = make  # type: ignore[assignment]
    io.open = builtins.open = open_  # type: ignore[assignment]


@cache
def _forker() -> subprocess.Popen[str]:
    """The program that forks; it ends with this process, whose end closes its input."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    return subprocess.Popen(  # noqa: S603 - this file
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )


def run(arguments: list[str], folder: Path, *, at: int = 0, fault: str = "EIO") -> tuple[int, int]:
    """Run a command in a forked child, with a fault at one step.

    Args:
        arguments: Of ``inspector``.
        folder: Where it runs, its cache and its temporary files included.
        at: The step, from 1; 0 for none.
        fault: ``ENOSPC``, ``EIO`` or ``kill``.

    Returns:
        The exit status (the negative number of a signal), and the steps that were taken.
    """
    forker = _forker()
    assert forker.stdin is not None
    assert forker.stdout is not None
    forker.stdin.write(json.dumps([arguments, str(folder), at, fault]) + "\n")
    forker.stdin.flush()
    status, taken = json.loads(forker.stdout.readline())
    return status, taken


def _serve() -> None:
    """Fork for every line of standard input, and answer with a line."""
    import onnxruntime  # noqa: F401
    import torch

    import inspector.cli.convert
    import inspector.cli.explain
    import inspector.cli.study
    import inspector.cli.verify
    import inspector.explain
    import inspector.verify.checks  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        arguments, folder, at, fault = json.loads(line)
        sys.stdout.write(json.dumps(_run(arguments, Path(folder), at, fault)) + "\n")
        sys.stdout.flush()


def _run(arguments: list[str], folder: Path, at: int, fault: str) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            log = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(log, stream)
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as it lives
            os.chdir(folder)
            os.environ["INSPECTOR_CACHE"] = str(folder / "cache")
            steps = _Steps(at, fault, folder)
            _patch(steps)
            from inspector.cli import run as command

            status = command(arguments)
            os.write(writing, str(steps.count).encode())
        finally:
            os._exit(status)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        taken = stream.read()
    return os.waitstatus_to_exitcode(status), int(taken or 0)


def contents(folder: Path, *, journals: bool = False) -> dict[str, bytes]:
    """Every file below a folder and its bytes; what is hidden is not a result.

    Args:
        folder: The folder.
        journals: Also those from which an interrupted study goes on: they grow line by line.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.parts)
        and (journals or not path.name.endswith(".partial.jsonl"))
    }


def leftovers(folder: Path) -> list[str]:
    """Hidden files and folders below a folder: what the program works in."""
    with contextlib.suppress(OSError):
        return sorted(str(p.relative_to(folder)) for p in folder.rglob(".*"))
    return []


if __name__ == "__main__":
    _serve()
