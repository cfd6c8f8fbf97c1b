"""Grad-CAM++."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.evidence.places import compare_places
from inspector.measures.namespace import array_namespace
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


def weights(activation: Any, gradient: Any) -> Any:
    """w_k = sum_ij alpha_kij ReLU(g_kij): (N, C, h, w) twice to (N, C).

    alpha = g^2 / (2 g^2 + (sum_ab A_kab) g^3), written as [g != 0] / (2 + g sum A).  Only g > 0
    survives the ReLU, so for A >= 0 the denominator is at least 2 and needs no epsilon.
    """
    xp = array_namespace(activation, gradient)
    positive = gradient > 0
    denominator = _denominator(xp, activation, gradient)
    safe = denominator != 0
    ratio = xp.where(positive & safe, gradient, 0) / xp.where(safe, denominator, 1)
    return xp.sum(ratio, axis=(2, 3))


def _denominator(xp: Any, activation: Any, gradient: Any) -> Any:
    return 2 + gradient * xp.sum(activation, axis=(2, 3), keepdims=True)


def unsafe(activation: Any, gradient: Any) -> bool:
    """Whether the denominator comes near zero or below where the gradient is positive."""
    xp = array_namespace(activation, gradient)
    if bool(xp.all(xp.sum(activation, axis=(2, 3)) >= 0)):
        return False  # at least 2 wherever the gradient is positive
    low = (gradient > 0) & (_denominator(xp, activation, gradient) < 1)
    return bool(xp.any(low))


@method(
    "grad-cam++",
    order=2018,
    space="layer",
    needs={"activation", "gradient"},
    cost="1 F and the tail, forwards and backwards",
)
def grad_cam_plus_plus(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """Grad-CAM++: weights that count every occurrence of the class, not the largest only.

    w_k = sum_ij alpha_kij ReLU(g_kij) with alpha = g^2 / (2 g^2 + (sum_ab A_kab) g^3), and
    L = ReLU(sum_k w_k A_k); A the layer's activation (N, C, h, w), g = dS/dA, S the score
    before softmax.  The factor exp(S) of the paper's derivation cancels.

    Where A can be negative (before a ReLU, behind SiLU or GELU) the denominator can reach zero;
    that is detected and said.

    Source: Chattopadhay et al. 2018, equations 10, 11 and 19.
    """
    activation, gradient = evidence.activation, evidence.gradient
    if unsafe(activation, gradient):
        evidence.note(
            "Grad-CAM++ assumes a non-negative activation; here its denominator comes near zero "
            "or changes sign, so the weights are unreliable: prefer grad-cam at this layer"
        )
    alpha = weights(activation, gradient)
    n, _, h, w = activation.shape
    combined = (alpha[:, None, :] @ activation.reshape(n, -1, h * w)).reshape(n, h, w)
    result: np.ndarray[Any, Any] = np.maximum(combined, 0).astype(np.float32)
    compare_places(evidence, result)
    return result
