"""Conv, ConvTranspose and DeformConv."""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from converters.errors import ConverterError
from converters.to_torch.ops.sampling import weighted_corners
from converters.to_torch.ops.window import Window, conv_window, torch_pads
from converters.to_torch.optable import OPS

__all__ = ["conv", "conv_transpose", "convolve", "deform_conv"]

CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


@OPS.register("Conv")
def conv(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Convolution (cross-correlation) over one, two or three spatial axes."""
    window = conv_window(X.shape[2:], W.shape[2:], strides, pads, dilations, auto_pad)
    return convolve(X, W, B, window, group)


def convolve(X: Tensor, W: Tensor, B: Tensor | None, window: Window, group: int) -> Tensor:
    """Convolve X (N, C, H W) with W (M, C / group, h w) where the window lies."""
    convolution = CONVOLUTIONS.get(len(window.kernel))
    if convolution is None:
        raise ConverterError(f"a convolution over {len(window.kernel)} spatial axes")
    if window.symmetric:
        return convolution(X, W, B, window.strides, window.begin, window.dilations, group)
    padded = F.pad(X, window.pads)
    return convolution(padded, W, B, window.strides, 0, window.dilations, group)


@OPS.register("ConvTranspose")
def conv_transpose(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    output_padding: tuple[int, ...] | None = None,
    output_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Transposed convolution: the gradient of Conv with respect to its input."""
    rank = X.dim() - 2
    if rank not in TRANSPOSED:
        raise ConverterError(f"a transposed convolution over {rank} spatial axes")
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    begin, end, extra = _transposed_pads(
        X.shape[2:], W.shape[2:], strides, dilations, pads, output_padding, output_shape, auto_pad
    )
    fits = all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
    if begin == end and fits:
        return TRANSPOSED[rank](X, W, B, strides, begin, extra, group, dilations)
    full = TRANSPOSED[rank](X, W, None, strides, 0, 0, group, dilations)
    behind = [grow - pad for grow, pad in zip(extra, end, strict=True)]
    cut = F.pad(full, torch_pads([-pad for pad in begin], behind))
    return cut if B is None else cut + B.reshape(-1, *[1] * rank)


@functools.lru_cache(maxsize=1024)
def _transposed_pads(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...] | None,
    output_padding: tuple[int, ...] | None,
    output_shape: tuple[int, ...] | None,
    auto_pad: str,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Pixels cut before and behind the full result, and pixels added behind it."""
    rank = len(size)
    extra = output_padding or (0,) * rank
    wanted = output_shape[-rank:] if output_shape else None
    if wanted is None and auto_pad.startswith("SAME"):
        wanted = tuple(length * stride for length, stride in zip(size, strides, strict=True))
    if wanted is None:
        explicit = pads if pads and auto_pad in {"NOTSET", ""} else (0,) * (2 * rank)
        return explicit[:rank], explicit[rank:], extra
    begin, end, added = [], [], []
    for axis in range(rank):
        span = (kernel[axis] - 1) * dilations[axis] + 1
        full = (size[axis] - 1) * strides[axis] + span
        if not output_shape and full + extra[axis] < wanted[axis]:
            raise ConverterError(
                "ConvTranspose with auto_pad SAME and a kernel shorter than its stride",
                hint="the standard and ONNX Runtime disagree on the output's size",
            )
        total = max(0, full + extra[axis] - wanted[axis])
        # The odd pixel is cut at the beginning unless SAME_UPPER says otherwise.
        begin.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
        end.append(total - begin[-1])
        added.append(wanted[axis] - full + total)
    return tuple(begin), tuple(end), tuple(added)


@OPS.register("DeformConv", since=19)
def deform_conv(
    X: Tensor,
    W: Tensor,
    offset: Tensor,
    B: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    offset_group: int = 1,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Deformable convolution in two dimensions (Dai et al. 2017; with a mask, Zhu et al. 2019).

    ``offset`` is (N, offset_group * kh * kw * 2, oh, ow) in pixels, (y, x) alternating.
    """
    if X.dim() != 4:
        raise ConverterError(f"DeformConv over {X.dim() - 2} spatial axes")
    window = conv_window(X.shape[2:], W.shape[2:], strides, pads, dilations, "NOTSET")
    taps, outputs = math.prod(window.kernel), window.outputs
    shifts = offset.reshape(X.shape[0], offset_group, taps, 2, *outputs)
    sampled = _sample_taps(X, shifts, window, offset_group)  # (N, C, taps, oh, ow)
    if mask is not None:
        weights = mask.reshape(X.shape[0], offset_group, taps, *outputs)
        repeats = X.shape[1] // offset_group
        sampled = sampled * weights.repeat_interleave(repeats, dim=1)
    columns = sampled.reshape(X.shape[0], group, -1, math.prod(outputs))
    rows = W.reshape(group, W.shape[0] // group, -1)
    Y = torch.einsum("gmk,ngkl->ngml", rows, columns).reshape(X.shape[0], -1, *outputs)
    return Y if B is None else Y + B.reshape(-1, 1, 1)


def _sample_taps(X: Tensor, shifts: Tensor, window: Window, offset_group: int) -> Tensor:
    """Bilinear samples of X (N, C, H, W) at the shifted taps: (N, C, taps, oh, ow)."""
    oh, ow = window.outputs
    kh, kw = window.kernel
    base = []
    for axis in range(2):
        starts = torch.arange(window.outputs[axis], device=X.device) * window.strides[axis]
        steps = torch.arange(window.kernel[axis], device=X.device) * window.dilations[axis]
        base.append((steps[:, None] + starts[None, :] - window.begin[axis]).to(X.dtype))
    rows = base[0][:, None, :, None].expand(kh, kw, oh, ow).reshape(kh * kw, oh, ow)
    columns = base[1][None, :, None, :].expand(kh, kw, oh, ow).reshape(kh * kw, oh, ow)
    y, x = rows + shifts[:, :, :, 0], columns + shifts[:, :, :, 1]
    images = X.reshape(X.shape[0] * offset_group, -1, *window.size)
    corners = weighted_corners(images, y.reshape(len(images), -1), x.reshape(len(images), -1))
    sampled = torch.stack(corners).sum(dim=0)
    return sampled.reshape(X.shape[0], X.shape[1], kh * kw, oh, ow)
