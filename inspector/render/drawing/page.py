"""Text and layout of figures: fonts, lines that fit, numbers, and a page to put panels on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from inspector.heatmap import Attribution
from inspector.printable import clean_text
from inspector.render.drawing.display import PLAIN, Display
from inspector.render.drawing.fonts import (
    Piece,
    draw_line,
    legible,
    warn_of_missing,
    what_to_install,
    width_of,
)
from inspector.render.drawing.panels import Scale, bar_colours

__all__ = [
    "BAR_WIDTH",
    "GAP",
    "INK",
    "MARGIN",
    "MARKS",
    "MUTED",
    "WARNING",
    "Mark",
    "Page",
    "bar_width",
    "draw_bar",
    "fit",
    "heading",
    "illegible",
    "line_height",
    "message_box",
    "message_fits",
    "number",
    "subheading",
    "width_of",
    "wrap",
]

PAPER, INK, MUTED, WARNING = (255, 255, 255), (24, 24, 28), (104, 104, 112), (150, 72, 0)
MARGIN, GAP = 20, 16
BAR_WIDTH = 18
_TICKS = 8  # pixels between bar and number
_MAX_TEXT = 400
_MESSAGE = 15  # pixels of type
_RULE = (220, 220, 224)

Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Mark:
    """Something on a page, for formats that keep text as text.

    Attributes:
        x: Left, in pixels.
        y: Top, in pixels.
        panel: A picture; None of text and of lines.
        pieces: Text, with places of its own.
        size: Of the type, in pixels.
        colour: Of text and lines.
        width: Of a line across the page; 0 of anything else.
    """

    x: float
    y: float
    panel: Image.Image | None = None
    pieces: tuple[Piece, ...] = ()
    size: int = 0
    colour: Colour = (0, 0, 0)
    width: int = 0


MARKS = "inspector marks"
"""Key in a page's ``info`` under which its marks are."""


def fit(text: str, size: int, width: int) -> str:
    """One printable line that is at most ``width`` pixels wide, shortened in the middle."""
    line = clean_text(text, limit=_MAX_TEXT)
    if width_of(line, size) <= width:
        return line
    low, high = 0, len(line)
    while low < high:  # the longest that fits
        middle = (low + high + 1) // 2
        if width_of(_shortened(line, middle), size) <= width:
            low = middle
        else:
            high = middle - 1
    return _shortened(line, low)


def _shortened(line: str, keep: int) -> str:
    """The first and the last characters, ``keep`` in all: tensor names differ at their ends."""
    tail = keep // 2
    return line[: keep - tail] + "…" + (line[-tail:] if tail else "")


def wrap(text: str, size: int, width: int, lines: int = 3) -> list[str]:
    """Printable lines that are at most ``width`` pixels wide; the last one is shortened."""
    words = clean_text(text, limit=_MAX_TEXT).split()
    found: list[str] = []
    while words and len(found) < lines - 1:
        rest = " ".join(words)
        if width_of(rest, size) <= width:  # as most texts
            return [*found, rest]
        count = 1
        while count < len(words) and width_of(" ".join(words[: count + 1]), size) <= width:
            count += 1
        found.append(fit(" ".join(words[:count]), size, width))
        words = words[count:]
    return [*found, fit(" ".join(words), size, width)] if words else found


def number(value: float) -> str:
    """A number with three significant digits."""
    if value == 0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def heading(attribution: Attribution) -> tuple[str, str]:
    """The target's name, and its numbers."""
    name = attribution.label or attribution.tensor or "target"
    if not legible(clean_text(name)):
        warn_of_missing(clean_text(name))
        name = attribution.tensor if attribution.index is None else f"class {attribution.index}"
    figures = []
    if attribution.index is not None and str(attribution.index) not in name:
        figures.append(f"class {attribution.index}")
    if attribution.probability is not None:
        small = attribution.probability < 5e-4
        figures.append("probability " + ("< 0.001" if small else f"{attribution.probability:.3f}"))
    if attribution.score is not None:
        figures.append(f"score {number(attribution.score)}")
    return name, " · ".join(figures)


def illegible(attribution: Attribution) -> str:
    """Why the target goes by its number; empty where its name can be drawn."""
    advice = what_to_install(clean_text(attribution.label))
    return advice and (
        "no font of this machine has the script of the target's name, which stands in the report: "
        + advice
    )


def subheading(attribution: Attribution, model: str, photo: str) -> str:
    """Method, layer, model and photo in one line."""
    layer = f"layer {_named(attribution.layer)}" if attribution.layer else ""
    return " · ".join(filter(None, [attribution.method, layer, _named(model), _named(photo)]))


def _named(text: str, limit: int = 64) -> str:
    """A name that a stranger chose, as one short printable line."""
    line = clean_text(text, limit=_MAX_TEXT)
    return line if len(line) <= limit else _shortened(line, limit)


class Page:
    """A white page that grows downwards.

    Args:
        width: Of the whole page, margins included, in pixels.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.y = MARGIN
        self._image = Image.new("RGB", (width, 64), PAPER)
        self._marks: list[Mark] = []

    @property
    def inner(self) -> int:
        """Width between the margins."""
        return self.width - 2 * MARGIN

    def text(
        self, text: str, size: int, colour: Colour = INK, x: int = MARGIN, width: int = 0
    ) -> None:
        """Put a text at the current height and move below it.

        What is too long goes on in a second line, but for a text with a width of its own, which is
        one line.
        """
        room = width or self.width - MARGIN - x
        for line in wrap(text, size, room, lines=1 if width else 2):
            self._reach(self.y + line_height(size))
            self._draw((x, self.y), line, size, colour, "la")
            self.y += line_height(size)

    def _draw(
        self, place: tuple[float, float], line: str, size: int, colour: Colour, anchor: str
    ) -> None:
        draw = ImageDraw.Draw(self._image)
        pieces = draw_line(draw, place, line, size, colour, anchor=anchor)
        self._marks.append(Mark(*place, pieces=pieces, size=size, colour=colour))

    def at(
        self,
        place: tuple[int, int],
        text: str,
        size: int,
        colour: Colour = INK,
        *,
        anchor: str = "la",
    ) -> None:
        """Put text, already fitted, at a place (x, y) of its own."""
        x, y = place
        self._reach(y + line_height(size))
        self._draw((x, y), text, size, colour, anchor)

    def paste(self, panel: Image.Image, x: int, y: int) -> None:
        """Put a panel at a place of its own."""
        self._reach(y + panel.height)
        self._image.paste(panel, (x, y))
        self._marks.append(Mark(x, y, panel))

    def rule(self) -> None:
        """Draw a thin line across the page."""
        self._reach(self.y + 1)
        ends = (MARGIN, self.y, self.width - MARGIN, self.y)
        ImageDraw.Draw(self._image).line(ends, fill=_RULE)
        self._marks.append(Mark(MARGIN, self.y, colour=_RULE, width=self.inner))
        self.y += 1

    def paragraphs(
        self, texts: Iterable[str], size: int = 14, colour: Colour = INK, lines: int = 3
    ) -> None:
        """Put sentences at the current height, each from a new line on.

        Args:
            texts: The sentences.
            size: Of the type, in pixels.
            colour: Of the type.
            lines: Lines that one sentence may take; it is shortened then.
        """
        for text in texts:
            for line in wrap(text, size, self.inner, lines):
                self.text(line, size, colour)

    def notes(self, notes: Sequence[str], size: int = 12, most: int = 4) -> None:
        """Put warnings at the current height, in small type.

        Args:
            notes: Sentences; the first is always shown.
            size: Of the type, in pixels.
            most: Lines that they may take; how many are left out is said.
        """
        wrapped = [wrap(note, size, self.inner - size) for note in notes]
        shown, taken = 0, 0
        while shown < len(wrapped) and (not shown or taken + len(wrapped[shown]) <= most):
            taken += len(wrapped[shown])
            shown += 1
        for lines in wrapped[:shown]:
            self.at((MARGIN, self.y), "!", size, WARNING)
            for line in lines:
                self.text(line, size, WARNING, x=MARGIN + size)
        if shown < len(notes):
            left = f"… and {len(notes) - shown} more in the report"
            self.text(left, size, WARNING, x=MARGIN + size)

    def finish(self) -> Image.Image:
        """The page, cut below what is on it."""
        self._reach(self.y + MARGIN)
        page = self._image.crop((0, 0, self.width, self.y + MARGIN))
        page.info[MARKS] = tuple(self._marks)
        return page

    def _reach(self, height: int) -> None:
        if height > self._image.height:
            grown = Image.new("RGB", (self.width, height + 256), PAPER)
            grown.paste(self._image)
            self._image = grown


def line_height(size: int) -> int:
    """Pixels from one line of this size to the next."""
    return round(size * 1.4)


def draw_bar(
    page: Page,
    place: tuple[int, int],
    height: int,
    scale: Scale,
    size: int = 14,
    *,
    title: str = "",
    display: Display = PLAIN,
) -> None:
    """A colour bar with the values of full colour, of half of it, and zero.

    Args:
        page: On what.
        place: Left and top, in pixels.
        height: Of the bar, in pixels.
        scale: How values become colours.
        size: Of the type, in pixels.
        title: What the numbers are; stands along the bar.
        display: Whose colours.
    """
    x, y = place
    page.paste(bar_colours(height, BAR_WIDTH, scale, display), x, y)
    for share, text in _marks(scale):
        inset = round((0.5 - share) * size)  # keeps the outer numbers beside the bar
        at = x + BAR_WIDTH + _TICKS, y + round(share * height) + inset
        page.at(at, text, size, anchor="lm")
    if title:
        page.paste(_upright(title, size, height), x + _beside(scale, size), y)
    if scale.clipped:
        page.at((x, y + height + 6), f"max {number(scale.maximum)}", size - 1, MUTED)


def bar_width(scale: Scale, size: int = 14) -> int:
    """Pixels that a colour bar takes across, with its numbers and its title."""
    return _beside(scale, size) + line_height(size)


def _beside(scale: Scale, size: int) -> int:
    """Pixels from a bar's left side to its title."""
    return BAR_WIDTH + _TICKS + max(width_of(text, size) for _, text in _marks(scale)) + 6


def _marks(scale: Scale) -> list[tuple[float, str]]:
    """Numbers beside a bar, and at which share of its height from above."""
    top = ("> " if scale.clipped else "") + number(scale.limit)
    bottom = ("< " if scale.clipped else "") + number(-scale.limit)
    middle = "0" if scale.signed else number(scale.limit / 2)
    return [(0.0, top), (0.5, middle), (1.0, bottom if scale.signed else "0")]


def _upright(text: str, size: int, height: int) -> Image.Image:
    """A line of text that reads upwards, in the middle of a strip."""
    strip = Image.new("RGB", (height, line_height(size)), PAPER)
    line = fit(text, size, height)
    draw_line(ImageDraw.Draw(strip), (height / 2, 0), line, size, MUTED, anchor="ma")
    return strip.transpose(Image.Transpose.ROTATE_90)


def message_fits(size: tuple[int, int], message: str, type_size: int = _MESSAGE) -> bool:
    """Whether a message can be read on a panel; of a photo of few pixels' width it cannot.

    Args:
        size: Height and width of the panel.
        message: What it says.
        type_size: Size of the type in pixels.
    """
    lines = _message_lines(size[1], message, type_size)
    width = max(width_of(line, type_size) for line in lines)
    return line_height(type_size) * len(lines) <= size[0] and width <= size[1]


def _message_lines(width: int, message: str, type_size: int) -> list[str]:
    return wrap(message, type_size, max(40, width - 40), lines=4)


def message_box(panel: Image.Image, message: str, size: int = _MESSAGE) -> Image.Image:
    """A copy of a panel with a message in its middle; without, where it does not fit."""
    result = panel.copy()
    if not message_fits((panel.height, panel.width), message, size):
        return result
    draw = ImageDraw.Draw(result)
    lines = _message_lines(panel.width, message, size)
    height, width = line_height(size) * len(lines), max(width_of(line, size) for line in lines)
    x, y = panel.width // 2, panel.height // 2 - height // 2
    box = (x - width // 2 - 12, y - 8, x + width // 2 + 12, y + height + 6)
    draw.rectangle(box, fill=PAPER, outline=MUTED)
    for index, line in enumerate(lines):
        draw_line(draw, (x, y + index * line_height(size)), line, size, INK, anchor="ma")
    return result
