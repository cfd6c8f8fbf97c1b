"""A network from its first layer to its last on one page: facts, and what excites a few units."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inspector.render.drawing.page import GAP, MARGIN, MUTED, PAPER, Page, fit, number
from inspector.render.drawing.panels import cell, signed_cell

__all__ = ["CELL", "Cell", "Row", "hierarchy_sheet"]

CELL = 112
"""Side of a picture in pixels."""

_PAIR = 2 * CELL + 4
_FACTS = 270  # width of the column with a layer's facts
_ICON = 72  # side of the drawing of the receptive field
_SQUARES = 3  # pixels that grow so much are shown as squares
_GREY = (128, 128, 128)
_FIELD, _INPUT, _BLANK, _TRACK = (64, 83, 211), (172, 172, 178), (238, 238, 241), (232, 232, 236)
_SILENT, _SELECTIVE = (181, 29, 20), (64, 83, 211)


@dataclass(frozen=True, eq=False)
class Cell:
    """A unit.

    Attributes:
        unit: Its channel.
        selectivity: Its strongest activation, relative to its mean over photos.
        patch: (h, w, 3) pixels of 0..255.
        signal: (C, h, w) projection in red, green, blue; None where there is none.
    """

    unit: int
    selectivity: float
    patch: NDArray[Any]
    signal: NDArray[Any] | None


@dataclass(frozen=True, eq=False)
class Row:
    """A layer, as the study's numbers tell it, and the units that are shown."""

    layer: Mapping[str, Any]
    cells: Sequence[Cell]


def hierarchy_sheet(
    rows: Sequence[Row],
    *,
    projection: str,
    size: tuple[int, int],
    title: str,
    subtitle: str,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw layers below one another, first to last.

    Args:
        rows: The layers.
        projection: How activations were sent down.
        size: Height and width of the network's input.
        title: Of the page.
        subtitle: In small type below it.
        sentences: What is to be said, below the pictures.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.
    """
    most = max((len(row.cells) for row in rows), default=0)
    page = Page(max(2 * MARGIN + _FACTS + _ICON + GAP + most * (_PAIR + GAP), 760))
    page.text(title, 22)
    page.paragraphs([subtitle], 13, MUTED)
    _legend(page, projection)
    longest = max([*size, *(n for row in rows for n in row.layer["receptive_field"]["size"])])
    widest = max((row.layer["selectivity"].median or 0 for row in rows), default=0)
    for row in rows:
        page.y += 6
        page.rule()
        page.y += 8
        _draw(page, row, size, longest, widest)
    page.y += 6
    page.paragraphs(sentences)
    page.y += 6
    page.notes(notes)
    return page.finish()


def _legend(page: Page, projection: str) -> None:
    legend = (
        "of each unit, left the patch of the network's input that excites it most, right the "
        f"projection of that one activation by {projection}, each scaled by itself, grey is zero; "
        "beside the facts the receptive field (blue) against the input (grey), on one scale; "
        "selectivity is a unit's strongest activation over its mean on all photos"
    )
    page.paragraphs([legend], 12, MUTED)


def _draw(page: Page, row: Row, size: tuple[int, int], longest: int, widest: float) -> None:
    top = page.y
    _facts(page, row.layer, widest)
    icon = _icon(row.layer["receptive_field"], size, longest)
    page.paste(icon, MARGIN + _FACTS, top + 4)
    left = MARGIN + _FACTS + _ICON + GAP
    if not row.cells:
        page.at((left, top + 40), "no unit is active on any photo", 13, MUTED)
    # One scale for all patches of a layer, so that those cut off at the border are smaller.
    factor = CELL / max((max(one.patch.shape[:2]) for one in row.cells), default=1)
    for place, one in enumerate(row.cells):
        x = left + place * (_PAIR + GAP)
        page.paste(_patch(one.patch, factor), x, top)
        page.paste(_projection(one.signal, factor), x + CELL + 4, top)
        if one.signal is None:
            middle = x + CELL + 4 + CELL // 2, top + CELL // 2
            page.at(middle, "no projection", 11, MUTED, anchor="mm")
        text = f"unit {one.unit} · selectivity {number(one.selectivity)}"
        page.at((x, top + CELL + 3), fit(text, 11, _PAIR), 11, MUTED)
    page.y = top + CELL + 22


def _patch(pixels: NDArray[Any], factor: float) -> Image.Image:
    side = _side(pixels.shape[:2], factor)
    return _grown(cell(pixels.astype(np.uint8), side), factor)


def _projection(signal: NDArray[Any] | None, factor: float) -> Image.Image:
    if signal is None:
        return Image.new("RGB", (CELL, CELL), _BLANK)
    return _grown(signed_cell(signal, _side(signal.shape[1:], factor)), factor)


def _side(size: Sequence[int], factor: float) -> int:
    """Side of the square before it grows: what is to shrink does so before it is coloured."""
    return max(1, round(max(size) * min(factor, 1)))


def _grown(picture: Image.Image, factor: float) -> Image.Image:
    """A square as large as its layer's scale makes it, in the middle of a cell."""
    grown = picture
    if factor > 1:
        whole = factor >= _SQUARES
        side = round(picture.width * (math.floor(factor) if whole else factor))
        how = Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC
        grown = picture.resize((side, side), how)
    square = Image.new("RGB", (CELL, CELL), _GREY)
    square.paste(grown, ((CELL - grown.width) // 2, (CELL - grown.height) // 2))
    return square


def _facts(page: Page, layer: Mapping[str, Any], widest: float) -> None:
    """A layer's facts, and two bars: its silent units, and how selective its median unit is."""
    top, width = page.y, _FACTS - 14
    name = f"{layer['index']}  {layer['layer']}" if layer["index"] >= 0 else layer["layer"]
    page.at((MARGIN, top - 2), fit(name, 15, width), 15)
    height, across = layer["map"]
    lines = [
        " · ".join(filter(None, (layer["operator"], layer["module"]))),
        f"{layer['channels']} maps {height}x{across}{_stride(layer['stride'])}",
        f"field {_field(layer['receptive_field'])}",
    ]
    for line, text in enumerate(lines):
        page.at((MARGIN, top + 19 + 15 * line), fit(text, 12, width), 12, MUTED)
    median = layer["selectivity"].median
    _bar(page, 0, f"never active {_percent(layer)}", layer["never_active_share"], _SILENT)
    if median is not None:
        text = f"median selectivity {number(median)}"
        _bar(page, 1, text, median / (widest or 1), _SELECTIVE)


def _stride(stride: tuple[float, float] | None) -> str:
    if stride is None:
        return ""
    down, across = stride
    return f" · stride {down:g}" if down == across else f" · stride {down:g}, {across:g}"


def _field(field: Mapping[str, Any]) -> str:
    height, width = field["size"]
    if not field["whole_image"]:
        return f"{height}x{width}"
    return f"whole image, mostly {height}x{width}" if field["mostly"] else "whole image"


def _percent(layer: Mapping[str, Any]) -> str:
    """A share that is not zero is not shown as zero, nor one that is not all as all."""
    share = layer["never_active_share"]
    return "< 1%" if 0 < share < 0.01 else "> 99%" if 0.99 < share < 1 else f"{share:.0%}"


def _bar(page: Page, place: int, text: str, share: float, colour: tuple[int, int, int]) -> None:
    """A number, and a bar of its share below it; two of them side by side."""
    x, length = (MARGIN, 106) if place == 0 else (MARGIN + 118, _FACTS - 14 - 118)
    page.at((x, page.y + 70), fit(text, 11, length), 11, MUTED)
    bar = Image.new("RGB", (length, 5), _TRACK)
    bar.paste(colour, (0, 0, math.ceil(min(share, 1) * length), 5))
    page.paste(bar, x, page.y + 88)


def _icon(field: Mapping[str, Any], size: tuple[int, int], longest: int) -> Image.Image:
    """The receptive field over the network's input; the largest of all fills the drawing."""
    icon = Image.new("RGB", (_ICON, _ICON), PAPER)
    draw = ImageDraw.Draw(icon, "RGBA")

    def centred(height: float, width: float) -> tuple[float, float, float, float]:
        y, x = (max(1.0, n / longest * (_ICON - 1)) / 2 for n in (height, width))
        middle = (_ICON - 1) / 2
        return middle - x, middle - y, middle + x, middle + y

    draw.rectangle(centred(*size), fill=(*_TRACK, 255), outline=_INPUT)
    field_size = size if field["whole_image"] and not any(field["size"]) else field["size"]
    draw.rectangle(centred(*field_size), fill=(*_FIELD, 60), outline=_FIELD)
    return icon
