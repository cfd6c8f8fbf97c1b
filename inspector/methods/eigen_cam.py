"""Eigen-CAM."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


def principal_map(activation: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A (C, h, w) projected onto its first right singular vector: (h, w), its sum not negative.

    The vector is found from the (C, C) or (h w, h w) products, whichever is smaller.
    """
    channels, height, width = activation.shape
    rows = activation.reshape(channels, -1).T.astype(np.float64)  # (h w, C)
    if channels <= len(rows):
        projected = rows @ np.linalg.eigh(rows.T @ rows)[1][:, -1]
    else:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        projected = vectors[:, -1] * np.sqrt(max(float(values[-1]), 0.0))
    found: np.ndarray[Any, Any] = projected.reshape(height, width)
    return -found if found.sum() < 0 else found


@method(
    "eigen-cam",
    order=2020,
    space="layer",
    needs={"activation"},
    cost="1 F",
    class_specific=False,
)
def eigen_cam(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """Eigen-CAM: the strongest pattern of a layer; not class-specific, the same for every target.

    The layer's activation A as a matrix (h w, C) = U Sigma V^T, without centring; L = ReLU(A v_1),
    with v_1 the first right singular vector.  A singular vector has no sign: the one is taken
    whose map has a sum that is not negative.  It shows where the layer is most active along one
    direction, whatever the score depends on.

    Source: Muhammad & Yeasin 2020, section III; the ReLU leaves out the other side of the pattern.
    """
    evidence.note(
        "Eigen-CAM is not class-specific: it shows the strongest pattern of the layer, the same "
        "for every target"
    )
    maps = [principal_map(own) for own in evidence.activation]
    result: np.ndarray[Any, Any] = np.maximum(np.stack(maps), 0).astype(np.float32)
    return result
