"""Units' strongest activations on one page: patches beside their projections."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inspector.render.drawing.page import GAP, MARGIN, MUTED, Page, number
from inspector.render.drawing.panels import cell, signed_cell

__all__ = ["Row", "activation_sheet"]

_CELL = 96
_MOST = 32


@dataclass(frozen=True, eq=False)
class Row:
    """A unit.

    Attributes:
        title: Its name.
        values: Its activations, strongest first.
        patches: (h, w, 3) pixels of 0..255, one an activation.
        projections: (C, h, w) signed, in red, green, blue; one an activation.
    """

    title: str
    values: Sequence[float]
    patches: Sequence[NDArray[Any]]
    projections: Sequence[NDArray[Any]]


def activation_sheet(
    rows: Sequence[Row],
    *,
    title: str,
    subtitle: str,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw units one below the other: patches, and below them their projections.

    Args:
        rows: The units.
        title: Of the page.
        subtitle: In small type below it.
        sentences: What is to be said, below the pictures.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.
    """
    most = max((len(row.values) for row in rows), default=0)
    page = Page(max(2 * MARGIN + most * (_CELL + GAP // 2), 720))
    page.text(title, 22)
    page.text(subtitle, 13, MUTED)
    legend = "above the patch that the unit sees, below the projection of that one activation, "
    scaled = "full colour at the 99.5th percentile of its magnitude; grey is zero"
    page.text(legend + scaled, 12, MUTED)
    for row in rows[:_MOST]:
        page.y += 6
        page.rule()
        page.y += 4
        page.text(row.title, 15)
        _draw(page, row)
    page.y += 6
    over = [f"the first {_MOST} of {len(rows)} units are shown"] if len(rows) > _MOST else []
    page.paragraphs((*sentences, *over))
    page.y += 6
    page.notes(notes)
    return page.finish()


def _draw(page: Page, row: Row) -> None:
    if not row.values:
        page.text("not active on any photo", 13, MUTED)
        return
    top = page.y
    for index, (value, patch, signal) in enumerate(
        zip(row.values, row.patches, row.projections, strict=True)
    ):
        x = MARGIN + index * (_CELL + GAP // 2)
        page.paste(cell(patch.astype(np.uint8), _CELL), x, top)
        page.paste(signed_cell(signal, _CELL), x, top + _CELL + 4)
        page.at((x, top + 2 * _CELL + 7), number(value), 11, MUTED)
    page.y = top + 2 * _CELL + 24
