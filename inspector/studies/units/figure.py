"""Units of a class on one page: weight, contribution, patches and segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inspector.render.drawing.page import GAP, MARGIN, MUTED, Page, number
from inspector.render.drawing.panels import cell

__all__ = ["CELL", "Row", "patch_panel", "segment_panel", "unit_sheet"]

CELL = 96
"""Side of a picture in pixels."""

_DARK = 0.3  # brightness outside of a segment
_FRAME = (255, 208, 64)
_LEFT = 196  # width of the column with a unit's numbers
_POSITIVE, _NEGATIVE, _TRACK = (64, 83, 211), (181, 29, 20), (232, 232, 236)


@dataclass(frozen=True, eq=False)
class Row:
    """A unit.

    Attributes:
        unit: Its channel.
        rank: Of its weight among all units.
        weight: For the class.
        contribution: Mean over photos.
        contribution_rank: Of that among all units.
        values: Its strongest activations, strongest first.
        patches: One an activation.
        segments: One an activation.
    """

    unit: int
    rank: int
    weight: float
    contribution: float
    contribution_rank: int
    values: Sequence[float]
    patches: Sequence[Image.Image]
    segments: Sequence[Image.Image]


def patch_panel(pixels: NDArray[Any]) -> Image.Image:
    """A patch (h, w, 3) as a square picture."""
    return cell(pixels.astype(np.uint8), CELL)


def segment_panel(
    pixels: NDArray[Any], mask: NDArray[np.bool_], box: tuple[int, int, int, int]
) -> Image.Image:
    """A photo, dark outside of a segment, with a frame around a patch.

    Args:
        pixels: (H, W, 3) of 0..255.
        mask: (H, W), True inside the segment.
        box: Top, left, bottom and right of the patch; no frame when it is the whole photo.
    """
    dark = np.where(mask[:, :, None], pixels, pixels * _DARK)
    picture = cell(np.rint(dark).astype(np.uint8), CELL)
    height, width = mask.shape
    y0, x0, y1, x1 = box
    if (y1 - y0, x1 - x0) == (height, width) or y0 == y1 or x0 == x1:
        return picture
    # As `cell` lays the pixels out: small photos grow by a whole factor.
    factor: float = CELL / max(height, width)
    factor = int(factor) if factor >= 1 else factor
    top, left = ((CELL - max(1, round(size * factor))) // 2 for size in (height, width))
    edges = (
        left + round(x0 * factor),
        top + round(y0 * factor),
        left + round(x1 * factor) - 1,
        top + round(y1 * factor) - 1,
    )
    ImageDraw.Draw(picture).rectangle(edges, outline=_FRAME)
    return picture


def unit_sheet(
    rows: Sequence[Row],
    *,
    title: str,
    subtitle: str,
    threshold: str,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw units one below the other, with their patches and segments.

    Args:
        rows: The units, first to last.
        title: Of the page.
        subtitle: In small type below it.
        threshold: Where segments end, in words.
        sentences: What is to be said, below the pictures.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.
    """
    most = max((len(row.values) for row in rows), default=0)
    page = Page(max(2 * MARGIN + _LEFT + most * (CELL + GAP // 2), 760))
    page.text(title, 22)
    page.text(subtitle, 13, MUTED)
    legend = (
        "above the patch that excites the unit most; below the whole input, dark where the unit "
        f"stays below {threshold}, and the patch framed; below that the activation"
    )
    page.paragraphs([legend], 12, MUTED)
    widest = max((abs(row.weight) for row in rows), default=0.0)
    largest = max((abs(row.contribution) for row in rows), default=0.0)
    for row in rows:
        page.y += 6
        page.rule()
        page.y += 8
        _draw(page, row, widest, largest)
    page.y += 6
    page.paragraphs(sentences)
    page.y += 6
    page.notes(notes)
    return page.finish()


def _draw(page: Page, row: Row, widest: float, largest: float) -> None:
    top = page.y
    page.at((MARGIN, top), f"unit {row.unit}", 16)
    _measure(
        page,
        top + 32,
        f"weight {number(row.weight)}",
        f"rank {row.rank}",
        row.weight / (widest or 1),
    )
    _measure(
        page,
        top + 78,
        f"adds {number(row.contribution)}",
        f"rank {row.contribution_rank}",
        row.contribution / (largest or 1),
    )
    x = MARGIN + _LEFT
    if not row.values:
        page.at((x, top + 40), "not active on any photo", 13, MUTED)
    for value, patch, segment in zip(row.values, row.patches, row.segments, strict=True):
        page.paste(patch, x, top)
        page.paste(segment, x, top + CELL + 4)
        page.at((x, top + 2 * CELL + 7), number(value), 11, MUTED)
        x += CELL + GAP // 2
    page.y = top + (2 * CELL + 24 if row.values else CELL + 24)


def _measure(page: Page, y: int, text: str, rank: str, share: float) -> None:
    """A number, its rank, and a bar as long as its share of the largest one shown."""
    length = _LEFT - 24
    page.at((MARGIN, y), text, 13)
    page.at((MARGIN + length, y), rank, 12, MUTED, anchor="ra")
    bar = Image.new("RGB", (length, 5), _TRACK)
    width = round(min(abs(share), 1) * length)
    if width:
        bar.paste(_POSITIVE if share > 0 else _NEGATIVE, (0, 0, width, 5))
    page.paste(bar, MARGIN, y + 21)
