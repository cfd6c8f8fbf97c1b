"""Parts hidden on photos, and how alike the changes are: pictures, bars and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inspector.render.drawing.chart import Series, bar_chart
from inspector.render.drawing.page import GAP, INK, MARGIN, MUTED, Page, fit
from inspector.render.drawing.panels import cell

__all__ = ["Line", "correspondence_sheet"]

_CELL = 128
_WIDTH = 1000
_CHART = 300
_MOST_PARTS = 4
_MOST_ROWS = 32
_COLUMNS = (
    ("layer", 0, "la"),
    ("part", 210, "la"),
    ("photos", 390, "ra"),
    ("Delta", 460, "ra"),
    ("random Delta", 590, "ra"),
    ("as low", 660, "ra"),
    ("p", 715, "ra"),
    ("p Holm", 785, "ra"),
    ("changed", 870, "ra"),
    ("opposite", 960, "ra"),
)
_Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Line:
    """One photo.

    Attributes:
        title: Its name.
        picture: (H, W, 3), as the network sees it.
        parts: The same with a part hidden, by the part's name.
        random: With random places hidden.
        cut: Parts that the network does not see whole.
    """

    title: str
    picture: _Pixels
    parts: Mapping[str, _Pixels]
    random: Sequence[_Pixels]
    cut: Sequence[str] = ()


def correspondence_sheet(
    lines: Sequence[Line],
    parts: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    hidden: int,
    title: str,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw the photos, then bars and a table of the parts at each layer.

    Args:
        lines: The photos that are shown.
        parts: Names of all parts; the first few are shown on the photos.
        rows: ``layer``, ``part``, ``delta`` and the others of the study's table.
        hidden: Photos that are not shown.
        title: Of the page.
        sentences: What is to be said, below the table.
        notes: Warnings, at the foot.

    Returns:
        An RGB image.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    page = Page(_WIDTH)
    page.text(title, 22)
    page.text(
        "Delta: mean share of features whose change has another sign in another photo; "
        "lower is more alike",
        13,
        MUTED,
    )
    page.y += 8
    _photos(page, lines, parts[:_MOST_PARTS])
    if hidden:
        page.text(f"and {hidden} more photo(s)", 12, MUTED)
    page.y += 8
    page.rule()
    page.y += 8
    _bars(page, parts, rows)
    _table(page, rows)
    page.y += 8
    page.paragraphs(sentences)
    page.y += 6
    page.notes(notes)
    return page.finish()


def _photos(page: Page, lines: Sequence[Line], parts: Sequence[str]) -> None:
    """A column a photo; a row each for itself, with each part hidden, with two random places."""
    step = _CELL + GAP // 2
    for at, line in enumerate(lines):
        page.at((MARGIN + at * step, page.y), fit(line.title, 12, _CELL), 12, MUTED)
    page.y += 18
    _row(page, [line.picture for line in lines])
    for part in parts:
        page.text(f"without {part}", 13, INK)
        words = ["cut off" if part in line.cut else "not marked" for line in lines]
        _row(page, [line.parts.get(part) for line in lines], words)
    for at in range(max((len(line.random) for line in lines), default=0)):
        page.text("without a random place", 13, INK)
        _row(page, [line.random[at] if at < len(line.random) else None for line in lines])


def _row(page: Page, pictures: Sequence[_Pixels | None], words: Sequence[str] = ()) -> None:
    """Pictures beside one another, words in the place of those that there are not."""
    step = _CELL + GAP // 2
    for at, pixels in enumerate(pictures):
        x = MARGIN + at * step
        if pixels is not None:
            page.paste(cell(pixels, _CELL), x, page.y)
        elif words:
            middle = x + _CELL // 2, page.y + _CELL // 2
            page.at(middle, words[at], 12, MUTED, anchor="mm")
    page.y += _CELL + 6


def _bars(page: Page, parts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A chart a layer, two beside each other."""
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    width = page.inner // min(2, len(layers))
    for at, layer in enumerate(layers[:8]):
        if at and at % 2 == 0:
            page.y += _CHART
        mine = {row["part"]: row for row in rows if row["layer"] == layer}
        shown = [mine[part] for part in parts if part in mine]
        own = [row["delta"] for row in shown]
        random = [row["random_delta"] for row in shown]
        # NaN draws no whisker: a single pair or draw has no deviation.
        spread = [_or_nan(row["delta_deviation_over_pairs"]) for row in shown]
        chance = [_or_nan(row["random_delta_deviation"]) for row in shown]
        chart = bar_chart(
            [
                _series("the part (± over pairs)", own, spread),
                _series("random places (± over draws)", random, chance),
            ],
            [fit(row["part"], 12, 110) for row in shown],
            size=(_CHART, width),
            title=fit(layer, 14, width - 80),
            y_label="Delta",
            y_range=(0, 1.35 * _highest([*own, *random], [*spread, *chance])),
        )
        page.paste(chart, MARGIN + (at % 2) * width, page.y)
    page.y += _CHART + 8


def _series(name: str, values: Sequence[float], spread: Sequence[float]) -> Series:
    low = [a - b for a, b in zip(values, spread, strict=True)]
    high = [a + b for a, b in zip(values, spread, strict=True)]
    return Series(name, values, low=low, high=high)


def _highest(values: Sequence[float], spread: Sequence[float]) -> float:
    """Where the highest bar or whisker ends; 1 where there is none."""
    return float(np.max(np.add(values, np.nan_to_num(spread)), initial=0)) or 1.0


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _table(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    top = page.y
    for word, x, anchor in _COLUMNS:
        page.at((MARGIN + x, top), word, 11, MUTED, anchor=anchor)
    page.y = top + 18
    page.rule()
    for row in rows[:_MOST_ROWS]:
        page.y += 4
        for text, (word, x, anchor) in zip(_cells(row), _COLUMNS, strict=True):
            shown = fit(text, 12, {"layer": 200, "part": 130}.get(word, 150))
            page.at((MARGIN + x, page.y), shown, 12, INK, anchor=anchor)
        page.y += 16
    if len(rows) > _MOST_ROWS:
        page.text(f"and {len(rows) - _MOST_ROWS} more in the table", 12, MUTED)
    page.y += 4
    page.text(
        "changed: features that hiding changes at all; opposite: of those that change in "
        "both photos of a pair, with opposite signs; part / random",
        11,
        MUTED,
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    spread = row["random_delta_deviation"]
    return [
        row["layer"],
        row["part"],
        str(row["photos"]),
        f"{row['delta']:.3f}",
        f"{row['random_delta']:.3f}" + ("" if spread is None else f" ± {spread:.3f}"),
        f"{row['random_as_low']:.1%}",
        f"{row['p']:.3f}",
        f"{row['p_holm']:.3f}",
        f"{row['changed']:.0%} / {row['random_changed']:.0%}",
        f"{_share(row['opposite'])} / {_share(row['random_opposite'])}",
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
