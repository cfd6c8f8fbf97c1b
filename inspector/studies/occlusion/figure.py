"""A grey square over photos on one page: five panels a photo, as figure 7 of Zeiler & Fergus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inspector.render.drawing.colormap import apply_sequential
from inspector.render.drawing.page import (
    BAR_WIDTH,
    GAP,
    MARGIN,
    MUTED,
    Page,
    fit,
    message_box,
    number,
)
from inspector.render.drawing.panels import cell, signed_cell

__all__ = ["Row", "occlusion_sheet"]

_SIDE = 208
_BAR = 86  # colour bar with its numbers, beside panels b and d
_MOST_LABELS = 8
_COLOURS = (
    (64, 83, 211),
    (221, 179, 16),
    (181, 29, 20),
    (0, 190, 255),
    (251, 73, 176),
    (0, 178, 93),
    (148, 92, 40),
    (120, 70, 160),
)
"""Colours of labels, which can be told apart with any colour vision."""
_OTHER = (196, 196, 200)
_LETTERS = (
    "(a) image and square",
    "(b) total activation",
    "(c) projection",
    "(d) probability",
    "(e) most probable label",
)


@dataclass(frozen=True, eq=False)
class Row:
    """A photo.

    Attributes:
        title: Its name.
        target: Name of the class.
        unit: The feature map.
        picture: (H, W, 3) pixels of 0..255, the square on it.
        totals: (h, w) total activation by position.
        total: The same without the square.
        signal: (C, H, W) signed, in red, green, blue; None where there is no projection.
        signal_of: The activation that is projected.
        probabilities: (h, w) of the class by position.
        probability: The same without the square.
        labels: (h, w) index of the most probable label by position.
        label: The same without the square.
        names: Of the labels, by index.
        rows: (h,) centres of the square in pixels, down the picture.
        columns: (w,) likewise, across it.
    """

    title: str
    target: str
    unit: int
    picture: NDArray[Any]
    totals: NDArray[Any]
    total: float
    signal: NDArray[Any] | None
    signal_of: str
    probabilities: NDArray[Any]
    probability: float
    labels: NDArray[Any]
    label: int
    names: Mapping[int, str]
    rows: NDArray[Any]
    columns: NDArray[Any]


def occlusion_sheet(
    rows: Sequence[Row],
    *,
    title: str,
    subtitle: str,
    sentences: Sequence[str],
    notes: Sequence[str] = (),
    hidden: int = 0,
    why: str = "",
) -> Image.Image:
    """Draw photos one below the other.

    Args:
        rows: The photos.
        title: Of the page.
        subtitle: In small type below it.
        sentences: What is to be said, below the pictures.
        notes: Warnings, at the foot.
        hidden: Photos that are in the numbers alone.
        why: Why there is no projection.

    Returns:
        An RGB image.
    """
    widths = [_SIDE, _SIDE + _BAR, _SIDE, _SIDE + _BAR, _SIDE]
    page = Page(2 * MARGIN + sum(widths) + GAP * (len(widths) - 1))
    lefts = [MARGIN + sum(widths[:i]) + GAP * i for i in range(len(widths))]
    page.text(fit(title, 22, page.inner), 22)
    page.text(fit(subtitle, 13, page.inner), 13, MUTED)
    legend = (
        "b, d, e: each cell is a position of the square's centre, its value the network's with the "
        "square there; low = what is hidden matters. Line on a bar: the value without the square. "
        "The square in a stands where d is lowest."
    )
    page.paragraphs([legend], 12, MUTED)
    for row in rows:
        page.y += 6
        page.rule()
        page.y += 5
        page.text(fit(f"{row.title}: {row.target}", 15, page.inner), 15)
        _draw(page, row, lefts, why)
    page.y += 4
    over = [f"{hidden} more photos are in the numbers alone"] if hidden > 0 else []
    page.paragraphs((*sentences, *over))
    page.y += 6
    page.notes(notes)
    return page.finish()


def _draw(page: Page, row: Row, lefts: Sequence[int], why: str) -> None:
    """The five panels, what they are above them and their legends below."""
    for x, letter in zip(lefts, _LETTERS, strict=True):
        page.at((x, page.y + 2), letter, 13)
    top = page.y + 24
    height, width = row.picture.shape[:2]
    size = (
        max(1, round(_SIDE * height / max(height, width))),
        max(1, round(_SIDE * width / max(height, width))),
    )
    _caption(page, lefts[0], top + size[0], ["without the square:", row.names[row.label]])
    page.paste(_upright(row.picture, size), lefts[0], top)
    ceiling = max(float(row.totals.max()), row.total)
    _map(
        page,
        (lefts[1], top),
        _laid_out(row, row.totals),
        size,
        ends=(min(0.0, float(row.totals.min())), ceiling),
        mark=row.total,
    )
    lines = [f"of feature map {row.unit}", f"without the square: {number(row.total)}"]
    _caption(page, lefts[1], top + size[0], lines)
    page.paste(_projection(row, size, why), lefts[2], top)
    if row.signal is not None:
        _caption(
            page,
            lefts[2],
            top + size[0],
            [f"of feature map {row.unit}, its strongest", row.signal_of],
        )
    _map(
        page,
        (lefts[3], top),
        _laid_out(row, row.probabilities),
        size,
        ends=(0.0, 1.0),
        mark=row.probability,
    )
    _caption(
        page,
        lefts[3],
        top + size[0],
        [f"of {row.target}", f"without the square: {number(row.probability)}"],
    )
    below = _labels(page, row, (lefts[4], top), size)
    page.y = max(below, top + size[0] + 42)


def _caption(page: Page, x: int, y: int, lines: Sequence[str]) -> None:
    for place, line in enumerate(lines):
        page.at((x, y + 4 + 16 * place), fit(line, 12, _SIDE), 12, MUTED)


def _laid_out(row: Row, values: NDArray[Any]) -> NDArray[Any]:
    """Values by position (h, w) on the picture's pixels: each has that of the nearest centre."""
    found = []
    for centres, length in zip((row.rows, row.columns), row.picture.shape[:2], strict=True):
        pixels = np.arange(length) + 0.5
        found.append(np.abs(pixels[:, None] - np.asarray(centres)[None]).argmin(1))
    return np.asarray(values)[np.ix_(*found)]


def _upright(pixels: NDArray[Any], size: tuple[int, int], *, flat: bool = False) -> Image.Image:
    """Pixels (H, W, 3) at a size; enlarged ones, and ``flat`` colours, are not mixed."""
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    grows = flat or size[0] > pixels.shape[0]
    how = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return image.resize(size[::-1], how)


def _map(
    page: Page,
    place: tuple[int, int],
    values: NDArray[Any],
    size: tuple[int, int],
    *,
    ends: tuple[float, float],
    mark: float,
) -> None:
    """Values by position as cells, beside them a colour bar with the unoccluded value marked."""
    low, high = ends
    span = (high - low) or 1.0
    share = (np.asarray(values, np.float64) - low) / span
    page.paste(_upright(apply_sequential(share), size, flat=True), *place)
    x, y = place[0] + size[1] + 8, place[1]
    ramp = np.repeat(np.linspace(1, 0, size[0])[:, None], BAR_WIDTH, axis=1)
    colours = np.array(apply_sequential(ramp))
    at = round((1 - (mark - low) / span) * (size[0] - 1))
    at = min(max(at, 1), size[0] - 2)
    colours[at - 1 : at + 2] = 255
    colours[at] = 0
    page.paste(Image.fromarray(colours.astype(np.uint8)), x, y)
    beside = x + BAR_WIDTH + 4
    page.at((beside, y + 7), number(high), 12, anchor="lm")
    page.at((beside, y + size[0] - 7), number(low), 12, anchor="lm")
    if 22 < at < size[0] - 22:
        page.at((beside, y + at), number(mark), 12, anchor="lm")


def _projection(row: Row, size: tuple[int, int], why: str) -> Image.Image:
    if row.signal is None:
        blank = Image.new("RGB", size[::-1], (232, 232, 236))
        return message_box(blank, f"no projection: {why}", 12)
    square = signed_cell(row.signal, _SIDE)
    left, top = (_SIDE - size[1]) // 2, (_SIDE - size[0]) // 2
    return square.crop((left, top, left + size[1], top + size[0]))


def _labels(page: Page, row: Row, place: tuple[int, int], size: tuple[int, int]) -> int:
    """The most probable label of each position in its colour; the legend stands below.

    Returns:
        Where the legend ends.
    """
    found, counts = np.unique(row.labels, return_counts=True)
    order = [int(found[i]) for i in np.argsort(-counts, kind="stable")]
    order.sort(key=lambda label: label != row.label)  # the unoccluded one first
    named = order if len(order) <= _MOST_LABELS else order[: _MOST_LABELS - 1]
    colours = dict(zip(named, _COLOURS, strict=False))
    laid = _laid_out(row, row.labels)
    pixels = np.array([[colours.get(int(label), _OTHER) for label in line] for line in laid])
    page.paste(_upright(pixels, size, flat=True), *place)
    share = dict(zip(found.tolist(), (counts / row.labels.size).tolist(), strict=True))
    entries = [(colours[one], row.names[one], share[one]) for one in named]
    if len(order) > len(named):
        rest = 1 - sum(share[one] for one in named)
        entries.append((_OTHER, f"{len(order) - len(named)} others", rest))
    y = place[1] + size[0] + 4
    for colour, name, part in entries:
        page.paste(cell(np.full((1, 1, 3), colour, np.uint8), 11), place[0], y + 2)
        percent = "< 1 %" if part < 0.005 else f"{part:.0%}"
        text = f"{fit(name, 12, _SIDE - 66)}  {percent}"
        page.at((place[0] + 17, y), text, 12)
        y += 17
    return y + 4
