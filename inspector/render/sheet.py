"""Several maps of one photo on one page: methods are columns, targets are rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from inspector.heatmap import Attribution, Heatmap
from inspector.photos.photo import Photo
from inspector.render.drawing.outline import outlined
from inspector.render.drawing.page import (
    GAP,
    MARGIN,
    MUTED,
    Page,
    fit,
    heading,
    message_box,
    number,
    width_of,
)
from inspector.render.drawing.panels import (
    Scale,
    bar_colours,
    overlay_panel,
    panel_size,
    photo_panel,
    scale_of,
)
from inspector.render.drawing.spaces import shown

__all__ = ["contact_sheet"]

_LOW, _HIGH = 224, 288  # bounds of a cell's longer side
_WIDE = 420  # of a signal's cell
_BAR = 10
_CAPTION = 13
_NOTE_LINES = 8

_Key = tuple[object, ...]


@dataclass
class _Table:
    """Maps by row (target) and column (method), in the order in which they came."""

    rows: dict[_Key, Attribution] = field(default_factory=dict)
    columns: dict[_Key, Attribution] = field(default_factory=dict)
    cells: dict[tuple[_Key, _Key], Heatmap] = field(default_factory=dict)

    def add(self, heatmap: Heatmap) -> None:
        """Give a map its place; a second one for the same place opens a column."""
        a = heatmap.attribution
        row: _Key = (a.tensor, a.index, a.label)
        options = tuple(sorted((key, str(value)) for key, value in a.options.items()))
        column: _Key = (a.method, a.layer, options)
        while (row, column) in self.cells:
            column = (*column, "again")
        self.rows.setdefault(row, a)
        self.columns.setdefault(column, a)
        self.cells[row, column] = heatmap


def contact_sheet(
    photo: Photo,
    heatmaps: Sequence[Heatmap],
    *,
    model: str = "",
    notes: Sequence[str] = (),
    reference: Photo | None = None,
) -> Image.Image:
    """Draw all maps of one photo on one page.

    Each map has its own colour scale, whose maximum stands below it.

    Args:
        photo: The upright photo.
        heatmaps: Maps of it, of any methods and targets.
        model: The model's file name.
        notes: Warnings besides those of the attributions; each is said once.
        reference: A photo that the photo is compared with, drawn above its maps.

    Returns:
        An RGB image.

    Raises:
        ValueError: There are no maps.
    """
    if not heatmaps:
        raise ValueError("a contact sheet needs a map")
    table = _Table()
    for heatmap in heatmaps:
        table.add(heatmap)
    some = shown(photo, heatmaps[0], _WIDE if photo.space == 1 else _HIGH)
    size = some.photo.size if some.drawn else panel_size(photo.size, _LOW, _HIGH)
    step = max(size[1], 150) + GAP
    page = Page(2 * MARGIN + (1 + len(table.columns)) * step - GAP)
    page.text(photo.name, 22)
    page.text(model, 14, MUTED)
    page.y += 8
    top = page.y
    for index, column in enumerate(table.columns.values()):
        _column_title(page, MARGIN + (index + 1) * step, top, column, step - GAP)
    page.y = top + 42
    if reference is not None:
        page.rule()
        page.y += 6
        page.text(fit(f"compared with {reference.name}", 14, page.inner), 14, MUTED)
        panel = photo_panel(reference, panel_size(reference.size, _LOW, _HIGH))
        page.paste(panel, MARGIN, page.y)
        page.y += panel.height + 12
    for row, target in table.rows.items():
        _row_title(page, target)
        top = page.y
        one = next(cell for (key, _), cell in table.cells.items() if key == row)
        drawn = shown(photo, one, size[1])
        plain = outlined(photo_panel(drawn.photo, size), drawn.heatmap)
        page.paste(drawn.marked(plain), MARGIN, top)
        for index, column_key in enumerate(table.columns):
            cell = table.cells.get((row, column_key))
            if cell is not None:
                _cell(page, (MARGIN + (index + 1) * step, top), photo, cell, size)
        page.y = top + size[0] + 44
    said = [
        note
        for heatmap in heatmaps
        for note in heatmap.notes
        if note != scale_of(heatmap).message  # which stands on the map itself
    ]
    page.notes(list(dict.fromkeys([*said, *notes])), most=_NOTE_LINES)
    return page.finish()


def _column_title(page: Page, x: int, y: int, column: Attribution, width: int) -> None:
    """Method and layer above a column."""
    page.at((x, y), fit(column.method, 16, width), 16)
    if column.layer:
        page.at((x, y + 22), fit(column.layer, 12, width), 12, MUTED)


def _row_title(page: Page, target: Attribution) -> None:
    """The target and its numbers above a row."""
    page.rule()
    page.y += 6
    name, figures = heading(target)
    row, shown = page.y, fit(name, 17, page.inner // 2)
    page.text(shown, 17)
    page.at((MARGIN + width_of(shown, 17) + GAP, row + 3), figures, 14, MUTED)
    page.y += 4


def _cell(
    page: Page, place: tuple[int, int], photo: Photo, heatmap: Heatmap, size: tuple[int, int]
) -> None:
    """One map, its colours lying below it, and its range."""
    x, y = place
    scale = scale_of(heatmap)
    drawn = shown(photo, heatmap, size[1])
    panel = overlay_panel(drawn.photo, drawn.heatmap, size, scale)
    panel = drawn.marked(outlined(panel, drawn.heatmap))
    page.paste(message_box(panel, scale.message, 13) if scale.message else panel, x, y)
    if scale.limit <= 0:
        return
    # The bar stands upright with its maximum on top; lying, zero is on the left.
    bar = bar_colours(size[1], _BAR, scale).transpose(Image.Transpose.ROTATE_270)
    page.paste(bar, x, y + size[0] + 4)
    below = y + size[0] + _BAR + 7
    left, right = _ends(scale)
    page.at((x, below), left, _CAPTION - 1, MUTED)
    page.at((x + size[1], below), right, _CAPTION - 1, MUTED, anchor="ra")


def _ends(scale: Scale) -> tuple[str, str]:
    """Numbers at the two ends of a colour bar."""
    low = number(-scale.limit) if scale.signed else "0"
    return low, ("> " if scale.clipped else "") + number(scale.limit)
