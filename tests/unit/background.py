"""Threads that read ahead in the background of a test."""

import threading


def threads():
    """Those that read ahead."""
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]
