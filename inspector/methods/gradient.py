"""The plain gradient with respect to the input."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


@method("gradient", order=2014, space="input", needs={"input-gradient"}, cost="about 4 F")
def gradient(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """Gradient of the score with respect to each input value.

    dS/dx for the preprocessed input x (N, C, H, W), S the target's score before softmax; signed,
    in score units per unit of normalised input.  The heatmap takes the largest absolute value
    over the channels.

    Source: Simonyan et al. 2014, section 3.
    """
    return evidence.input_gradient("gradient")
