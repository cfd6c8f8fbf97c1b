"""Photos shifted, magnified and turned, in pixels of the network's input.

Every transform is one affine map about the centre of the image. Each pixel of the result looks up
where it comes from::

    shift by t      y_source = y - t
    scale by s      y_source = c + (y - c) / s
    turn by a       (y, x)_source = c + R(a) ((y, x) - c)      counter-clockwise as one sees it

with c the centre between the outermost pixel centres. Values between pixel centres are bilinear;
outside of the image stands the fill colour. Bilinear weights sum to 1, so working on network
values is the same as working on pixels and normalising afterwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.errors import UsageError, require

__all__ = ["Sweep", "parse_sweep", "transformed"]

Array = np.ndarray[Any, Any]

MOST_STEPS = 721
"""Steps of one transform."""

_LIMITS = {
    "vertical translation": (-1.0, 1.0),
    "horizontal translation": (-1.0, 1.0),
    "scale": (0.1, 10.0),
    "rotation": (-3600.0, 3600.0),
}
_EXACT = 9  # decimals of a source position: cos(90 degrees) is 6e-17


@dataclass(frozen=True)
class Sweep:
    """One transform, and how far it goes.

    Attributes:
        kind: ``vertical translation``, ``horizontal translation``, ``scale`` or ``rotation``.
        values: Pixels (translations; positive is down or right), ratios, or degrees.
        side: Pixels of the axis along which a translation goes; 0 for the others.
    """

    kind: str
    values: tuple[float, ...]
    side: int = 0

    @property
    def neutral(self) -> float:
        """The value that changes nothing."""
        return 1.0 if self.kind == "scale" else 0.0

    @property
    def unit(self) -> str:
        """What the values count."""
        return {"scale": "ratio", "rotation": "degrees"}.get(self.kind, "pixels")

    @property
    def extent(self) -> Array:
        """How far each value is from changing nothing, (P,): share, ratio or degrees.

        An angle counts by the shorter way round; a ratio and its inverse are equally far.
        """
        values = np.asarray(self.values, np.float64)
        if self.kind == "scale":
            values = np.maximum(values, 1 / values)
        elif self.kind == "rotation":
            around = np.abs(values) % 360
            values = np.minimum(around, 360 - around)
        else:
            values = np.abs(values) / self.side
        return values

    def named(self, value: float) -> str:
        """A value in words, short."""
        if self.kind == "scale":
            return f"x{value:.3g}"
        if self.kind == "rotation":
            return f"{value:.4g}°"
        return f"{value:+.0f} px" if value else "0 px"

    def said(self, extent: float) -> str:
        """How far, in words."""
        if self.kind == "scale":
            return f"a scale of {extent:.3g}"
        if self.kind == "rotation":
            return f"a turn of {extent:.3g} degrees"
        axis = "height" if self.kind.startswith("vertical") else "width"
        return f"a shift of {extent:.0%} of the {axis}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        shares = {"shares": [v / self.side for v in self.values]} if self.side else {}
        return {"transform": self.kind, "unit": self.unit, "values": self.values, **shares}


def parse_sweep(kind: str, text: str, size: tuple[int, int]) -> Sweep | None:
    """Read ``FROM:TO:STEPS``.

    Args:
        kind: As in ``Sweep``.
        text: The user's words; empty for leaving the transform out. Translations are shares of
            the height or width, and rounded to whole pixels.
        size: Height and width of the network's input.

    Raises:
        UsageError: No such range, or one that cannot be used.
    """
    if not text.strip():
        return None
    parts = [part.strip() for part in text.split(":")]
    low, high = _LIMITS[kind]
    try:
        start, stop, steps = float(parts[0]), float(parts[1]), int(parts[2])
        good = len(parts) == 3 and math.isfinite(start) and math.isfinite(stop)
    except (ValueError, IndexError):
        good, start, stop, steps = False, 0.0, 0.0, 0
    if not good:
        raise UsageError(f"{kind}: {text!r} is not a range", hint="write it as FROM:TO:STEPS")
    if not (low <= min(start, stop) and max(start, stop) <= high and 1 <= steps <= MOST_STEPS):
        raise UsageError(
            f"{kind}: {text!r}", hint=f"from {low:g} to {high:g}, in 1 to {MOST_STEPS} steps"
        )
    values = np.linspace(start, stop, steps)
    side = {"vertical translation": size[0], "horizontal translation": size[1]}.get(kind, 0)
    if side:  # whole pixels: nothing is interpolated
        values = np.rint(values * side) + 0.0
    # Without rounding, 1.1 of a range of twentieths would read 1.1000000000000001.
    return Sweep(kind, tuple(dict.fromkeys(np.round(values, 10).tolist())), side)


def transformed(image: Array, kind: str, value: float, colour: Array) -> Array:
    """Transform one image.

    Args:
        image: (C, H, W).
        kind: As in ``Sweep``.
        value: Pixels, ratio or degrees.
        colour: (C,) values of what comes in from outside.

    Returns:
        (C, H, W) of the image's type; the image itself, exactly, where nothing moves.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    height, width = image.shape[1:]
    centre = (height - 1) / 2, (width - 1) / 2
    matrix, offset = _inverse(kind, value)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - centre[0], x - centre[1]
    rows = centre[0] + matrix[0][0] * y + matrix[0][1] * x - offset[0]
    columns = centre[1] + matrix[1][0] * y + matrix[1][1] * x - offset[1]
    return _sampled(image, np.round(rows, _EXACT), np.round(columns, _EXACT), colour)


def _inverse(kind: str, value: float) -> tuple[Sequence[Sequence[float]], tuple[float, float]]:
    """From the result back to the image: a matrix about the centre, and a shift (down, right)."""
    same = ((1.0, 0.0), (0.0, 1.0))
    if kind == "scale":
        return ((1 / value, 0.0), (0.0, 1 / value)), (0.0, 0.0)
    if kind == "rotation":
        cosine, sine = math.cos(math.radians(value)), math.sin(math.radians(value))
        return ((cosine, sine), (-sine, cosine)), (0.0, 0.0)
    return same, (value, 0.0) if kind == "vertical translation" else (0.0, value)


def _sampled(image: Array, rows: Array, columns: Array, colour: Array) -> Array:
    """Bilinear values (C, H, W) at fractional places (H, W), with the colour outside.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    require("scipy.ndimage", "moving images", "studies")
    from scipy import ndimage  # type: ignore[import-untyped]

    return np.stack(
        [
            ndimage.map_coordinates(
                channel, (rows, columns), order=1, mode="grid-constant", cval=float(outside)
            )
            for channel, outside in zip(image, colour, strict=True)
        ]
    )
