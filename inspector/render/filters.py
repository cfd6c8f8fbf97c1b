"""Convolution filters as pictures on one page."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inspector.canvas import GAP, INK, MARGIN, MUTED, WARNING, Page, number, wrap
from inspector.panels import signed_picture

__all__ = ["filter_sheet"]

_CELL = 72  # pixels of a filter's picture at least
_CAPTION = 11
_COLUMNS = 12
_MOST = 384


def filter_sheet(
    weights: NDArray[Any],
    *,
    rms: NDArray[Any],
    dead: NDArray[np.bool_],
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
    cell = factor * height, factor * width
    across = max(cell[1], 64) + GAP
    columns = min(count, _COLUMNS)
    page = Page(max(2 * MARGIN + columns * across - GAP, 720))
    page.text(title, 22)
    page.text(subtitle, 13, MUTED)
    page.y += 8
    top, down = page.y, cell[0] + 26
    for index in range(count):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * across, top + row * down
        pixels = Image.fromarray(signed_picture(weights[index]))
        panel = pixels.resize(cell[::-1], Image.Resampling.NEAREST)
        if dead[index]:
            frame = (0, 0, cell[1] - 1, cell[0] - 1)
            ImageDraw.Draw(panel).rectangle(frame, outline=WARNING, width=3)
        page.paste(panel, x, y)
        word = "dead" if dead[index] else number(float(rms[index]))
        page.at((x, y + cell[0] + 3), f"{index}: {word}", _CAPTION, MUTED)
    page.y = top + math.ceil(count / columns) * down + 4
    page.text("below each filter: its number and RMS", _CAPTION, MUTED)
    page.y += 6
    shown = [] if count == len(weights) else [f"the first {count} of {len(weights)} are shown"]
    for sentence in (*sentences, *shown):
        for line in wrap(sentence, 14, page.inner):
            page.text(line, 14, INK)
    page.y += 6
    page.notes(notes)
    return page.finish()
