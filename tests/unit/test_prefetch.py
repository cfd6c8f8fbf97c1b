"""Work ahead of its use: order, errors in their turn, bounds, and threads that end."""

import _thread
import gc
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from background import threads
from waiting import WAIT, soon

from inspector.passes import prefetch
from inspector.passes.prefetch import prefetched

pytestmark = pytest.mark.timeout(60)


class Work:
    """Squares, and a record of what was started and done."""

    def __init__(self, act=lambda _: None):
        self.act, self.started, self.done, self.threads = act, [], [], set()
        self.lock = threading.Lock()

    def __call__(self, item):
        with self.lock:
            self.started.append(item)
            self.threads.add(threading.current_thread())
        self.act(item)
        with self.lock:
            self.done.append(item)
        return item * item


class Pulled:
    """Numbers, and how many of them were asked for, by which threads."""

    def __init__(self, count):
        self.items, self.count, self.threads = iter(range(count)), 0, set()

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.items)
        self.count += 1
        self.threads.add(threading.current_thread())
        return item


@pytest.mark.parametrize("kind", [list, iter, tuple, lambda items: (item for item in items)])
@pytest.mark.parametrize(("ahead", "workers"), [(0, 1), (1, 1), (3, 2), (8, 4), (100, 3)])
def test_results_come_in_order(kind, ahead, workers):
    work = Work()
    found = list(prefetched(kind(list(range(40))), work, ahead=ahead, workers=workers))
    assert found == [item * item for item in range(40)]
    assert sorted(work.started) == list(range(40))  # each once
    assert not threads()


def test_nothing_of_nothing():
    assert list(prefetched([], Work(), ahead=3)) == []
    assert not threads()


def test_a_slow_item_keeps_its_place():
    second = threading.Event()

    def act(item):
        if item == 0:
            assert second.wait(WAIT)
        if item == 1:
            second.set()

    work = Work(act)
    assert list(prefetched(range(4), work, ahead=2, workers=2)) == [0, 1, 4, 9]
    assert work.done.index(1) < work.done.index(0)


def test_work_goes_on_while_the_caller_is_busy():
    work, items = Work(), Pulled(10)
    running = prefetched(items, work, ahead=3)
    assert next(running) == 0
    assert soon(lambda: len(work.done) == 4)  # the caller does nothing meanwhile
    assert threading.current_thread() not in work.threads
    assert items.threads == {threading.current_thread()}
    assert list(running) == [item * item for item in range(1, 10)]


def test_as_many_threads_as_workers_are_at_work():
    together = threading.Barrier(3)
    work = Work(lambda _: together.wait(WAIT))  # breaks unless three meet
    assert list(prefetched(range(9), work, ahead=6, workers=3)) == [i * i for i in range(9)]
    assert len(work.threads) == 3


@pytest.mark.parametrize(("ahead", "workers"), [(0, 1), (1, 1), (1, 4), (3, 2), (8, 4)])
def test_no_more_is_asked_for_than_may_wait(ahead, workers):
    work, items = Work(), Pulled(30)
    for taken, _ in enumerate(prefetched(items, work, ahead=ahead, workers=workers), 1):
        assert items.count == min(30, taken + ahead)
        assert len(work.started) <= taken + ahead
    assert taken == items.count == 30


# -- errors ---------------------------------------------------------------------------------------


def test_an_error_is_raised_in_its_turn():
    error, known = KeyError("of item 3"), []

    def act(item):
        if item == 3:
            raise error

    work = Work(act)
    running = prefetched(range(20), work, ahead=6, workers=2)
    known.append(next(running))
    assert soon(lambda: 3 in work.started and len(work.done) >= 5)  # it is raised already
    known += [next(running), next(running)]
    assert known == [0, 1, 4]
    with pytest.raises(KeyError) as raised:
        next(running)
    assert raised.value is error
    assert not threads()
    assert list(running) == []
    assert len(work.started) < 20


def test_an_error_of_size_is_raised_in_its_turn():
    running = prefetched(range(9), lambda item: item, ahead=4, size=lambda n: 1 // (2 - n))
    assert [next(running), next(running)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(running)
    assert not threads()


def test_an_error_of_the_items_is_raised():
    def items():
        yield from range(3)
        raise OSError("the folder is gone")

    with pytest.raises(OSError, match="the folder is gone"):
        list(prefetched(items(), Work(), ahead=1))
    assert not threads()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_callers_own_error_ends_the_threads(kind):
    work = Work()

    def run():
        for found in prefetched(range(1000), work, ahead=4, workers=3):
            if found == 4:
                raise kind

    with pytest.raises(kind):
        run()
    assert not threads()
    assert len(work.started) <= 3 + 4


def test_an_interrupt_while_the_caller_waits():
    release = threading.Event()

    def act(item):
        if item == 2:
            _thread.interrupt_main()
            release.wait(0.2)  # the caller waits for this one

    running = prefetched(range(20), Work(act), ahead=0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert [next(running), next(running)] == [0, 1]
        with pytest.raises(KeyboardInterrupt):
            next(running)
    finally:
        release.set()
        signal.signal(signal.SIGINT, before)
    assert not threads()


# -- ends -----------------------------------------------------------------------------------------


def test_closing_ends_the_thread_and_drops_what_was_not_begun():
    closing = threading.Event()
    work = Work(lambda item: item == 0 or closing.wait(WAIT))
    running = prefetched(range(1000), work, ahead=8)
    assert next(running) == 0
    assert soon(lambda: len(work.started) == 2)
    timer = threading.Timer(0.1, closing.set)  # item 1 is under way when the iterator is closed
    timer.start()
    running.close()
    assert work.done == work.started == [0, 1]
    assert not threads()
    timer.join()


def test_closing_without_room_ends_the_threads(monkeypatch):
    monkeypatch.setattr(prefetch, "MOST_BYTES", 10)
    work = Work()
    running = prefetched(range(1000), work, ahead=8, workers=2, size=lambda _: 10)
    assert next(running) == 0
    running.close()
    assert not threads()
    assert len(work.started) <= 4


def test_an_iterator_that_is_dropped_or_never_begun_leaves_no_thread():
    running = prefetched(range(1000), Work(), ahead=8)
    assert next(running) == 0
    assert threads()
    del running
    gc.collect()
    assert not threads()
    work = Work()
    prefetched(range(1000), work, ahead=8).close()
    assert work.started == []


ABANDONED = """
from inspector.passes import prefetch
prefetch.MOST_BYTES = 10

def run():
    running = prefetch.prefetched(range(99), int, ahead=8, workers=2, size=lambda _: 10)
    for item in running:
        raise RuntimeError(f"at item {item}")  # its traceback keeps the iterator alive

run()
"""


def test_a_process_ends_though_an_iterator_was_abandoned():
    found = subprocess.run(  # noqa: S603 - this interpreter, and a script from this file
        [sys.executable, "-c", ABANDONED],
        capture_output=True,
        text=True,
        timeout=WAIT * 2,
        check=False,
    )
    assert found.returncode == 1
    assert found.stderr.endswith("RuntimeError: at item 0\n")


# -- memory ---------------------------------------------------------------------------------------


def test_heavy_items_are_not_asked_for_ahead(monkeypatch):
    monkeypatch.setattr(prefetch, "MOST_BYTES", 10)
    items = Pulled(40)
    running = prefetched(items, Work(), ahead=20, workers=2, weight=lambda _: 4)
    for taken, found in enumerate(running, 1):
        assert found == (taken - 1) ** 2
        assert items.count - taken <= 2
    light = Pulled(40)
    assert next(prefetched(light, Work(), ahead=20, workers=2, weight=lambda _: 0)) == 0
    assert light.count == 21


@pytest.mark.parametrize(("size", "most"), [(4, 3), (5, 2), (9, 2), (10, 1), (1000, 1)])
@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_waits_than_there_is_room_for(monkeypatch, size, most, workers):
    monkeypatch.setattr(prefetch, "MOST_BYTES", 10)
    work = Work()
    running = prefetched(range(40), work, ahead=20, workers=workers, size=lambda _: size)
    for taken, found in enumerate(running, 1):
        assert found == (taken - 1) ** 2
        # As long as the room is not full every worker may start one more, however large.
        assert len(work.started) <= taken + most + workers - 1
        if taken == 5:
            assert soon(lambda: len(work.done) >= 5 + most)  # and not less either
            time.sleep(0.05)
            assert len(work.done) <= 5 + most + workers - 1
    assert taken == 40
    assert sorted(work.started) == list(range(40))


def test_room_is_made_by_taking(monkeypatch):
    monkeypatch.setattr(prefetch, "MOST_BYTES", 10)
    work = Work()
    running = prefetched(range(9), work, ahead=8, size=lambda n: 10 if n == 9 else 0)
    assert next(running) == 0
    assert soon(lambda: work.done == [0, 1, 2, 3])  # 3 squared fills the room
    time.sleep(0.05)
    assert len(work.started) == 4
    assert [next(running) for _ in range(3)] == [1, 4, 9]
    assert soon(lambda: len(work.done) == 9)


def test_what_is_put_off_comes_before_what_is_added_later(monkeypatch):
    monkeypatch.setattr(prefetch, "MOST_BYTES", 10)
    work = Work()
    with ThreadPoolExecutor(1) as pool:
        queue = prefetch._Queue(pool, work, lambda _: 5)

        def idle():
            return all(future is None or future.done() for _, future in queue._entries)

        for item in range(50):
            queue.add(item)  # without room, which the next line makes
            if len(queue) > 6:
                queue.take()
            assert soon(idle)
        while len(queue):
            queue.take()
            assert soon(idle)
    assert work.started == list(range(50))


def test_the_item_in_turn_needs_no_room(monkeypatch):
    """Its thread may be late: those of later items have filled the room by then."""
    monkeypatch.setattr(prefetch, "MOST_BYTES", 10)
    attempt = prefetch._Queue._attempt
    late = []

    def attempted(self, item, *, due):
        if item == 0 and not late:
            late.append(soon(lambda: self._full))
        return attempt(self, item, due=due)

    monkeypatch.setattr(prefetch._Queue, "_attempt", attempted)
    found = list(prefetched(range(9), Work(), ahead=4, workers=2, size=lambda _: 10))
    assert found == [item * item for item in range(9)]
    assert late == [True]


def test_any_sizes_and_any_pace(monkeypatch):
    monkeypatch.setattr(prefetch, "MOST_BYTES", 50)
    dice = random.Random(3)  # noqa: S311 - no secret
    for workers in (1, 2, 4):
        sizes = [dice.choice([0, 1, 20, 49, 50, 200]) for _ in range(200)]
        pauses = [dice.choice([0, 0, 0, 0.001]) for _ in range(200)]
        work = Work(lambda item, pauses=pauses: time.sleep(pauses[item]))
        running = prefetched(
            range(200), work, ahead=6, workers=workers, size=lambda n, s=sizes: s[int(n**0.5)]
        )
        for item, found in enumerate(running):
            assert found == item * item
            time.sleep(pauses[-item])
        assert sorted(work.started) == list(range(200))
        assert not threads()
