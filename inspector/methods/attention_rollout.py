"""Attention rollout."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.measures.attention_flow import flow, read_rows
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


@method(
    "attention-rollout",
    order=2020,
    space="layer",
    needs={"activation", "attention"},
    pictures_only="tokens are laid on the grid of a picture",
    cost="1 F and the last block backwards",
    class_specific=False,
)
def attention_rollout(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """Attention rollout: how far each token is mixed into those that a transformer's head reads.

    R = B_L ... B_1 with B_l = (A_l + I) / 2, A_l the mean over the heads of block l's attention
    weights (N, heads, T, T), I the way around the attention.  The map is the row of R of the class
    token, or the mean of the rows of all tokens that the head pools, laid on the grid of the patch
    tokens.  Values of the tokens play no part in it and neither does the target: which tokens the
    score reads is all that is taken from the gradient.

    Source: Abnar & Zuidema 2020, section 3, equation 1.
    """
    evidence.note(
        "attention rollout is not class-specific: it shows what is mixed together, the same for "
        "every target"
    )
    names = evidence.attentions
    mixings = [evidence.attention(name).mean(axis=1) for name in names]
    total = flow((mixing + np.eye(mixing.shape[-1])) / 2 for mixing in mixings)
    rows = read_rows(total, evidence.attention_gradient(names[-1]))
    return evidence.on_tokens(rows).astype(np.float32)
