"""Boxes of a detector, found again on other images."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import MethodRefused

if TYPE_CHECKING:
    from inspector.evidence import Evidence

__all__ = ["require_boxes", "similarities"]

Array = np.ndarray[Any, Any]


def require_boxes(evidence: "Evidence", method: str) -> None:
    """Refuse targets that are not boxes.

    Raises:
        MethodRefused: One is a number that nothing of another image is alike to.
    """
    for target in evidence.targets:
        if not target.seen_in:
            raise MethodRefused(
                f"{method} is defined for boxes, and {target.label!r} is not a box",
                hint="rise and occlusion are for any score; a box of a detector is named by "
                "its class, CLASS#2 or box:L,T,R,B",
            )


def similarities(evidence: "Evidence", images: Array, row: int) -> Array:
    """Similarity of a sample's box to the most similar box of each of other images, (P,).

    Args:
        evidence: The samples.
        images: (P, C, H, W), preprocessed.
        row: The sample.
    """
    target = evidence.targets[row]
    # Lists of detections may have a length each.
    size = 1 if target.moves else len(images)
    found: list[float] = []
    for start in range(0, len(images), size):
        values = evidence.model.forward(images[start : start + size], target.seen_in)
        found += [
            target.sign * target.similarity({name: v[i] for name, v in values.items()})
            for i in range(size)
        ]
    return np.asarray(found, dtype=np.float64)
