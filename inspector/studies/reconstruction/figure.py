"""Reconstructions of units on one page: methods below one another, layers side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inspector.render.drawing.page import MARGIN, MUTED, Page, fit, number
from inspector.render.drawing.panels import cell, signed_cell

__all__ = ["Block", "Cell", "Row", "reconstruction_sheet"]

_CELL, _STEP, _LABELS = 108, 116, 130
_MOST_UNITS = 8
_NAMES = {"guided-backprop": "guided backprop"}


@dataclass(frozen=True, eq=False)
class Cell:
    """One unit on one photo.

    Attributes:
        title: Its name.
        value: Its activation.
        patch: (h, w, 3) pixels of 0..255 that it sees.
        signals: (C, h, w) signed, in red, green, blue; one a method.
    """

    title: str
    value: float
    patch: NDArray[Any]
    signals: Sequence[NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Block:
    """One photo: its name, and a unit of each layer (None where none is active)."""

    title: str
    cells: Sequence[Cell | None]


@dataclass(frozen=True, eq=False)
class Row:
    """Units of one layer without an image.

    Attributes:
        layer: Its name.
        size: Height and width of the receptive field.
        titles: Names of the units.
        signals: (C, h, w) signed, in red, green, blue; one a unit.
    """

    layer: str
    size: tuple[int, int]
    titles: Sequence[str]
    signals: Sequence[NDArray[Any]]


def reconstruction_sheet(
    blocks: Sequence[Block],
    rows: Sequence[Row],
    *,
    columns: Sequence[tuple[str, tuple[int, int]]],
    methods: Sequence[str],
    title: str,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw photos one below the other, and below them the units that need none.

    Args:
        blocks: The photos.
        rows: The layers without an image.
        columns: Name and receptive field of each layer of the blocks.
        methods: Names of the reconstructions.
        title: Of the page.
        sentences: What is to be said, below the pictures.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.
    """
    wide = [len(columns) if blocks else 0, *(min(len(r.signals), _MOST_UNITS) for r in rows)]
    page = Page(max(2 * MARGIN + _LABELS + max(wide, default=0) * _STEP, 760))
    page.text(title, 22)
    scaled = "each picture is scaled by itself, full colour at the 99.5th percentile"
    page.text(scaled + " of its magnitude; grey is zero", 12, MUTED)
    if blocks:
        _headings(page, columns)
    for block in blocks:
        _block(page, block, methods)
    if any(row.signals for row in rows):
        _unconditioned(page, rows)
    page.y += 8
    page.paragraphs(sentences, lines=4)
    page.y += 6
    page.notes(notes)
    return page.finish()


def _headings(page: Page, columns: Sequence[tuple[str, tuple[int, int]]]) -> None:
    page.y += 8
    for index, (name, size) in enumerate(columns):
        x = _x(index)
        page.at((x, page.y), fit(name, 13, _CELL), 13)
        page.at((x, page.y + 17), f"sees {size[0]}x{size[1]}", 11, MUTED)
    page.y += 36


def _block(page: Page, block: Block, methods: Sequence[str]) -> None:
    page.rule()
    page.y += 6
    top = page.y
    page.at((MARGIN, top), fit(block.title, 13, _LABELS - 10), 13)
    for row, name in enumerate(methods, 1):
        at = MARGIN, top + row * _STEP + _CELL // 2
        page.at(at, fit(_NAMES.get(name, name), 13, _LABELS - 10), 13, MUTED, anchor="lm")
    for index, one in enumerate(block.cells):
        x = _x(index)
        if one is None:
            page.at((x, top), "not active", 12, MUTED)
            continue
        page.paste(cell(one.patch.astype(np.uint8), _CELL), x, top)
        for row, signal in enumerate(one.signals, 1):
            page.paste(signed_cell(signal, _CELL), x, top + row * _STEP)
        under = top + (len(methods) + 1) * _STEP - 5
        page.at((x, under), fit(f"{one.title} · {number(one.value)}", 11, _CELL), 11, MUTED)
    page.y = top + (len(methods) + 1) * _STEP + 16


def _unconditioned(page: Page, rows: Sequence[Row]) -> None:
    page.y += 4
    page.rule()
    page.y += 8
    page.text("deconvnet without an image: one unit on, everything else zero", 15)
    page.y += 4
    for row in rows:
        if not row.signals:
            continue  # the sentences say why
        top = page.y
        page.at((MARGIN, top), fit(row.layer, 13, _LABELS - 10), 13)
        page.at((MARGIN, top + 18), f"sees {row.size[0]}x{row.size[1]}", 11, MUTED)
        shown = zip(row.titles[:_MOST_UNITS], row.signals[:_MOST_UNITS], strict=True)
        for index, (name, signal) in enumerate(shown):
            page.paste(signed_cell(signal, _CELL), _x(index), top)
            dark = "" if signal.any() else ": nothing"
            page.at((_x(index), top + _CELL + 3), fit(name + dark, 11, _CELL), 11, MUTED)
        page.y = top + _CELL + 22
        if len(row.signals) > _MOST_UNITS:
            left = len(row.signals) - _MOST_UNITS
            page.text(f"and {left} more unit(s) in the report", 11, MUTED, x=_x(0))


def _x(index: int) -> int:
    return MARGIN + _LABELS + index * _STEP
