"""Results of single images, joined along the axis of samples."""

from typing import Any

import numpy as np

from inspector.errors import ModelRefused

__all__ = ["joined", "rows", "stacked"]


def rows(value: Any) -> int:
    """Length of the first axis; 0 for a scalar. The maps of ZipMap have their own length."""
    if isinstance(value, np.ndarray):
        return int(value.shape[0]) if value.ndim else 0
    return len(value)


def joined(parts: list[Any]) -> Any:
    """Results of single images, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    if not isinstance(parts[0], np.ndarray):
        return [one for part in parts for one in part]
    if len({part.shape for part in parts}) > 1:
        raise ModelRefused(
            f"a tensor has another shape for each image ({parts[0].shape}, {parts[1].shape}), "
            "so images cannot be set side by side",
            hint="give one image at a time",
        )
    return np.concatenate(parts)


def stacked(parts: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Join results of single images along the first axis, which has length one in each."""
    if all(rows(part) == 1 for part in parts):
        return np.concatenate(parts)
    return np.stack(parts)
