"""Photos under transforms: examples, distances at two layers, and probability, a row each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inspector.render.drawing.chart import PALETTE, Series, line_chart
from inspector.render.drawing.page import GAP, INK, MARGIN, MUTED, Page, fit, width_of

__all__ = ["Row", "invariance_sheet"]

_CELL, _GUTTER = 64, 3
_CHART = (300, 330)  # height and width
_STRIP = 5 * (_CELL + _GUTTER) + GAP
_WORDS = 11  # size of the words below examples


@dataclass(frozen=True, eq=False)
class Row:
    """One transform.

    Attributes:
        title: Its name.
        unit: What its values count.
        values: (P,).
        words: Values at which examples are shown.
        examples: For each photo its pictures (H, W, 3) at these.
        early: For each photo the distances at the early layer, (P,).
        late: At the late one.
        probability: Of the class.
    """

    title: str
    unit: str
    values: Sequence[float]
    words: Sequence[str]
    examples: Sequence[Sequence[NDArray[np.uint8]]]
    early: Sequence[NDArray[Any]]
    late: Sequence[NDArray[Any]]
    probability: Sequence[NDArray[Any]]


def invariance_sheet(
    rows: Sequence[Row],
    *,
    photos: Sequence[str],
    layers: tuple[str, str],
    title: str,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw transforms one below the other, four columns each.

    Args:
        rows: The transforms.
        photos: Names of the photos; their colours are those of the curves.
        layers: Names of the early and the late layer.
        title: Of the page.
        sentences: What is to be said, below the curves.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    page = Page(2 * MARGIN + _STRIP + 3 * _CHART[1])
    page.text(title, 22)
    page.text(
        "distance: Euclidean, over the length of the untransformed photo's features "
        "(0: nothing changed)",
        13,
        MUTED,
    )
    _key(page, photos)
    for row in rows:
        page.y += 6
        page.rule()
        page.y += 6
        page.text(row.title, 16)
        top = page.y
        bottom = _examples(page, row, top)
        x = MARGIN + _STRIP
        for chart in _charts(row, layers):
            page.paste(chart, x, top)
            x += _CHART[1]
        page.y = max(bottom, top + _CHART[0])
    page.y += 8
    page.rule()
    page.y += 6
    page.paragraphs(sentences)
    page.y += 6
    page.notes(notes)
    return page.finish()


def _key(page: Page, photos: Sequence[str]) -> None:
    """The photos' names beside their colours; what is drawn instead where they are too many."""
    page.y += 4
    if len(photos) > len(PALETTE):
        text = f"mean of {len(photos)} photos, and the range of the middle 80 % of them"
        page.text(text, 13, INK)
        return
    x = MARGIN
    for name, colour in zip(photos, PALETTE, strict=False):
        text = fit(name, 13, 300)
        width = 18 + width_of(text, 13) + GAP
        if x > MARGIN and x + width > page.width - MARGIN:
            x, page.y = MARGIN, page.y + 19
        page.paste(Image.new("RGB", (12, 12), colour), x, page.y + 3)
        page.at((x + 18, page.y), text, 13, INK)
        x += width
    page.y += 19


def _examples(page: Page, row: Row, top: int) -> int:
    """Each photo's pictures in a line; the height below them."""
    y = top
    for pictures in row.examples:
        for column, pixels in enumerate(pictures):
            page.paste(_thumbnail(pixels), MARGIN + column * (_CELL + _GUTTER), y)
        y += _CELL + _GUTTER
    for column, word in enumerate(row.words):
        centre = MARGIN + column * (_CELL + _GUTTER) + _CELL // 2
        page.at((centre, y + 2), word, _WORDS, MUTED, anchor="ma")
    return y + 20


def _thumbnail(pixels: NDArray[np.uint8]) -> Image.Image:
    """A picture in a square; its sides keep their ratio."""
    height, width = pixels.shape[:2]
    factor = _CELL / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    square = Image.new("RGB", (_CELL, _CELL), (255, 255, 255))
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how)
    square.paste(picture, ((_CELL - size[0]) // 2, (_CELL - size[1]) // 2))
    return square


def _charts(row: Row, layers: tuple[str, str]) -> list[Image.Image]:
    unit = row.unit
    wide = row.unit == "degrees" and max(row.values) - min(row.values) >= 180
    quarters = np.arange(np.ceil(min(row.values) / 90), np.floor(max(row.values) / 90) + 1) * 90
    ticks = [(float(at), f"{at:.0f}°") for at in quarters[:17]] if wide else None
    columns = (
        (row.early, f"distance at {_short(layers[0])}", (0.0, None)),
        (row.late, f"distance at {_short(layers[1])}", (0.0, None)),
        (row.probability, "probability of the class", (0.0, 1.02)),
    )
    return [
        line_chart(
            _series(curves, row.values),
            size=_CHART,
            title=title,
            x_label=unit,
            y_range=limits,
            x_ticks=ticks,
        )
        for curves, title, limits in columns
    ]


def _series(curves: Sequence[NDArray[Any]], values: Sequence[float]) -> list[Series]:
    """A curve a photo; of too many photos their mean with a band."""
    if len(curves) <= len(PALETTE):
        return [Series("", curve.tolist(), values) for curve in curves]
    every = np.stack(curves)
    low, high = np.quantile(every, [0.1, 0.9], axis=0)
    return [Series("", every.mean(0).tolist(), values, low.tolist(), high.tolist())]


def _short(name: str) -> str:
    return fit(name, 12, 170)
