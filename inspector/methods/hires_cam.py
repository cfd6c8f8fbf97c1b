"""HiResCAM."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.measures.namespace import array_namespace
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


def weighted_map(activation: Any, gradient: Any) -> Any:
    """ReLU(sum_k g_k * A_k), place by place: (N, C, h, w) twice to (N, h, w)."""
    xp = array_namespace(activation, gradient)
    combined = xp.sum(gradient * activation, axis=1)
    # What is not a number stays one, and the map is refused.
    return xp.where(combined <= 0, xp.zeros_like(combined), combined)


@method(
    "hires-cam",
    order=2020,
    space="layer",
    needs={"activation", "gradient"},
    cost="1 F and the tail, forwards and backwards",
)
def hires_cam(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """HiResCAM: gradient times activation at every place, summed over the maps; positive part.

    L = ReLU(sum_k g_k * A_k), with A the layer's activation (N, C, h, w) and g = dS/dA, S the
    target's score before softmax.  Unlike Grad-CAM, the gradient is not averaged over places, so
    that what one place alone contributes (a box of a detector, a pixel of a mask) stays there.
    Where the layer is pooled by a mean and one linear layer follows, it equals Grad-CAM.

    Source: Draelos & Carin 2020, section 3.2; the ReLU as in Grad-CAM.
    """
    result: np.ndarray[Any, Any] = weighted_map(evidence.activation, evidence.gradient)
    evidence.compare_evidence(result, weighted_map(evidence.activation, -evidence.gradient))
    return result
