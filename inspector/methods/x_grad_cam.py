"""XGrad-CAM."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.evidence.places import compare_places
from inspector.measures.namespace import array_namespace
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence

CANCELLED = 0.1
"""Sum of a map, relative to the sum of its magnitudes, below which the weight says little."""


def weights(activation: Any, gradient: Any) -> Any:
    """alpha_k = sum_ij g_kij A_kij / sum_ij A_kij: (N, C, h, w) twice to (N, C).

    A map whose sum is 0 gets the weight 0: of a non-negative activation it is empty.
    """
    xp = array_namespace(activation, gradient)
    total = xp.sum(activation, axis=(2, 3))
    safe = total != 0
    weighted = xp.sum(gradient * activation, axis=(2, 3))
    return xp.where(safe, weighted, 0) / xp.where(safe, total, 1)


def unsafe(activation: Any) -> bool:
    """Whether positive and negative values of some map nearly cancel in its sum."""
    xp = array_namespace(activation)
    size = xp.sum(xp.abs(activation), axis=(2, 3))
    total = xp.abs(xp.sum(activation, axis=(2, 3)))
    return bool(xp.any((size > 0) & (total < CANCELLED * size)))


@method(
    "x-grad-cam",
    order=2020,
    space="layer",
    needs={"activation", "gradient"},
    cost="1 F and the tail, forwards and backwards",
)
def x_grad_cam(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """XGrad-CAM: feature maps weighted by their gradient, averaged where the map is active.

    alpha_k = sum_ij g_kij A_kij / sum_ij A_kij and L = ReLU(sum_k alpha_k A_k), with A the layer's
    activation (N, C, h, w), g = dS/dA, and S the target's score before softmax.  These weights
    make the map sum up to the part of the score that is linear in the layer, and removing a map
    changes both alike (the paper's axioms of conservation and sensitivity).

    Where A can be negative (before a ReLU, behind SiLU or GELU) the sum below the fraction can
    vanish; that is detected and said.

    Source: Fu et al. 2020, equation 8.
    """
    activation = evidence.activation
    if unsafe(activation):
        evidence.note(
            "XGrad-CAM divides by the sum of each map; here positive and negative values of a map "
            "nearly cancel, so its weight is unreliable: prefer grad-cam at this layer"
        )
    alpha = weights(activation, evidence.gradient)
    n, _, h, w = activation.shape
    combined = (alpha[:, None, :] @ activation.reshape(n, -1, h * w)).reshape(n, h, w)
    result: np.ndarray[Any, Any] = np.maximum(combined, 0).astype(np.float32)
    evidence.compare_evidence(result, np.maximum(-combined, 0))
    compare_places(evidence, result)
    return result
