"""Resize and Upsample.

Resizing is separable: along each axis an output pixel is a weighted sum of a few input pixels.
Which and with what weight follows from the coordinate transformation; it is worked out once and
cached.  The common cases are handed to PyTorch's own kernels; all others are an ``index_select``
(nearest) or a product with a small matrix along each axis.

Coordinates are computed in float32, as ONNX Runtime does: at the boundary between two pixels the
rounding decides which one ``nearest`` takes.
"""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from converters.errors import ConverterError
from converters.to_torch.optable import OPS

__all__ = ["resize", "upsample"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Axis:
    """How one axis is resized: everything that its indices and weights depend on.

    Args:
        size: Input length.
        length: Output length.
        scale: Output over input, as given (the output length is rounded down).
        start: Begin of the region of interest, relative (``tf_crop_and_resize``).
        stop: Its end.
    """

    size: int
    length: int
    scale: float
    mode: str
    coordinates: str
    nearest_mode: str = "floor"
    coeff_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    start: float = 0.0
    stop: float = 1.0

    @property
    def unchanged(self) -> bool:
        """Whether every output pixel is the input pixel of the same index."""
        return self.size == self.length and self.scale == 1 and not self.cropped

    @property
    def cropped(self) -> bool:
        """Whether only a region of the input is resized."""
        return self.coordinates == "tf_crop_and_resize" and (self.start, self.stop) != (0, 1)


@OPS.register("Resize", since=11)
def resize(
    X: Tensor,
    roi: tuple[float, ...] | None = None,
    scales: tuple[float, ...] | None = None,
    sizes: tuple[int, ...] | None = None,
    *,
    antialias: int = 0,
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Resize any axes by nearest, linear or cubic interpolation."""
    chosen = tuple(a % X.dim() for a in axes) if axes else tuple(range(X.dim()))
    common = Axis(
        0,
        0,
        1.0,
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(exclude_outside),
        bool(antialias),
    )
    old = tuple(X.shape[a] for a in chosen)
    plan = _plan(common, old, roi or (), scales or (), sizes or (), keep_aspect_ratio_policy)
    return _interpolate(X, dict(zip(chosen, plan, strict=True)), extrapolation_value)


@OPS.register("Upsample", since=7)
@OPS.register("Resize", since=10)
def upsample(X: Tensor, scales: tuple[float, ...], *, mode: str = "nearest") -> Tensor:
    """Resize as before opset 11: output pixel i lies at input pixel i / scale."""
    mode = {"bilinear": "linear", "trilinear": "linear"}.get(mode, mode)
    common = Axis(0, 0, 1.0, mode, "asymmetric", "simple")
    plan = _plan(common, tuple(X.shape), (), scales, (), "stretch")
    return _interpolate(X, dict(enumerate(plan)), 0.0)


@OPS.register("Upsample", since=1)
def upsample_1(
    X: Tensor, *, height_scale: float, width_scale: float, mode: str = "nearest"
) -> Tensor:
    """Enlarge the last two axes of an NCHW tensor."""
    return upsample(X, (1.0, 1.0, height_scale, width_scale), mode=mode)


@functools.lru_cache(maxsize=256)
def _plan(
    common: Axis,
    old: tuple[int, ...],
    roi: tuple[float, ...],
    scales: tuple[float, ...],
    sizes: tuple[int, ...],
    policy: str,
) -> tuple[Axis, ...]:
    """What is to be done along each of the resized axes."""
    rank = len(old)
    if len(scales or sizes) != rank:
        raise ConverterError(f"Resize of {rank} axes needs as many scales or sizes")
    if scales:
        factors = [float(np.float32(scale)) for scale in scales]
        new = [int(np.float32(f) * np.float32(n)) for f, n in zip(factors, old, strict=True)]
    else:
        factors = [float(np.float32(m) / np.float32(n)) for m, n in zip(sizes, old, strict=True)]
        new = list(sizes)
        if policy != "stretch":
            common_factor = (min if policy == "not_larger" else max)(factors)
            factors = [common_factor] * rank
            new = [math.floor(common_factor * n + 0.5) for n in old]
    exact = all(
        math.isclose(f * n, m, rel_tol=1e-6) for f, n, m in zip(factors, old, new, strict=True)
    )
    if common.coordinates == "align_corners" and not exact:
        raise ConverterError(
            "Resize with align_corners to a length that is not a whole number",
            hint="implementations disagree on the step between pixels",
        )
    regions = (roi[:rank], roi[rank:]) if len(roi) == 2 * rank else ((0.0,) * rank, (1.0,) * rank)
    return tuple(
        replace(common, size=n, length=m, scale=f, start=start, stop=stop)
        for n, m, f, start, stop in zip(old, new, factors, *regions, strict=True)
    )


def _interpolate(X: Tensor, plan: dict[int, Axis], outside: float) -> Tensor:
    """Resize along each axis of the plan that changes anything."""
    changed = {axis: how for axis, how in plan.items() if not how.unchanged}
    # A scale that is lost in rounding leaves the image as it is, as in ONNX Runtime.
    if all(how.size == how.length and not how.cropped for how in plan.values()):
        return X
    native = _native(X, changed)
    if native is not None:
        return native
    if next(iter(changed.values())).mode == "nearest":
        for axis, how in changed.items():
            X = X.index_select(axis, torch.from_numpy(_nearest(how)).to(X.device))
    else:
        Y = X if X.dtype.is_floating_point else X.to(torch.float64)
        for axis, how in changed.items():
            weights = torch.from_numpy(_weights(how)).to(Y.device, Y.dtype)
            Y = torch.tensordot(Y, weights, dims=([axis], [1])).movedim(-1, axis)
        X = Y if X.dtype.is_floating_point else _truncated(Y, X.dtype, changed)
    for axis, how in changed.items():
        if how.coordinates == "tf_crop_and_resize":
            X = _extrapolate(X, axis, how, outside)
    return X


def _truncated(Y: Tensor, dtype: torch.dtype, changed: dict[int, Axis]) -> Tensor:
    """Integers from between the pixels, rounded towards zero as ONNX Runtime does."""
    if any(how.mode == "cubic" or how.antialias for how in changed.values()):
        raise ConverterError(
            f"Resize of {dtype}, cubic or antialiased",
            hint="implementations disagree on the rounding; cast to float before it",
        )
    noise = 1e-6 * Y.sign()  # so that 2.9999999 is the 3 that it stands for
    return (Y + noise).trunc().to(dtype)


def _native(X: Tensor, changed: dict[int, Axis]) -> Tensor | None:
    """PyTorch's own interpolation, where it means the same; else None."""
    if not X.dtype.is_floating_point or X.dim() not in {3, 4, 5} or min(changed) < 2:
        return None
    axes = list(changed.values())
    size = [changed[a].length if a in changed else X.shape[a] for a in range(2, X.dim())]
    mode = axes[0].mode
    if mode == "nearest" and all(_is_native_nearest(how) for how in axes):
        return F.interpolate(X, size, mode="nearest")
    if mode == "nearest" or any(how.antialias or how.exclude_outside for how in axes):
        return None
    if mode == "cubic" and (X.dim() != 4 or axes[0].coeff_a != -0.75):
        return None
    names = {3: "linear", 4: "bilinear", 5: "trilinear"}
    torch_mode = names[X.dim()] if mode == "linear" else "bicubic"
    if axes[0].coordinates == "align_corners":
        return F.interpolate(X, size, mode=torch_mode, align_corners=True)
    half = axes[0].coordinates == "half_pixel" or (
        axes[0].coordinates == "pytorch_half_pixel" and all(how.length > 1 for how in axes)
    )
    exact = all(math.isclose(how.scale * how.size, how.length, rel_tol=1e-6) for how in axes)
    return F.interpolate(X, size, mode=torch_mode, align_corners=False) if half and exact else None


@functools.lru_cache(maxsize=256)
def _is_native_nearest(how: Axis) -> bool:
    """Whether the pixels taken are those at floor(i * size / length), by whole factors."""
    whole = how.length % how.size == 0 or how.size % how.length == 0
    native = np.arange(how.length) * how.size // how.length
    return whole and how.coordinates != "tf_crop_and_resize" and (_nearest(how) == native).all()


def _half_pixel(how: Axis, i: Floats) -> Floats:
    return (i + HALF) / np.float32(how.scale) - HALF


def _pytorch_half_pixel(how: Axis, i: Floats) -> Floats:
    return _half_pixel(how, i) if how.length > 1 else np.zeros_like(i)


def _half_pixel_symmetric(how: Axis, i: Floats) -> Floats:
    # The output that is not rounded down is centred on the input.
    adjustment = np.float32(how.length) / (np.float32(how.scale) * np.float32(how.size))
    return np.float32(how.size / 2) * (1 - adjustment) + _half_pixel(how, i)


def _tf_half_pixel(how: Axis, i: Floats) -> Floats:
    return (i + HALF) / np.float32(how.scale)


def _align_corners(how: Axis, i: Floats) -> Floats:
    return i * np.float32(how.size - 1) / np.float32(max(1, how.length - 1))


def _asymmetric(how: Axis, i: Floats) -> Floats:
    return i / np.float32(how.scale)


def _crop_and_resize(how: Axis, i: Floats) -> Floats:
    if how.length == 1:
        return np.array([0.5 * (how.start + how.stop) * (how.size - 1)], np.float32)
    step = np.float32(how.stop - how.start) * np.float32(how.size - 1) / np.float32(how.length - 1)
    return np.float32(how.start) * np.float32(how.size - 1) + i * step


HALF = np.float32(0.5)
COORDINATES = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "tf_half_pixel_for_nn": _tf_half_pixel,
    "tf_crop_and_resize": _crop_and_resize,
}


def _positions(how: Axis) -> Floats:
    """Where each output pixel lies in the input, in pixels, in float32."""
    if how.coordinates not in COORDINATES:
        raise ConverterError(f"coordinate_transformation_mode {how.coordinates!r}")
    return COORDINATES[how.coordinates](how, np.arange(how.length, dtype=np.float32))


def _is_half(x: Floats) -> npt.NDArray[np.bool_]:
    """Whether a position lies half-way between two pixels, but for ONNX Runtime's 1e-6."""
    near: npt.NDArray[np.bool_] = np.abs(x - np.floor(x) - HALF) <= np.float32(1e-6)
    return near


@functools.lru_cache(maxsize=256)
def _nearest(how: Axis) -> npt.NDArray[np.int64]:
    """Index of the input pixel that each output pixel takes."""
    x = _positions(how)
    if how.nearest_mode == "floor":
        index = np.floor(x)
    elif how.nearest_mode == "ceil":
        index = np.ceil(x)
    elif how.nearest_mode == "round_prefer_floor":
        index = np.where(_is_half(x), np.floor(x), np.floor(x + HALF))
    elif how.nearest_mode == "round_prefer_ceil":
        index = np.where(_is_half(x), np.ceil(x), np.floor(x + HALF))
    elif how.nearest_mode == "simple":  # before opset 11: up when shrinking
        index = np.ceil(x) if how.scale < 1 else np.floor(x)
    else:
        raise ConverterError(f"nearest_mode {how.nearest_mode!r}")
    return np.clip(index, 0, how.size - 1).astype(np.int64)


@functools.lru_cache(maxsize=64)
def _weights(how: Axis) -> npt.NDArray[np.float64]:
    """Matrix (length, size) that resizes one axis."""
    x = _positions(how).astype(np.float64)
    # Antialiasing widens the kernel by the factor that the image shrinks by.
    stretch = min(1.0, how.scale) if how.antialias else 1.0
    reach = math.ceil((1 if how.mode == "linear" else 2) / stretch)
    taps = np.floor(x).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)[None, :]
    values = _kernel(how, (taps - x[:, None]) * stretch)
    if how.exclude_outside:
        values = np.where((taps >= 0) & (taps < how.size), values, 0.0)
    if how.exclude_outside or how.antialias:
        values = values / values.sum(axis=1, keepdims=True)
    matrix = np.zeros((how.length, how.size))
    rows = np.broadcast_to(np.arange(how.length)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, how.size - 1)), values)
    return matrix


def _kernel(how: Axis, distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weight of an input pixel at a distance: a tent, or Keys' cubic (1981) with coefficient a."""
    d = np.abs(distance)
    if how.mode == "linear":
        return np.maximum(0.0, 1.0 - d)
    if how.mode != "cubic":
        raise ConverterError(f"Resize mode {how.mode!r}")
    a = how.coeff_a
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _extrapolate(X: Tensor, axis: int, how: Axis, value: float) -> Tensor:
    """Put a value where the region of interest reaches beyond the image."""
    x = _positions(how)
    outside = torch.from_numpy((x < 0) | (x > how.size - 1)).to(X.device)
    shape = [1] * X.dim()
    shape[axis] = -1
    return X.masked_fill(outside.reshape(shape), value)
