"""How well maps localise, on one page: the measures, their curves, and maps on example photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image, ImageDraw

from inspector.heatmap import Heatmap
from inspector.photos.photo import Photo
from inspector.render.drawing.chart import Series, line_chart
from inspector.render.drawing.page import GAP, INK, MARGIN, MUTED, Page, fit, message_box, wrap
from inspector.render.drawing.panels import (
    WIDENED,
    overlay_panel,
    panel_size,
    photo_panel,
    scale_of,
    widens,
)

__all__ = ["Example", "Line", "localisation_sheet"]

_LOW, _HIGH = 200, 250  # bounds of a panel's longer side
_NAME, _COLUMN, _WIDEST, _EMPTY = 150, 122, 180, 60  # widths in the table
_CHART = 320
_TRUE, _FOUND, _EDGE = (0, 200, 83), (255, 255, 255), (24, 24, 28)
_MOST = 6  # methods beside a photo, and curves that colours tell apart
_ERRORS = ("top1_error", "topk_error")


class _Interval(Protocol):
    """A number with its interval."""

    @property
    def value(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Line:
    """A method in the table, or the baseline.

    Attributes:
        name: Of the method.
        measured: By measure.
        empty: Maps without evidence.
        curve: (T,) share of objects hit at each threshold.
    """

    name: str
    measured: Mapping[str, _Interval]
    empty: int
    curve: Sequence[float]


@dataclass(frozen=True, eq=False)
class Example:
    """A photo with the maps of one of its objects.

    Attributes:
        photo: The upright photo.
        caption: What it shows, and what the model says.
        entry: Its results: ``objects`` and ``methods``, of which the first object is shown.
        maps: By method.
    """

    photo: Photo
    caption: str
    entry: Mapping[str, Any]
    maps: Mapping[str, Heatmap]


def localisation_sheet(
    lines: Sequence[Line],
    examples: Sequence[Example],
    *,
    title: str,
    titles: Mapping[str, str],
    known: Mapping[str, _Interval],
    thresholds: Sequence[float],
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw the page.

    Args:
        lines: The methods, the baseline last.
        examples: Photos, from the best hit to the worst.
        title: Of the page.
        titles: Of the measures, which are the table's columns.
        known: Shares of photos classified right, ``top1`` and ``topk``.
        thresholds: (T,) of the curves.
        sentences: What is to be said.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    shown = min(len(lines) - 1, _MOST)
    inner = max(_NAME + _COLUMN * len(titles) + _EMPTY, (1 + shown) * (_HIGH + GAP) - GAP)
    page = Page(2 * MARGIN + inner)
    page.text(title, 22)
    page.text("percent, with 95 % bootstrap intervals over photos", 13, MUTED)
    page.y += 8
    _table(page, lines, titles, known)
    page.y += 10
    over = len(lines) - 1 - _MOST
    more = [f"curves and maps of the first {_MOST} of {len(lines) - 1} methods"] if over > 0 else []
    page.paragraphs((*sentences, *more))
    page.y += 12
    page.paste(_curves(lines, thresholds, page.inner), MARGIN, page.y)
    page.y += _CHART + 12
    if examples:
        page.text("from the best hit photo to the worst", 15)
        legend = "green: a true box; white: the box of the map (left: of the centre), a dot at its "
        page.text(legend + "maximum; dimmed: not seen by the network", 12, MUTED)
    for example in examples:
        _example(page, example, [line.name for line in lines])
    page.notes(notes, most=8)
    return page.finish()


# -- the table ------------------------------------------------------------------------------------


def _table(
    page: Page, lines: Sequence[Line], titles: Mapping[str, str], known: Mapping[str, _Interval]
) -> None:
    top, step = page.y, min(_WIDEST, (page.inner - _NAME - _EMPTY) // len(titles))
    for place, (measure, name) in enumerate(titles.items()):
        x = MARGIN + _NAME + place * step
        for row, text in enumerate(wrap(name, 13, step - 10, lines=2)):
            page.at((x, top + row * 17), text, 13)
        better = "lower is better" if measure in _ERRORS else "higher is better"
        page.at((x, top + 36), better, 11, MUTED)
    page.at((MARGIN + _NAME + len(titles) * step, top), "empty", 13)
    page.at((MARGIN + _NAME + len(titles) * step, top + 17), "maps", 13)
    page.y = top + 54
    best = {
        measure: (min if measure in _ERRORS else max)(
            line.measured[measure].value for line in lines
        )
        for measure in titles
    }
    for line in lines:
        page.rule()
        top = page.y + 5
        page.at((MARGIN, top), fit(line.name, 15, _NAME - 8), 15)
        for place, measure in enumerate(titles):
            one, x = line.measured[measure], MARGIN + _NAME + place * step
            value = f"{100 * one.value:.1f}" + (" *" if one.value == best[measure] else "")
            page.at((x, top), value, 15)
            page.at((x, top + 20), f"{100 * one.low:.1f} to {100 * one.high:.1f}", 11, MUTED)
        x = MARGIN + _NAME + len(titles) * step
        page.at((x, top), str(line.empty), 15, INK if line.empty else MUTED)
        page.y = top + 40
    page.rule()
    top = page.y + 5
    page.at((MARGIN, top), "class alone", 15, MUTED)
    errors = [known[measure.partition("_")[0]] for measure in titles if measure in _ERRORS]
    for place, one in enumerate(errors):
        x = MARGIN + _NAME + place * step
        page.at((x, top), f"{100 - 100 * one.value:.1f}", 15, MUTED)
        interval = f"{100 - 100 * one.high:.1f} to {100 - 100 * one.low:.1f}"
        page.at((x, top + 20), interval, 11, MUTED)
    words = "the error that is left when every box counts as a hit; * the best of a column"
    page.at((MARGIN + _NAME + len(errors) * step, top + 2), words, 12, MUTED)
    page.y = top + 40


def _curves(lines: Sequence[Line], thresholds: Sequence[float], width: int) -> Image.Image:
    series = [
        Series(
            line.name, [100 * value for value in line.curve], thresholds, dashed=line is lines[-1]
        )
        for line in (*lines[:-1][:_MOST], lines[-1])
    ]
    return line_chart(
        series,
        size=(_CHART, width),
        title="boxes that hit (IoU 0.5), the class being given; the "
        "highest point of a curve is MaxBoxAcc",
        y_range=(0, 100),
        x_label="threshold, as a share of the map's maximum",
        y_label="objects hit (percent)",
    )


# -- examples -------------------------------------------------------------------------------------


def _example(page: Page, example: Example, names: Sequence[str]) -> None:
    """A photo under the centre's box, and beside it each method's map under its own."""
    page.rule()
    page.y += 6
    page.text(f"{example.photo.name}: {example.caption}", 14)
    size, top = panel_size(example.photo.size, _LOW, _HIGH), page.y + 2
    factor = size[0] / example.photo.size[0], size[1] / example.photo.size[1]
    *methods, centre = names
    for place, name in enumerate([centre, *methods[:_MOST]]):
        found = example.entry["methods"][name]["objects"][0]
        if name == centre:
            panel = photo_panel(example.photo, size)
        else:
            scale = scale_of(example.maps[name])
            panel = overlay_panel(example.photo, example.maps[name], size, scale)
            panel = message_box(panel, scale.message, 13) if scale.message else panel
        for box in example.entry["objects"][0]["boxes"]:
            _frame(panel, box, factor, _TRUE)
        if found["box"] is not None:
            _frame(panel, found["box"], factor, _FOUND)
        if found["point"] is not None:
            _dot(panel, found["point"], factor)
        x = MARGIN + place * (_HIGH + GAP)
        page.paste(panel, x, top)
        caption = f"{name}: IoU {found['iou']:.2f}"
        if name != centre and widens(example.maps[name], size):
            caption += f"; {WIDENED}"
        page.at((x, top + size[0] + 4), fit(caption, 13, _HIGH), 13, MUTED)
    page.y = top + size[0] + 28


def _frame(
    panel: Image.Image, box: Sequence[float], factor: tuple[float, float], colour: tuple[int, ...]
) -> None:
    """A box in a colour between two dark lines, which is seen on any picture."""
    y0, x0, y1, x1 = (value * factor[axis % 2] for axis, value in enumerate(box))
    draw, right, bottom = ImageDraw.Draw(panel), panel.width - 1, panel.height - 1
    for inset, width, shade in ((0, 4, _EDGE), (1, 2, colour)):
        corners = (
            max(0, x0) + inset,
            max(0, y0) + inset,
            min(right, x1 - 1) - inset,
            min(bottom, y1 - 1) - inset,
        )
        if corners[0] < corners[2] and corners[1] < corners[3]:
            draw.rectangle(corners, outline=shade, width=width)


def _dot(panel: Image.Image, point: Sequence[float], factor: tuple[float, float]) -> None:
    y, x = point[0] * factor[0], point[1] * factor[1]
    draw = ImageDraw.Draw(panel)
    for radius, shade in ((5, _EDGE), (3, _FOUND)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade)
