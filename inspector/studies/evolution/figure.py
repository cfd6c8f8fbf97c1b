"""Units along a training: projections in a grid, layers below one another, epochs across."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inspector.render.drawing.chart import Series, line_chart
from inspector.render.drawing.page import MARGIN, MUTED, Page, fit, number
from inspector.render.drawing.panels import cell, enhanced, signed_picture

__all__ = [
    "Cell",
    "Group",
    "Strip",
    "cell_side",
    "convergence_chart",
    "evolution_sheet",
    "patch_cell",
    "signal_cell",
]

_NARROW, _WIDE, _PATCH = 76, 150, 32  # sides of a projection, and of the patch below it
_GRID = 720  # width that the cells share
_SPACE = 14  # between cells; the mark of a jump stands in it
_MARK = 4
_LABEL = 82  # width of what stands left of the cells
_JUMP = (196, 30, 58)
_BLANK = (238, 238, 241)
_MOST_COLUMNS = 16


@dataclass(frozen=True, eq=False)
class Cell:
    """A unit at one snapshot.

    Attributes:
        picture: From ``signal_cell``; None where there is nothing to project.
        patch: From ``patch_cell``, likewise.
        value: The activation.
        jump: Whether another photo won at the snapshot before.
        message: What stands in an empty cell.
    """

    picture: Image.Image | None
    patch: Image.Image | None
    value: float | None
    jump: bool
    message: str = ""


@dataclass(frozen=True, eq=False)
class Strip:
    """A unit: what stands below its number, and its cells, first to last snapshot."""

    unit: int
    remark: Sequence[str]
    cells: Sequence[Cell]


@dataclass(frozen=True, eq=False)
class Group:
    """A layer, as the study's numbers tell it, and its units."""

    layer: Mapping[str, Any]
    strips: Sequence[Strip]


def cell_side(snapshots: int) -> int:
    """Side of a projection's picture when there are so many snapshots."""
    return min(_WIDE, max(_NARROW, _GRID // max(snapshots, 1) - _SPACE))


def signal_cell(signal: NDArray[Any], channels: str, side: int) -> Image.Image:
    """A projection as a picture: grey is zero, full colour the 99.5th percentile of magnitudes.

    Args:
        signal: (C, h, w) signed, channels as the model takes them.
        channels: Their order, "RGB", "BGR" or "GRAY".
        side: From ``cell_side``.
    """
    shown = signal[::-1] if channels == "BGR" and len(signal) == 3 else signal
    return cell(signed_picture(enhanced(shown)), side)


def patch_cell(pixels: NDArray[np.uint8]) -> Image.Image:
    """The patch (h, w, 3) that a unit sees, small."""
    return cell(pixels, _PATCH)


def evolution_sheet(
    groups: Sequence[Group],
    *,
    labels: Sequence[str],
    word: str,
    chart: Image.Image | None,
    title: str,
    subtitle: str,
    left_out: bool,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw units below one another, grouped by layer, snapshots across.

    Args:
        groups: Layers, first to last.
        labels: Of the snapshots.
        word: What they count: epoch or snapshot.
        chart: Curves that stand below the grid.
        title: Of the page.
        subtitle: In small type below it.
        left_out: Whether more units were measured than are shown.
        sentences: What is to be said, below the pictures.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.
    """
    columns, side = _spread(len(labels)), cell_side(len(labels))
    page = Page(max(2 * MARGIN + _LABEL + len(columns) * (side + _SPACE), 760))
    page.text(title, 22)
    page.text(subtitle, 13, MUTED)
    _legend(page)
    for group in groups:
        page.y += 6
        page.rule()
        page.y += 5
        page.text(_headline(group, word), 14)
        for place, column in enumerate(columns):
            named = f"{word} {labels[column]}" if labels[column] != "final" else "final"
            page.at((_x(place, side), page.y), fit(named, 11, side + _SPACE - 4), 11, MUTED)
        page.y += 18
        for strip in group.strips:
            _draw(page, strip, columns, side)
    page.y += 6
    if chart is not None:
        page.rule()
        page.y += 8
        page.paste(chart, MARGIN, page.y)
        page.y += chart.height + 8
    page.paragraphs((*sentences, *_left_out(labels, columns, units=left_out)))
    page.y += 6
    page.notes(notes)
    return page.finish()


def convergence_chart(
    layers: Sequence[Mapping[str, Any]], labels: Sequence[str], word: str
) -> Image.Image:
    """How alike the projections of each layer are to its last ones, along the training.

    Args:
        layers: With ``layer`` and ``median_cosine_with_last``.
        labels: Of the snapshots.
        word: What they count.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    places = list(range(len(labels)))
    series = [
        Series(
            fit(str(layer["layer"]), 11, 160),
            [math.nan if v is None else v for v in layer["median_cosine_with_last"]],
            places,
        )
        for layer in layers
    ]
    return line_chart(
        series,
        size=(250, 720),
        title="likeness to the last projection, median over units",
        x_label=word,
        y_label="cosine",
        y_range=(None, 1.05),
        x_ticks=list(zip(places, labels, strict=True)),
    )


def _legend(page: Page) -> None:
    text = "each projection in its own scale, grey is zero; below it the winning photo's patch and "
    page.text(text + "the activation", 12, MUTED)
    page.paste(Image.new("RGB", (_MARK, 13), _JUMP), MARGIN, page.y + 1)
    page.text(
        "the winning photo is another than at the snapshot before (a jump)",
        12,
        MUTED,
        x=MARGIN + _MARK + 6,
    )


def _headline(group: Group, word: str) -> str:
    layer = group.layer
    height, width = layer["receptive_field"]["size"]
    by = layer["converged_by"]
    when = f"converges by {word} {by}" if by is not None else "not converged before the last"
    if not layer["active_at_the_end"]:
        when = "no unit is active at the end"
    which = f"layer {layer['index']}: " if layer["index"] >= 0 else ""
    return f"{which}{fit(str(layer['layer']), 14, 260)} · field {height}x{width} · {when}"


def _draw(page: Page, strip: Strip, columns: Sequence[int], side: int) -> None:
    top = page.y
    page.at((MARGIN, top + 4), f"unit {strip.unit}", 13)
    for line, text in enumerate(strip.remark):
        page.at((MARGIN, top + 26 + 14 * line), fit(text, 11, _LABEL - 6), 11, MUTED)
    for place, column in enumerate(columns):
        x, one = _x(place, side), strip.cells[column]
        if one.picture is None or one.patch is None or one.value is None:
            page.paste(Image.new("RGB", (side, side), _BLANK), x, top)
            page.at((x + side // 2, top + side // 2), one.message, 11, MUTED, anchor="mm")
            continue
        page.paste(one.picture, x, top)
        page.paste(one.patch, x, top + side + 4)
        value = fit(number(one.value), 11, side - _PATCH - 2)
        page.at((x + _PATCH + 5, top + side + 4 + _PATCH // 2), value, 11, MUTED, anchor="lm")
        if one.jump:
            bar = Image.new("RGB", (_MARK, side + 4 + _PATCH), _JUMP)
            page.paste(bar, x - (_SPACE + _MARK) // 2, top)
    page.y = top + side + 4 + _PATCH + 10


def _x(place: int, side: int) -> int:
    return MARGIN + _LABEL + place * (side + _SPACE)


def _spread(count: int) -> list[int]:
    """Columns that are drawn: all, or as many as fit, spread evenly."""
    places = np.linspace(0, count - 1, min(count, _MOST_COLUMNS))
    return [int(place) for place in np.unique(np.rint(places))]


def _left_out(labels: Sequence[str], columns: Sequence[int], *, units: bool) -> list[str]:
    found = ["of each layer the first units are shown, all are measured"] if units else []
    if len(columns) < len(labels):
        found.append(f"{len(columns)} of {len(labels)} snapshots are shown; a jump may lie between")
    return found
