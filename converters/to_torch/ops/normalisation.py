"""Normalisation over batches, channels, layers and groups."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from converters.errors import ConverterError
from converters.to_torch.optable import OPS

__all__ = ["batch_normalization", "layer_normalization", "lrn"]

EPSILON = 9.999999747378752e-06  # 1e-5 as a float32, the schemas' default


@OPS.register("BatchNormalization", since=14)
def batch_normalization(
    X: Tensor,
    scale: Tensor,
    B: Tensor,
    input_mean: Tensor,
    input_var: Tensor,
    *,
    epsilon: float = EPSILON,
    momentum: float = 0.8999999761581421,
    training_mode: int = 0,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Normalise each channel with given statistics, or in training mode with the batch's."""
    if not training_mode:
        return torch.batch_norm(
            X, scale, B, input_mean, input_var, False, 0.0, epsilon, torch.backends.cudnn.enabled
        )
    axes = tuple(axis for axis in range(X.dim()) if axis != 1)
    var, mean = torch.var_mean(X, axes, correction=0)
    # Not with mean and var as given statistics: torch does not differentiate through those.
    Y = torch.batch_norm(X, scale, B, None, None, True, 0.0, epsilon, False)
    running_mean = input_mean * momentum + mean * (1 - momentum)
    running_var = input_var * momentum + var * (1 - momentum)
    return Y, running_mean, running_var


@OPS.register("BatchNormalization", since=1)
def batch_normalization_1(
    X: Tensor,
    scale: Tensor,
    B: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = EPSILON,
    is_test: int = 0,
    momentum: float = 0.8999999761581421,
    spatial: int = 1,
    n_outputs: int = 1,
) -> Tensor:
    """Normalise with given statistics; ``spatial=0`` has one for each activation, not channel.

    Raises:
        ConverterError: When the node has training outputs.
    """
    if n_outputs > 1 and not is_test:
        raise ConverterError(
            "BatchNormalization in training mode", hint="export the model for inference"
        )
    if not spatial:
        mean, var, scale, B = (p.reshape(X.shape[1:]) for p in (mean, var, scale, B))
        return (X - mean) * torch.rsqrt(var + epsilon) * scale + B
    return torch.batch_norm(
        X, scale, B, mean, var, False, 0.0, epsilon, torch.backends.cudnn.enabled
    )


@OPS.register("InstanceNormalization")
def instance_normalization(
    input: Tensor, scale: Tensor, B: Tensor, *, epsilon: float = EPSILON
) -> Tensor:
    """Normalise each map of each sample with its own mean and variance."""
    return torch.instance_norm(input, scale, B, None, None, True, 0.0, epsilon, False)


@OPS.register("LayerNormalization", since=17)
def layer_normalization(
    X: Tensor,
    Scale: Tensor,
    B: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = EPSILON,
    stash_type: int = 1,
    n_outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Normalise over all axes from ``axis`` on; mean and 1 / standard deviation on demand."""
    shape = X.shape[axis:]
    if n_outputs == 1 and Scale.shape == shape and (B is None or B.shape == shape):
        return F.layer_norm(X, shape, Scale, B, epsilon)
    axes = tuple(range(axis if axis >= 0 else X.dim() + axis, X.dim()))
    var, mean = torch.var_mean(X, axes, correction=0, keepdim=True)
    inverse = torch.rsqrt(var + epsilon)
    Y = (X - mean) * inverse * Scale
    if B is not None:
        Y = Y + B
    return (Y, mean, inverse) if n_outputs > 1 else Y


@OPS.register("RMSNormalization", since=23)
def rms_normalization(
    X: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = EPSILON, stash_type: int = 1
) -> Tensor:
    """Divide by the root mean square over all axes from ``axis`` on."""
    axes = tuple(range(axis if axis >= 0 else X.dim() + axis, X.dim()))
    return X * torch.rsqrt(X.square().mean(axes, keepdim=True) + epsilon) * scale


@OPS.register("GroupNormalization", since=21)
def group_normalization(
    X: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = EPSILON,
    stash_type: int = 1,
) -> Tensor:
    """Normalise groups of channels together; scale and bias by channel."""
    return F.group_norm(X, num_groups, scale, bias, epsilon)


@OPS.register("GroupNormalization", since=18)
def group_normalization_18(
    X: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = EPSILON
) -> Tensor:
    """Normalise groups of channels together; scale and bias by group."""
    channels = X.shape[1] // num_groups
    scale, bias = scale.repeat_interleave(channels), bias.repeat_interleave(channels)
    return F.group_norm(X, num_groups, scale, bias, epsilon)


@OPS.register("LRN")
def lrn(
    X: Tensor,
    *,
    size: int,
    alpha: float = 9.999999747378752e-05,
    beta: float = 0.75,
    bias: float = 1.0,
) -> Tensor:
    """Divide by (bias + alpha / size * squares of the neighbouring channels) ** beta.

    The neighbours of channel c are c - floor((size - 1) / 2) ... c + ceil((size - 1) / 2).
    """
    squares = X.square().reshape(X.shape[0], 1, X.shape[1], -1)
    squares = F.pad(squares, [0, 0, (size - 1) // 2, size // 2])
    means = F.avg_pool2d(squares, (size, 1), 1).reshape(X.shape)
    return X / (bias + alpha * means) ** beta


@OPS.register("LpNormalization")
def lp_normalization(input: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """Divide by the p-norm along an axis; what has no length stays zero."""
    norm: Tensor = torch.linalg.vector_norm(input, p, dim=axis, keepdim=True)
    return input / norm.masked_fill(norm == 0, 1.0)


@OPS.register("MeanVarianceNormalization", since=9)
def mean_variance_normalization(X: Tensor, *, axes: tuple[int, ...] = (0, 2, 3)) -> Tensor:
    """(x - mean) / standard deviation over the axes."""
    centred = X - X.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)
