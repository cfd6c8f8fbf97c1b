"""Gradient-weighted class activation mapping."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.evidence.places import compare_places
from inspector.measures.namespace import array_namespace
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


def weights(gradient: Any) -> Any:
    """alpha_k = 1/Z sum_ij g_kij: (N, C, h, w) to (N, C); equation 1."""
    return array_namespace(gradient).mean(gradient, axis=(2, 3))


def weighted_map(activation: Any, alpha: Any) -> Any:
    """ReLU(sum_k alpha_k A_k): (N, C, h, w) and (N, C) to (N, h, w); equation 2."""
    xp = array_namespace(activation)
    return _positive(weighted_sum(activation, alpha), xp)


def weighted_sum(activation: Any, alpha: Any) -> Any:
    """sum_k alpha_k A_k: (N, C, h, w) and (N, C) to (N, h, w)."""
    xp = array_namespace(activation)
    n, _, h, w = activation.shape
    # A matrix product, not a weighted copy of all maps.
    rows = xp.matmul(alpha[:, None, :], xp.reshape(activation, (n, -1, h * w)))
    return xp.reshape(rows, (n, h, w))


def _positive(maps: Any, xp: Any) -> Any:
    """ReLU; what is not a number stays one, and the map is refused."""
    return xp.where(maps <= 0, xp.zeros_like(maps), maps)


@method(
    "grad-cam",
    order=2017,
    space="layer",
    needs={"activation", "gradient"},
    cost="1 F and the tail, forwards and backwards",
)
def grad_cam(evidence: "Evidence", *, counterfactual: bool = False) -> np.ndarray[Any, Any]:
    """Grad-CAM: a layer's feature maps, weighted by their mean gradient; positive part.

    alpha_k = 1/Z sum_ij g_kij and L = ReLU(sum_k alpha_k A_k), with A the layer's activation
    (N, C, h, w), g = dS/dA, Z = h w, and S the target's score before softmax.

    An all-negative sum leaves an empty map, which is reported as "no positive evidence at this
    layer".  Where g differs so much from place to place that less than half of the map agrees with
    sum_k g_k A_k, that is said: hires-cam keeps the place.

    Args:
        evidence: The samples to explain.
        counterfactual: Weigh with -g: regions whose removal would raise the score.

    Source: Selvaraju et al. 2017, equations 1 and 2; counterfactual: section 3.3.
    """
    gradient = -evidence.gradient if counterfactual else evidence.gradient
    combined = weighted_sum(evidence.activation, weights(gradient))
    result: np.ndarray[Any, Any] = _positive(combined, np)
    evidence.compare_evidence(result, _positive(-combined, np))
    compare_places(evidence, result, against=counterfactual)
    return result
