"""The supervised child: every way in which it can end, seen from a shell."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import ended, soon

from inspector.cli import supervise

ROOT = Path(__file__).parents[2]
_PREFIX = """
import ctypes, os, signal, sys, threading, time
from inspector.cli import supervise
from converters.errors import NotAModel
SECONDS, MEMORY = None, None
"""
_SUFFIX = """
if __name__ == "__main__":
    sys.exit(supervise.run(work, seconds=SECONDS, memory=MEMORY))
"""
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc are Linux's")
pytestmark = posix


def script(body: str) -> list[str]:
    return [sys.executable, "-c", _PREFIX + body + _SUFFIX]


def shell(body: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(  # noqa: S603 - our own script
        script(body),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("def work(): return 7", 7, ""),
        ("def work(): sys.exit(4)", 4, ""),
        ("def work(): sys.exit()", 0, ""),
        ("def work(): sys.exit('enough')", 1, "error: enough\n"),
        (
            "def work(): raise NotAModel('is empty', where='m.onnx', hint='look')",
            3,
            "error: m.onnx: is empty; look\n",
        ),
        ("def work(): raise KeyboardInterrupt", 130, ""),
        ("def work(): raise MemoryError", 5, "memory ran out"),
        ("def work(): raise RuntimeError('std::bad_alloc')", 5, "memory ran out"),
        (
            "import inspector.errors as e\ndef work(): raise e.BrokenInstallation('it is gone')",
            6,
            "error: it is gone\n",
        ),
        ("def work(): raise ValueError('odd')", 1, "internal error: ValueError: odd"),
        ("SECONDS = 0.3\ndef work(): time.sleep(30)", 5, "stopped after 0.3 s"),
        ("def work(): ctypes.string_at(0)", 3, "crashed on this file (SIGSEGV)"),
        ("def work(): os.abort()", 3, "crashed on this file (SIGABRT)"),
        ("def work(): os.kill(os.getpid(), signal.SIGFPE)", 3, "(SIGFPE)"),
        ("def work(): os.kill(os.getpid(), signal.SIGILL)", 3, "(SIGILL)"),
        ("def work(): os.kill(os.getpid(), signal.SIGKILL)", 5, "memory ran out"),
    ],
)
def test_ends(body, status, said):
    done = shell(body)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == bool(said), "one line, no traceback"


@linux
def test_memory_cap_holds_for_python_and_is_named():
    body = "MEMORY = 1 << 30\ndef work(): return len(bytearray({})) * 0"
    assert shell(body.format("1 << 28")).returncode == 0
    done = shell(body.format("3 << 29"))
    assert done.returncode == 5
    assert "(limit 1.0 GiB); raise the limit with --memory" in done.stderr


def test_abort_for_want_of_memory_is_no_crash():
    said = "terminate called after throwing an instance of 'std::bad_alloc'"
    done = shell(f"def work():\n    os.write(2, {said.encode()!r})\n    os.abort()")
    assert done.returncode == 5
    assert done.stderr.startswith("error: memory ran out")


def test_last_words_of_native_code_are_escaped():
    done = shell("def work():\n    os.write(2, b'first\\nlast \\x1b[2J word')\n    os.abort()")
    assert done.returncode == 3
    assert "(SIGABRT: last \\x1b[2J word)" in done.stderr


def test_native_code_may_say_any_amount():
    done = shell("def work():\n    os.write(2, b'x' * 3_000_000)\n    return 6")
    assert (done.returncode, done.stderr) == (6, "")


def test_output_comes_whole_and_once():
    done = shell("print('parent')\ndef work():\n    print('child' * 50_000)\n    return 0")
    assert done.stdout == "parent\n" + "child" * 50_000 + "\n"


def test_debug_shows_where():
    done = shell("def work(): raise ValueError('odd')", INSPECTOR_DEBUG="1")
    assert "Traceback" in done.stderr


def test_reader_of_a_pipe_that_goes_away():
    body = "def work():\n    for _ in range(100_000): print('line')\n    return 0"
    with subprocess.Popen(  # noqa: S603 - our own script
        script(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


def test_streams_are_still_the_terminal():
    """Standard error of the child is a terminal when the shell's is."""
    master, slave = pty.openpty()
    body = "def work(): return 40 + sys.stderr.isatty() + 2 * sys.stdout.isatty()"
    with subprocess.Popen(script(body), stdout=slave, stderr=slave, cwd=ROOT) as process:  # noqa: S603
        assert process.wait(30) == 43
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("group", [True, False], ids=["terminal", "kill"])
@pytest.mark.parametrize("deaf", [False, True], ids=["python", "native"])
def test_interrupt(group, deaf):
    """Ctrl-C (both processes) and kill -INT (the parent) end both, native loops too."""
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN)" if deaf else "pass"
    body = (
        f"def work():\n    {ignore}\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n"
        "    return 0"
    )
    with subprocess.Popen(  # noqa: S603 - our own script
        script(body),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    ) as process:
        child = int(process.stdout.readline())
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130
        assert said == b""
        assert soon(lambda: ended(child))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [False, True])
def test_other_signals_end_it_as_ctrl_c_does(group, number, tmp_path):
    """The status is the shell's for this signal, and what was being made is gone."""
    body = f"""
from pathlib import Path
from converters.work_folder import work_folder
def work():
    with work_folder(Path({str(tmp_path)!r})):
        print(os.getpid(), flush=True)
        time.sleep(60)
    return 0
"""
    with subprocess.Popen(  # noqa: S603 - our own script
        script(body),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    ) as process:
        child = int(process.stdout.readline())
        (os.killpg if group else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 128 + number
        assert said == b""
        assert soon(lambda: ended(child))
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_hang_up_stays_ignored():
    body = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "def work():\n    os.kill(os.getppid(), signal.SIGHUP)\n    time.sleep(0.2)\n    return 7"
    )
    assert shell(body).returncode == 7


@pytest.mark.parametrize("end", ["time.sleep(60)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_a_killed_child_was_making_is_removed(end, tmp_path):
    body = f"""
from pathlib import Path
from converters.work_folder import work_folder
SECONDS = 2
def work():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with work_folder(Path({str(tmp_path)!r})) as folder:
        (folder / "draft").write_text("half")
        {end}
    return 0
"""
    assert shell(body).returncode == 5
    assert list(tmp_path.iterdir()) == []


@linux
def test_no_orphan_when_the_parent_is_killed():
    body = "def work():\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n    return 0"
    with subprocess.Popen(script(body), stdout=subprocess.PIPE, cwd=ROOT) as process:  # noqa: S603
        child = int(process.stdout.readline())
        assert not ended(child)
        process.kill()
        process.wait(30)
        assert soon(lambda: ended(child))


def test_where_a_fork_is_unsafe_the_work_runs_here():
    body = (
        "threading.Thread(target=time.sleep, args=(1,), daemon=True).start()\n"
        "here = os.getpid()\ndef work(): return 20 + (os.getpid() == here)"
    )
    assert shell(body).returncode == 21
    assert (
        shell("here = os.getpid()\ndef work(): return 20 + (os.getpid() == here)").returncode == 20
    )


def test_nothing_heavy_is_imported():
    probe = (
        "import sys; from inspector.cli import supervise; "
        "sys.exit(len({'torch', 'onnxruntime', 'onnx', 'numpy', 'PIL'} & sys.modules.keys()))"
    )
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", probe], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == 0


@linux
def test_default_memory_is_a_share_of_what_is_there():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < supervise.default_memory() <= total * supervise.MEMORY_SHARE
