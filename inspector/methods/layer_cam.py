"""LayerCAM."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.measures.namespace import array_namespace
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


def weighted_map(activation: Any, gradient: Any) -> Any:
    """ReLU(sum_k ReLU(g_k) * A_k), place by place: (N, C, h, w) twice to (N, h, w)."""
    xp = array_namespace(activation, gradient)
    zero = xp.zeros_like(gradient)
    combined = xp.sum(xp.where(gradient <= 0, zero, gradient) * activation, axis=1)
    # What is not a number stays one, and the map is refused.
    return xp.where(combined <= 0, xp.zeros_like(combined), combined)


@method(
    "layer-cam",
    order=2021,
    space="layer",
    needs={"activation", "gradient"},
    cost="1 F and the tail, forwards and backwards",
)
def layer_cam(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """LayerCAM: every place of a map weighted by its own positive gradient; also for early layers.

    L = ReLU(sum_k ReLU(g_k) * A_k), with A the layer's activation (N, C, h, w) and g = dS/dA, S
    the target's score before softmax.  Negative gradients are left out, so evidence against the
    target does not cancel evidence for it at the same place.

    Source: Jiang et al. 2021, equations 4 to 6.
    """
    result: np.ndarray[Any, Any] = weighted_map(evidence.activation, evidence.gradient)
    return result
