"""Layer-wise relevance propagation through attention."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.engines.rules import Rule
from inspector.errors import UsageError
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


@method(
    "attn-lrp",
    order=2024,
    space="input",
    needs={"input-gradient"},
    rule="attn-lrp",
    reduction="sum",
    signed=True,
    cost="about 5 F; with gamma about 15 F",
)
def attn_lrp(
    evidence: "Evidence", *, epsilon: float = 0.0, gamma: float = 0.0
) -> np.ndarray[Any, Any]:
    """AttnLRP: the score passed down as relevance, with a rule for every part of a transformer.

    Linear layers share by contribution (epsilon, or gamma), products of two activations by halves,
    softmax by its expansion at the input; activations and normalisations pass it on whole.  The
    result (N, C, H, W) is signed and summed over the channels.  Pixels, added constants (biases,
    position embeddings) and softmax together hold the score S before softmax: the report says what
    each has, and what is missing.

    Args:
        evidence: The samples to explain.
        epsilon: Added to the denominators of linear layers, and lost to the map; 0 shares exactly
            in proportion.
        gamma: How much more contributions of an output's own sign count in linear layers; the
            authors raise it for noisy vision transformers (0.05, say).

    Source: Achtibat et al. 2024, equations 8 and 9, propositions 3.1, 3.3 and 3.4.

    Raises:
        MethodRefused: operators without a rule.
        UsageError: an option out of range.
    """
    if epsilon < 0 or gamma < 0:
        raise UsageError("attn-lrp: epsilon and gamma are 0 or more")
    return evidence.relevance(Rule("attn-lrp", epsilon=epsilon, gamma=gamma))
