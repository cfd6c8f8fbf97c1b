"""Figures as SVG and PDF: text stays text, the panels are pictures in it.

Matplotlib writes both, without its global state; it is imported here when a file is written.
"""

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from inspector.photos.own_figures import MARK
from inspector.render import File, Result, file_format
from inspector.render.drawing.page import MARKS, Mark

__all__ = ["dumps", "pdf_files", "svg_files"]

_DPI = 100


@file_format("svg")
def svg_files(result: Result) -> Iterator[File]:
    """Each picture of a result as SVG."""
    yield from _files(result, "svg")


@file_format("pdf")
def pdf_files(result: Result) -> Iterator[File]:
    """Each picture of a result as PDF."""
    yield from _files(result, "pdf")


def _files(result: Result, kind: str) -> Iterator[File]:
    for name, draw in result.figures().items():
        yield File(f"{name}.{kind}", partial(_drawn, draw, kind))


def _drawn(draw: Callable[[], Image.Image], kind: str) -> bytes:
    return dumps(draw(), kind)


def dumps(image: Image.Image, kind: str) -> bytes:
    """A page as the bytes of an SVG or PDF file; the same bytes each time.

    Args:
        image: A page, which knows what it is put together from; any other picture is taken whole.
        kind: "svg" or "pdf".
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.lines import Line2D

    width, height = image.size
    figure = Figure((width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    marks: tuple[Mark, ...] = image.info.get(MARKS, (Mark(0, 0, image),))
    for mark in marks:
        red, green, blue = (part / 255 for part in mark.colour)
        colour = (red, green, blue)
        if mark.panel is not None:
            left, low = mark.x / width, 1 - (mark.y + mark.panel.height) / height
            wide, high = mark.panel.width / width, mark.panel.height / height
            axes = figure.add_axes((left, low, wide, high))
            axes.imshow(np.asarray(mark.panel), interpolation="none", aspect="auto")
            axes.set_axis_off()
        for piece in mark.pieces:
            face = FontProperties(fname=piece.path or None, size=mark.size * 72 / _DPI)
            place = piece.x / width, 1 - piece.y / height
            figure.text(
                *place,
                piece.text,
                color=colour,
                fontproperties=face,
                va="baseline",
                parse_math=False,
            )
        if mark.width:
            ends, level = (mark.x / width, (mark.x + mark.width) / width), 1 - mark.y / height
            figure.add_artist(Line2D(ends, (level, level), color=colour, linewidth=0.8))
    buffer = io.BytesIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": MARK[1], "pdf.fonttype": 42}
    known = {"Date": None} if kind == "svg" else {"CreationDate": None}
    with mpl.rc_context(settings):
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata={"Creator": MARK[1], **known})
    return buffer.getvalue()
