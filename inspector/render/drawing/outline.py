"""Outlines on a panel: the box or the region of what a map explains."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inspector.heatmap import Heatmap

__all__ = ["outlined"]

LINE, EDGE = (0, 229, 255), (0, 0, 0)
"""Colours of the line and of the dark edge that makes it seen on any photo."""

_BESIDE = 2  # pixels of the edge on each side
_LEAST = 14  # pixels of a box's side


def outlined(panel: Image.Image, heatmap: Heatmap) -> Image.Image:
    """A panel of the photo with the outline of what its map explains; itself where it has none.

    Args:
        panel: The photo at any size.
        heatmap: The map, whose attribution knows the item's box or region on the input.

    Returns:
        An image of the panel's size.
    """
    attribution = heatmap.attribution
    if attribution.box is None and attribution.region is None:
        return panel
    found = panel.copy()
    if attribution.region is not None:
        edge = _edge(attribution.region, heatmap, (panel.height, panel.width))
        _paint(found, _grown(edge), EDGE)
        _paint(found, edge, LINE)
    if attribution.box is not None:
        top, left, bottom, right = attribution.box
        (sy, sx), (ty, tx) = heatmap.geometry.scale, heatmap.geometry.shift
        height, width = heatmap.geometry.photo
        down, across = panel.height / height, panel.width / width
        x = [min(max((v - tx) / sx * across, 0), panel.width - 1) for v in (left, right)]
        y = [min(max((v - ty) / sy * down, 0), panel.height - 1) for v in (top, bottom)]
        left, right = _wide(min(x), max(x))
        top, bottom = _wide(min(y), max(y))
        corners = [(left, top), (right, bottom)]
        draw = ImageDraw.Draw(found)
        draw.rectangle(corners, outline=EDGE, width=2 * _BESIDE + 1)
        inner = [(corners[0][0] + 1, corners[0][1] + 1), (corners[1][0] - 1, corners[1][1] - 1)]
        if inner[0][0] < inner[1][0] and inner[0][1] < inner[1][1]:
            draw.rectangle(inner, outline=LINE, width=_BESIDE)
    return found


def _wide(low: float, high: float) -> tuple[float, float]:
    """A span that is wide enough for its line to be seen around what is inside."""
    more = max(0.0, _LEAST - (high - low)) / 2
    return low - more, high + more


def _edge(region: NDArray[np.bool_], heatmap: Heatmap, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of a panel inside of a region of the input that have a neighbour outside of it."""
    laid, _ = heatmap.geometry.lay_back(region.astype(np.float32))
    inside = np.nan_to_num(laid) > 0.5
    shown = np.asarray(
        Image.fromarray(inside.astype(np.uint8) * 255).resize(
            (size[1], size[0]), Image.Resampling.NEAREST
        )
    )
    mask = np.pad(shown > 0, 1)
    whole = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return np.asarray(mask[1:-1, 1:-1] & ~whole)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    found = mask.copy()
    found[1:] |= mask[:-1]
    found[:-1] |= mask[1:]
    found[:, 1:] |= mask[:, :-1]
    found[:, :-1] |= mask[:, 1:]
    return found


def _paint(image: Image.Image, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    image.paste(colour, mask=Image.fromarray(mask.astype(np.uint8) * 255))
