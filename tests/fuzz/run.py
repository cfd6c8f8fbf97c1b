"""Mutants through the real command path, each in a forked child: ``make fuzz``.

The heavy libraries are imported once; every mutant gets a process of its own under a memory cap
and a clock. Wanted: no signal, no internal error, no traceback, no hang, no more memory than the
cap, and a status that the command line knows.

    python tests/fuzz/run.py --mutants 3000
    python tests/fuzz/run.py --seconds 1200 --workers 2
    python tests/fuzz/run.py --seed 4711        one mutant again, with its output

Where Atheris is installed, ``--guided`` first lets coverage of the preflight choose the seeds.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mutations import mutant

__all__ = ["Outcome", "Tally", "fuzz", "try_one"]

ROOT = Path(__file__).resolve().parents[2]

SECONDS = 60.0
MEMORY = 3 << 30
STATUSES = (0, 2, 3, 4, 5)


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant.

    Attributes:
        seed: The mutant.
        status: Exit status; the negative number of a signal; None of one that hung.
        said: What it wrote.
        peak: Most memory that it held, in bytes, its libraries included.
    """

    seed: int
    status: int | None
    said: str = field(repr=False)
    peak: int

    @property
    def fault(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if self.status is None:
            return "hang"
        if self.status < 0:
            return f"signal {-self.status}"
        for sign in ("internal error", "Traceback (most recent call last)"):
            if sign in self.said:
                return sign
        return "" if self.status in STATUSES else f"status {self.status}"


@dataclass
class Tally:
    """Counts of a run.

    Attributes:
        statuses: How many mutants ended with which status.
        faults: Those with something wrong.
        peak: Most memory that one held, in bytes.
    """

    statuses: Counter[int | None] = field(default_factory=Counter)
    faults: list[Outcome] = field(default_factory=list)
    peak: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.statuses[outcome.status] += 1
        self.peak = max(self.peak, outcome.peak)
        if outcome.fault:
            self.faults.append(outcome)


def _import_everything() -> None:
    import onnxruntime
    import torch

    import inspector.cli.check
    import inspector.cli.explain
    import inspector.cli.layers
    import inspector.explain
    import inspector.overview
    import inspector.verdicts
    import inspector.verify.checks  # noqa: F401 - for the children

    torch.set_num_threads(1)
    onnxruntime.set_default_logger_severity(4)


def _work(arguments: list[str], folder: Path) -> None:
    """In the child: the command under its limits; never returns."""
    import resource

    status = 99
    try:
        os.setsid()
        log = os.open(folder / "said", os.O_WRONLY | os.O_CREAT, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.chdir(folder)
        os.environ["INSPECTOR_CACHE"] = str(folder / "cache")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        from inspector.cli import run

        status = run(arguments)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status)


def try_one(seed: int) -> Outcome:
    """Make one mutant, run it in a child, and look at how it ends."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        arguments = mutant(seed, folder)
        child = os.fork()
        if child == 0:
            _work(arguments, folder)
        end = time.monotonic() + SECONDS
        pause = 0.002
        while True:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if done or time.monotonic() > end:
                break
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        if not done:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it may have started
        said = (folder / "said").read_text(errors="replace") if (folder / "said").exists() else ""
        code = os.waitstatus_to_exitcode(status) if done else None
        if code is not None and code < 0:
            # A native library gave up. What a user sees of it decides: the command's own word.
            code, said = _as_a_user(arguments, folder)
        return Outcome(seed, code, f"$ inspector {' '.join(arguments)}\n{said}", _bytes(usage))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_a_user(arguments: list[str], folder: Path) -> tuple[int | None, str]:
    """Status and words of the command in a process of its own, under its supervisor."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "INSPECTOR_CACHE": str(folder / "cache"), "PYTHONPATH": path}
    command = [sys.executable, "-P", "-m", "inspector", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - this program
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=2 * SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, "the command hangs"
    return done.returncode, done.stdout + done.stderr


def _bytes(usage: "os.wait4_result | object") -> int:
    peak = int(getattr(usage, "ru_maxrss", 0))
    return peak if sys.platform == "darwin" else peak * 1024


def fuzz(seeds: Iterator[int], *, seconds: float = float("inf")) -> Tally:
    """Try mutants one after the other.

    Args:
        seeds: Of the mutants.
        seconds: When to stop.
    """
    _import_everything()
    tally = Tally()
    end = time.monotonic() + seconds
    for seed in seeds:
        tally.add(try_one(seed))
        if time.monotonic() > end:
            break
    return tally


def _guided(seconds: float) -> None:
    """Coverage of the preflight and of what reasons about the graph chooses the mutants."""
    import atheris

    with atheris.instrument_imports(include=["converters", "inspector"]):
        from converters import onnx_file
        from converters.errors import ExplainedError
        from inspector.model import Model

    def one(content: bytes) -> None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        try:
            mutant(int.from_bytes(content[:8], "little"), folder)
            with contextlib.suppress(ExplainedError):
                model = Model(onnx_file.read(folder / "model.onnx"), device="cpu")
                _ = model.scores, model.layers, model.head
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    atheris.Setup([sys.argv[0], f"-max_total_time={max(1, int(seconds))}"], one)
    atheris.Fuzz()


def main() -> int:
    """Run it from the command line; status 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=0, help="how many; 0 for no limit")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for how long")
    parser.add_argument("--workers", type=int, default=1, help="processes side by side")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, default=None, help="try this mutant, and show it")
    parser.add_argument("--guided", action="store_true", help="with Atheris, by coverage")
    given = parser.parse_args()
    if given.guided:  # in a child: it ends its process
        guide = os.fork()
        if guide == 0:
            _guided(min(given.seconds, 3600.0) / 4)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(guide, 0)[1]):
            return 1
    if given.seed is not None:
        _import_everything()
        found = try_one(given.seed)
        _say(found.said, f"status {found.status}", found.fault)
        return bool(found.fault)
    workers = []
    for worker in range(1, given.workers):
        child = os.fork()
        if child == 0:
            os._exit(_report(given, worker))
        workers.append(child)
    failed = _report(given, 0)
    for child in workers:
        failed |= os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return failed


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _report(given: argparse.Namespace, worker: int) -> int:
    last = given.start + given.mutants if given.mutants else 1 << 62
    seeds = iter(range(given.start + worker, last, given.workers))
    tally = fuzz(seeds, seconds=given.seconds)
    counts = {
        f"status {status}": count for status, count in sorted(tally.statuses.items(), key=str)
    }
    total = sum(tally.statuses.values())
    _say(f"worker {worker}: {total} mutants, {counts}, peak {tally.peak / 2**20:.0f} MiB")
    for outcome in tally.faults:
        _say(f"seed {outcome.seed}: {outcome.fault}", outcome.said[-1500:])
    _say(f"worker {worker}: {len(tally.faults)} faults")
    return bool(tally.faults)


if __name__ == "__main__":
    sys.exit(main())
