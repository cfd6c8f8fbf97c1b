"""Native code on a stranger's file, under a memory cap and a wall clock.

onnxruntime cannot be interrupted while it loads a model, and constant folding may ask for any
amount of memory.  So the command line works in a forked child::

    parent                                   child
    fork, before anything heavy is loaded    cap on its data segment, no core dumps
    waits: end, clock or Ctrl-C              work() -> status
    says in one line what happened           leaves without Python's teardown

Python's own streams of the child are the terminal's, so progress bars and colours work.  What
native libraries write to descriptor 2 goes to the parent, which keeps the last of it: it tells
memory that ran out (``std::bad_alloc``) from a crash.

On systems without ``fork`` (Windows), and in a process where torch, onnxruntime or Python
threads already run (a fork would copy their locks but not their threads), the work runs in the
process itself, without clock or cap.
"""

import contextlib
import errno
import os
import re
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.errors import ExplainedError, out_of_memory, says_out_of_memory
from inspector.cli.streams import forget_stdout, say, say_usage, show_traceback
from inspector.errors import UsageError

if TYPE_CHECKING:
    from converters.rights import Rights

__all__ = ["CHECK_SECONDS", "MEMORY_SHARE", "SECONDS", "default_memory", "outcome", "run"]

# Half an hour is minutes of work on a slow machine and far from what a person waits for.
SECONDS = 1800.0
# The check comes before all else, on files that nobody knows: its cost is in proportion to the
# file, and a network of the usual size takes seconds.
CHECK_SECONDS = 60.0
# The rest is for the system and for what the child shares with its parent.
MEMORY_SHARE = 0.8
# As `inspector.cli.options` calls them.
_TIME_OPTION, _MEMORY_OPTION = "--timeout", "--memory"

_LIMIT, _REFUSED, _INTERRUPTED = 5, 3, 130
_HEAVY = ("torch", "onnxruntime")
_TAIL_BYTES = 1 << 16
# What ends a program politely, as Ctrl-C does: `kill`, and a terminal that is closed.
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_GRACE_SECONDS = 2.0


class _Ended(KeyboardInterrupt):
    """A signal asked the program to end.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _end(number: int, frame: object) -> None:
    del frame
    raise _Ended(number)


@contextlib.contextmanager
def _ending_signals() -> Iterator[None]:
    """Let signals that end a program do so in order; one that is ignored (nohup) stays so."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def default_memory() -> int | None:
    """Memory cap in bytes: a share of what the machine, or this container, has.

    None where that cannot be found out.
    """
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    with contextlib.suppress(OSError, ValueError):  # "max", or no control group
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return int(total * MEMORY_SHARE)


def run(
    work: Callable[[], int],
    *,
    seconds: float | None,
    memory: int | None,
    rights: "Rights | None" = None,
) -> int:
    """Do some work on an untrusted file and return its exit status.

    Args:
        work: Does everything, loading of heavy libraries included; returns an exit status.
        seconds: Wall clock; None for no limit.
        memory: Bytes of memory that the work may allocate; None for no limit (a CUDA device
            reserves addresses far beyond any sensible cap).
        rights: What the work may read and write; all that this process may when None.

    Returns:
        What :func:`outcome` makes of the work; 5 when time or memory ran out, 3 when native
        code crashed, 128 + n when a signal n ended it (130: Ctrl-C, 129: the terminal was
        closed, 143: SIGTERM).  Limits and crashes say so on standard error.

    Raises:
        Exception: Whatever ``work`` raises, where it runs in this process.
    """
    if not _can_fork():
        with _ending_signals():
            return work()
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    with _ending_signals():
        return _run_apart(work, seconds, memory, rights)


def _run_apart(
    work: Callable[[], int], seconds: float | None, memory: int | None, rights: "Rights | None"
) -> int:
    from converters.work_folder import announce_to
    from inspector.cli.rights import take_away

    alive, alive_end = os.pipe()
    noise, noise_end = os.pipe()
    folders, folders_end = os.pipe()
    parent = os.getpid()
    # Ctrl-C and its like wait until both processes know what to do with them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *_ENDING})
    with warnings.catch_warnings():
        # NumPy's idle BLAS threads, which survive a fork, count as threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(alive)
        os.close(noise)
        os.close(folders)
        announce_to(folders_end)

        def take() -> None:
            if rights is not None:
                take_away(rights, [alive_end, folders_end, *_streams()])

        _child(_unmasked(work, before), parent, memory, noise_end, take)
    os.close(alive_end)
    os.close(noise_end)
    os.close(folders_end)
    watch = _Watch(child, alive, noise)
    try:
        return _verdict(watch, seconds, memory, before)
    finally:
        _sweep(folders)
        for end in (alive, noise, folders):
            os.close(end)


def _sweep(folders: int) -> None:
    """Remove what the child left where it worked, when it had no time to do so itself."""
    from converters.work_folder import sweep

    os.set_blocking(folders, False)
    said = b""
    with contextlib.suppress(OSError):
        while data := os.read(folders, _TAIL_BYTES):
            said += data
    for name in said.split(b"\0")[:-1]:
        sweep(Path(os.fsdecode(name)))


def _unmasked(work: Callable[[], int], mask: Iterable[int | signal.Signals]) -> Callable[[], int]:
    """The work, with the signals let through that were before the fork."""

    def begin() -> int:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return work()

    return begin


def _can_fork() -> bool:
    if not hasattr(os, "fork") or threading.active_count() > 1:
        return False
    return not any(name in sys.modules for name in _HEAVY)


def _say_memory(memory: int | None = None) -> None:
    cap = f" (limit {memory / 2**30:.1f} GiB)" if memory else ""
    say(f"memory ran out{cap}; raise the limit with {_MEMORY_OPTION}, or distrust the model")


def _flush(stream: object) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.flush()  # type: ignore[attr-defined]


# --- the child -------------------------------------------------------------------------


def _child(
    work: Callable[[], int],
    parent: int,
    memory: int | None,
    noise: int,
    take: Callable[[], None],
) -> None:
    """Prepare, work, and leave; never returns."""
    status = 1
    try:
        _die_with(parent)
        _native_errors_to(noise)
        _cap(memory)
        take()
        status = outcome(work, memory)
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
    finally:
        # Not sys.exit: the parent's exit handlers and buffers must not run twice.
        os._exit(status)


def _streams() -> Iterator[int]:
    """Descriptors that this process needs: its streams, and files that are named by number."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            yield stream.fileno()
    for word in sys.argv:  # a shell's <(command)
        found = re.search(r"/(?:dev|proc/self)/fd/(\d+)", word)
        if found:
            yield int(found[1])


def outcome(work: Callable[[], int | None], memory: int | None = None) -> int:
    """Do some work, and turn every way in which it can end into one line and an exit status.

    Args:
        work: Returns an exit status or None for 0, leaves by ``SystemExit`` or raises.
        memory: The cap in bytes that it runs under, for the message.
    """
    try:
        return work() or 0
    except SystemExit as error:
        return _exit_status(error.code)
    except _Ended as ended:
        return 128 + ended.number
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has gone: nothing to say, nobody to hear it
        forget_stdout()
        return 1
    except Exception as error:  # noqa: BLE001 - the last line of defence against tracebacks
        return _explain(error, memory)


def _explain(error: Exception, memory: int | None) -> int:
    if isinstance(error, click.ClickException):
        say_usage(error)
        return error.exit_code
    if isinstance(error, ExplainedError):
        say(str(error))
        return error.exit_status
    if out_of_memory(error):
        _say_memory(memory)
        return _LIMIT
    if os.environ.get("INSPECTOR_DEBUG"):
        show_traceback()
    if isinstance(error, OSError) and error.errno:
        return _explain_system(error)
    say(
        f"internal error: {type(error).__name__}: {error}; please report it "
        "(INSPECTOR_DEBUG=1 shows where)"
    )
    return 1


def _explain_system(error: OSError) -> int:
    """What the system refused: a full disk, a folder that nobody may write to, too many files."""
    where = error.filename if isinstance(error.filename, str) else "output"
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        forget_stdout()
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "the disk is full: make room" if full else "look at the place and its permissions"
    say(f"{where}: {error.strerror or error}; {hint}")
    return UsageError.exit_status


def _exit_status(code: object) -> int:
    """Status of a ``SystemExit``, whose text, if it is one, is for the user."""
    if code is None or isinstance(code, int):
        return code or 0
    say(str(code))
    return 1


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, however it dies."""
    if sys.platform != "linux":
        return
    import ctypes

    death_signal_option = 1  # PR_SET_PDEATHSIG
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(death_signal_option, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _native_errors_to(noise: int) -> None:
    """Keep Python's standard error on the terminal; native code's goes to the parent."""
    try:
        if sys.stderr.fileno() == 2:
            terminal = os.dup(2)
            sys.stderr = open(  # noqa: SIM115, PTH123 - lives as long as the process
                terminal, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1
            )
        os.dup2(noise, 2)
    except (OSError, ValueError, AttributeError):  # replaced by a test runner, or closed
        return
    finally:
        os.close(noise)


def _cap(memory: int | None) -> None:
    """Limit what this process may allocate, and let no crash write a core file.

    RLIMIT_DATA counts private writable memory, which is what allocations are.  RLIMIT_AS would
    also count the address space that libraries map and thread pools reserve but never touch.
    """
    import resource

    limits = [(resource.RLIMIT_CORE, 0)]
    if memory is not None:
        limits.append((resource.RLIMIT_DATA, memory))
    for kind, wanted in limits:
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


# --- the parent ------------------------------------------------------------------------


class _Watch:
    """Waits for a child, and keeps the last of what its native code said.

    Args:
        child: Process id.
        alive: Read end of a pipe that nobody writes; it ends when the child does.
        noise: Read end of the child's descriptor 2.
    """

    def __init__(self, child: int, alive: int, noise: int) -> None:
        self.child, self.alive, self.noise = child, alive, noise
        self.tail = b""
        self._open = [alive, noise]

    def wait(self, seconds: float | None) -> int | None:
        """Wait status of the child; None when it still runs after ``seconds``."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            # Half a second: a grandchild may keep the pipes open longer than the child lives.
            patience = 0.5 if end is None else max(0.0, min(0.5, end - time.monotonic()))
            self._read(patience)
            done, status = os.waitpid(self.child, 0 if self.alive not in self._open else os.WNOHANG)
            if done:
                self._read(0.0)
                return status
            if end is not None and time.monotonic() >= end:
                return None

    def _read(self, patience: float) -> None:
        ready, _, _ = select.select(self._open, [], [], patience)
        if self.alive in ready:
            self._open.remove(self.alive)
        if self.noise in ready:
            data = os.read(self.noise, _TAIL_BYTES)
            self.tail = (self.tail + data)[-_TAIL_BYTES:]
            if not data:
                self._open.remove(self.noise)

    def end(self, *signals: int) -> None:
        """Send one signal after another until the child is gone; the last is SIGKILL."""
        for number in (*signals, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, number)
            if self.wait(_GRACE_SECONDS) is not None:
                return


def _verdict(
    watch: _Watch, seconds: float | None, memory: int | None, mask: Iterable[int | signal.Signals]
) -> int:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = watch.wait(seconds)
        if status is None:
            watch.end()
            say(f"stopped after {seconds:g} s; raise the limit with {_TIME_OPTION}, or distrust it")
            return _LIMIT
    except KeyboardInterrupt as error:
        _interrupt(watch)
        return 128 + error.number if isinstance(error, _Ended) else _INTERRUPTED
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    return _killed(os.WTERMSIG(status), watch.tail.decode("utf-8", "replace"), memory)


def _interrupt(watch: _Watch) -> None:
    """Reap the child after Ctrl-C and its like, whatever else comes."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_ENDING)}
    try:
        # A terminal tells both processes, a plain kill only this one.
        if watch.wait(0.2) is None:
            watch.end(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _killed(number: int, said: str, memory: int | None) -> int:
    if number in (signal.SIGINT, *_ENDING):
        return 128 + number
    if number == getattr(signal, "SIGXCPU", None):
        say(f"stopped for want of processor time; raise {_TIME_OPTION}, or distrust the model")
        return _LIMIT
    if number == signal.SIGKILL or (number == signal.SIGABRT and says_out_of_memory(said)):
        _say_memory(memory)
        return _LIMIT
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    detail = f": {ascii(last[:200])[1:-1]}" if last else ""
    say(f"the native runtime crashed on this file ({name}{detail}); the model is refused")
    return _REFUSED
