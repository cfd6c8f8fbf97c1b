"""Engine of an audit: photos in chunks over local processes, every row kept as it comes.

Each process opens the model once and has cores of its own.  A photo that takes its process down is
one row with that reason: its chunk is tried again photo by photo.
"""

import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from inspector.audit.data_set import Entry
from inspector.audit.rows import Asked, Auditor, Row, refused_row
from inspector.errors import ImageRefused, ModelRefused, UsageError
from inspector.passes.journal import Journal

__all__ = ["CHUNK", "audit_rows", "usual_workers"]

Progress = Callable[[str, int, int], None]

CHUNK = 32
"""Photos that a process is given at a time; a kill loses at most these per process."""

_AHEAD = 2
"""Chunks per process that are under way or waiting."""

_own: Auditor | None = None
"""The model that a process has opened."""


def usual_workers(photos: int) -> int:
    """Processes for a number of photos: one per core, and none that would not pay."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, photos // (2 * CHUNK)))


def audit_rows(
    auditor: Auditor,
    entries: Sequence[Entry],
    *,
    workers: int,
    journal: Journal,
    progress: Progress | None = None,
) -> list[Row]:
    """One row per photo, in the order of the data set.

    Args:
        auditor: The model, opened in this process; others open it from ``auditor.asked``.
        entries: The photos.
        workers: Local processes; 1 works in this one.
        journal: Keeps the rows; photos that it holds are not done again.
        progress: Called with (what, done, total).

    Raises:
        UsageError: The number of processes, or a journal that cannot be written.
        ModelRefused: Another process cannot open the model.
    """
    if not 1 <= workers <= 256:
        raise UsageError(f"{workers} processes", hint="--workers takes 1 to 256")
    waiting = [place for place in range(len(entries)) if str(place) not in journal]
    made = len(entries) - len(waiting)
    chunks = [
        [(place, entries[place]) for place in waiting[i : i + CHUNK]]
        for i in range(0, len(waiting), CHUNK)
    ]
    source = _here(auditor, chunks) if workers == 1 else _Pool(auditor.asked, workers).rows(chunks)
    for place, row in source:
        journal.keep(str(place), row)
        made += 1
        if progress:
            progress("photos", made, len(entries))
    return [journal[str(place)] for place in range(len(entries))]


Chunk = list[tuple[int, Entry]]


def _here(auditor: Auditor, chunks: Sequence[Chunk]) -> Iterator[tuple[int, Row]]:
    for chunk in chunks:
        rows = auditor.rows([entry for _, entry in chunk])
        yield from zip((place for place, _ in chunk), rows, strict=True)


def _open(asked: Asked, cores: Any) -> None:
    """Open the model in a new process, on cores that no other takes."""
    global _own  # noqa: PLW0603 - one model per process
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError, IndexError):
            os.sched_setaffinity(0, cores.get_nowait())
    _own = Auditor(asked)


def _rows_of(entries: Sequence[Entry]) -> list[Row]:
    if _own is None:
        raise RuntimeError("no model is open")
    return list(_own.rows(entries))


@dataclass
class _Pool:
    """Processes that audit chunks; begun anew when one of them dies."""

    asked: Asked
    workers: int
    _context: Any = field(default_factory=lambda: multiprocessing.get_context("spawn"))

    def rows(self, chunks: Sequence[Chunk]) -> Iterator[tuple[int, Row]]:
        """Rows with their places, chunk by chunk as they are done."""
        rest = list(chunks)
        while rest:
            suspects: list[Chunk] = []
            yield from self._until_broken(rest, suspects)
            # Whoever was under way when a process died is tried alone, to name the photo.
            yield from self._one_by_one(list(itertools.chain.from_iterable(suspects)))

    def _until_broken(self, rest: list[Chunk], suspects: list[Chunk]) -> Iterator[tuple[int, Row]]:
        """Do what is left; where a process dies, leave the chunks that were under way."""
        running: dict[Future[list[Row]], Chunk] = {}
        pool = self._pool(self.workers)
        try:
            while rest or running:
                while rest and len(running) < self.workers * _AHEAD:
                    chunk = rest.pop(0)
                    running[pool.submit(_rows_of, [entry for _, entry in chunk])] = chunk
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    rows = future.result()
                    chunk = running.pop(future)
                    yield from zip((place for place, _ in chunk), rows, strict=True)
        except BrokenProcessPool:
            suspects += running.values()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _one_by_one(self, rest: Chunk) -> Iterator[tuple[int, Row]]:
        """Rows of photos of which one takes its process down; a new process behind each such."""
        while rest:
            with self._pool(1) as pool:
                try:
                    pool.submit(os.getpid).result()
                except BrokenProcessPool:
                    raise ModelRefused(
                        "a process of its own cannot open the model",
                        where=str(self.asked.opening.path),
                        hint="--workers 1 audits in one process; --memory gives more",
                    ) from None
                while rest:
                    place, entry = rest.pop(0)
                    try:
                        yield place, pool.submit(_rows_of, [entry]).result()[0]
                    except BrokenProcessPool:
                        yield place, refused_row(entry, _died(entry))
                        break

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
