"""Engine of an audit: batches of photos over local processes, every row kept as it comes.

Each process opens the model once and has cores of its own.  Batches begin at the same places of the
data set in every run, so that a run that was stopped and goes on ends in the same numbers to the
last bit, whoever computes them.  A photo that takes its process down is one row with that reason:
the batches that were under way are tried again alone, and the one that dies again photo by photo.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from inspector.audit.data_set import Entry
from inspector.audit.rows import Asked, Auditor, Row, refused_row
from inspector.errors import ImageRefused, ModelRefused, UsageError
from inspector.passes.journal import Journal

__all__ = ["ENGINES", "Batch", "Processes", "audit_rows", "usual_workers"]

ENGINES = ("local", "ray")
"""Where photos are audited: processes of this machine, or a Ray cluster."""

Progress = Callable[[str, int, int], None]

Batch = tuple[int, tuple[Entry, ...]]
"""Photos that go through the network together, and the place of the first in the data set."""

_WORTH = 64
"""Photos per process below which a process of its own does not pay."""

_AHEAD = 4
"""Batches per process that are under way or waiting."""

_own: Auditor | None = None
"""The model that a process has opened."""


def usual_workers(photos: int) -> int:
    """Processes for a number of photos: one per core, and none that would not pay."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, photos // _WORTH))


def audit_rows(
    auditor: Auditor,
    entries: Sequence[Entry],
    *,
    workers: int,
    journal: Journal,
    engine: str = "local",
    progress: Progress | None = None,
) -> list[Row]:
    """One row per photo, in the order of the data set.

    Args:
        auditor: The model, opened in this process; others open it from ``auditor.asked``.
        entries: The photos.
        workers: Local processes, of which 1 works in this one; of Ray its actors, 0 for one per
            core of the cluster.
        journal: Keeps the rows; photos that it holds are not done again.
        engine: One of ``ENGINES``.
        progress: Called with (what, done, total).

    Raises:
        UsageError: The number of processes, or a journal that cannot be written.
        ModelRefused: Another process cannot open the model.
    """
    if not (0 if engine == "ray" else 1) <= workers <= 256:
        raise UsageError(f"{workers} processes", hint="--workers takes 1 to 256")
    batches = _batches(entries, auditor.batch, journal)
    made = sum(str(place) in journal for place in range(len(entries)))
    source: Iterator[tuple[int, list[Row]]]
    if engine == "ray":
        from inspector.audit.engines.ray_data import ray_rows

        source = ray_rows(auditor.asked, batches, workers)
    elif workers == 1:
        source = ((start, list(auditor.rows(batch))) for start, batch in batches)
    else:
        source = Processes(auditor.asked, workers).rows(batches)
    for start, rows in source:
        for place, row in enumerate(rows, start):
            # Of a batch that was half kept, the kept half is computed again but not kept twice.
            if str(place) not in journal:
                journal.keep(str(place), row)
                made += 1
        if progress:
            progress("photos", made, len(entries))
    return [journal[str(place)] for place in range(len(entries))]


def _batches(entries: Sequence[Entry], size: int, journal: Journal) -> list[Batch]:
    """Batches of which a row is missing."""
    return [
        (start, tuple(entries[start : start + size]))
        for start in range(0, len(entries), size)
        if any(str(p) not in journal for p in range(start, min(start + size, len(entries))))
    ]


def _open(asked: Asked, cores: Any) -> None:
    """Open the model in a new process, on cores that no other takes."""
    global _own  # noqa: PLW0603 - one model per process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError, IndexError):
            os.sched_setaffinity(0, cores.get_nowait())
    _own = Auditor(asked)


def _end_with_parent() -> None:
    """End this process where the one that began it was killed: else it would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _rows_of(entries: Sequence[Entry]) -> list[Row]:
    if _own is None:
        raise RuntimeError("no model is open")
    return list(_own.rows(entries))


@dataclass
class Processes:
    """Processes that audit batches; begun anew when one of them dies.

    Attributes:
        asked: What each opens.
        workers: How many there are.
    """

    asked: Asked
    workers: int
    _kept: ProcessPoolExecutor | None = field(default=None, repr=False)
    _context: Any = field(default_factory=lambda: multiprocessing.get_context("spawn"))

    def rows(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Row]]]:
        """Rows with the place of the first, batch by batch as they are done."""
        rest = list(reversed(batches))
        while rest:
            suspects: list[Batch] = []
            yield from self._until_broken(rest, suspects)
            # Whichever was under way when a process died is tried alone, to name the photo.
            for start, entries in suspects:
                yield start, self._alone(entries)

    def batch(self, entries: Sequence[Entry]) -> list[Row]:
        """Rows of one batch, from a process that is kept for the next one."""
        self._kept = self._kept or self._pool(self.workers)
        try:
            return self._kept.submit(_rows_of, entries).result()
        except BrokenProcessPool:
            self._kept = None
            return self._alone(entries)

    def _until_broken(
        self, rest: list[Batch], suspects: list[Batch]
    ) -> Iterator[tuple[int, list[Row]]]:
        """Do what is left; where a process dies, leave the batches that were under way."""
        running: dict[Future[list[Row]], Batch] = {}
        pool = self._pool(self.workers)
        try:
            while rest or running:
                while rest and len(running) < self.workers * _AHEAD:
                    running[pool.submit(_rows_of, rest[-1][1])] = rest[-1]
                    rest.pop()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    rows = future.result()
                    yield running.pop(future)[0], rows
            pool.shutdown()  # what they used is free for what follows, and is counted
        except BrokenProcessPool:
            suspects += sorted(running.values(), key=lambda batch: batch[0])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _alone(self, entries: Sequence[Entry]) -> list[Row]:
        """Rows of a batch in a process of its own; photo by photo where that dies, too."""
        found = self._tried(entries)
        if found is None and len(entries) > 1:
            return [row for entry in entries for row in self._alone([entry])]
        return [refused_row(entries[0], _died(entries[0]))] if found is None else found

    def _tried(self, entries: Sequence[Entry]) -> list[Row] | None:
        """Rows of some photos in a process of their own; None where it dies of them.

        Raises:
            ModelRefused: It dies before the first of them.
        """
        with self._pool(1) as pool:
            try:
                pool.submit(os.getpid).result()
            except BrokenProcessPool:
                raise ModelRefused(
                    "a process of its own cannot open the model",
                    where=str(self.asked.opening.path),
                    hint="--workers 1 audits in one process; --memory gives more",
                ) from None
            try:
                return pool.submit(_rows_of, entries).result()
            except BrokenProcessPool:
                return None

    def _pool(self, workers: int) -> ProcessPoolExecutor:
        cores = self._context.Queue()
        if hasattr(os, "sched_getaffinity"):
            every = sorted(os.sched_getaffinity(0))
            for worker in range(workers):
                cores.put(every[worker::workers] or every)
        return ProcessPoolExecutor(
            workers, mp_context=self._context, initializer=_open, initargs=(self.asked, cores)
        )


def _died(entry: Entry) -> ImageRefused:
    return ImageRefused(
        "the process that audited it died, of memory or of a fault in a library",
        where=entry.photo,
        hint="look at the photo; --memory gives more",
    )
