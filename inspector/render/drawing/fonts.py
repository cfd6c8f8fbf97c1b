"""Fonts of figures: one typeface on every machine, and the system's for scripts that it lacks.

The typeface is DejaVu Sans out of the files of Matplotlib, which is not imported: Latin, Greek,
Cyrillic and a dozen more, and the same in curves and on pages.  A character that it lacks is looked
for in the fonts of the system.  What no font has is one mark
and not boxes, and is warned of, once per font that would have to be installed: see :func:`legible`.
"""

import importlib.util
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageDraw, ImageFont, features

from converters.regular_file import open_regular
from inspector.errors import InspectorWarning
from inspector.printable import clean_text

__all__ = [
    "Piece",
    "draw_line",
    "font",
    "legible",
    "set_in_fonts",
    "warn_of_missing",
    "what_to_install",
    "width_of",
]


@dataclass(frozen=True)
class Piece:
    """Characters of one font on a line.

    Attributes:
        path: The font's file; empty for Pillow's built-in font.
        text: The characters.
        x: Where they begin, in pixels.
        y: Their baseline, in pixels.
    """

    path: str
    text: str
    x: float
    y: float


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

_OWN = "fonts/ttf/DejaVuSans.ttf"
_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
_MOST_FILES = 4000
_MOST_TRIED = 400
_LARGEST = 64 << 20
_SURELY_OWN = 0x250
"""Every assigned character below is in DejaVu Sans: Latin with all its accents."""
_LOST = "\ufffd"
_OUTLINES, _PICTURES = {"glyf", "CFF ", "CFF2"}, {"CBDT", "sbix"}
"""Tables of a font that can be drawn at any size, and of colour emoji, which cannot."""
_SAMPLE = 40  # characters of a text that a warning names
_EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"}
_NEUTRAL = {"WS", "CS", "NSM", "BN"}


@cache
def _own_path() -> str | None:
    """File of DejaVu Sans, which Matplotlib brings along."""
    package = importlib.util.find_spec("matplotlib")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "mpl-data" / _OWN
    return str(path) if path.is_file() else None


@cache
def font(size: int) -> Font:
    """DejaVu Sans; Pillow's built-in font where its file is missing."""
    path = _own_path()
    if path is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def width_of(text: str, size: int) -> int:
    """Width of one line in pixels."""
    if _plain(text):
        return int(font(size).getlength(text)) + 1
    return int(sum(_loaded(path, size, text).getlength(text) for path, text in _runs(text))) + 1


def draw_line(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: Colour,
    *,
    anchor: str = "la",
) -> tuple[Piece, ...]:
    """Draw one line of text in the fonts that have its characters.

    Args:
        draw: On what.
        place: The anchor's place (x, y) in pixels.
        text: The line.
        size: Of the type, in pixels.
        colour: Of the type.
        anchor: As Pillow's: l, m or r across; a (ascender), m or s (baseline) down.

    Returns:
        What was drawn where.
    """
    x, y = place
    if anchor[0] != "l":
        x -= {"m": 0.5, "r": 1.0}[anchor[0]] * width_of(text, size)
    own = font(size)
    ascent, descent = own.getmetrics() if isinstance(own, ImageFont.FreeTypeFont) else (size, 0)
    y += {"a": ascent, "m": (ascent - descent) / 2, "s": 0}[anchor[1]]
    plain = _plain(text)
    warn_of_missing(text)
    pieces = []
    for path, run in ((_own_path() or "", text),) if plain else _runs(text):
        loaded = own if plain else _loaded(path, size, run)
        draw.text((x, y), run, fill=colour, font=loaded, anchor="ls")
        pieces.append(Piece(path, run, x, y))
        x += loaded.getlength(run)
    return tuple(pieces)


def legible(text: str) -> bool:
    """Whether some font of this machine has every character of a text.

    Example:
        >>> legible("Ελληνικά, кириллица, à é ß")
        True
    """
    return not _missing(text)


def what_to_install(text: str) -> str:
    """What gives a text its font, for people; empty where some font of this machine has it all."""
    missing = _missing(text)
    if not missing:
        return ""
    if _own_path() is None:
        return "install Matplotlib, whose typeface figures are written in: pip install matplotlib"
    if _shaped(missing) and not features.check("raqm"):
        return "install a Pillow with Raqm, which joins the letters of such scripts (and Noto Sans)"
    script = unicodedata.name(missing, "").partition(" ")[0].title()
    if script.upper() in _EAST_ASIAN:
        return "install Noto Sans CJK (Debian and Ubuntu: apt install fonts-noto-cjk)"
    if unicodedata.category(missing)[0] in {"L", "M", "N"}:
        return f"install Noto Sans {script} (Debian and Ubuntu: apt install fonts-noto-core)"
    return "install a font with symbols (Debian and Ubuntu: apt install fonts-symbola)"


def set_in_fonts(text: str) -> tuple[str, tuple[str, ...]]:
    """A text for a writer of its own, and the files of the system's fonts that it needs.

    What no font has is one mark, and is warned of.
    """
    if _plain(text):
        return text, ()
    warn_of_missing(text)
    runs = _runs(text)
    further = dict.fromkeys(path for path, _ in runs if path not in {"", _own_path()})
    return "".join(run for _, run in runs), tuple(further)


def warn_of_missing(text: str) -> None:
    """Warn that a text is not drawn as it is written, once per run for each font that it needs."""
    advice = what_to_install(text)
    if advice and advice not in _warned:
        _warned.add(advice)
        missing = _missing(text)
        word = next((word for word in text.split() if missing in word), text)
        name = clean_text(word, limit=_SAMPLE)
        problem = f"no font of this machine has all characters of '{name}', and figures lack them"
        warnings.warn(f"{problem}: {advice}", InspectorWarning, stacklevel=4)


_warned: set[str] = set()


def _missing(text: str) -> str:
    """The first character of a text that no font has; empty where there is none."""
    if _own_path() is None:
        return next((c for c in text if ord(c) >= _SURELY_OWN), "")
    if _plain(text) or all(_LOST not in run for _, run in _runs(text)):
        return ""
    return next((c for c in text if ord(c) >= _SURELY_OWN and not _file_for(c)), "")


def _plain(text: str) -> bool:
    """Whether the one typeface has all of a text, as can be seen without opening it."""
    return _own_path() is None or all(ord(character) < _SURELY_OWN for character in text)


# -- runs of one font -----------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _runs(text: str) -> tuple[tuple[str, str], ...]:
    """A text as pieces, each with the file of a font that has it.

    Characters in a row that no font has become one replacement character.
    """
    own = _own_path() or ""
    found: list[tuple[str, str]] = []
    for character in text:
        last = found[-1] if found else ("", "")
        if last[0] and _has(last[0], character) and _joins(last[1], character):
            found[-1] = last[0], last[1] + character
            continue
        path = _file_for(character)
        if not path and last[1].endswith(_LOST):
            continue
        known = (path, character) if path else (own, _LOST)
        if last[0] == known[0] and _joins(last[1], known[1]):
            known = known[0], found.pop()[1] + known[1]
        elif (parted := _without_neutral_end(last[1])) != last[1] and _shaped(last[1][0]):
            found[-1] = last[0], parted  # the end would move to the other side
            neutral = (own, last[1][len(parted) :])
            if known[0] == own and _joins(neutral[1], known[1]):
                known = own, neutral[1] + known[1]
            else:
                found.append(neutral)
        found.append(known)
    return tuple(found)


def _without_neutral_end(run: str) -> str:
    """A run without the spaces and separators at its end."""
    neutral = {c for c in run if unicodedata.bidirectional(c) in {"WS", "CS"}}
    return run.rstrip("".join(neutral)) if neutral else run


def _joins(run: str, character: str) -> bool:
    """Whether a character is laid out with those before it: spaces and marks are with any."""
    neutral = unicodedata.bidirectional(character) in _NEUTRAL
    return neutral or any(map(_shaped, run)) == _shaped(character)


def _shaped(character: str) -> bool:
    """Whether a script's letters change with their neighbours, or run from right to left."""
    code = ord(character)
    turned = unicodedata.bidirectional(character) in {"R", "AL", "AN"}
    return turned or 0x900 <= code <= 0x109F or 0x1780 <= code <= 0x17FF


@lru_cache(maxsize=256)
def _loaded_at(path: str, size: int, shaped: bool) -> Font:
    layout = ImageFont.Layout.RAQM if shaped else ImageFont.Layout.BASIC
    return ImageFont.truetype(path, size, layout_engine=layout)


def _loaded(path: str, size: int, run: str) -> Font:
    return _loaded_at(path, size, any(map(_shaped, run)))


def _file_for(character: str) -> str | None:
    """File of a font that has a character; None where none has, or nothing can shape it."""
    if _shaped(character) and not features.check("raqm"):
        return None
    own = _own_path()
    if own is not None and _has(own, character):
        return own
    script = unicodedata.name(character, "").partition(" ")[0].lower()
    return _system_font(script, character)


@lru_cache(maxsize=1024)
def _system_font(script: str, character: str) -> str | None:
    """The first font of the system that has a character; those named after its script first."""
    known = ("cjk", script, "unicode", "unifont", "fallback", "noto")

    def rank(path: str) -> tuple[int, str]:
        name = Path(path).name.lower()
        bold = any(word in name for word in ("bold", "black", "italic", "oblique", "light", "thin"))
        likely = next((at for at, word in enumerate(known) if word and word in name), len(known))
        return 2 * likely + bold, name

    tried = sorted(_system_files(), key=rank)[:_MOST_TRIED]
    return next((path for path in tried if _has(path, character)), None)


def _has(path: str, character: str) -> bool:
    return ord(character) in _characters(path)


@lru_cache(maxsize=512)
def _characters(path: str) -> frozenset[int]:
    """Characters of a font; none where it cannot be read, or holds pictures of one size only."""
    from fontTools.ttLib import TTFont

    try:
        with open_regular(path) as stream, TTFont(stream, fontNumber=0, lazy=True) as opened:
            if not _OUTLINES.isdisjoint(opened.keys()) and _PICTURES.isdisjoint(opened.keys()):
                return frozenset(opened.getBestCmap() or ())
            return frozenset()
    except Exception:  # noqa: BLE001 - a damaged font of the system raises anything
        return frozenset()


@cache
def _system_files() -> tuple[str, ...]:
    """Files of the fonts that the system and the user have installed."""
    found: list[str] = []
    for folder in _folders():
        for path in _files(folder):
            found.append(path)
            if len(found) == _MOST_FILES:
                return tuple(found)
    return tuple(found)


def _files(folder: Path) -> Iterator[str]:
    for parent, inside, names in os.walk(folder):
        inside.sort()
        for name in sorted(names):
            path = Path(parent) / name
            try:
                if path.suffix.lower() in _SUFFIXES and path.stat().st_size <= _LARGEST:
                    yield str(path)
            except OSError:
                continue


def _folders() -> Sequence[Path]:
    """Where systems keep fonts."""
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if sys.platform == "win32":
        windows = Path(os.environ.get("WINDIR", "C:/Windows"))
        return windows / "Fonts", home / "AppData/Local/Microsoft/Windows/Fonts"
    if sys.platform == "darwin":
        return Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"
    return (
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        home / ".local/share/fonts",
        home / ".fonts",
    )
