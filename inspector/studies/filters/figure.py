"""Convolution filters as pictures on one page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inspector.render.drawing.page import GAP, MARGIN, MUTED, WARNING, Page, number
from inspector.render.drawing.panels import cell, enhanced, signed_picture

__all__ = ["Projected", "filter_sheet"]

_CELL = 72  # pixels of a filter's picture at least
_CAPTION = 11
_COLUMNS = 12
_MOST = 384
_SECOND = 84  # pixels of a projection's picture
_BLANK = (238, 238, 241)


@dataclass(frozen=True, eq=False)
class Projected:
    """Units of the second layer.

    Attributes:
        title: The layer, and how it was projected.
        units: Number, activation, and projection (C, h, w) in red, green, blue; None for a unit
            that is never active.
    """

    title: str
    units: Sequence[tuple[int, float, NDArray[Any] | None]]


def filter_sheet(
    weights: NDArray[Any],
    *,
    rms: NDArray[Any],
    dead: NDArray[np.bool_],
    second: Projected | None = None,
    title: str,
    subtitle: str,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw all filters with their numbers, and what is to be said of them.

    Args:
        weights: (K, C, h, w), channels in the order red, green, blue where there are three.
        rms: (K,); stands below each picture.
        dead: (K,); those filters are framed.
        second: Projections of the second layer, below the filters.
        title: Of the page.
        subtitle: In small type below it.
        sentences: The diagnosis, below the pictures.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.
    """
    count = min(len(weights), _MOST)
    height, width = weights.shape[2:]
    factor = math.ceil(_CELL / max(height, width))
    side = factor * height, factor * width
    across = max(side[1], 64) + GAP
    columns = min(count, _COLUMNS)
    page = Page(max(2 * MARGIN + columns * across - GAP, 720))
    page.text(title, 22)
    page.text(subtitle, 13, MUTED)
    page.y += 8
    top, down = page.y, side[0] + 26
    for index in range(count):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * across, top + row * down
        pixels = Image.fromarray(signed_picture(weights[index]))
        panel = pixels.resize(side[::-1], Image.Resampling.NEAREST)
        if dead[index]:
            frame = (0, 0, side[1] - 1, side[0] - 1)
            ImageDraw.Draw(panel).rectangle(frame, outline=WARNING, width=3)
        page.paste(panel, x, y)
        word = "dead" if dead[index] else number(float(rms[index]))
        page.at((x, y + side[0] + 3), f"{index}: {word}", _CAPTION, MUTED)
    page.y = top + math.ceil(count / columns) * down + 4
    page.text("below each filter: its number and RMS", _CAPTION, MUTED)
    page.y += 6
    if second is not None:
        _draw_second(page, second)
    shown = [] if count == len(weights) else [f"the first {count} of {len(weights)} are shown"]
    page.paragraphs((*sentences, *shown))
    page.y += 6
    page.notes(notes)
    return page.finish()


def _draw_second(page: Page, second: Projected) -> None:
    """The second layer's projections in a grid."""
    page.rule()
    page.y += 6
    page.text(f"second layer: {second.title}", 16)
    across = _SECOND + GAP // 2
    columns = (page.inner + GAP // 2) // across
    top, down = page.y + 4, _SECOND + 20
    for place, (unit, value, signal) in enumerate(second.units):
        row, column = divmod(place, columns)
        x, y = MARGIN + column * across, top + row * down
        if signal is None:
            page.paste(Image.new("RGB", (_SECOND, _SECOND), _BLANK), x, y)
            middle = x + _SECOND // 2, y + _SECOND // 2
            page.at(middle, "not active", _CAPTION, MUTED, anchor="mm")
        else:
            page.paste(cell(signed_picture(enhanced(signal)), _SECOND), x, y)
        word = "" if signal is None else f": {number(value)}"
        page.at((x, y + _SECOND + 2), f"{unit}{word}", _CAPTION, MUTED)
    page.y = top + math.ceil(len(second.units) / columns) * down + 2
    page.text(
        "below each unit: its number and strongest activation over the photos, which is what "
        "is projected",
        _CAPTION,
        MUTED,
    )
    page.y += 6
