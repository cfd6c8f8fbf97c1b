"""Work that is done a little ahead of its use: in threads, in order and in bounded memory."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

__all__ = ["cores", "prefetched"]

MOST_BYTES = 2**26
"""64 MiB of results that wait: 22 megapixels; what is larger is made one at a time."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prefetched(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    ahead: int,
    workers: int = 1,
    size: Callable[[Result], int] = lambda _: 0,
    weight: Callable[[Item], int] = lambda _: 0,
) -> Iterator[Result]:
    """Do ``work`` on each item in other threads while the caller is busy with earlier results.

    Args:
        items: What to work on; asked for in the caller's thread, a little ahead.
        work: Called in threads; what it raises is raised here, in the item's turn.
        ahead: How many results may wait.
        workers: Threads.
        size: Bytes that a result holds; work is put off while those that wait hold too many.
        weight: Bytes that an item holds; no further one is asked for while those that wait hold
            too many.

    Yields:
        What ``work`` returned for each item, in order.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    queue = _Queue(pool, work, size)
    try:
        for item in items:
            queue.add(item, weight(item))
            while len(queue) > ahead or queue.heavy:
                yield queue.take()
        while len(queue):
            yield queue.take()
    finally:  # also when the caller takes no more
        pool.shutdown(cancel_futures=True)


class _Queue(Generic[Item, Result]):
    """Items in order, each with its result once there is one; for one thread to add and take.

    A thread of the pool that finds no room gives its item back. Did it wait for room instead, it
    would keep the process of an abandoned iterator from ending, and hang when its item is the one
    that has to be taken next.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        work: Callable[[Item], Result],
        size: Callable[[Result], int],
    ) -> None:
        self._pool, self._work, self._size = pool, work, size
        self._entries: deque[tuple[Item, Future[tuple[Result, int] | None] | None]] = deque()
        self._weights: deque[int] = deque()
        self._held, self._lock = 0, threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def heavy(self) -> bool:
        """Whether the items that wait hold more than may be held."""
        return sum(self._weights) > MOST_BYTES

    def add(self, item: Item, weight: int = 0) -> None:
        """Put an item at the end, and start it when there is room."""
        self._entries.append((item, None))
        self._weights.append(weight)
        self._start()

    def take(self) -> Result:
        """Remove the first item; its result."""
        item, future = self._entries.popleft()
        self._weights.popleft()
        while future is None or (found := future.result()) is None:
            future = self._pool.submit(self._attempt, item, due=True)
        result, count = found
        self._hold(-count)
        self._start()
        return result

    def _start(self) -> None:
        """Start what is not under way, in order: a later item would take an earlier one's room."""
        for at, (item, future) in enumerate(self._entries):
            if self._full:
                return
            if future is None or _put_off(future):
                self._entries[at] = item, self._pool.submit(self._attempt, item, due=False)

    def _attempt(self, item: Item, *, due: bool) -> tuple[Result, int] | None:
        """The result and its bytes; None without room, but when it is due."""
        if self._full and not due:
            return None
        result = self._work(item)
        count = self._size(result)
        self._hold(count)
        return result, count

    @property
    def _full(self) -> bool:
        return self._held >= MOST_BYTES

    def _hold(self, count: int) -> None:
        with self._lock:
            self._held += count


def _put_off(future: Future[Any]) -> bool:
    return future.done() and future.exception() is None and future.result() is None
