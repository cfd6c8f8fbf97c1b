"""Input times gradient."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


@method(
    "input-x-gradient",
    order=2016,
    space="input",
    needs={"input-gradient"},
    reduction="sum",
    signed=True,
    cost="about 4 F",
)
def input_x_gradient(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """Input times gradient: how much each input value adds to the score, to first order.

    x * dS/dx for the preprocessed input x (N, C, H, W), S the target's score before softmax;
    signed, and summed over the channels.  An input value of 0 (the mean colour, where the
    preprocessing subtracts it) gets nothing whatever its gradient.

    Source: Shrikumar et al. 2016, section 2 of "Not just a black box".
    """
    return evidence.images * evidence.input_gradient("gradient")
