"""Pools over windows and over whole maps, and their inverse."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from converters.errors import ConverterError
from converters.to_torch.ops.window import Window, pool_window, torch_pads
from converters.to_torch.optable import OPS

__all__ = ["average_pool", "lp_pool", "max_pool", "max_unpool"]

MAX_POOLS = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}
INDEXED_MAX_POOLS = {
    1: F.max_pool1d_with_indices,
    2: F.max_pool2d_with_indices,
    3: F.max_pool3d_with_indices,
}
Pooled = Tensor | tuple[Tensor, Tensor]
# torch counts positions in the type of the values, so these overflow on all but the smallest maps.
_SHORT = {torch.int8, torch.uint8, torch.int16, torch.uint16}
AVERAGE_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@OPS.register("MaxPool")
def max_pool(
    X: Tensor,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    storage_order: int = 0,
    strides: tuple[int, ...] | None = None,
    n_outputs: int = 1,
) -> Pooled:
    """Maximum of every window; of equal values the first one gets the gradient."""
    window = pool_window(X.shape[2:], kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    rank = len(kernel_shape)
    if rank not in MAX_POOLS:
        raise ConverterError(f"a pool over {rank} spatial axes")
    if X.dtype in _SHORT:
        return _max_pool_levels(
            X,
            kernel_shape,
            auto_pad=auto_pad,
            ceil_mode=ceil_mode,
            dilations=dilations,
            pads=pads,
            storage_order=storage_order,
            strides=strides,
            n_outputs=n_outputs,
        )
    if window.poolable and n_outputs == 1:
        return MAX_POOLS[rank](
            X, kernel_shape, window.strides, window.begin, window.dilations, window.ceil
        )
    end = [pad + over for pad, over in zip(window.end, window.overhang, strict=True)]
    # The lowest number, not minus infinity: what ONNX Runtime gives for an empty window.
    limits = torch.finfo if X.dtype.is_floating_point else torch.iinfo
    padded = F.pad(X, torch_pads(window.begin, end), value=limits(X.dtype).min)
    if n_outputs == 1:
        return MAX_POOLS[rank](padded, kernel_shape, window.strides, (0,) * rank, window.dilations)
    Y, where = INDEXED_MAX_POOLS[rank](
        padded, kernel_shape, window.strides, (0,) * rank, window.dilations
    )
    return Y, _onnx_indices(where, padded.shape[2:], X.shape, window, storage_order)


def _max_pool_levels(X: Tensor, kernel: tuple[int, ...], **options: Any) -> Pooled:
    """Maxima of quantised numbers, found in float32, which holds them all."""
    found = max_pool(X.to(torch.float32), kernel_shape=kernel, **options)
    Y = found[0] if isinstance(found, tuple) else found
    Y = Y.clamp(min=torch.iinfo(X.dtype).min).to(X.dtype)
    return (Y, found[1]) if isinstance(found, tuple) else Y


def _onnx_indices(
    where: Tensor, padded: torch.Size, shape: torch.Size, window: Window, storage_order: int
) -> Tensor:
    """Turn PyTorch's index within a padded map into ONNX's index within the whole tensor.

    Args:
        where: Flat index into one padded map (N, C, h w).
        padded: Spatial sizes of the padded map.
        shape: Shape of the input (N, C, H W).
        window: The pool's windows.
        storage_order: 0 counts the last axis fastest, 1 the first spatial axis.
    """
    places: list[Tensor] = []
    for axis in reversed(range(len(padded))):
        places.insert(0, where % padded[axis] - window.begin[axis])
        where = where // padded[axis]
    order = range(len(padded)) if storage_order == 0 else reversed(range(len(padded)))
    index = torch.zeros_like(where)
    for axis in order:
        index = index * shape[2 + axis] + places[axis]
    maps = torch.arange(shape[0] * shape[1], device=where.device) * math.prod(shape[2:])
    return index + maps.reshape(shape[0], shape[1], *[1] * len(padded))


@OPS.register("AveragePool")
def average_pool(
    X: Tensor,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Mean of every window; pads count only if ``count_include_pad`` says so."""
    window = pool_window(X.shape[2:], kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    rank, include = len(kernel_shape), bool(count_include_pad)
    if rank not in AVERAGE_POOLS:
        raise ConverterError(f"a pool over {rank} spatial axes")
    if window.poolable and not window.dilated:
        return AVERAGE_POOLS[rank](
            X, kernel_shape, window.strides, window.begin, window.ceil, include
        )
    counted = F.pad(X.new_ones(1, 1, *window.size), window.pads, value=float(include))
    behind = torch_pads([0] * rank, window.overhang)
    means = _window_means(F.pad(F.pad(X, window.pads), behind), window)
    return means / _window_means(F.pad(counted, behind), window)


def _window_means(padded: Tensor, window: Window) -> Tensor:
    """Mean of every window of an input that has its pads already."""
    rank = len(window.kernel)
    if not window.dilated:
        return AVERAGE_POOLS[rank](padded, window.kernel, window.strides)
    maps = padded.reshape(-1, 1, *padded.shape[2:])
    kernel = padded.new_full((1, 1, *window.kernel), 1 / math.prod(window.kernel))
    convolution = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[rank]
    means = convolution(maps, kernel, None, window.strides, (0,) * rank, window.dilations)
    return means.reshape(*padded.shape[:2], *means.shape[2:])


@OPS.register("LpPool", since=2)
def lp_pool(
    X: Tensor,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: tuple[int, ...] | None = None,
    p: int = 2,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """p-norm of every window."""
    window = pool_window(X.shape[2:], kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    if len(kernel_shape) not in AVERAGE_POOLS:
        raise ConverterError(f"a pool over {len(kernel_shape)} spatial axes")
    end = [pad + over for pad, over in zip(window.end, window.overhang, strict=True)]
    powers = F.pad(X.abs() ** p, torch_pads(window.begin, end))
    return _root(_window_means(powers, window) * math.prod(kernel_shape), p)


@OPS.register("LpPool", since=1)
def lp_pool_1(
    X: Tensor,
    *,
    kernel_shape: tuple[int, ...] | None = None,
    auto_pad: str = "NOTSET",
    p: float = 2.0,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """p-norm of every window, as opset 1 has it: p may be broken, the kernel may be missing."""
    if kernel_shape is None:
        raise ConverterError("LpPool without kernel_shape")
    window = pool_window(X.shape[2:], kernel_shape, strides, pads, None, auto_pad, 0)
    powers = F.pad(X.abs() ** p, window.pads)
    return _root(_window_means(powers, window) * math.prod(kernel_shape), p)


def _root(powers: Tensor, p: float) -> Tensor:
    """p-th root with gradient zero (not infinity) where there is nothing."""
    nothing = powers <= 0
    return powers.masked_fill(nothing, 1.0).pow(1 / p).masked_fill(nothing, 0.0)


@OPS.register("GlobalAveragePool")
def global_average_pool(X: Tensor) -> Tensor:
    """Mean over all spatial axes."""
    return X.mean(dim=tuple(range(2, X.dim())), keepdim=True) if X.dim() > 2 else X


@OPS.register("GlobalMaxPool")
def global_max_pool(X: Tensor) -> Tensor:
    """Maximum over all spatial axes; of equal values the first one gets the gradient."""
    pixels = X.flatten(2) if X.dim() > 2 else X.unsqueeze(2)
    return torch.max_pool1d(pixels, pixels.shape[2]).reshape(*X.shape[:2], *[1] * (X.dim() - 2))


@OPS.register("GlobalLpPool", since=2)
def global_lp_pool(X: Tensor, *, p: int = 2) -> Tensor:
    """p-norm over all spatial axes."""
    return _root((X.abs() ** p).sum(dim=tuple(range(2, X.dim())), keepdim=True), p)


@OPS.register("GlobalLpPool", since=1)
def global_lp_pool_1(X: Tensor, *, p: float = 2.0) -> Tensor:
    """p-norm over all spatial axes, where p may be broken."""
    return _root((X.abs() ** p).sum(dim=tuple(range(2, X.dim())), keepdim=True), p)


@OPS.register("MaxUnpool", since=9)
def max_unpool(
    X: Tensor,
    I: Tensor,  # noqa: E741 - the schema's name
    output_shape: tuple[int, ...] | None = None,
    *,
    kernel_shape: tuple[int, ...],
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Put values back where MaxPool found them; everything else is zero.

    Raises:
        ConverterError: When ``output_shape`` is not the shape that kernel, strides and pads
            give: the standard's own test case and ONNX Runtime then disagree on the indices.
    """
    rank = X.dim() - 2
    strides, pads = strides or (1,) * rank, pads or (0,) * (2 * rank)
    spatial = [
        (X.shape[2 + i] - 1) * strides[i] + kernel_shape[i] - pads[i] - pads[rank + i]
        for i in range(rank)
    ]
    shape = (*X.shape[:2], *spatial)
    if output_shape is not None and tuple(output_shape) != shape:
        raise ConverterError(
            f"MaxUnpool to {tuple(output_shape)} where kernel and strides give {shape}",
            hint="implementations disagree on what the indices then mean",
        )
    flat = X.new_zeros(math.prod(shape))
    return flat.scatter(0, I.flatten().to(torch.int64), X.flatten()).reshape(shape)
