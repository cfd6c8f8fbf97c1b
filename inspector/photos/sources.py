"""Photos that a user names: files, folders, quoted patterns, standard input, videos."""

import glob
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import InspectorWarning, UsageError
from inspector.photos.own_figures import is_own_figure
from inspector.printable import clean_text

if TYPE_CHECKING:
    from inspector.errors import ImageRefused
    from inspector.photos.photo import Photo
    from inspector.photos.video import Frame

__all__ = ["PICTURES", "VIDEOS", "photos_below", "pictures", "sources"]

PICTURES = frozenset(
    {
        *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"),
        *(".pnm", ".avif", ".jp2", ".j2k", ".jpf", ".jpx", ".heic", ".heif", ".hif", ".dcm"),
        ".dicom",
    }
)
"""What is taken from a folder; a file that is named is tried whatever it is called."""

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"})
"""Files of which frames are taken, where they are named."""

_STANDARD_INPUT = Path("-")

MOST = 1_000_000
"""Files that are looked at below one folder."""

_NAMED = 3
_MAGIC = re.compile(r"[*?\[]")


@dataclass
class _Seen:
    """What was found below a folder.

    Attributes:
        photos: Photos, in order.
        skipped: Names of files that are no photos.
        figures: How many figures of this package there are.
    """

    photos: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    figures: int = 0


def sources(
    images: Sequence[Path], every: int, refuse: "Callable[[ImageRefused], None]"
) -> "Iterator[Path | Frame | Photo]":
    """Photos as `pictures` finds them, and those that are no files of pictures.

    Args:
        images: Files, folders, patterns; videos, of which frames are taken; ``-`` for a photo on
            standard input.
        every: One frame of so many is taken.
        refuse: Called with why a video, or what standard input holds, is no photo.

    Raises:
        UsageError: As `pictures`; standard input is a terminal, or named twice.
        MissingExtra: A video is named, and what decodes it is not installed.
    """
    from inspector.errors import ImageRefused

    read = False
    for path in images:
        try:
            if path == _STANDARD_INPUT:
                if read:
                    raise UsageError("standard input, -, is named twice")
                read = True
                yield _from_standard_input()
            elif path.suffix.lower() in VIDEOS and path.is_file():
                from inspector.photos.video import frames_of

                yield from frames_of(path, every)
            else:
                yield from pictures([path])
        except ImageRefused as error:
            refuse(error)


def _from_standard_input() -> "Photo":
    """A photo whose bytes come from another program.

    Raises:
        UsageError: Nobody sends any.
        ImageRefused: They are no photo, or too many.
    """
    from inspector.photos.photo import Photo

    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise UsageError(
            "- reads a photo from standard input, which is a terminal",
            hint="send one: inspector explain MODEL - < photo.jpg",
        )
    return Photo.of(sys.stdin.buffer, "stdin")


def pictures(images: Sequence[Path]) -> Iterator[Path]:
    """Files as given; of folders the picture files at any depth below them, in order.

    A name with ``*``, ``?`` or ``[...]`` that is no file is a pattern, ``**`` for folders at any
    depth.  What is left out of a folder is counted and named in a warning: files that are no
    photos, and figures that this package wrote; a file that is named itself is not left out.

    Args:
        images: Files, folders, patterns.

    Raises:
        UsageError: A folder without any picture, or a pattern that matches nothing.
    """
    for path in images:
        if _MAGIC.search(str(path)) and not os.path.lexists(path):
            found = sorted(Path(name) for name in glob.iglob(str(path), recursive=True))  # noqa: PTH207
            if not found:
                raise UsageError("matches no file", where=clean_text(str(path)))
            yield from pictures(found)
        elif path.is_dir():
            seen = _below(path)
            _say_left_out(path, seen)
            if not seen.photos:
                raise UsageError("no picture files in the folder", where=str(path))
            yield from seen.photos
        else:
            yield path


def photos_below(folder: Path) -> list[Path]:
    """Photos at any depth below a folder, in order, without figures that this package wrote."""
    seen = _below(folder)
    _say_figures(folder, seen.figures)
    return seen.photos


def _below(folder: Path) -> _Seen:
    """What lies below a folder; hidden folders and links to folders are left alone.

    Raises:
        UsageError: It holds more files than are looked at.
    """
    seen, count = _Seen(), 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            count += 1
            if count > MOST:
                raise UsageError(f"more than {MOST:,} files", where=str(folder))
            path = Path(place, name)
            if path.suffix.lower() not in PICTURES:
                seen.skipped += [] if name.startswith(".") else [name]
            elif is_own_figure(path):
                seen.figures += 1
            else:
                seen.photos.append(path)
    return seen


def _say_left_out(folder: Path, seen: _Seen) -> None:
    _say_figures(folder, seen.figures)
    if seen.skipped:
        more = len(seen.skipped) - _NAMED
        shown = ", ".join(clean_text(name) for name in seen.skipped[:_NAMED])
        shown += f" and {more} more" if more > 0 else ""
        videos = any(Path(name).suffix.lower() in VIDEOS for name in seen.skipped)
        hint = "; name a video itself to see its frames" if videos else ""
        text = f"{folder}: {len(seen.skipped)} file(s) left out that are no photos: {shown}{hint}"
        warnings.warn(text, InspectorWarning, stacklevel=4)


def _say_figures(folder: Path, figures: int) -> None:
    if figures:
        text = f"{folder}: {figures} figure(s) of onnx-inspector left out; they are not photos"
        warnings.warn(text, InspectorWarning, stacklevel=5)
