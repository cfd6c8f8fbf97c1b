"""Results of single images, or of a few at a time, joined along the axis of samples."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inspector.errors import ModelRefused

__all__ = ["as_sample", "in_passes", "joined", "rows", "shape_of", "stacked"]

_PER_PASS = 4 * 3 * 224 * 224
"""Numbers of the input per pass.

Four images of 224 x 224: what their layers hold then fits into the processor's caches. Of ViT-S a
pass over 16 takes 1.4 times as long per image as one over a single image at one thread, and 1.2
times as long as one over four at two threads; of EfficientNet-Lite0 1.16 and 1.1 times.
"""

_COPIED = 1 << 20
"""Numbers per image in the results, beyond which joining them costs more than small passes save."""


def rows(value: Any) -> int:
    """Length of the first axis; 0 for a scalar. The maps of ZipMap have their own length."""
    return next(iter(shape_of(value)), 0)


def shape_of(value: Any) -> tuple[int, ...]:
    """Shape of an array; of a list its length, whatever lies in it; of an empty optional none."""
    if isinstance(value, np.ndarray):
        return tuple(map(int, value.shape))
    return () if value is None else (len(value),)


def as_sample(value: Any) -> Any:
    """What one image gives, NumPy's or torch's, with an axis of samples in front."""
    return [value] if value is None or isinstance(value, list | dict) else value[None]


def in_passes(
    run: Callable[[np.ndarray[Any, Any]], dict[str, Any]],
    feed: np.ndarray[Any, Any],
    fetch: Sequence[str],
    provider: str,
) -> dict[str, Any] | None:
    """Results of images that do not act on each other, a few per pass.

    Args:
        run: One pass over some of them.
        feed: The images, as the network takes them; at least one.
        fetch: Names of the results.
        provider: ONNX Runtime's execution provider.  One with memory of its own is given all
            images in one pass.

    Returns:
        The results by name; None where one does not have a row per image.
    """
    few = max(1, _PER_PASS // max(1, feed[0].size))
    step = few if provider == "CPUExecutionProvider" else len(feed)
    parts: list[dict[str, Any]] = []
    start = 0
    while start < len(feed):
        some = feed[start : start + step]
        parts.append(run(some))
        if any(rows(parts[-1][name]) != len(some) for name in fetch):
            return None
        if not start and sum(_size(parts[0][name]) for name in fetch) > _COPIED * len(some):
            step = len(feed)
        start += len(some)
    if any(len({_form(part[name]) for part in parts}) > 1 for name in fetch):
        whole = run(feed)  # there they are as long as the longest of all
        return whole if all(rows(whole[name]) == len(feed) for name in fetch) else None
    return {name: _behind([part.pop(name) for part in parts]) for name in fetch}


def _size(value: Any) -> int:
    return value.size if isinstance(value, np.ndarray) else 0


def _form(value: Any) -> tuple[int, ...]:
    return value.shape[1:] if isinstance(value, np.ndarray) else ()


def _behind(parts: list[Any]) -> Any:
    """Results of a few images each, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    if not isinstance(parts[0], np.ndarray):
        return [one for part in parts for one in part]
    return np.concatenate(parts)


def joined(parts: list[Any]) -> Any:
    """Results of single images, one behind the other."""
    arrays = all(isinstance(part, np.ndarray) for part in parts)
    if arrays and len({part.shape for part in parts}) > 1:
        raise ModelRefused(
            f"a tensor has another shape for each image ({parts[0].shape}, {parts[1].shape}), "
            "so images cannot be set side by side",
            hint="give one image at a time",
        )
    return _behind(parts)


def stacked(parts: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Join results of single images along the first axis, which has length one in each."""
    if all(rows(part) == 1 for part in parts):
        return np.concatenate(parts)
    return np.stack(parts)
