"""Timed calls of the cost table."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["CHANNELS", "MASKS", "STRIDE", "TARGET", "WINDOW", "Prepare", "Run", "counted"]

TARGET = 7
"""The class that is explained."""

WINDOW, STRIDE = 16, 8
"""Of the occlusion, in pixels."""

CHANNELS, MASKS = 8, 8
"""Of one call of Score-CAM and of RISE."""


@dataclass(frozen=True)
class Run:
    """A call that is timed again and again.

    Attributes:
        call: Does some work, and gives the number of maps, positions, channels or masks in it.
        once: CPU-seconds per unit of what was done once before.
    """

    call: Callable[[], float]
    once: float = 0.0

    def measure(self) -> float:
        """CPU-seconds per unit of one call."""
        start = time.process_time()
        units = self.call()
        return (time.process_time() - start) / units + self.once


Prepare = Callable[[], Run]
"""Makes a run, and has it warm up; it fails where a package has no such map of the network."""


def counted(call: Callable[[], Any], units: float = 1) -> Run:
    """A run of a call that does always as much, warmed up."""

    def counting() -> float:
        call()
        return units

    counting()
    return Run(counting)
