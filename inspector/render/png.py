"""The overlay figure of one map: photo, map on the photo, and what the numbers mean."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from inspector.heatmap import Heatmap
from inspector.photos.own_figures import MARK
from inspector.photos.photo import Photo
from inspector.render import File, Result, file_format
from inspector.render.drawing.outline import outlined
from inspector.render.drawing.page import (
    BAR_WIDTH,
    GAP,
    MARGIN,
    MUTED,
    Page,
    draw_bar,
    heading,
    message_box,
    subheading,
)
from inspector.render.drawing.panels import (
    overlay_panel,
    panel_size,
    photo_panel,
    projection_panel,
    scale_of,
)
from inspector.render.drawing.spaces import shown
from inspector.whole_file import write_whole

__all__ = ["dumps", "files", "overlay", "write"]

_BAR_ROOM = BAR_WIDTH + 84  # the bar and its numbers
_MIN_WIDTH = 640  # of the page, so that headings fit above narrow photos
_MIN_BAR = 60  # its three numbers need as much beside a flat photo
_CAPTION = 13


@file_format("png")
def files(result: Result) -> Iterator[File]:
    """Each picture of a result."""
    for name, draw in result.figures().items():
        yield File(f"{name}.png", partial(_drawn, draw))


def _drawn(draw: Callable[[], Image.Image]) -> bytes:
    return dumps(draw())


def dumps(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file, which says that it is a figure and not a photo."""
    buffer = io.BytesIO()
    mark = PngInfo()
    mark.add_text(*MARK)
    image.save(buffer, "PNG", compress_level=4, pnginfo=mark)
    return buffer.getvalue()


def overlay(
    photo: Photo,
    heatmap: Heatmap,
    *,
    model: str = "",
    notes: Sequence[str] = (),
    reference: Photo | None = None,
) -> Image.Image:
    """Draw the figure of one map.

    The photo, beside it the map over the greyed photo with a colour bar in the map's own unit,
    and for signed maps of the input the projection itself. What the network did not see is
    hatched. An empty map is said in words. Warnings stand below.

    Args:
        photo: The upright photo that the map lies on.
        heatmap: The map.
        model: The model's file name.
        notes: Warnings besides those of the attribution.
        reference: A photo that the photo is compared with, drawn beside it.

    Returns:
        An RGB image.
    """
    noted, scale = heatmap.notes, scale_of(heatmap)
    caption, name = _caption(heatmap), photo.name
    drawn = shown(photo, heatmap)
    photo, heatmap = drawn.photo, drawn.heatmap
    size = photo.size if drawn.drawn else panel_size(photo.size)
    over = drawn.marked(outlined(overlay_panel(photo, heatmap, size, scale), heatmap))
    if scale.message:
        over = message_box(over, scale.message)
    plain = drawn.marked(outlined(photo_panel(photo, size), heatmap))
    panels = [(plain, drawn.what)]
    if photo.space == 1:  # the map lies along the curve
        panels, caption = [], f"{drawn.what}; {caption}"
    if reference is not None:
        panels.append((_beside(reference, size), f"compared with {reference.name}"))
    panels.append((over, caption))
    mapped = len(panels) - 1
    projection = projection_panel(heatmap, size)
    if projection is not None:
        panels.append((projection, "the signed map, grey is zero"))
    room = _BAR_ROOM if scale.limit > 0 else 0
    width = len(panels) * (size[1] + GAP) - GAP + room + 2 * MARGIN
    page = Page(max(width, _MIN_WIDTH))
    _header(page, heatmap, model, name)
    top, x = page.y, MARGIN
    for index, (panel, caption) in enumerate(panels):
        page.paste(panel, x, top)
        page.y = top + size[0] + 6
        page.text(caption, _CAPTION, MUTED, x=x, width=size[1])
        x += size[1]
        if index == mapped and scale.limit > 0:
            draw_bar(page, (x + 8, top), max(size[0], _MIN_BAR), scale)
            x += room
        x += GAP
    page.y = top + max(size[0], _MIN_BAR) + 30
    said = dict.fromkeys([*noted, *notes])
    page.notes([note for note in said if note != scale.message])
    return page.finish()


def write(path: str | Path, image: Image.Image) -> Path:
    """Write a figure as PNG, whole or not at all.

    Raises:
        UsageError: The place cannot be written to.
    """
    return write_whole(path, dumps(image))


def _beside(photo: Photo, size: tuple[int, int]) -> Image.Image:
    """Another photo in the middle of a panel of this size, whole."""
    factor = min(want / have for want, have in zip(size, photo.size, strict=True))
    height, width = (max(1, round(have * factor)) for have in photo.size)
    panel = Image.new("RGB", (size[1], size[0]), (255, 255, 255))
    own = photo_panel(photo, (height, width))
    panel.paste(own, ((size[1] - width) // 2, (size[0] - height) // 2))
    return panel


def _header(page: Page, heatmap: Heatmap, model: str, photo: str) -> None:
    """Target, its numbers, and where the map comes from."""
    name, figures = heading(heatmap.attribution)
    page.text(name, 24)
    if figures:
        page.text(figures, 16)
    page.text(subheading(heatmap.attribution, model, photo), 14, MUTED)
    page.y += 10


def _caption(heatmap: Heatmap) -> str:
    """What the overlay shows."""
    attribution, words = heatmap.attribution, [heatmap.attribution.method]
    if attribution.space == "layer":
        grids = () if attribution.placement is None else attribution.own.shape[:-2]
        many = f"{grids[0]} maps of " if grids else ""
        sizes = attribution.own.shape[len(grids) :]
        cells = " x ".join(map(str, sizes)) if len(sizes) > 1 else f"a map of {sizes[0]} cells"
        words = [f"{many}{cells}" + ("" if grids or len(sizes) == 1 else " map")]
    elif attribution.projection is not None:
        words = [_REDUCED[attribution.reduction]]
    if not heatmap.seen.all():
        words.append("hatched: not seen by the network")
    return "; ".join(words)


_REDUCED = {
    "max_abs": "largest channel",
    "sum": "sum of channels",
    "mean_abs": "mean magnitude",
    "l2": "length over channels",
    "positive": "positive channels",
}
