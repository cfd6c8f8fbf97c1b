"""Threads that work in the background of a test, and waiting for what they do."""

import threading
import time

WAIT = 10  # seconds after which an event that should come has not


def threads():
    """Those that read ahead."""
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def soon(condition):
    """Whether something becomes true."""
    until = time.monotonic() + WAIT
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    return condition()
