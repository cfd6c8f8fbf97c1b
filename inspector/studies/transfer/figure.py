"""Accuracy of linear classifiers by layer: curves with intervals over a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from inspector.render.drawing.chart import Series, line_chart
from inspector.render.drawing.page import INK, MARGIN, MUTED, Page, fit

__all__ = ["transfer_sheet"]

_WIDTH = 940
_CHART = 380
_MOST_ROWS = 40
_COLUMNS = (
    ("", 0, "la"),
    ("layer", 34, "la"),
    ("shape", 430, "ra"),
    ("dimensions", 520, "ra"),
    ("accuracy", 600, "ra"),
    ("95 % interval", 720, "ra"),
    ("mean of classes", 830, "ra"),
    ("C", 895, "ra"),
)

Rows = Sequence[Mapping[str, Any]]


def transfer_sheet(
    models: Sequence[tuple[str, Rows]],
    *,
    majority: float,
    title: str,
    subtitle: str,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw accuracy by layer.

    Args:
        models: Names, and for each layer ``number``, ``layer``, ``shape``, ``dimensions``,
            ``accuracy``, ``low``, ``high``, ``mean_class_accuracy``, ``median_cost``.
        majority: Accuracy of always guessing the most frequent class.
        title: Of the page.
        subtitle: In small type below it.
        sentences: What is to be said, below the curves.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    page = Page(_WIDTH)
    page.text(title, 22)
    page.paragraphs([subtitle], 13, MUTED)
    page.y += 8
    page.paste(_chart(models, majority, page.inner), MARGIN, page.y)
    page.y += _CHART + 12
    page.paragraphs(sentences)
    for name, rows in models:
        page.y += 10
        page.text(name, 15)
        _table(page, rows)
    page.y += 8
    page.notes(notes)
    return page.finish()


def _chart(models: Sequence[tuple[str, Rows]], majority: float, width: int) -> Image.Image:
    longest = max(len(rows) for _, rows in models)
    series = [
        Series(
            fit(name, 12, 260),
            [row["accuracy"] for row in rows],
            [row["number"] for row in rows],
            [row["low"] for row in rows],
            [row["high"] for row in rows],
        )
        for name, rows in models
    ]
    ends = [1.0, float(max(longest, 2))]
    series.append(Series("most frequent class", [majority, majority], ends, dashed=True))
    top = max(row["high"] for _, rows in models for row in rows)
    return line_chart(
        series,
        size=(_CHART, width),
        x_label="layer, first to last (names in the table)",
        y_label="accuracy on photos held out",
        y_range=(0, min(1.0, top * 1.08)),
        x_ticks=[(at, str(at)) for at in range(1, longest + 1)],
    )


def _table(page: Page, rows: Rows) -> None:
    top = page.y + 2
    for word, x, anchor in _COLUMNS:
        page.at((MARGIN + x, top), word, 11, MUTED, anchor=anchor)
    page.y = top + 18
    page.rule()
    for row in rows[:_MOST_ROWS]:
        page.y += 4
        for text, (word, x, anchor) in zip(_cells(row), _COLUMNS, strict=True):
            shown = fit(text, 12, 330) if word == "layer" else text
            page.at((MARGIN + x, page.y), shown, 12, INK, anchor=anchor)
        page.y += 16
    if len(rows) > _MOST_ROWS:
        page.text(f"and {len(rows) - _MOST_ROWS} more in the table", 12, MUTED)


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["number"]),
        row["layer"],
        "x".join(map(str, row["shape"])),
        str(row["dimensions"]),
        f"{row['accuracy']:.1%}",
        f"{row['low']:.1%} to {row['high']:.1%}",
        f"{row['mean_class_accuracy']:.1%}",
        f"{row['median_cost']:g}",
    ]
