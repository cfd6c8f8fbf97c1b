"""The pictures that figures are put together from: photo, overlay, projection, colour bar.

Every panel is a PIL image; text and layout are `inspector.render.drawing.page`'s.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inspector.heatmap import Heatmap
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.photos.scaling import scaled
from inspector.render.drawing.colormap import apply_diverging, apply_sequential

__all__ = [
    "MAX_PANEL",
    "MIN_PANEL",
    "Scale",
    "bar_colours",
    "cell",
    "enhanced",
    "overlay_panel",
    "panel_size",
    "photo_panel",
    "projection_panel",
    "scale_of",
    "signed_cell",
    "signed_picture",
]

MIN_PANEL, MAX_PANEL = 360, 960
"""Shortest and longest side of a panel in pixels; photos in between are shown as they are."""

OPACITY = 0.88
"""Of the map where it is highest; the photo shines through everywhere."""

_CLIPPED_QUANTILE = 0.995
_RGB8 = NDArray[np.uint8]
_GREY = 128.0


@dataclass(frozen=True)
class Scale:
    """How values of one map become colours.

    Attributes:
        limit: Value (in the map's unit) of full colour; 0 when there is nothing to show.
        maximum: Largest value, of the magnitude if signed.
        signed: Whether colours diverge from zero.
        message: What stands in the place of an empty map; empty when there is one.
        light: Whether the map lies on white paper (along a curve) and not on a greyed photo.
    """

    limit: float
    maximum: float
    signed: bool
    message: str = ""
    light: bool = False

    @property
    def clipped(self) -> bool:
        """Whether some values lie beyond full colour."""
        return self.limit < self.maximum


def scale_of(heatmap: Heatmap) -> Scale:
    """Choose the colour scale of a map; it always has zero at zero.

    Pixel-wise maps of the input have a few values far above all others: their full colour is
    the 99.5th percentile, which the colour bar says. Other maps end at their maximum.
    """
    attribution, limit = heatmap.attribution, heatmap.limit
    if attribution.empty:
        return Scale(0, limit, heatmap.signed, attribution.why_empty)
    if limit == 0:
        return Scale(0, 0, signed=False, message="no evidence on the visible part of the photo")
    if attribution.projection is None:
        lattice = attribution.lattice
        light = lattice is not None and len(lattice.sizes) == 1
        return Scale(limit, limit, heatmap.signed, light=light)
    values = np.abs(heatmap.values[heatmap.seen])
    clipped = float(np.quantile(values, _CLIPPED_QUANTILE))
    return Scale(clipped if clipped > 0 else limit, limit, heatmap.signed)


def panel_size(
    size: tuple[int, int], low: int = MIN_PANEL, high: int = MAX_PANEL
) -> tuple[int, int]:
    """Height and width at which a photo is shown.

    Small photos grow by a whole factor, so that their pixels stay squares; large ones shrink.
    """
    longest = max(size)
    factor: float = 1
    if longest < low:
        factor = math.ceil(low / longest)
    elif longest > high:
        factor = high / longest
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def photo_panel(photo: Photo, size: tuple[int, int]) -> Image.Image:
    """The photo at ``size`` (height, width)."""
    grows = size[0] >= photo.size[0]
    how = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return Image.fromarray(scaled(photo.rgb8, size, how))


def overlay_panel(
    photo: Photo, heatmap: Heatmap, size: tuple[int, int], scale: Scale
) -> Image.Image:
    """The photo, greyed, under the map, whose opacity grows with the value.

    Pixels that the network did not see are dark and hatched.
    """
    base = np.asarray(photo_panel(photo, size), np.float32)
    values, seen = _at_size(heatmap, size)
    grey = base @ np.array([0.299, 0.587, 0.114], np.float32)
    muted = 0.88 * grey[:, :, None] + 0.12 * base
    picture: NDArray[np.float32] = muted
    if scale.limit > 0:
        share = np.clip(values / scale.limit, -1 if scale.signed else 0, 1)
        picture = _blend(muted * (1.0 if photo.space == 1 else 0.8), share, signed=scale.signed)
    picture = np.where(seen[:, :, None], picture, _hatched(muted))
    if photo.space == 1:  # the curve stands on the map, not below it
        ink = 1 - grey[:, :, None] / 255
        picture = (picture * (1 - ink)).astype(np.float32)
    return Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))


def bar_colours(height: int, width: int, scale: Scale) -> Image.Image:
    """The colours of the overlay from its maximum (top) down, as they look on mid-grey."""
    low = -1.0 if scale.signed else 0.0
    share = np.repeat(np.linspace(1, low, height)[:, None], width, axis=1)
    base = np.full((height, width, 3), 255.0 if scale.light else _GREY * 0.8, np.float32)
    blended = _blend(base, share, signed=scale.signed)
    return Image.fromarray(np.clip(np.rint(blended), 0, 255).astype(np.uint8))


def projection_panel(heatmap: Heatmap, size: tuple[int, int]) -> Image.Image | None:
    """The signed channels of an input-space map as a picture; None when there are none.

    Grey is zero, the model's channels are red, green and blue (bands are summed up), all scaled by
    the one largest magnitude, and each pixel of the input is laid onto the photo as it is.
    """
    values = heatmap.attribution.projection
    if values is None or not heatmap.seen.any():
        return None
    geometry = heatmap.geometry
    own = values if len(values) in (1, 3) else values.sum(0, keepdims=True)
    channels = own if len(own) == 3 else np.repeat(own, 3, axis=0)
    peak = float(np.abs(own).max()) or 1.0
    if heatmap.attribution.channels == "BGR":
        channels = channels[::-1]
    tones = np.rint(_GREY + 127 * channels.transpose(1, 2, 0).astype(np.float64) / peak)
    rows, columns = _sampled(geometry, size)
    picture = tones[np.clip(rows, 0, geometry.input[0] - 1)]
    picture = picture[:, np.clip(columns, 0, geometry.input[1] - 1)]
    inside = _inside(rows, geometry.input[0])[:, None] & _inside(columns, geometry.input[1])[None]
    blank = np.full_like(picture, _GREY)
    picture = np.where(inside[:, :, None], picture, _hatched(blank))
    return Image.fromarray(picture.astype(np.uint8))


def signed_picture(values: NDArray[Any]) -> _RGB8:
    """Signed channels as pixels: grey is zero, full colour their own largest magnitude.

    Args:
        values: (C, h, w), a filter or a projection; three channels are red, green and blue, of
            any other number the sum is shown in grey.

    Returns:
        (h, w, 3).
    """
    signed = np.asarray(values, np.float64)
    if len(signed) != 3:
        signed = np.repeat(signed.sum(0, keepdims=True), 3, axis=0)
    peak = np.abs(signed).max(initial=0)
    scaled = signed / peak if peak > 0 else signed
    return np.rint(_GREY + 127 * scaled).astype(np.uint8).transpose(1, 2, 0)


def enhanced(values: NDArray[Any]) -> NDArray[Any]:
    """Signed values cut off at the 99.5th percentile of their magnitudes.

    The paper enhanced the colours of its projections too; a few pixels far above all others would
    leave nothing but grey.
    """
    limit = float(np.quantile(np.abs(values), _CLIPPED_QUANTILE)) if values.size else 0.0
    return np.clip(values, -limit, limit) if limit > 0 else values


def cell(pixels: _RGB8, side: int) -> Image.Image:
    """Pixels (h, w, 3) in the middle of a grey square; small ones grow by a whole factor."""
    square = Image.new("RGB", (side, side), (int(_GREY),) * 3)
    height, width = pixels.shape[:2]
    if not height or not width:
        return square
    factor: float = side / max(height, width)
    factor = math.floor(factor) if factor >= 1 else factor
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    grown = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how)
    square.paste(grown, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def signed_cell(values: NDArray[Any], side: int) -> Image.Image:
    """A projection in the middle of a grey square, as ``cell`` lays it out.

    One that is larger than the square shrinks before colours are chosen, and full colour is the
    99.5th percentile of its magnitude: a few pixels far above all others would leave it grey.

    Args:
        values: (C, h, w) signed, in red, green, blue.
        side: Of the square, in pixels.
    """
    signed = np.asarray(values, np.float64)
    longest = max(signed.shape[1:])
    if longest > side and min(signed.shape[1:]):
        size = tuple(max(1, round(n * side / longest)) for n in signed.shape[:0:-1])
        signed = np.stack(
            [
                np.asarray(Image.fromarray(c.astype(np.float32)).resize(size, Image.Resampling.BOX))
                for c in signed
            ]
        )
    magnitude = np.abs(signed if len(signed) == 3 else signed.sum(0))
    limit = float(np.quantile(magnitude, _CLIPPED_QUANTILE)) if magnitude.size else 0
    if limit > 0 and len(signed) == 3:
        signed = np.clip(signed, -limit, limit)
    return cell(signed_picture(signed), side)


def _blend(
    base: NDArray[np.floating[Any]], share: NDArray[np.float64], *, signed: bool
) -> NDArray[np.float32]:
    """Lay colours of ``share`` (-1..1) over a picture, more opaque the larger the share."""
    colours = (apply_diverging if signed else apply_sequential)(share)
    # The power lifts the middle: half of the maximum must not look like nothing.
    opacity = OPACITY * np.power(np.abs(np.nan_to_num(share)), 0.6)[:, :, None]
    result: NDArray[np.float32] = (base * (1 - opacity) + colours * opacity).astype(np.float32)
    return result


def _at_size(
    heatmap: Heatmap, size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values and mask at the panel's size: means of a box when it is smaller than the photo."""
    if heatmap.values.shape == size:
        return np.where(heatmap.seen, heatmap.values, 0).astype(np.float64), heatmap.seen
    how = Image.Resampling.NEAREST if size[0] >= len(heatmap.values) else Image.Resampling.BOX

    def resized(part: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(Image.fromarray(part).resize(size[::-1], how), np.float64)

    # One after the other: each is as large as the photo.
    total = resized(np.where(heatmap.seen, heatmap.values, np.float32(0)))
    weight = resized(heatmap.seen.astype(np.float32))
    return total / np.maximum(weight, 1e-9), weight >= 0.5


def _hatched(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """A darkened picture under diagonal stripes: the network did not see this."""
    height, width = picture.shape[:2]
    stripe = (np.add.outer(np.arange(height), np.arange(width)) % 11) < 2
    dark = picture * 0.45 + 20
    return np.where(stripe[:, :, None], dark + 40, dark)


def _sampled(
    geometry: Geometry, size: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Input row of each panel row and input column of each panel column (may lie outside)."""
    grid = [
        (np.arange(shown) + 0.5) * (full / shown) - 0.5
        for shown, full in zip(size, geometry.photo, strict=True)
    ]
    rows, columns = geometry.to_input(*grid)
    return np.floor(rows + 0.5).astype(np.intp), np.floor(columns + 0.5).astype(np.intp)


def _inside(index: NDArray[np.intp], length: int) -> NDArray[np.bool_]:
    return (index >= 0) & (index < length)
