"""The pictures that figures are put together from: photo, overlay, projection, colour bar.

Every panel is a PIL image; text and layout are `inspector.render.drawing.page`'s.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from inspector.heatmap import Heatmap
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.photos.scaling import scaled
from inspector.render.drawing.colormap import DARK, LIGHT
from inspector.render.drawing.display import PLAIN, Display, entries

__all__ = [
    "MAX_PANEL",
    "MIN_PANEL",
    "WIDENED",
    "Scale",
    "bar_colours",
    "bare_panel",
    "cell",
    "common_scale",
    "enhanced",
    "overlay_panel",
    "panel_size",
    "photo_panel",
    "projection_panel",
    "scale_of",
    "signed_cell",
    "signed_picture",
    "widens",
]

MIN_PANEL, MAX_PANEL = 360, 960
"""Shortest and longest side of a panel in pixels; photos in between are shown as they are."""

_NEAR = 256
"""Longest side from which a photo is shown as it is all the same: grown to the double, it would
be four times the pixels."""

_DIMMED = 0.3
"""Share of a photo's light where the network did not see it."""

_FRAME = (235, 235, 235)
_LEVELS = (0.25, 0.5, 0.75)
"""Shares of full colour at which contours are drawn."""

_CLIPPED_QUANTILE = 0.995
WIDENED = "spots widened to be seen"
"""What is said of a map whose values spread over their neighbours."""

_SEEN = 2  # pixels of a panel that a spot takes at least to be seen
_NOISE = 1e-6
"""Share of the maximum below which a negative value is rounding."""
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

    It has two sides where something is negative, whatever the method may give. Pixel-wise maps of
    the input have a few values far above all others: their full colour is the 99.5th percentile,
    which the colour bar says. Other maps end at their maximum.
    """
    attribution, limit = heatmap.attribution, heatmap.limit
    if attribution.empty:
        return Scale(0, limit, heatmap.signed, attribution.why_empty)
    if limit == 0:
        return Scale(0, 0, signed=False, message="no evidence on the visible part of the photo")
    signed = heatmap.minimum < -_NOISE * limit
    if not attribution.speckled:
        lattice = attribution.lattice
        light = lattice is not None and len(lattice.sizes) == 1
        return Scale(limit, limit, signed, light=light)
    values = np.abs(heatmap.values[heatmap.seen])
    clipped = float(np.quantile(values, _CLIPPED_QUANTILE))
    return Scale(clipped if clipped > 0 else limit, limit, signed)


def common_scale(heatmaps: Sequence[Heatmap]) -> Scale:
    """One scale for maps of one method: the largest, signed where one of them is."""
    scales = [scale for scale in map(scale_of, heatmaps) if scale.limit > 0]
    if not scales:
        return scale_of(heatmaps[0])
    return Scale(
        max(scale.limit for scale in scales),
        max(scale.maximum for scale in scales),
        any(scale.signed for scale in scales),
        light=scales[0].light,
    )


def panel_size(
    size: tuple[int, int], low: int = MIN_PANEL, high: int = MAX_PANEL
) -> tuple[int, int]:
    """Height and width at which a photo is shown.

    Small photos grow by a whole factor, so that their pixels stay squares; large ones shrink.
    """
    longest = max(size)
    factor: float = 1
    if longest < min(low, _NEAR):
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
    photo: Photo,
    heatmap: Heatmap,
    size: tuple[int, int],
    scale: Scale,
    display: Display = PLAIN,
    *,
    small: bool = False,
) -> Image.Image:
    """The photo, greyed, under the map, whose opacity grows with the value.

    What the network did not see is dimmed, and a frame drawn around what it saw.

    Args:
        photo: The photo.
        heatmap: The map on it.
        size: Height and width of the panel.
        scale: How values become colours.
        display: What is asked for besides.
        small: Whether spots are widened at any size, as on panels that are looked at side by side;
            else where ``widens`` says so.
    """
    widened = heatmap.attribution.speckled and (small or widens(heatmap, size))
    base = photo_panel(photo, size)
    values, seen = _at_size(heatmap, size, largest=widened)
    index = entries(values / scale.limit, signed=scale.signed) if scale.limit > 0 else None
    if index is not None and widened:
        index = _widened(index, signed=scale.signed)
    if display.contour:
        picture = base if index is None else _contours(base, index, scale, display)
    else:
        picture = _muted(base, scale)
        if index is not None:
            picture = _laid(picture, index, scale, display)
    if display.grid:
        _draw_grid(picture, heatmap)
    if not seen.all():
        picture = _framed(picture, base, seen)
    if photo.space == 1:  # the curve stands on the map, not below it
        picture = ImageChops.multiply(picture, base.convert("L").convert("RGB"))
    return picture


def widens(heatmap: Heatmap, size: tuple[int, int]) -> bool:
    """Whether a map's values spread over their neighbours on a panel, the largest winning.

    A spot of one pixel of the input is seen where it takes at least two pixels of the panel.

    Args:
        heatmap: The map.
        size: Height and width of the panel.
    """
    geometry = heatmap.geometry
    per_cell = min(
        shown / (have * scale)
        for shown, have, scale in zip(size, geometry.photo, geometry.scale, strict=True)
    )
    return heatmap.attribution.speckled and per_cell < _SEEN


def bare_panel(
    heatmap: Heatmap, size: tuple[int, int], scale: Scale, display: Display = PLAIN
) -> Image.Image:
    """The map's colours alone; black where the network saw nothing."""
    values, seen = _at_size(heatmap, size)
    share = values / scale.limit if scale.limit > 0 else values * 0
    colours = display.colours(signed=scale.signed)[entries(share, signed=scale.signed)]
    colours[~seen] = 0
    return Image.fromarray(colours)


def bar_colours(height: int, width: int, scale: Scale, display: Display = PLAIN) -> Image.Image:
    """The colours of the overlay from its maximum (top) down, as they look on mid-grey."""
    low = -1.0 if scale.signed else 0.0
    share = np.repeat(np.linspace(1, low, height)[:, None], width, axis=1)
    grey = Image.new("RGB", (width, height), (255 if scale.light else int(_GREY),) * 3)
    return _laid(_muted(grey, scale), entries(share, signed=scale.signed), scale, display)


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
    picture = np.where(inside[:, :, None], picture, _GREY * _DIMMED)
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


def _muted(base: Image.Image, scale: Scale) -> Image.Image:
    """The photo greyed to a few tones, darker or lighter than every colour that lies on it."""
    if scale.light:
        return base
    low, high = LIGHT if scale.signed else DARK
    tones = [round(low + (high - low) * tone / 255) for tone in range(256)]
    return base.convert("L").point(tones).convert("RGB")


def _laid(
    base: Image.Image, index: NDArray[np.uint8], scale: Scale, display: Display
) -> Image.Image:
    """Lay colours over a picture, more opaque the larger the share.

    Pillow blends, in eight bits: other threads run meanwhile.
    """
    colours = display.colours(signed=scale.signed, light=scale.light)
    opacities = display.opacities(signed=scale.signed)
    return Image.composite(
        Image.fromarray(colours.take(index, axis=0)), base, Image.fromarray(opacities.take(index))
    )


def _widened(index: NDArray[np.uint8], *, signed: bool) -> NDArray[np.uint8]:
    """Entries spread over their neighbours; of two signs the larger magnitude."""
    own = Image.fromarray(index)
    most = np.asarray(own.filter(ImageFilter.MaxFilter(3)))
    if not signed:
        return most
    least, zero = np.asarray(own.filter(ImageFilter.MinFilter(3))), 127
    return np.where(zero - least.astype(int) > most.astype(int) - zero, least, most)


def _contours(
    base: Image.Image, index: NDArray[np.uint8], scale: Scale, display: Display
) -> Image.Image:
    """Lines of equal value on the photo, in their colours, between dark edges."""
    found = base.copy()
    colours = display.colours(signed=scale.signed, light=scale.light)
    levels = (*(-level for level in _LEVELS), *_LEVELS) if scale.signed else _LEVELS
    for level in levels:
        entry = int(entries(np.array([level]), signed=scale.signed)[0])
        inside = index <= entry if level < 0 else index >= entry
        line = _outline(inside).filter(ImageFilter.MaxFilter(3))
        found.paste((0, 0, 0), mask=line.filter(ImageFilter.MaxFilter(3)))
        found.paste(tuple(colours[entry].tolist()), mask=line)
    return found


def _outline(inside: NDArray[np.bool_]) -> Image.Image:
    """Mask of the pixels of a region that have a neighbour outside of it."""
    around = np.pad(inside, 1, mode="edge")  # what lies beyond the picture is not a neighbour
    rows = around[:-2] & around[1:-1] & around[2:]
    within = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
    return Image.fromarray((inside & ~within).astype(np.uint8) * 255)


def _framed(picture: Image.Image, base: Image.Image, seen: NDArray[np.bool_]) -> Image.Image:
    """A picture outside of which the photo is dimmed, and a line between the two."""
    dimmed = base.point([round(tone * _DIMMED) for tone in range(256)] * 3)
    found = Image.composite(picture, dimmed, Image.fromarray(seen.astype(np.uint8) * 255))
    line = _outline(seen)
    if max(picture.size) > 2 * MIN_PANEL:
        line = line.filter(ImageFilter.MaxFilter(3))
    found.paste(_FRAME, mask=line)
    return found


def _draw_grid(picture: Image.Image, heatmap: Heatmap) -> None:
    """Draw the borders of the layer's cells on a panel."""
    attribution, geometry = heatmap.attribution, heatmap.geometry
    if attribution.space != "layer" or attribution.lattice is not None:
        return
    draw = ImageDraw.Draw(picture)
    down, across = (
        have / own for have, own in zip(picture.size[::-1], geometry.photo, strict=True)
    )
    for rows, columns in _borders(heatmap):
        y, x = geometry.to_photo(rows - 0.5, columns - 0.5)
        ys, xs = (y + 0.5) * down, (x + 0.5) * across
        for place in ys:
            draw.line((xs[0], place, xs[-1], place), fill=_FRAME)
        for place in xs:
            draw.line((place, ys[0], place, ys[-1]), fill=_FRAME)


def _borders(heatmap: Heatmap) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Borders between the cells of each grid, down and across, in pixels of the input."""
    attribution, size = heatmap.attribution, heatmap.geometry.input
    if attribution.placement is None:
        shape = attribution.values.shape
        down, across = (
            np.arange(count + 1) * (side / count) for count, side in zip(shape, size, strict=True)
        )
        yield down, across
        return
    for grid in attribution.placement.grids:
        down, across = (
            line.offset + 0.5 + (np.arange(line.start, line.stop + 1) - 0.5) * line.stride
            for line in (grid.rows, grid.columns)
        )
        yield down, across


def _at_size(
    heatmap: Heatmap, size: tuple[int, int], *, largest: bool = False
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """Values and mask at the panel's size.

    Args:
        heatmap: The map.
        size: Height and width.
        largest: Where the panel is smaller than the photo, take the value of the largest
            magnitude under each pixel, and not their mean.
    """
    values = np.where(heatmap.seen, heatmap.values, np.float32(0))
    if values.shape == size:
        return values, heatmap.seen
    if largest and size[0] < len(values):
        values = _strongest(values, size)
    grows = size[0] >= len(values)
    how = Image.Resampling.NEAREST if grows else Image.Resampling.BOX

    def resized(part: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(Image.fromarray(part).resize(size[::-1], how))

    if heatmap.seen.all():
        return resized(values), np.ones(size, np.bool_)
    if grows:
        return resized(values), resized(heatmap.seen.astype(np.float32)) >= 0.5
    # One after the other: each is as large as the photo.
    total = resized(values)
    weight = resized(heatmap.seen.astype(np.float32))
    return total / np.maximum(weight, np.float32(1e-9)), weight >= 0.5


def _strongest(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Values of the largest magnitude in blocks, as many as still give a map of that size."""
    for axis in (0, 1):
        block = values.shape[axis] // size[axis]
        if block < 2:
            continue
        starts = np.arange(0, values.shape[axis], block)
        most = np.maximum.reduceat(values, starts, axis=axis)
        least = np.minimum.reduceat(values, starts, axis=axis)
        values = np.where(-least > most, least, most)
    return values


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
