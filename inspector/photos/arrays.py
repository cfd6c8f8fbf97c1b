"""Pixels from arrays that a caller holds: which axis the colours are along, and what range means.

    (H, W), (H, W, C)   grey; colours last, as Pillow, OpenCV and scikit-image have them
    (C, H, W)           colours first, as PyTorch has them
    uint8               0..255
    uint16              0..65535
    floats              0..255; 0..1 where none is above 1, with a warning

What may be read in two ways is refused.
"""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from inspector.errors import ImageRefused

__all__ = ["ACCEPTED", "Pixels", "Read", "as_array", "few_bits", "opaque", "pixels_of"]

Pixels = NDArray[np.uint8] | NDArray[np.float32]

Read = tuple[Pixels, tuple[str, ...], tuple[str, ...]]
"""Pixels (H, W, 3), what was done to them, and what of that is a warning."""

ACCEPTED = (
    "pass a path, the bytes of a file, an open file, a Photo, a PIL image, an array (H, W, 3) or a "
    "tensor (3, H, W)"
)
_CHANNELS = (1, 3, 4)
_FULL, _TOP12 = 65535, 4095


def few_bits(top: float) -> str:
    """A warning about 16-bit values that use the lowest twelve bits at most; empty otherwise."""
    if not 0 < top <= _TOP12:
        return ""
    return (
        f"the largest 16-bit value is {top:.0f} of {_FULL}, so the picture is nearly black; if it "
        "holds 8, 10 or 12 bits, scale it to the full range first"
    )


def opaque(values: Pixels, notes: list[str]) -> Pixels:
    """(H, W, 3) from (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); alpha is laid on white."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.shape[2] == 1:
        values = cast("Pixels", np.repeat(values, 3, axis=2))
    if values.shape[2] == 4:
        alpha = values[:, :, 3:].astype(np.float32) / np.float32(255)
        if bool((alpha < 1).any()):
            notes.append("alpha composited on white")
            flat = values[:, :, :3].astype(np.float32) * alpha + np.float32(255) * (1 - alpha)
            values = np.rint(flat).astype(np.uint8) if values.dtype == np.uint8 else flat
        values = values[:, :, :3]
    return cast("Pixels", np.ascontiguousarray(values))


def as_array(values: object, name: str = "") -> NDArray[np.generic]:
    """Numbers of a caller as an array of NumPy: an array, nested lists, a tensor of PyTorch.

    Args:
        values: The numbers; a tensor may lie on any device and may carry a gradient.
        name: What errors call it.

    Raises:
        ImageRefused: They are not numbers.
    """
    if type(values).__module__.partition(".")[0] == "torch" and hasattr(values, "detach"):
        tensor: Any = values
        tensor = tensor.detach().cpu()
        values = tensor.float() if "bfloat16" in str(tensor.dtype) else tensor
    try:
        array: NDArray[np.generic] = np.asarray(values)
    except (TypeError, ValueError) as error:  # rows of unequal length, for one
        raise ImageRefused(f"not an array ({error})", where=name, hint=ACCEPTED) from None
    if array.dtype.kind not in "biuf":
        kind = type(values).__name__
        raise ImageRefused(f"a value of type {kind} is not an image", where=name, hint=ACCEPTED)
    return array


def _colours_last(array: NDArray[np.generic], name: str) -> tuple[NDArray[np.generic], list[str]]:
    """An array (H, W) or (H, W, C), and a note where the colours came first.

    Raises:
        ImageRefused: It has another shape, or one that can be read in both ways.
    """
    shape = array.shape
    last = len(shape) == 3 and shape[2] in _CHANNELS
    first = len(shape) == 3 and shape[0] in _CHANNELS
    if array.size == 0 or not (len(shape) == 2 or first or last):
        raise ImageRefused(
            f"an array of shape {shape} is not an image",
            where=name,
            hint="pass one photo (H, W, 3) or (3, H, W), RGB, or a list of them; explain_tensor "
            "takes a batch (N, C, H, W) that is preprocessed already",
        )
    if first and last:
        raise ImageRefused(
            f"an array of shape {shape} may have its colours first or last",
            where=name,
            hint="PIL.Image.fromarray(a) says last, PIL.Image.fromarray(np.moveaxis(a, 0, -1)) "
            "first",
        )
    if first:
        return np.moveaxis(array, 0, -1), ["colours along the first axis: (C, H, W)"]
    return array, []


def pixels_of(array: NDArray[np.generic], name: str) -> Read:
    """Pixels from a caller's array, whose range follows from its type.

    Args:
        array: (H, W), (H, W, C) or (C, H, W), C of 1, 3 or 4.
        name: What errors call it.

    Raises:
        ImageRefused: Another shape or type; values outside of the range, or of no certain range.
    """
    array, notes = _colours_last(array, name)
    if array.dtype == np.uint8:
        return opaque(array.astype(np.uint8, copy=False), notes), tuple(notes), ()
    if array.dtype == np.uint16:
        notes.append("16 bits per channel kept")
        colours = np.asarray(array if array.ndim == 2 else array[:, :, :3])
        dark = few_bits(float(colours.max(initial=0)))
        deep = opaque(array.astype(np.float32) / np.float32(257), notes)
        said = (dark,) if dark else ()
        return deep, (*notes, *said), said
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageRefused(
            f"an array of {array.dtype} is not an image",
            where=name,
            hint="pass uint8 or 0..255 floats",
        )
    values = array.astype(np.float32)
    if not bool(np.isfinite(values).all()) or values.min() < 0 or values.max() > 255:
        raise ImageRefused(
            "pixel values outside 0..255",
            where=name,
            hint="pass pixels before any "
            "normalisation; explain_tensor takes what is preprocessed already",
        )
    values, warned = _from_unit_range(values, name)
    return opaque(values, notes), (*notes, *warned), warned


_ROUNDING = 1e-3  # by which arithmetic on 0..1 passes 1
_DARKEST = 2.0  # no picture in 0..255 is this dark all over and has fractions


def _from_unit_range(
    values: NDArray[np.float32], name: str
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Floats in 0..255, those in 0..1 multiplied, and a warning that says so.

    Raises:
        ImageRefused: They may be either.
    """
    top = float(values.max())
    if top == 0 or top > _DARKEST or (top > 1 + _ROUNDING and _whole(values)):
        return values, ()
    if top > 1 + _ROUNDING:
        raise ImageRefused(
            f"floating-point pixels whose largest is {top:.3g}: neither 0..1 nor 0..255",
            where=name,
            hint="pass uint8, floats in 0..255, or clip them to 0..1",
        )
    warned = (
        "floating-point pixels none of which is above 1 were taken as 0..1 and multiplied by 255"
    )
    return np.minimum(values, 1) * np.float32(255), (warned,)


def _whole(values: NDArray[np.float32]) -> bool:
    return bool((values == np.rint(values)).all())
