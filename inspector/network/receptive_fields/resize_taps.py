"""Input positions that one output position of ONNX ``Resize`` reads, along one axis.

Positions follow the operator's specification (coordinate_transformation_mode, nearest_mode);
they are computed in exact fractions, so that a weight of zero is known to be zero.  Where the
runtime's float32 positions cannot be exact, one neighbour too many is better than one too few.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np

from converters.graph import Node

__all__ = ["sources"]

Indices = np.ndarray[Any, np.dtype[np.int64]]

# The runtime computes positions in float32: where a scale is not a power of two, a position that
# should be whole may come out beside, and reads a neighbour with a weight of 1e-6.
_BLUR = Fraction(1, 1 << 12)


def sources(
    node: Node,
    indices: Indices,
    scale: Fraction,
    lengths: tuple[int | None, int | None],
) -> Indices | None:
    """Input indices that output indices are computed from.

    Args:
        node: ``Resize`` or ``Upsample``.
        indices: Output indices along one axis.
        scale: Output pixels per input pixel.
        lengths: Input and output length of the axis, None where not known.

    Returns:
        Input indices, not yet clamped at the border, or None when the mode needs a length that
        is not known, or is not known itself.
    """
    if scale == 1:
        return indices
    mode = node.attributes.get("mode", "nearest")
    found: set[int] = set()
    for index in indices:
        x = _position(node, int(index), scale, lengths)
        if x is None:
            return None
        found.update(_nearest(node, x, scale) if mode == "nearest" else _taps(node, x, scale))
    return np.array(sorted(found), np.int64)


def _position(
    node: Node, index: int, scale: Fraction, lengths: tuple[int | None, int | None]
) -> Fraction | None:
    default = "asymmetric" if node.op_type == "Upsample" else "half_pixel"
    if "coordinate_transformation_mode" not in node.attributes and len(node.inputs) == 2:
        default = "asymmetric"  # Resize-10 has no modes
    mode = node.attributes.get("coordinate_transformation_mode", default)
    before, after = lengths
    half = Fraction(1, 2)
    centred = (index + half) / scale - half
    # pytorch_half_pixel and align_corners send a single output pixel to input pixel 0.
    first = after == 1 and mode in {"pytorch_half_pixel", "align_corners"}
    positions = {
        "half_pixel": centred,
        "asymmetric": index / scale,
        "tf_half_pixel_for_nn": centred + half,
    }
    if after is not None:
        positions["pytorch_half_pixel"] = Fraction(0) if first else centred
    if after is not None and before is not None:
        slope = Fraction(0) if first else Fraction(before - 1, max(after - 1, 1))
        positions["align_corners"] = index * slope
        shift = Fraction(before, 2) * (1 - Fraction(after) / (scale * before))
        positions["half_pixel_symmetric"] = shift + centred
    return positions.get(mode)


def _blur(node: Node, scale: Fraction) -> Fraction:
    """How far the runtime's position may be from the exact one."""
    powers = all(n & (n - 1) == 0 for n in (scale.numerator, scale.denominator))
    mode = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    return _BLUR if not powers or mode in {"align_corners", "half_pixel_symmetric"} else Fraction(0)


def _nearest(node: Node, x: Fraction, scale: Fraction) -> set[int]:
    half = Fraction(1, 2)
    default = "floor" if node.op_type == "Upsample" or len(node.inputs) == 2 else ""
    mode = node.attributes.get("nearest_mode", default) or "round_prefer_floor"
    rounded = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda v: math.ceil(v - half),
        "round_prefer_ceil": lambda v: math.floor(v + half),
    }[mode]
    blur = _blur(node, scale)
    return {rounded(x - blur), rounded(x + blur)}


def _taps(node: Node, x: Fraction, scale: Fraction) -> range:
    """Indices with a weight other than 0: nearer than the radius of the filter."""
    radius = Fraction(2 if node.attributes.get("mode") == "cubic" else 1)
    if node.attributes.get("antialias", 0) and scale < 1:
        radius /= scale
    blur = _blur(node, scale)
    low, high = x - radius - blur, x + radius + blur
    # Both ends are open: at the radius itself the weight is 0.
    return range(math.floor(low) + 1, math.ceil(high))
