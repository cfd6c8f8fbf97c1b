"""Text of strangers (names in a model, a file or a message), made safe to show."""

import hashlib
import unicodedata

__all__ = [
    "NAME_LIMIT",
    "clean_text",
    "distinct_text",
    "in_file_name",
    "percent",
    "safe_lines",
    "visible_text",
]

NAME_LIMIT = 200
"""Characters of a name that are kept."""


def clean_text(text: str, *, limit: int | None = NAME_LIMIT) -> str:
    r"""One printable line of a text that a stranger wrote.

    Control characters (terminal escapes among them) and format characters (bidirectional
    overrides, zero-width) become spaces, runs of white space one. Half of a pair becomes U+FFFD:
    that is how Python holds a byte of a file's name that it cannot decode, and a name of such bytes
    alone would be gone.

    Args:
        text: Any text.
        limit: Characters that are kept; None keeps all.

    Example:
        >>> from inspector.printable import clean_text
        >>> clean_text("a\x1b[31m  b"), ascii(clean_text("\udcff\udcfe.png"))
        ('a [31m b', "'\\ufffd\\ufffd.png'")
    """
    # Only the part that can matter is looked at: a label of 100 MB is cut first.
    part = text if limit is None else text[: 4 * limit]
    if not (part.isascii() and part.isprintable()):
        part = "".join(map(_shown, part))
    line = " ".join(part.split())
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def _shown(character: str) -> str:
    """What stands for a character in a line of text."""
    kind = unicodedata.category(character)
    if kind == "Cs":
        return "\N{REPLACEMENT CHARACTER}"
    return " " if kind[0] == "C" else character


def distinct_text(text: str) -> str:
    """One printable line of a text that tells things apart: equal for equal texts alone.

    Where :func:`clean_text` leaves something out, a part of the text's SHA-256 stands behind it.

    Example:
        >>> from inspector.printable import distinct_text
        >>> distinct_text("dog/1.jpg"), distinct_text("dog/1 .jpg") != distinct_text("dog/1  .jpg")
        ('dog/1.jpg', True)
    """
    shown = clean_text(text)
    if shown == text:
        return text
    mark = "~" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return clean_text(text, limit=NAME_LIMIT - len(mark)) + mark


def in_file_name(text: str, *, gap: str, kept: str, most: int, runs: bool = False) -> str:
    """A text as a part of a file's name, in its own script.

    Letters with their marks, digits, symbols such as emoji and ``_`` stay.

    Args:
        text: Any text.
        gap: What stands in the place of every other character.
        kept: Further characters that stay.
        most: Bytes at most, of UTF-8: a file system counts bytes, and 255 are a whole name.
        runs: Whether one gap stands for several characters in a row.

    Example:
        >>> from inspector.printable import in_file_name
        >>> in_file_name("tiger cat / *lynx*", gap="-", kept="+-", most=60, runs=True)
        'tiger-cat-lynx-'
    """
    found: list[str] = []
    left_out = False
    for c in text[:most]:
        stays = c.isalnum() or c == "_" or c in kept or _as_letter(c)
        if stays or not (runs and left_out):
            found.append(c if stays else gap)
        left_out = not stays
    return "".join(found).encode()[:most].decode(errors="ignore")


def _as_letter(character: str) -> bool:
    """Whether names are told apart by it: a mark on a letter, an emoji or its shade."""
    kind = unicodedata.category(character)
    return kind[0] == "M" or (not character.isascii() and kind in {"So", "Sk"})


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent; 0 means nothing, and 100 everything.

    Args:
        share: From 0 to 1.
        digits: Behind the point.

    Example:
        >>> from inspector.printable import percent
        >>> percent(0.514), percent(0.002), percent(0.998), percent(1)
        ('51%', '<1%', '>99%', '100%')
    """
    text, least = f"{share:.{digits}%}", 10.0 ** (-2 - digits)
    if text == f"{0:.{digits}%}" and share > 0:
        return f"<{least:.{digits}%}"
    full = text == f"{1:.{digits}%}" and share < 1 - 1e-9
    return f">{1 - least:.{digits}%}" if full else text


def safe_lines(text: str) -> str:
    r"""Text of several lines with a space for each character that a terminal would obey.

    Line feeds stay, and so does every other character's place: for text that is laid out already.

    Example:
        >>> from inspector.printable import safe_lines
        >>> safe_lines("a\x1b[2Jb\nc")
        'a [2Jb\nc'
    """
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or not _obeyed(c) else " " for c in text)


def visible_text(text: str) -> str:
    r"""Text with an escape for each character that is not shown, or that a reader would obey.

    For documents (XML, JSON, HTML), where a name must stay recognisable: XML 1.0 has no control
    characters, UTF-8 no halves of pairs, and a bidirectional override turns a file's name around.

    Example:
        >>> from inspector.printable import visible_text
        >>> visible_text("a\x00b\u202egpj.exe")
        'a\\x00b\\u202egpj.exe'
    """
    if text.isprintable():
        return text
    return "".join(c if not _obeyed(c) else ascii(c)[1:-1] for c in text)


def _obeyed(character: str) -> bool:
    """Whether a character is a control, a format, half of a pair, or a line break of its own."""
    return unicodedata.category(character) in _OBEYED


_OBEYED = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})
