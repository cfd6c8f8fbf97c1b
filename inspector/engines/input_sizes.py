"""Sizes of the image that a network runs with, found by running it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from converters.onnx_file import OnnxFile
from inspector.engines.runtime import Runtime
from inspector.errors import ModelRefused

__all__ = ["runs_with_size"]


def runs_with_size(
    file: OnnxFile,
    outputs: Sequence[str],
    feeds: Callable[[tuple[int, int]], Mapping[str, np.ndarray[Any, Any]]],
) -> Callable[[tuple[int, int]], bool] | None:
    """What tells whether a network runs with an image of a size (H, W).

    Args:
        file: The network.
        outputs: Names of its outputs.
        feeds: Graph inputs by name for a size.

    Returns:
        None where the network does not load at all.
    """
    probe = Runtime(file, device="cpu", optimise=False)
    try:
        probe.prepare(outputs)
    except ModelRefused:
        return None

    def runs(size: tuple[int, int]) -> bool:
        try:
            probe.run(feeds(size), outputs)
        except ModelRefused:
            return False
        return True

    return runs
