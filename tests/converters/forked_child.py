"""The child of a conversion, forked from a program that has imported PyTorch and its exporter.

To import them takes two thirds of the processor time of a small conversion, so one program per
test process imports them once, starts no thread, and forks for every conversion. What is forked
takes the streams, the environment, the folder, the cap and the rights that the sandbox gives to
``python -m converters.conversion.child``, and does what that does.

    test process                          forker                     minder          child
    three streams, what to become   ->    fork                  ->   fork       ->   works
    number of the child, then its   <----------------------------    waits
    status

Tests of the sandbox itself start real children, and so does whoever names another Python.
"""

import io
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import types
from functools import cache
from pathlib import Path
from typing import IO, Any

import pytest

from converters.conversion import sandbox

__all__ = ["fork_children"]

ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 1 << 20
_PRELOADED = (
    *("converters.conversion.child", "converters.to_onnx.pytorch.export", "torch._dynamo"),
    *("torch.onnx._internal.exporter._core", "onnxscript.function_libs.torch_lib.ops"),
)


def fork_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let conversions of this test, where they run in this Python, work in forked children."""
    real = sandbox._isolated
    monkeypatch.setattr(
        sandbox, "_isolated", lambda *asked: {"asked": asked, "real": real}, raising=True
    )
    names = {"PIPE": subprocess.PIPE, "TimeoutExpired": subprocess.TimeoutExpired}
    monkeypatch.setattr(sandbox, "subprocess", types.SimpleNamespace(Popen=_started, **names))


def _started(words: list[str], *, asked: Any, real: Any, **streams: Any) -> Any:
    """What ``subprocess.Popen`` would return."""
    if words != [sys.executable, "-m", "converters.conversion.child"]:
        return subprocess.Popen(words, **streams, **real(*asked))  # noqa: S603 - the sandbox's own
    memory, _, rights = asked
    return _Child(str(streams["cwd"]), streams["env"], streams["stderr"], memory, rights)


class _Child:
    """As much of ``subprocess.Popen`` as the sandbox uses."""

    def __init__(
        self, folder: str, environment: dict[str, str], noise: IO[bytes], memory: Any, rights: Any
    ) -> None:
        reading, asking = os.pipe()
        answers, writing = os.pipe()
        said, status = os.pipe()
        request = pickle.dumps((folder, environment, memory, rights))
        socket.send_fds(_forker()[0], [request], [reading, writing, noise.fileno(), status])
        for end in (reading, writing, status):
            os.close(end)
        self.stdin = os.fdopen(asking, "w", encoding="utf-8")
        self.stdout = os.fdopen(answers, encoding="utf-8")
        self._said = os.fdopen(said, encoding="utf-8")
        self.pid = int(self._said.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked child", timeout or 0.0)
            self.returncode = int(self._said.readline())
            self._said.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@cache
def _forker() -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    """A way to the program that forks; it ends with this process, whose end closes the way."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    program = subprocess.Popen(  # noqa: S603 - this file
        [sys.executable, "-P", __file__, str(theirs.fileno())],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    return ours, program


# -- the program that forks -----------------------------------------------------------------------


def _serve(way: socket.socket) -> None:
    """Fork for every request that comes along a socket."""
    import gc
    import importlib

    for name in _PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # minders are not waited for
    while True:
        request, streams, _, _ = socket.recv_fds(way, _LONGEST, 4)
        if not request:
            return
        if os.fork() == 0:
            way.close()
            _mind(pickle.loads(request), *streams)  # noqa: S301 - from the test process
        for stream in streams:
            os.close(stream)


def _mind(request: tuple[Any, ...], *streams: int) -> None:
    """Fork the child, tell its number, wait for it, tell its status; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *three, status = streams
    parent = os.getpid()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.write(go, b"1")
        _become(*request, three, parent)
    os.read(ready, 1)
    os.write(status, f"{child}\n".encode())
    for stream in three:
        os.close(stream)
    _, ended = os.waitpid(child, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def _become(
    folder: str,
    environment: dict[str, str],
    memory: int | None,
    rights: Any,
    streams: list[int],
    parent: int,
) -> None:
    """Be the child of the sandbox, from its first line to its exit status; never returns."""
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 256)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None
        sys.path.insert(0, folder)
        sandbox._prepare(memory, parent, rights)()
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - as above
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - as above
        from converters.conversion import child

        child.main()
        status = 0
    except BaseException:  # noqa: BLE001 - what Python does with what nobody catches
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
