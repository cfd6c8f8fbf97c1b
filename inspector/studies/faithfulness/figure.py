"""Measures of faithfulness by method: bars beside those of maps that know nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from inspector.render.drawing.chart import Series, bar_chart
from inspector.render.drawing.page import MARGIN, MUTED, Page, fit
from inspector.studies.faithfulness.measured import MEASURES

__all__ = ["faithfulness_sheet"]

_WIDTH, _CHART = 940, 230


def faithfulness_sheet(
    table: Mapping[str, Mapping[str, Any]],
    model: str,
    sentences: Sequence[str],
    notes: Sequence[str],
) -> Image.Image:
    """Draw one chart per measure, a bar per method.

    Args:
        table: Per method and measure ``value``, ``low`` and ``high``.
        model: The model's name.
        sentences: What is to be said, below the charts.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    page = Page(_WIDTH)
    page.text(f"how faithful maps of {model} are", 22)
    page.text(
        "grey, in brackets: maps that know nothing of the model; whiskers: 95 % intervals",
        12,
        MUTED,
    )
    page.y += 8
    for name, (words, high) in MEASURES.items():
        rows = {label: own[name] for label, own in table.items() if name in own}
        if not rows:
            continue
        good = "" if high is None else f" ({'high' if high else 'low'} is faithful)"
        ends = [[row[end] for row in rows.values()] for end in ("value", "low", "high")]
        chart = bar_chart(
            [Series("", ends[0], (), ends[1], ends[2])],
            [fit(label, 12, 170) for label in rows],
            size=(_CHART, page.inner),
            title=f"{name}{good}: {words}",
            baselines=[at for at, label in enumerate(rows) if label.startswith("(")],
        )
        page.paste(chart, MARGIN, page.y)
        page.y += _CHART + 8
    page.paragraphs(sentences)
    page.y += 8
    page.notes(notes)
    return page.finish()
