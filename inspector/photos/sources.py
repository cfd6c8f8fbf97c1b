"""Photos that a user names: files, folders, quoted patterns, standard input, videos."""

import fnmatch
import glob
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import first_few
from inspector.errors import InspectorWarning, UsageError
from inspector.photos.own_figures import is_own_figure
from inspector.printable import clean_text

if TYPE_CHECKING:
    from inspector.errors import ImageRefused
    from inspector.photos.photo import Photo
    from inspector.photos.video import Frame

__all__ = [
    "PICTURES",
    "VIDEOS",
    "FolderListing",
    "list_folder",
    "photos_below",
    "pictures",
    "sources",
]

PICTURES = frozenset(
    {
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".png",
            ".bmp",
            ".gif",
            ".tif",
            ".tiff",
            ".webp",
            ".ppm",
            ".pgm",
        ),
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
class FolderListing:
    """What was found below a folder.

    Attributes:
        folder: The folder.
        photos: Photos, in order.
        skipped: Files that are not photos.
        figures: How many figures of this package there are.
        empty: Folders below it, relative to it, in which no photo lies at any depth; of folders in
            one another the outermost.
        links: Links to folders, which are not entered.
    """

    folder: Path
    photos: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    figures: int = 0
    empty: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)

    def left_out(self, named: Collection[Path] = ()) -> list[str]:
        """What was left out of the folder, in sentences; none where nothing was.

        Args:
            named: Files and folders that the same request names for something else, such as a table
                of boxes: whoever names them knows that they are not photos.
        """
        said = self._figures()
        skipped = _unnamed(self.skipped, self.folder, named)
        if skipped:
            videos = any(path.suffix.lower() in VIDEOS for path in skipped)
            hint = "; name a video itself to see its frames" if videos else ""
            said.append(
                f"{self.folder}: {len(skipped)} file(s) left out that are not photos: "
                f"{_first_names(skipped)}{hint}"
            )
        links = _unnamed(self.links, self.folder, named)
        if links:
            shown = _first_names(links)
            said.append(f"{self.folder}: {len(links)} link(s) to folders not entered: {shown}")
        return said

    def _figures(self) -> list[str]:
        if not self.figures:
            return []
        count = f"{self.figures} figure(s) of onnx-inspector left out"
        return [f"{self.folder}: {count}; they are not photos"]


def _first_names(paths: Sequence[Path]) -> str:
    """Names of the first of some files, and how many more there are."""
    return first_few([clean_text(path.name) for path in paths], _NAMED)


def _unnamed(files: Sequence[Path], folder: Path, named: Collection[Path]) -> list[Path]:
    """Files below a folder that are not among those named, nor below one of them."""
    places = {place for path in named for place in (path.absolute(), Path(os.path.realpath(path)))}
    names = {place.name for place in places}
    here = folder.absolute(), Path(os.path.realpath(folder))
    inner = [p for p in places if any(p != own and p.is_relative_to(own) for own in here)]

    def is_named(path: Path) -> bool:
        if path.name in names and {path.absolute(), Path(os.path.realpath(path))} & places:
            return True
        return any(path.absolute().is_relative_to(place) for place in inner)

    return [path for path in files if not is_named(path)]


def sources(
    images: Sequence[Path],
    every: int,
    refuse: "Callable[[ImageRefused], None]",
    named: Collection[Path] = (),
) -> "Iterator[Path | Frame | Photo]":
    """Photos as `pictures` finds them, and those that are not files of pictures.

    Args:
        images: Files, folders, patterns; videos, of which frames are taken; ``-`` for a photo on
            standard input.
        every: One frame of so many is taken.
        refuse: Called with why a video, or what standard input holds, is not a photo.
        named: As `pictures`.

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
                yield from pictures([path], named)
        except ImageRefused as error:
            refuse(error)


def _from_standard_input() -> "Photo":
    """A photo whose bytes come from another program.

    Raises:
        UsageError: Nobody sends any.
        ImageRefused: They are not photos, or too many.
    """
    from inspector.photos.photo import Photo

    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise UsageError(
            "- reads a photo from standard input, which is a terminal",
            hint="send one: inspector explain MODEL - < photo.jpg",
        )
    return Photo.of(sys.stdin.buffer, "stdin")


def pictures(images: Sequence[Path], named: Collection[Path] = ()) -> Iterator[Path]:
    """Files as given; of folders the picture files at any depth below them, in order.

    A name with ``*``, ``?`` or ``[...]`` that is not a file is a pattern, ``**`` for folders at any
    depth.  What is left out of a folder is counted and named in a warning: files that are no
    photos, and figures that this package wrote; a file that is named itself is not left out.

    Args:
        images: Files, folders, patterns.
        named: Files and folders that the same request names for something else, such as a table of
            boxes; that they are not photos is not said.

    Raises:
        UsageError: A folder without any picture, or a pattern that matches nothing.
    """
    for path in images:
        magic = _MAGIC.search(str(path))
        if magic and not os.path.lexists(path):
            found = sorted(_matches(path))
            root = Path(os.path.dirname(str(path)[: magic.start()]))  # noqa: PTH120 - part of a name
            # A photo stays one, whatever else names it: a reference, a mask.
            others = [one for one in found if one.suffix.lower() not in PICTURES]
            dropped = {*others} - {*_unnamed(others, root, named)}
            found = [one for one in found if one not in dropped]
            if not found:
                raise UsageError("matches no file", where=clean_text(str(path)))
            yield from pictures(found, named)
        elif path.is_dir():
            listing = list_folder(path)
            for text in listing.left_out(named):
                warnings.warn(text, InspectorWarning, stacklevel=2)
            if not listing.photos:
                raise UsageError("no picture files in the folder", where=str(path))
            yield from listing.photos
        else:
            yield path


def _matches(pattern: Path, most: int = MOST) -> Iterator[Path]:
    """Files that a pattern names; below its first ``**`` no folder that is a link is entered.

    Two links of a folder to itself would be a tree of 2^40 folders.

    Raises:
        UsageError: More files are looked at than may be.
    """
    parts = pattern.parts
    first = parts.index("**") if "**" in parts else len(parts)
    before, after = parts[:first], parts[first:]
    begins = glob.iglob(os.path.join(*before)) if before else iter([os.curdir])  # noqa: PTH118, PTH207
    if not after:
        yield from map(Path, begins)
        return
    count = 0
    for begin in begins:
        for place, folders, files in os.walk(begin):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inner = Path(place).relative_to(begin).parts
            count += len(files) + len(folders)
            if count > most:
                raise UsageError(f"more than {most:,} files", where=clean_text(str(pattern)))
            for name in files:
                if _fits((*inner, name), after):
                    yield Path(place, name)


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a path fits a pattern, both in their parts; ``**`` is any number of folders."""

    def onwards(places: Iterable[int]) -> set[int]:
        found = set(places)
        for place, part in enumerate(parts):  # a ** may stand for no folder
            if part == "**" and place in found:
                found.add(place + 1)
        return found

    places = onwards([0])
    for name in names:
        hidden = name.startswith(".")
        next_places = set()
        for place in places:
            if place == len(parts) or (hidden and not parts[place].startswith(".")):
                continue
            if parts[place] == "**":
                next_places.add(place)
            elif fnmatch.fnmatch(name, parts[place]):
                next_places.add(place + 1)
        places = onwards(next_places)
    return len(parts) in places


def photos_below(folder: Path) -> list[Path]:
    """Photos at any depth below a folder, in order, without figures that this package wrote."""
    listing = list_folder(folder)
    listing.skipped.clear()
    for text in listing.left_out():
        warnings.warn(text, InspectorWarning, stacklevel=3)
    return listing.photos


def list_folder(folder: Path, most: int = MOST) -> FolderListing:
    """What lies at any depth below a folder; what is hidden, and links to folders, are left alone.

    Args:
        folder: The folder.
        most: Files that are looked at.

    Raises:
        UsageError: It holds more files.
    """
    listing, count = FolderListing(folder), 0
    inner, filled = list[Path](), {folder}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        listing.links += [link for name in folders if os.path.islink(link := Path(place, name))]  # noqa: PTH114 - never raises
        inner.append(Path(place))
        for name in sorted(files):
            count += 1
            if count > most:
                raise UsageError(f"more than {most:,} files", where=str(folder))
            path = Path(place, name)
            if name.startswith("."):  # as the ._1.jpg that macOS puts beside 1.jpg
                continue
            if path.suffix.lower() not in PICTURES:
                listing.skipped.append(path)
                continue
            if is_own_figure(path):
                listing.figures += 1
            else:
                listing.photos.append(path)
            filled.add(path.parent)
    listing.empty = _outermost(folder, inner, filled)
    return listing


def _outermost(folder: Path, inner: Sequence[Path], filled: set[Path]) -> list[Path]:
    """Folders of which neither they nor what is below them is filled, relative to one above all."""
    for path in list(filled):
        filled.update(above for above in path.parents if above.is_relative_to(folder))
    return [
        path.relative_to(folder)
        for path in inner
        if path not in filled and path.parent in filled and path.is_relative_to(folder)
    ]
