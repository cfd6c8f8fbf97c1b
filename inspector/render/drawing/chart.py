"""Curves and bars as panels for a figure, in the look of the other pictures.

Matplotlib draws them, without its global state: it is an extra (``studies``) and imported here
alone, late.
"""

import contextlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from inspector.errors import require
from inspector.printable import clean_text
from inspector.render.drawing.fonts import set_in_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PALETTE", "Series", "bar_chart", "line_chart", "require_matplotlib"]

PALETTE = ("#4053d3", "#ddb310", "#b51d14", "#00beff", "#fb49b0", "#00b25d", "#8a8a94")
"""Colours that can be told apart with any colour vision; used in this order."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Shapes of the points of curves, so that they can be told apart in a grey print too."""

_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
"""Patterns of bars, for the same."""

_INK, _MUTED, _BASELINE = "#18181c", "#68686f", "#a9a9b2"
_DPI = 100


@dataclass(frozen=True, eq=False)
class Series:
    """One curve, or the bars of one colour.

    Attributes:
        name: For the legend; none is drawn for an empty one.
        y: (P,) values; NaN leaves a gap.
        x: (P,) places of a curve; not used for bars.
        low: (P,) lower ends of intervals.
        high: (P,) upper ends.
        dashed: Draw a broken line (a baseline, for example).
    """

    name: str
    y: Sequence[float]
    x: Sequence[float] = ()
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    size: tuple[int, int],
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    y_range: tuple[float | None, float | None] = (None, None),
    x_ticks: Sequence[tuple[float, str]] | None = None,
    x_log: bool = False,
) -> Image.Image:
    """Draw curves.

    Args:
        series: The curves; an interval is drawn as a band.
        size: Height and width in pixels.
        title: Above the chart.
        x_label: Below it.
        y_label: Beside it.
        y_range: Ends of the y axis; None leaves one to the values.
        x_ticks: Places and words on the x axis; chosen by the values when None.
        x_log: Whether the x axis is logarithmic.

    Returns:
        An RGB image of that size.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    figure, axes = _axes(size, title, x_label, y_label)
    for place, one in enumerate(series):
        colour = PALETTE[place % len(PALETTE)]
        axes.plot(
            one.x,
            one.y,
            color=colour,
            label=one.name,
            linewidth=1.6,
            linestyle="--" if one.dashed else "-",
            marker="" if one.dashed else _MARKERS[place % len(_MARKERS)],
            markersize=4.5,
        )
        if one.low is not None and one.high is not None:
            axes.fill_between(one.x, one.low, one.high, color=colour, alpha=0.15, linewidth=0)
    if x_log:
        axes.set_xscale("log")
    if x_ticks is not None:
        axes.set_xticks([at for at, _ in x_ticks], [_plain(word) for _, word in x_ticks])
        axes.minorticks_off()
    return _finished(figure, axes, series, y_range)


def bar_chart(
    series: Sequence[Series],
    groups: Sequence[str],
    *,
    size: tuple[int, int],
    title: str = "",
    y_label: str = "",
    y_range: tuple[float | None, float | None] = (None, None),
    baselines: Collection[int] = (),
) -> Image.Image:
    """Draw bars in groups; each series has one bar in each group.

    Args:
        series: One colour each; an interval is drawn as a whisker.
        groups: (P,) words below the groups.
        size: Height and width in pixels.
        title: Above the chart.
        y_label: Beside it.
        y_range: Ends of the y axis; None leaves one to the values.
        baselines: Groups that the others are compared with, whose bars are grey and hatched.

    Returns:
        An RGB image of that size.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    figure, axes = _axes(size, title, "", y_label)
    places, width = np.arange(len(groups), dtype=float), 0.8 / max(len(series), 1)
    for place, one in enumerate(series):
        at = places + (place - (len(series) - 1) / 2) * width
        bars = axes.bar(
            at,
            one.y,
            width * 0.92,
            color=PALETTE[place % len(PALETTE)],
            hatch=_HATCHES[place % len(_HATCHES)],
            edgecolor="white",
            linewidth=0,
            label=one.name,
        )
        for group in baselines:
            bars[group].set(facecolor=_BASELINE, hatch="///")
        if one.low is not None and one.high is not None:
            y = np.asarray(one.y, float)
            ends = np.stack([y - np.asarray(one.low, float), np.asarray(one.high, float) - y])
            axes.errorbar(
                at, y, yerr=np.clip(ends, 0, None), fmt="none", ecolor=_INK, elinewidth=1, capsize=2
            )
    if any(value < 0 for one in series for value in one.y):  # bars of nothing stand on it too
        axes.axhline(0, color=_INK, linewidth=0.8)
    crowded = sum(map(len, groups)) * 7 > size[1] - 90
    axes.set_xticks(
        places,
        [_plain(word) for word in groups],
        rotation=30 if crowded else 0,
        ha="right" if crowded else "center",
    )
    return _finished(figure, axes, series, y_range)


def require_matplotlib() -> None:
    """Refuse to go on where Matplotlib is not installed.

    Raises:
        MissingExtra: It is not.
    """
    require("matplotlib.figure", "drawing curves", "studies")


def _axes(size: tuple[int, int], title: str, x_label: str, y_label: str) -> "tuple[Figure, Axes]":
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure((size[1] / _DPI, size[0] / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_plain(title), fontsize=10, color=_INK, loc="left")
    axes.set_xlabel(_plain(x_label), fontsize=9, color=_MUTED)
    axes.set_ylabel(_plain(y_label), fontsize=9, color=_MUTED)
    axes.tick_params(labelsize=8, colors=_MUTED)
    axes.grid(visible=True, axis="y", color="#e4e4e8", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _finished(
    figure: "Figure",
    axes: "Axes",
    series: Sequence[Series],
    y_range: tuple[float | None, float | None],
) -> Image.Image:
    axes.set_ylim(bottom=y_range[0], top=y_range[1])
    if any(one.name for one in series):
        handles, names = axes.get_legend_handles_labels()
        axes.legend(handles, [_plain(name) for name in names], fontsize=8, frameon=False)
    _set_fonts(figure, axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    with Image.open(buffer) as image:
        return image.convert("RGB")


def _plain(text: Any) -> str:
    """Printable text in which a dollar sign does not begin a formula."""
    return set_in_fonts(clean_text(str(text), limit=None))[0].replace("$", r"\$")


def _set_fonts(figure: "Figure", axes: "Axes") -> None:
    """Give text the fonts of the system that it needs besides Matplotlib's own."""
    from matplotlib.font_manager import fontManager, get_font
    from matplotlib.text import Text

    axes.get_xticklabels()  # which are empty until somebody asks
    for text in figure.findobj(Text):
        _, paths = set_in_fonts(text.get_text())
        if paths:
            families = list(text.get_fontfamily())
            for path in paths:
                with contextlib.suppress(OSError, RuntimeError, NotImplementedError, ValueError):
                    family = get_font(path).family_name
                    if path not in {one.fname for one in fontManager.ttflist}:
                        fontManager.addfont(path)
                    families.append(family)
            text.set_fontfamily(families)
