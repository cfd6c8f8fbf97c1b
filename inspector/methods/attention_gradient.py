"""Attention weighted by its gradient."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.measures.attention_flow import flow, read_rows
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


@method(
    "attention-gradient",
    order=2021,
    space="layer",
    needs={"activation", "attention"},
    pictures_only="tokens are laid on the grid of a picture",
    cost="1 F and for each block the network behind its attention, forwards and backwards",
)
def attention_gradient(evidence: "Evidence") -> np.ndarray[Any, Any]:
    """Attention times its gradient, through all blocks of a transformer; class-specific.

    R = B_L ... B_1 with B_l = I + E_h[ReLU(g_l * A_l)], A_l the attention weights of block l
    (N, heads, T, T), g_l = dS/dA_l, S the target's score before softmax, E_h the mean over the
    heads.  The map is the row of R of the class token, or the mean of the rows of all tokens that
    the head pools, less what stays where it is (I), laid on the grid of the patch tokens.

    Source: Chefer, Gur & Wolf 2021, "Generic attention-model explainability", equations 5 and 6 for
    self-attention.
    """
    names = evidence.attentions
    mixings = []
    for number, name in enumerate(names):
        weighted = np.maximum(evidence.attention_gradient(name) * evidence.attention(name), 0)
        mixings.append(weighted.mean(axis=1))
        evidence.progress(number + 1, len(names))
    total = flow(mixing + np.eye(mixing.shape[-1]) for mixing in mixings)
    total -= np.eye(total.shape[-1])
    rows = read_rows(total, evidence.attention_gradient(names[-1]))
    return evidence.on_tokens(rows).astype(np.float32)
