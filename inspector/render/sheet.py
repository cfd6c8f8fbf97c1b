"""Several maps of one photo on one page: methods are columns, targets are rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from inspector.heatmap import Attribution, Heatmap
from inspector.photos.photo import Photo
from inspector.render.drawing.display import PLAIN, Display
from inspector.render.drawing.outline import outlined
from inspector.render.drawing.page import (
    GAP,
    MARGIN,
    MUTED,
    Page,
    heading,
    illegible,
    line_height,
    message_box,
    message_fits,
    number,
    width_of,
    wrap,
)
from inspector.render.drawing.panels import (
    WIDENED,
    Scale,
    bar_colours,
    common_scale,
    overlay_panel,
    panel_size,
    photo_panel,
    scale_of,
)
from inspector.render.drawing.spaces import shown

__all__ = ["contact_sheet"]

_LOW, _HIGH = 224, 288  # bounds of a cell's longer side
_WIDE = 420  # of the cell of a signal, and of a photo with a long side
_FLAT = 3
_LEAST = 170  # of a cell's width, for the texts above and below
_BAR = 10
_NOTE_LINES = 8
_SLIDE = 1100  # pixels of a page's width up to which type keeps its size
_TYPE = {"title": 24, "row": 19, "column": 18, "small": 15, "number": 14}

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
    display: Display = PLAIN,
) -> Image.Image:
    """Draw all maps of one photo on one page.

    Maps of one method in a row share a colour scale, others have their own, which is said; its
    ends stand below each map.

    Args:
        photo: The upright photo.
        heatmaps: Maps of it, of any methods and targets.
        model: The model's file name.
        notes: Warnings besides those of the attributions; each is said once.
        reference: A photo that the photo is compared with, drawn above its maps.
        display: How maps are drawn, where something is asked for.

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
    long = max(photo.size) >= _FLAT * min(photo.size)
    high = _WIDE if photo.space == 1 or long else _HIGH
    some = shown(photo, heatmaps[0], high)
    size = some.photo.size if some.drawn else panel_size(photo.size, _LOW, high)
    columns = min(display.columns or len(table.columns), len(table.columns))
    step = max(size[1], _LEAST) + GAP
    page = Page(2 * MARGIN + (1 + columns) * step - GAP)
    sheet = _Sheet(page, photo, table, size, step, columns, display)
    sheet.draw(model, reference)
    said = [
        note
        for heatmap in heatmaps
        for note in (*heatmap.notes, illegible(heatmap.attribution))
        if note and note != scale_of(heatmap).message  # which stands on the map itself
    ]
    for heatmap in heatmaps:
        message = scale_of(heatmap).message
        if message and not message_fits(size, message, sheet.type["number"]):
            said.append(f"{heatmap.attribution.method}: {message}")
    page.notes(list(dict.fromkeys([*said, *notes])), sheet.type["number"] - 1, most=_NOTE_LINES)
    return page.finish()


@dataclass(frozen=True, eq=False)
class _Sheet:
    """A page that maps are put on.

    Attributes:
        page: The page.
        photo: The photo.
        table: The maps.
        size: Height and width of a cell's picture.
        step: Pixels from one column to the next.
        columns: Maps beside each other.
        display: How maps are drawn.
    """

    page: Page
    photo: Photo
    table: _Table
    size: tuple[int, int]
    step: int
    columns: int
    display: Display

    @property
    def type(self) -> dict[str, int]:
        """Sizes of type: a page that is wide is shown smaller."""
        return {k: round(v * max(1.0, self.page.width / _SLIDE)) for k, v in _TYPE.items()}

    @property
    def folded(self) -> bool:
        """Whether a row's maps take several lines."""
        return self.columns < len(self.table.columns)

    def draw(self, model: str, reference: Photo | None) -> None:
        """Title, columns' names and rows."""
        page, sizes = self.page, self.type
        for line in wrap(self.photo.name, sizes["title"], page.inner, lines=2):
            page.text(line, sizes["title"])
        page.text(" · ".join(filter(None, [model, self._scales()])), sizes["small"], MUTED)
        page.y += 8
        if not self.folded:
            page.y = self._titles(list(self.table.columns.values()))
        if reference is not None:
            page.rule()
            page.y += 6
            page.text(f"compared with {reference.name}", sizes["small"], MUTED)
            panel = photo_panel(reference, panel_size(reference.size, _LOW, _HIGH))
            page.paste(panel, MARGIN, page.y)
            page.y += panel.height + 12
        for row, target in self.table.rows.items():
            self._row(row, target)

    def _scales(self) -> str:
        """Which maps can be compared by their colours."""
        if len(self.table.cells) < 2:
            return ""
        if any(len(alike) > 1 for row in self.table.rows for alike in self._alike(row).values()):
            return "one colour scale per method and row"
        return "each map has its own colour scale"

    def _alike(self, row: _Key) -> dict[str, list[Heatmap]]:
        """Maps of a row by their method."""
        found: dict[str, list[Heatmap]] = {}
        for (key, _), cell in self.table.cells.items():
            if key == row:
                found.setdefault(cell.attribution.method, []).append(cell)
        return found

    def _titles(self, columns: Sequence[Attribution]) -> int:
        """Method and layer above the cells of a line; where they end."""
        page, sizes, bottom = self.page, self.type, self.page.y
        for index, column in enumerate(columns):
            x, y = MARGIN + (index + 1) * self.step, page.y
            for name, size, colour in (
                (column.method, sizes["column"], None),
                (column.layer or "", sizes["number"], MUTED),
            ):
                for line in wrap(name, size, self.step - GAP, lines=2):
                    page.at((x, y), line, size, *([colour] if colour else []))
                    y += line_height(size)
            bottom = max(bottom, y)
        return bottom + 4

    def _row(self, row: _Key, target: Attribution) -> None:
        """A target: its name, the photo once, and its maps."""
        page, sizes = self.page, self.type
        page.rule()
        page.y += 6
        self._row_title(target)
        scales = {method: common_scale(maps) for method, maps in self._alike(row).items()}
        keys = list(self.table.columns)
        for start in range(0, len(keys), self.columns):
            line = keys[start : start + self.columns]
            if self.folded:
                page.y = self._titles([self.table.columns[key] for key in line])
            top = page.y
            if start == 0:
                self._photo(row, top)
            bottom = top + self.size[0]
            for index, key in enumerate(line):
                cell = self.table.cells.get((row, key))
                if cell is not None:
                    scale = scales[cell.attribution.method] if scale_of(cell).limit > 0 else None
                    at = (MARGIN + (index + 1) * self.step, top)
                    bottom = max(bottom, self._cell(at, cell, scale or scale_of(cell)))
            page.y = bottom + sizes["number"]

    def _photo(self, row: _Key, top: int) -> None:
        one = next(cell for (key, _), cell in self.table.cells.items() if key == row)
        drawn = shown(self.photo, one, self.size[1])
        plain = outlined(photo_panel(drawn.photo, self.size), drawn.heatmap)
        self.page.paste(drawn.marked(plain), MARGIN, top)

    def _row_title(self, target: Attribution) -> None:
        """The target and its numbers above a row; the numbers below a long name."""
        page, sizes = self.page, self.type
        name, figures = heading(target)
        row, lines = page.y, wrap(name, sizes["row"], page.inner, lines=2)
        for line in lines:
            page.text(line, sizes["row"])
        beside = MARGIN + width_of(lines[0] if lines else "", sizes["row"]) + GAP
        if len(lines) == 1 and beside + width_of(figures, sizes["small"]) <= page.width - MARGIN:
            page.at((beside, row + sizes["row"] - sizes["small"]), figures, sizes["small"], MUTED)
        elif figures:
            page.text(figures, sizes["small"], MUTED)
        page.y += 4

    def _cell(self, place: tuple[int, int], heatmap: Heatmap, scale: Scale) -> int:
        """One map, its colours lying below it, and its range; where it ends."""
        page, (x, y), size, type_size = self.page, place, self.size, self.type["number"]
        drawn = shown(self.photo, heatmap, size[1])
        fine = heatmap.attribution.speckled
        panel = overlay_panel(drawn.photo, drawn.heatmap, size, scale, self.display, small=True)
        panel = drawn.marked(outlined(panel, drawn.heatmap))
        page.paste(message_box(panel, scale.message, type_size) if scale.message else panel, x, y)
        bottom = y + size[0] + 4
        if scale.limit <= 0:
            return bottom
        # The bar stands upright with its maximum on top; lying, zero is on the left.
        bar = bar_colours(max(size[1], _LEAST), _BAR, scale, self.display)
        bar = bar.transpose(Image.Transpose.ROTATE_270)
        page.paste(bar, x, bottom)
        bottom += _BAR + 3
        left, right = _ends(scale)
        page.at((x, bottom), left, type_size, MUTED)
        page.at((x + bar.width, bottom), right, type_size, MUTED, anchor="ra")
        bottom += line_height(type_size)
        words = [heatmap.attribution.unit, WIDENED * fine]
        for line in wrap("; ".join(filter(None, words)), type_size, self.step - GAP):
            page.at((x, bottom), line, type_size, MUTED)
            bottom += line_height(type_size)
        return bottom


def _ends(scale: Scale) -> tuple[str, str]:
    """Numbers at the two ends of a colour bar."""
    low = number(-scale.limit) if scale.signed else "0"
    return low, ("> " if scale.clipped else "") + number(scale.limit)
