"""Class activation mapping."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import MethodRefused
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence

RESIDUAL_TOLERANCE = 1e-4


@method(
    "cam",
    order=2016,
    space="layer",
    needs={"head"},
    signed=True,
    box_threshold=0.2,
    cost="1 F",
)
def cam(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """Class activation map: the head's weights applied before the pooling; exact, or refused.

    M_c(x, y) = sum_k w_k^c A_k(x, y), with A the activation (N, C, h, w) that is pooled and w^c
    the weights of class c in the one linear layer behind the pooling.  The bias is left out of
    the map.  Because logit_c = mean(M_c) + b_c, the map accounts for the score exactly; the
    residual of this identity is checked on every run and stands in the report.

    The map is signed: negative values speak against the class.

    Source: Zhou et al. 2016, equations 1 and 2.

    Raises:
        MethodRefused: the head is not one pooling and one linear layer, or the target is no
            class.
    """
    head = evidence.head
    maps = []
    worst = 0.0
    for row, target in enumerate(evidence.targets):
        if not target.terms:
            raise MethodRefused(
                "CAM explains a class or a sum of classes, and the target is none",
                where=target.label,
                hint="use grad-cam",
            )
        features = np.asarray(evidence.values[head.features][row : row + 1])
        maps.append(head.cam_of(features, target.terms))
        scale = float(np.abs(evidence.values[evidence.model.scores.tensor][row]).max())
        residual = head.residual_of(features, target.terms, evidence.scores[row : row + 1])
        worst = max(worst, float(np.max(residual)) / max(scale, 1e-12))
    evidence.facts["cam_residual"] = worst
    if worst > RESIDUAL_TOLERANCE:
        evidence.note(
            f"CAM accounts for the logit only up to {worst:.1e} of its scale: quantised or "
            "float16 arithmetic lies between map and score"
        )
    return np.concatenate(maps).astype(np.float32)
