"""The worst cases of a comparison on one page: photo, A's map, B's map, difference."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from inspector.heatmap import Heatmap
from inspector.measures.similarity import Similarity
from inspector.photos.photo import Photo
from inspector.printable import percent
from inspector.render.drawing.page import (
    GAP,
    MARGIN,
    MUTED,
    WARNING,
    Page,
    fit,
    message_box,
    number,
    width_of,
)
from inspector.render.drawing.panels import (
    WIDENED,
    Scale,
    bar_colours,
    overlay_panel,
    panel_size,
    photo_panel,
    scale_of,
    widens,
)

if TYPE_CHECKING:
    from inspector.compare.result import MapPair
    from inspector.report import ImageReport

__all__ = ["Case", "case_of", "contact_sheet", "draw_case"]

_LOW, _HIGH = 224, 256  # bounds of a cell's longer side
_WIDTH = 230  # of a column at least, so that captions fit under narrow photos
_BAR = 8
_SMALL = 12


@dataclass(frozen=True, eq=False)
class Case:
    """One pair of maps, drawn: a row of the sheet.

    Attributes:
        title: The photo's name and the target.
        detail: The method and how alike the maps are.
        alarm: Said in warning colour behind the title (a flip); may be empty.
        panels: Photo, A's map, B's map, difference; all of one size.
        captions: Lines under each panel.
        bars: Colour bars of the panels with the numbers at their ends; None for the photo.
    """

    title: str
    detail: str
    alarm: str
    panels: tuple[Image.Image, ...]
    captions: tuple[tuple[str, ...], ...]
    bars: tuple[tuple[Image.Image, str, str] | None, ...]


def draw_case(
    photo: Photo,
    maps: tuple[Heatmap, Heatmap],
    *,
    title: str,
    detail: str,
    alarm: str,
    captions: tuple[tuple[str, ...], ...],
) -> Case:
    """Draw one pair of maps.

    Each map has its own colour scale, whose ends stand below it. The difference is that of the
    two maps after each was divided by its own largest magnitude, on a scale from -1 to 1.

    Args:
        photo: The photo that both lie on.
        maps: A's and B's.
        title: See `Case`; so are the others.
        detail: Likewise.
        alarm: Likewise.
        captions: Of the photo, of A's map and of B's.
    """
    size = panel_size(photo.size, _LOW, _HIGH)
    panels = [photo_panel(photo, size)]
    bars: list[tuple[Image.Image, str, str] | None] = [None]
    for heatmap in (*maps, None):
        shown, scale = (heatmap, scale_of(heatmap)) if heatmap else _difference(*maps)
        panel = overlay_panel(photo, shown, size, scale)
        panels.append(message_box(panel, scale.message, _SMALL) if scale.message else panel)
        bars.append(_bar(size[1], scale))
    told = tuple(
        (*lines, WIDENED) if wide else lines
        for lines, wide in zip(captions, (False, *(widens(one, size) for one in maps)), strict=True)
    )
    said = (*told, ("difference, B less A", "each divided by its largest"))
    return Case(title, detail, alarm, tuple(panels), said, tuple(bars))


def _difference(a: Heatmap, b: Heatmap) -> tuple[Heatmap, Scale]:
    """B's map less A's, each divided by its largest magnitude; only where both networks saw."""
    values = (b.normalised() - a.normalised()).astype(np.float32)
    seen = a.seen & b.seen
    largest = float(np.max(np.abs(values), where=seen, initial=1.0))
    return replace(b, values=values, seen=seen), Scale(1.0, largest, signed=True)


def _bar(width: int, scale: Scale) -> tuple[Image.Image, str, str] | None:
    if scale.limit <= 0:
        return None
    # The bar stands upright with its maximum on top; lying, zero is on the left.
    colours = bar_colours(width, _BAR, scale).transpose(Image.Transpose.ROTATE_270)
    low, high = number(-scale.limit) if scale.signed else "0", number(scale.limit)
    if scale.clipped:
        low, high = f"< {low}" if scale.signed else low, f"> {high}"
    return colours, low, high


def contact_sheet(
    cases: Sequence[Case],
    models: Sequence[str],
    headline: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Put the cases on one page.

    Args:
        cases: Rows, in their order.
        models: File names of A and B.
        headline: Sentences under the title.
        notes: Warnings, at the bottom.

    Returns:
        An RGB image.

    Raises:
        ValueError: There are no cases.
    """
    if not cases:
        raise ValueError("a contact sheet needs a case")
    step = max(_WIDTH, *(case.panels[0].width for case in cases)) + GAP
    page = Page(2 * MARGIN + 4 * step - GAP)
    for letter, name in zip("AB", models, strict=True):
        page.text(f"{letter}  {name}", 20)
    page.y += 4
    for sentence in headline:
        page.paragraphs([sentence], 14, MUTED)
    page.y += 6
    for case in cases:
        _row(page, case, step)
    page.notes(list(notes))
    return page.finish()


def _row(page: Page, case: Case, step: int) -> None:
    """One case: its heading, four panels, what is below them."""
    page.rule()
    page.y += 8
    top, half = page.y, page.inner // 2
    title = fit(case.title, 17, half)
    page.text(title, 17)
    if case.alarm:
        x = MARGIN + width_of(title, 17) + GAP
        page.at((x, top + 2), fit(case.alarm, 15, page.width - MARGIN - x), 15, WARNING)
    page.text(case.detail, 14, MUTED)
    page.y += 4
    top, bottom = page.y, page.y
    for column in range(len(case.panels)):
        page.y = top
        _cell(page, case, column, MARGIN + column * step, step - GAP)
        bottom = max(bottom, page.y)
    page.y = bottom + 10


def _cell(page: Page, case: Case, column: int, x: int, width: int) -> None:
    """A panel, its colours lying below it, its range and its caption."""
    panel, bar = case.panels[column], case.bars[column]
    page.paste(panel, x, page.y)
    page.y += panel.height + 4
    if bar is not None:
        colours, low, high = bar
        page.paste(colours, x, page.y)
        page.at((x, page.y + _BAR + 2), low, _SMALL - 1, MUTED)
        page.at((x + panel.width, page.y + _BAR + 2), high, _SMALL - 1, MUTED, anchor="ra")
        page.y += _BAR + 18
    for line in case.captions[column]:
        page.text(line, _SMALL, x=x, width=width)


def case_of(
    photo: Photo,
    maps: tuple[Heatmap, Heatmap],
    pair: "MapPair",
    reports: "tuple[ImageReport, ImageReport]",
    *,
    flip: bool,
) -> Case:
    """One pair of maps as a row of the contact sheet."""
    best = [next(iter(report.predictions), None) for report in reports]
    alarm = ""
    if flip and best[0] and best[1]:
        alarm = f"flips: {best[0]['label']} becomes {best[1]['label']}"
    chosen = " (B's own prediction)" if pair.role == "b" else ""
    return draw_case(
        photo,
        maps,
        title=f"{photo.name}: evidence for {pair.label}{chosen}",
        alarm=alarm,
        detail=f"{pair.method} · {_figures(pair.similarity)}",
        captions=(
            (f"photo, {photo.size[1]} x {photo.size[0]} pixels",),
            *(_caption(letter, best[i], pair, i) for i, letter in enumerate("AB")),
        ),
    )


def _figures(found: Similarity) -> str:
    if found.rank is None and found.iou is None:
        return "; ".join(found.undefined)
    parts = [] if found.rank is None else [f"rank correlation {found.rank:.3f}"]
    if found.iou is not None:
        parts.append(f"IoU of the top 20 % {found.iou:.2f}")
    if found.peak_shift is not None and found.peak_share is not None:
        parts.append(f"peak {found.peak_shift:.0f} px apart ({found.peak_share:.0%} of diagonal)")
    return " · ".join([*parts, *found.undefined])


def _caption(letter: str, best: Any, pair: "MapPair", side: int) -> tuple[str, ...]:
    """What a network says, and what it gives the target if that is something else."""
    probability, score = pair.probabilities[side], pair.scores[side]
    target = f"{pair.label}: " + _worth(score, probability)
    if best is None:
        return letter, target
    says = f"{letter} says {best['label']}: " + _worth(best["score"], best["probability"])
    return (says,) if best["score"] == score else (says, target)


def _worth(score: float, probability: float | None) -> str:
    return f"score {score:.3g}" if probability is None else percent(probability, 1)
