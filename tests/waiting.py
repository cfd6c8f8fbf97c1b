"""Waiting for an event that can be seen, with a deadline that only a failure reaches."""

import os
import time
from pathlib import Path

WAIT = 60
"""Seconds after which an event that should come has not: generous, for a busy machine."""


def soon(condition, patience=WAIT):
    """Whether something becomes true; its last value."""
    until = time.monotonic() + patience
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(0.002)
    return found


def ended(pid):
    """Whether a process has ended (a zombie that nobody reaps yet has)."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True
