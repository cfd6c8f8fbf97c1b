"""What the values of maps are like: positive, all the same, or empty and why."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.evidence import Evidence
from inspector.heatmap import NO_SIGNAL, SILENT, UNCHANGED

if TYPE_CHECKING:
    from inspector.methods import Method

__all__ = ["Spread", "why_empty"]

Array = np.ndarray[Any, Any]

_FLAT = 1e-6
"""Range of a map's values, relative to their peak, within which they are all the same."""


@dataclass(frozen=True)
class Spread:
    """What the values of one map are like.

    Attributes:
        positive: Some are above 0.
        flat: So are all of them, or some, and all are the same.
    """

    positive: bool
    flat: bool

    @classmethod
    def of_all(cls, maps: Array) -> "list[Spread]":
        """Ranges of the maps of some samples (N, ...)."""
        values = np.asarray(maps).reshape(len(maps), -1)
        high, low = values.max(1, initial=-np.inf), values.min(1, initial=np.inf)
        positive = np.asarray((values > 0).any(1))
        flat: Array = positive & (high - low <= _FLAT * np.maximum(np.abs(high), np.abs(low)))
        return [cls(*pair) for pair in zip(positive.tolist(), flat.tolist(), strict=True)]


def why_empty(evidence: Evidence, row: int, values: Array, method: "Method") -> str:
    """What a map without a positive value means.

    Only one with negative values, or of which the negative part is cut off, lacks evidence.
    """
    if not np.any(values):
        if "activation" in method.needs and not np.any(
            evidence.by_sample(evidence.activation)[row]
        ):
            return f"{SILENT}: it is 0 everywhere for this photo; choose another with --layer"
        if "head" in method.needs and not np.any(evidence.values[evidence.head.features][row]):
            return f"{SILENT}: it is 0 everywhere for this photo; other methods take another layer"
        if method.space == "input" and "forward" in method.needs and not method.differentiates:
            return f"{UNCHANGED}: nothing that is hidden changes it"
        if method.space == "input" and not method.through_layer:
            return f"{NO_SIGNAL}: what comes down to the image is 0 everywhere"
    return "no positive evidence" + (" at this layer" if method.space == "layer" else "")
