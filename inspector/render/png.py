"""The overlay figure of one map: photo, map on the photo, and what the numbers mean."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from inspector.heatmap import LEAST_UNCOVERED, Attribution, Heatmap
from inspector.photos.own_figures import MARK
from inspector.photos.photo import Photo
from inspector.printable import percent
from inspector.render import File, Result, file_format
from inspector.render.drawing.display import PLAIN, Display
from inspector.render.drawing.outline import outlined
from inspector.render.drawing.page import (
    BAR_WIDTH,
    GAP,
    MARGIN,
    MUTED,
    Page,
    bar_width,
    draw_bar,
    heading,
    illegible,
    line_height,
    message_box,
    message_fits,
    subheading,
    width_of,
    wrap,
)
from inspector.render.drawing.panels import (
    WIDENED,
    Scale,
    bare_panel,
    overlay_panel,
    panel_size,
    photo_panel,
    projection_panel,
    scale_of,
    widens,
)
from inspector.render.drawing.spaces import Shown, shown
from inspector.whole_file import write_whole

__all__ = ["bar_title", "dumps", "files", "overlay", "write"]

_BAR_ROOM = 7  # letters' sizes that a bar's numbers and its title take beside it
_MIN_WIDTH = 640  # of the page, so that headings fit above narrow photos
_MIN_COLUMN = 220  # so that captions fit below narrow photos
_MIN_BAR = 190  # its numbers and its title need as much beside a flat photo
_FLAT = 3  # a photo so many times wider than high is drawn above its map, and not beside it
_SLIDE = 850  # pixels of a page's width up to which type keeps its size
_BAR_TYPE = 14
_TYPE = (26, 18, 15, 15)
"""Sizes of the target's name, of its numbers, of what it comes from, and of captions."""


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
    # More effort makes a figure a sixth smaller and takes twice the time.
    image.save(buffer, "PNG", compress_level=1, compress_type=_RUNS, pnginfo=mark)
    return buffer.getvalue()


_RUNS = 3
"""zlib's Z_RLE."""


def overlay(
    photo: Photo,
    heatmap: Heatmap,
    *,
    model: str = "",
    notes: Sequence[str] = (),
    reference: Photo | None = None,
    display: Display = PLAIN,
) -> Image.Image:
    """Draw the figure of one map.

    The photo, beside it the map over the greyed photo with a colour bar in the map's own unit,
    and for signed maps of the input the projection itself. What the network did not see is
    dimmed, outside of a frame. An empty map is said in words. Warnings stand below.

    Args:
        photo: The upright photo that the map lies on.
        heatmap: The map.
        model: The model's file name.
        notes: Warnings besides those of the attribution.
        reference: A photo that the photo is compared with, drawn beside it.
        display: How maps are drawn, where something is asked for.

    Returns:
        An RGB image.
    """
    noted, scale = heatmap.notes, scale_of(heatmap)
    caption, name = _caption(heatmap), photo.name
    title = bar_title(heatmap.attribution)
    drawn = shown(photo, heatmap)
    photo, heatmap = drawn.photo, drawn.heatmap
    if display.raw:
        return bare_panel(heatmap, photo.size, scale, display)
    size = photo.size if drawn.drawn else panel_size(photo.size)
    panels, mapped = _panels(drawn, size, scale, caption, reference, display=display)
    below = size[1] >= _FLAT * size[0] and size[1] > _MIN_WIDTH
    step = max(size[1], _MIN_COLUMN) + GAP
    width = (size[1] if below else len(panels) * step - GAP) + 2 * MARGIN
    larger = max(1.0, width / _SLIDE)
    type_sizes = [round(one * larger) for one in _TYPE]
    room = 0
    if scale.limit > 0:
        room = BAR_WIDTH + round(_BAR_ROOM * _BAR_TYPE * larger)
        room = max(room, bar_width(scale, round(_BAR_TYPE * larger)) - MARGIN // 2)
    page = Page(max(width + room, _MIN_WIDTH))
    _header(page, heatmap, model, name, type_sizes)
    top, x, caption_size = page.y, MARGIN, type_sizes[-1]
    bottom = top
    for index, (panel, text) in enumerate(panels):
        page.paste(panel, x, top)
        page.y = top + size[0] + 6
        lines = wrap(text, caption_size, size[1] if below else step - GAP, lines=2)
        bar_type = round(_BAR_TYPE * larger)
        if index == mapped and scale.clipped:
            page.y += _below_number(lines, caption_size, size[1], bar_type)
        for line in lines:
            page.text(line, caption_size, MUTED, x=x)
        bottom = max(bottom, page.y)
        right = x + size[1]
        if index == mapped and scale.limit > 0:
            bar = max(size[0], _MIN_BAR)
            draw_bar(page, (right + 8, top), bar, scale, bar_type, title=title, display=display)
            bottom = max(bottom, top + bar + 2 * bar_type * scale.clipped)
        if below:
            top = bottom + 8
        else:
            x += max(step, size[1] + room + GAP) if index == mapped else step
    page.y = bottom + 10
    said = list(dict.fromkeys([*noted, illegible(heatmap.attribution), *notes]))
    said = [note for note in said if note and note != scale.message]
    if scale.message and not message_fits(size, scale.message):
        said.insert(0, scale.message)
    page.notes(said, type_sizes[-1] - 2)
    return page.finish()


def _panels(
    drawn: Shown,
    size: tuple[int, int],
    scale: Scale,
    caption: str,
    reference: Photo | None,
    *,
    display: Display,
) -> tuple[list[tuple[Image.Image, str]], int]:
    """Panels from left to right with what stands below each, and which of them has the map."""
    photo, heatmap = drawn.photo, drawn.heatmap
    over = drawn.marked(outlined(overlay_panel(photo, heatmap, size, scale, display), heatmap))
    if scale.message:
        over = message_box(over, scale.message)
    plain = drawn.marked(outlined(photo_panel(photo, size), heatmap))
    panels = [(plain, drawn.what)]
    if photo.space == 1:  # the map lies along the curve
        panels, caption = [], f"{drawn.what}; {caption}"
    if reference is not None:
        panels.append((_beside(reference, size), f"compared with {reference.name}"))
    if widens(heatmap, size) and scale.limit > 0:
        caption = "; ".join(filter(None, [caption, WIDENED]))
    panels.append((over, caption))
    mapped = len(panels) - 1
    projection = projection_panel(heatmap, size)
    if projection is not None:
        panels.append((projection, "the signed map, grey is zero"))
    return panels, mapped


def _below_number(lines: Sequence[str], size: int, width: int, bar_type: int) -> int:
    """Pixels that a caption moves down where it would lie on the number below the bar beside it."""
    return line_height(bar_type) if any(width_of(line, size) > width for line in lines) else 0


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


def _header(page: Page, heatmap: Heatmap, model: str, photo: str, sizes: Sequence[int]) -> None:
    """Target, its numbers, and where the map comes from."""
    name, figures = heading(heatmap.attribution)
    for line in wrap(name, sizes[0], page.inner, lines=2):
        page.text(line, sizes[0])
    if figures:
        page.text(figures, sizes[1])
    for line in wrap(subheading(heatmap.attribution, model, photo), sizes[2], page.inner, lines=2):
        page.text(line, sizes[2], MUTED)
    page.y += 10


def bar_title(attribution: Attribution) -> str:
    """What the numbers on a colour bar are, and how probable the target is."""
    words = [attribution.unit or attribution.method]
    if attribution.probability is not None:
        words.append(f"p = {attribution.probability:.2g}")
    return " · ".join(words)


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
    seen = heatmap.geometry.seen_share
    if seen < 1 and attribution.lattice is None:
        words.append(f"the network sees {percent(seen)}, in the frame")
    if heatmap.uncovered >= LEAST_UNCOVERED:
        words.append(f"the map covers {percent(float(heatmap.seen.mean()))}")
    return "; ".join(words)


_REDUCED = {
    "max_abs": "largest channel",
    "sum": "sum of channels",
    "mean_abs": "mean magnitude",
    "l2": "length over channels",
    "positive": "positive channels",
}
