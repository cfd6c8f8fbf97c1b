"""Networks with and without pooling on one page: a table, reconstructions, bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inspector.render.drawing.chart import PALETTE, Series, bar_chart
from inspector.render.drawing.page import GAP, INK, MARGIN, MUTED, Page, fit, width_of
from inspector.render.drawing.panels import cell, signed_cell

__all__ = ["Row", "pooling_sheet"]

_CELL, _STEP, _LABELS = 92, 98, 128
_CHART = 250
_NAMES = {"guided-backprop": "guided backprop"}
_COLUMNS = (  # heading, share of the width
    ("network", 0.24),
    ("right, % (95 % interval)", 0.20),
    ("parameters", 0.12),
    ("max-pools", 0.10),
    ("strided convs", 0.12),
    ("deconvnet sees the photo", 0.22),
)


@dataclass(frozen=True, eq=False)
class Row:
    """A network.

    Attributes:
        name: Its name.
        facts: Its numbers, as the report has them.
        patches: (h, w, 3) pixels of 0..255, one a photo; None where no unit is active.
        signals: (C, h, w) signed, in red, green, blue, one a photo; by method.
    """

    name: str
    facts: Mapping[str, Any]
    patches: Sequence[NDArray[Any] | None]
    signals: Mapping[str, Sequence[NDArray[Any] | None]]


def pooling_sheet(
    rows: Sequence[Row],
    *,
    measures: Sequence[str],
    methods: Sequence[str],
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw the table, for each network its reconstructions, and a chart for each measure.

    Args:
        rows: The networks.
        measures: Names of what was measured; no charts when empty.
        methods: Names of the reconstructions.
        sentences: What is to be said, below the pictures.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.
    """
    most = max((len(row.patches) for row in rows), default=0)
    page = Page(max(2 * MARGIN + _LABELS + most * _STEP, 940))
    page.text("networks with max-pooling and without", 22)
    page.y += 4
    _table(page, rows)
    page.y += 12
    page.text("what the strongest unit of each photo reconstructs", 16)
    what = "above the patch that it sees; each picture is scaled by itself, full colour at the "
    page.text(what + "99.5th percentile of its magnitude; grey is zero", 12, MUTED)
    for row in rows:
        _pictures(page, row, methods)
    if measures:
        _charts(page, rows, measures, methods)
    page.y += 6
    page.paragraphs(sentences, lines=4)
    page.y += 6
    page.notes(notes)
    return page.finish()


def _table(page: Page, rows: Sequence[Row]) -> None:
    widths = [round(share * page.inner) for _, share in _COLUMNS]
    _line(page, [heading for heading, _ in _COLUMNS], widths, MUTED)
    page.rule()
    page.y += 3
    for row in rows:
        accuracy, facts = row.facts["accuracy"], row.facts
        low, high = 100 * accuracy["low"], 100 * accuracy["high"]
        count = facts["parameters"]
        _line(
            page,
            [
                row.name,
                f"{100 * accuracy['share']:.1f}  ({low:.1f} to {high:.1f})",
                "not known" if count is None else f"{count:,}",
                str(facts["max_poolings"]),
                str(facts["strided_convolutions"]),
                "yes" if facts["deconvnet_depends_on_the_image"] else "no, proved",
            ],
            widths,
            INK,
        )


def _line(
    page: Page, texts: Sequence[str], widths: Sequence[int], colour: tuple[int, int, int]
) -> None:
    x = MARGIN
    for text, width in zip(texts, widths, strict=True):
        page.at((x, page.y), fit(text, 13, width - 10), 13, colour)
        x += width
    page.y += 21


def _pictures(page: Page, row: Row, methods: Sequence[str]) -> None:
    page.y += 4
    page.rule()
    page.y += 6
    top, width = page.y, _LABELS - 10
    page.at((MARGIN, top), fit(row.name.removesuffix(".onnx"), 14, width), 14)
    pools = row.facts["max_poolings"]
    words = f"{pools} max-pool(s)" if pools else "no max-pooling"
    page.at((MARGIN, top + 20), fit(words, 12, width), 12, MUTED)
    page.at((MARGIN, top + 37), fit(row.facts["layer"], 12, width), 12, MUTED)
    size = row.facts["receptive_field"]["size"]
    page.at((MARGIN, top + 54), fit(f"sees {size[0]}x{size[1]}", 12, width), 12, MUTED)
    for place, method in enumerate(methods, 1):
        y = top + place * _STEP + _CELL // 2
        page.at((MARGIN, y), fit(_NAMES.get(method, method), 13, width), 13, anchor="lm")
        verdict = row.facts.get("deconvnet") if method == "deconvnet" else None
        if verdict:
            page.at((MARGIN, y + 17), verdict, 12, MUTED, anchor="lm")
    for index, patch in enumerate(row.patches):
        x = MARGIN + _LABELS + index * _STEP
        if patch is None:
            page.at((x, top), "not active", 12, MUTED)
            continue
        page.paste(cell(patch.astype(np.uint8), _CELL), x, top)
        for place, method in enumerate(methods, 1):
            signal = row.signals[method][index]
            if signal is not None:
                page.paste(signed_cell(signal, _CELL), x, top + place * _STEP)
    page.y = top + (len(methods) + 1) * _STEP


def _charts(
    page: Page, rows: Sequence[Row], measures: Sequence[str], methods: Sequence[str]
) -> None:
    page.y += 4
    page.rule()
    page.y += 8
    x = MARGIN
    for colour, method in zip(PALETTE, methods, strict=False):
        name = _NAMES.get(method, method)
        page.at((x, page.y), name, 14, _rgb(colour))
        x += width_of(name, 14) + 18
    page.at((x, page.y + 1), "means over photos with 95 % intervals", 12, MUTED)
    page.y += 24
    names = [fit(row.name.removesuffix(".onnx"), 11, 96) for row in rows]
    width = (page.inner - GAP * (len(measures) - 1)) // len(measures)
    top = page.y
    for index, measure in enumerate(measures):
        series = [_bars(rows, method, measure) for method in methods]
        chart = bar_chart(series, names, size=(_CHART, width), title=measure)
        page.paste(chart, MARGIN + index * (width + GAP), top)
    page.y = top + _CHART + 4


def _rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of #rrggbb."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _bars(rows: Sequence[Row], method: str, measure: str) -> Series:
    found = [row.facts["measures"][method][measure] for row in rows]
    return Series(
        "",
        [one["mean"] for one in found],
        low=[one["low"] for one in found],
        high=[one["high"] for one in found],
    )
