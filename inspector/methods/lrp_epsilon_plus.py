"""Layer-wise relevance propagation for convolutional networks."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.engines.rules import Rule
from inspector.errors import UsageError
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


@method(
    "lrp-epsilon-plus",
    order=2019,
    space="input",
    needs={"input-gradient"},
    rule="lrp-epsilon-plus",
    reduction="sum",
    signed=True,
    cost="about 7 F",
)
def lrp_epsilon_plus(evidence: "Evidence", *, epsilon: float = 0.0) -> np.ndarray[Any, Any]:
    """LRP with the epsilon rule in dense layers and the z+ rule in convolutions.

    Relevance of an output is shared in proportion to the contributions w x of its inputs: all of
    them in dense layers, the positive ones in convolutions (alpha 1, beta 0).  A normalisation,
    scale or shift behind a layer is part of it; max-pooling passes to the winner, sums and means
    by contribution, activations whole, gates (squeeze-excite) take none.  The result
    (N, C, H, W) is summed over the channels.  Pixels and biases together hold the score S before
    softmax: the report says what each has, and what is missing.

    Args:
        evidence: The samples to explain.
        epsilon: Added to the denominators of dense layers, and lost to the map; 0 shares exactly
            in proportion.

    Source: Bach et al. 2015, equations 58 and 60; as a composite Montavon et al. 2019, section
    10.2.

    Raises:
        MethodRefused: operators without a rule, such as attention.
        UsageError: epsilon is negative.
    """
    if epsilon < 0:
        raise UsageError("lrp-epsilon-plus: epsilon is 0 or more")
    return evidence.relevance(Rule("lrp-epsilon-plus", epsilon=epsilon))
