"""Losses that a training graph may end in."""

import torch
from torch import Tensor

from converters.to_torch.optable import OPS


@OPS.register("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability (N, K, ...) of the true classes (N, ...), weighted."""
    target = target.to(device=input.device, dtype=torch.int64)
    kept = torch.ones_like(target, dtype=torch.bool)
    if ignore_index is not None:
        kept = target != ignore_index
    classes = torch.where(kept, target, 0)
    picked = input.gather(1, classes.unsqueeze(1)).squeeze(1)
    weights = torch.ones_like(picked) if weight is None else weight.to(input.device)[classes]
    weights = torch.where(kept, weights, 0.0)
    losses = -picked * weights
    if reduction == "none":
        return losses
    return losses.sum() / weights.sum() if reduction == "mean" else losses.sum()
