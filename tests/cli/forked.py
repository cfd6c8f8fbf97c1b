"""``inspector`` as a command, forked from a program that has imported torch.

To import torch takes most of the processor time of a short command, so one program per test
process imports it once and forks for every call. It starts no thread, and what it forks goes the
way of ``python -m inspector``: environment, folder and streams of its own, and from there the
supervisor, which forks once more and takes rights away from its child. ONNX Runtime, Matplotlib
and whatever else a command needs are imported by that child, as always.

Tests of imports, signals, shells and rights start ``python -m inspector`` themselves.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import IO

__all__ = ["call"]

ROOT = Path(__file__).resolve().parents[2]


@cache
def _forker() -> "subprocess.Popen[str]":
    """The program that forks; it ends with this process, whose end closes its input."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return subprocess.Popen(  # noqa: S603 - this file
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        start_new_session=True,
    )


def call(arguments: list[str], folder: Path, seconds: float) -> "subprocess.CompletedProcess[str]":
    """Run a command, with this process's environment, and wait for it.

    Args:
        arguments: Of ``inspector``.
        folder: Where it runs.
        seconds: How long it may take.

    Raises:
        subprocess.TimeoutExpired: It took longer; it has been killed.
    """
    forker = _forker()
    assert forker.stdin is not None
    assert forker.stdout is not None
    forker.stdin.write(json.dumps([arguments, str(folder), dict(os.environ)]) + "\n")
    forker.stdin.flush()
    if not select.select([forker.stdout], [], [], seconds)[0]:
        _forker.cache_clear()
        os.killpg(forker.pid, signal.SIGKILL)
        forker.communicate()
        raise subprocess.TimeoutExpired(["inspector", *arguments], seconds)
    status, said, errors = json.loads(forker.stdout.readline())
    return subprocess.CompletedProcess(["inspector", *arguments], status, said, errors)


def _serve() -> None:
    """Fork for every line of standard input, and answer with a line."""
    import gc

    import torch  # noqa: F401

    import inspector.explain  # noqa: F401
    from inspector.cli import supervise

    # Torch is there, but it has started no thread that a fork would lack.
    supervise._HEAVY = tuple(name for name in supervise._HEAVY if name != "torch")
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        arguments, folder, environment = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            child = os.fork()
            if child == 0:
                _become(arguments, folder, environment, out, errors)
            _, status = os.waitpid(child, 0)
            answer = [os.waitstatus_to_exitcode(status), _text(out), _text(errors)]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _text(file: IO[bytes]) -> str:
    """What was written to a file, as ``text=True`` of a subprocess reads it."""
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n").replace("\r", "\n")


def _become(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    out: IO[bytes],
    errors: IO[bytes],
) -> None:
    """Be the command, from its first line to its exit status; never returns."""
    status = 1
    try:
        for number, source in enumerate((os.open(os.devnull, os.O_RDONLY), out, errors)):
            os.dup2(source if isinstance(source, int) else source.fileno(), number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["inspector", *arguments]
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        from inspector.cli import run

        status = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - what Python does with what nobody catches
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
