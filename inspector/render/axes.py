"""Maps on axes of Matplotlib, for figures that a caller puts together."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from inspector.errors import require
from inspector.heatmap import Heatmap
from inspector.photos.photo import Photo
from inspector.render.drawing.outline import outlined
from inspector.render.drawing.panels import WIDENED, overlay_panel, panel_size, scale_of, widens
from inspector.render.drawing.spaces import shown

__all__ = ["draw_on", "figure_of"]

_INCHES = 3.2
"""Side of a map in a figure."""


def draw_on(axes: Any, photo: Photo, heatmap: Heatmap) -> Any:
    """Draw a map over its photo, with the method, the target and its probability above.

    Args:
        axes: Axes of Matplotlib.
        photo: The upright photo.
        heatmap: The map on it.

    Returns:
        The axes, in pixels of the photo.
    """
    scale = scale_of(heatmap)
    source = heatmap.attribution
    drawn = shown(photo, heatmap)
    size = drawn.photo.size if drawn.drawn else panel_size(drawn.photo.size)
    panel = drawn.marked(
        outlined(overlay_panel(drawn.photo, drawn.heatmap, size, scale), drawn.heatmap)
    )
    height, width = drawn.photo.size
    axes.imshow(np.asarray(panel), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    chance = "" if source.probability is None else f" ({source.probability:.1%})"
    words = scale.message or (WIDENED if widens(drawn.heatmap, size) else "")
    said = f"\n{words}" if words else ""
    axes.set_title(f"{source.method}: {source.label}{chance}{said}", parse_math=False)
    axes.set_axis_off()
    return axes


def figure_of(rows: Sequence[Sequence[tuple[Photo, Heatmap]]]) -> Any:
    """A figure of Matplotlib with maps side by side.

    Args:
        rows: Photos and maps, row by row.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    require("matplotlib.figure", "drawing on axes", "studies")
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    figure = Figure(figsize=(columns * _INCHES, len(rows) * _INCHES), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        for place, one in enumerate(axes):
            if place < len(row):
                draw_on(one, *row[place])
            else:
                one.set_axis_off()
    return figure
