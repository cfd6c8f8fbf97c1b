"""Similarity of maps by how far the weights are permuted: a curve per method."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from inspector.render.drawing.chart import Series, line_chart
from inspector.render.drawing.page import MARGIN, MUTED, Page, fit

__all__ = ["sanity_sheet"]

_WIDTH, _CHART = 940, 380


def sanity_sheet(
    curves: Mapping[str, Any],
    names: Sequence[str],
    model: str,
    sentences: Sequence[str],
    notes: Sequence[str],
) -> Image.Image:
    """Draw the curves of the randomisation test.

    Args:
        curves: Per method ``stages``, a mean with interval or None each.
        names: Per stage the lowest layer that is permuted.
        model: The model's name.
        sentences: What is to be said, below the curves.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    page = Page(_WIDTH)
    page.text(f"maps of {model} while its weights are permuted", 22)
    page.text("rank correlation with the map of the network as it is; 1 is the same map", 12, MUTED)
    page.y += 8
    places = [0.0, *(float(stage) for stage in range(1, len(names) + 1))]
    ticks = [(0.0, "none"), *zip(places[1:], (fit(n, 9, 90) for n in names), strict=True)]
    series = []
    for label, own in curves.items():
        rows = [one or {} for one in own["stages"]]
        ends = [[1.0, *(row.get(end, float("nan")) for row in rows)] for end in _ENDS]
        series.append(Series(fit(label, 12, 260), ends[0], places, ends[1], ends[2]))
    chart = line_chart(
        series,
        size=(_CHART, page.inner),
        x_label="permuted from the scores down to this layer",
        y_range=(None, 1.02),
        x_ticks=ticks,
    )
    page.paste(chart, MARGIN, page.y)
    page.y += _CHART + 12
    page.paragraphs(sentences)
    page.y += 8
    page.notes(notes)
    return page.finish()


_ENDS = ("value", "low", "high")
