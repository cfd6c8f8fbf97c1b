"""Work that is done a little ahead of its use: in threads, in order and in bounded memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetched"]

MOST_BYTES = 2**26
"""64 MiB of results that wait: 22 megapixels; what is larger is made one at a time."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    ahead: int,
    workers: int = 1,
    size: Callable[[Result], int] = lambda _: 0,
) -> Iterator[Result]:
    """Do ``work`` on each item in other threads while the caller is busy with earlier results.

    Args:
        items: What to work on; asked for in the caller's thread, a little ahead.
        work: Called in threads; what it raises is raised here, in the item's turn.
        ahead: How many results may wait.
        workers: Threads.
        size: Bytes that a result holds; the threads pause while those that wait hold too many.

    Yields:
        What ``work`` returned for each item, in order.
    """
    room = _Room()

    def task(item: Item) -> Result:
        room.await_some()
        result = work(item)
        room.take(size(result))
        return result

    def first() -> Result:
        result = waiting.popleft().result()
        room.take(-size(result))
        return result

    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    try:
        for item in items:
            waiting.append(pool.submit(task, item))
            if len(waiting) > ahead:
                yield first()
        while waiting:
            yield first()
    finally:  # also when the caller takes no more
        room.close()
        pool.shutdown(cancel_futures=True)


class _Room:
    """Bytes that results which wait hold."""

    def __init__(self) -> None:
        self._held, self._closed = 0, False
        self._changed = threading.Condition()

    def await_some(self) -> None:
        """Return when there is room for one more result, however large it turns out."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._held < MOST_BYTES)

    def take(self, count: int) -> None:
        """Account for bytes that came or, when negative, went."""
        with self._changed:
            self._held += count
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody go who still waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
