"""Experimental operators that the standard dropped, and files of 2017-2019 still hold.

They live in the default domain without a schema; ONNX Runtime runs them, and says what they mean.
"""

import torch
from torch import Tensor

from converters.to_torch.optable import OPS


@OPS.register("Affine")
def affine(X: Tensor, *, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
    """``alpha X + beta``."""
    return alpha * X + beta


@OPS.register("ImageScaler")
def image_scaler(input: Tensor, *, bias: tuple[float, ...] = (), scale: float = 1.0) -> Tensor:
    """Scale an image (N, C, H, W) and add a bias to each channel."""
    offsets = torch.tensor(bias, dtype=input.dtype, device=input.device)
    return scale * input + offsets.reshape(-1, 1, 1)


@OPS.register("Crop")
def crop(input: Tensor, *, border: tuple[int, ...], scale: tuple[int, ...] | None = None) -> Tensor:
    """Cut left, top, right and bottom borders off, or a size (H, W) after left and top."""
    left, top, right, bottom = border
    height, width = input.shape[2], input.shape[3]
    if scale is not None:
        return input[:, :, top : top + scale[0], left : left + scale[1]]
    return input[:, :, top : height - bottom, left : width - right]


@OPS.register("ScaledTanh")
def scaled_tanh(input: Tensor, *, alpha: float, beta: float) -> Tensor:
    """``alpha tanh(beta x)``."""
    return alpha * torch.tanh(beta * input)


@OPS.register("ParametricSoftplus")
def parametric_softplus(X: Tensor, *, alpha: float, beta: float) -> Tensor:
    """``alpha log(1 + exp(beta x))``."""
    return alpha * torch.nn.functional.softplus(beta * X)
