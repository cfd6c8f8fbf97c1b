"""Photos with what is known of them: folders of photos, class names, boxes.

    photos/cat/1.jpg  photos/dog/7.jpg      one folder per class, at any depth below it
    image,label                             or a table beside the photos, label a name or an index
    image,label,x0,y0,x1,y1                 boxes, in pixels of the upright photo

Tables are a stranger's as well: a row names a file of the table's own folder and nothing outside.
"""

import codecs
import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from converters.errors import first_few
from converters.plain_values import whole_number
from converters.regular_file import read_regular
from inspector.errors import UsageError
from inspector.photos.sources import PICTURES, photos_below, pictures
from inspector.printable import clean_text

__all__ = [
    "IMAGE_COLUMNS",
    "LABEL_COLUMNS",
    "MOST_ROWS",
    "PICTURES",
    "Box",
    "LabelledPhoto",
    "check_heading",
    "class_indices",
    "column_of",
    "labelled_photos",
    "photo_of_row",
    "pictures",
    "read_boxes",
    "read_table",
    "spellings",
]

_MAX_BYTES = 64 << 20
MOST_ROWS = 1_000_000
IMAGE_COLUMNS = (
    *("image", "file", "filename", "path", "name", "file_name", "filepath", "file_path"),
    *("image_path", "image_file", "image_name", "photo", "img", "image_id"),
)
_DELIMITERS = ",;\t"
LABEL_COLUMNS = (
    *("label", "class", "imagenet_index", "imagenet_indices", "index", "target", "category"),
    *("classes", "labels"),
)


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo and the class that somebody says it shows.

    Attributes:
        path: The file.
        label: A name or an index, as the folder or the table says; alternatives are set apart
            by ``|``, and ``a-b`` of two numbers is all between them.
    """

    path: Path
    label: str


@dataclass(frozen=True)
class Box:
    """An object on a photo.

    Attributes:
        path: The photo.
        label: Its class, as in ``LabelledPhoto``.
        x0: Left edge in pixels of the upright photo; 0 is the photo's own left edge.
        y0: Upper edge.
        x1: Right edge, larger than ``x0``.
        y1: Lower edge, larger than ``y0``.
        row: Line of the table, for messages.
    """

    path: Path
    label: str
    x0: float
    y0: float
    x1: float
    y1: float
    row: int

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Top, left, bottom, right."""
        return self.y0, self.x0, self.y1, self.x1


def labelled_photos(
    folders: Sequence[Path], table: Path | None = None
) -> tuple[LabelledPhoto, ...]:
    """Find photos and their classes.

    Args:
        folders: With a table: where its photos are; else they are below the table's own folder.
            Without: folders that have one folder per class, whose name is the class's.
        table: A CSV file with a heading; one column names the photo, one its class.

    Returns:
        The photos, in the order of the table, or by class and name.

    Raises:
        UsageError: A table that cannot be read or reaches outside its folder; no photos.
    """
    if table is not None:
        rows = read_table(table)
        image, label = column_of(table, rows, IMAGE_COLUMNS), column_of(table, rows, LABEL_COLUMNS)
        found = [
            LabelledPhoto(photo_of_row(table, folders, row[image], at), clean_text(row[label]))
            for at, row in rows
        ]
    else:
        found = (
            [
                LabelledPhoto(path, inner.name)
                for folder in folders
                for inner in sorted(p for p in folder.iterdir() if p.is_dir())
                for path in photos_below(inner)
            ]
            if all(folder.is_dir() for folder in folders)
            else []
        )
    if not found:
        where = str(table) if table else ", ".join(map(str, folders))
        raise UsageError(
            "no labelled photos",
            where=where,
            hint="give a folder with one folder per class, or a CSV table with --truth",
        )
    return tuple(found)


def read_boxes(table: Path, folders: Sequence[Path] = ()) -> tuple[Box, ...]:
    """Read boxes of objects: CSV with a heading, ``image``, ``label``, ``x0,y0,x1,y1``.

    Args:
        table: The file.
        folders: Where its photos are; else they are below the table's own folder.

    Raises:
        UsageError: A table that cannot be read or reaches outside its folder; every box whose
            corners are not numbers or the wrong way round, all of them in one error.
    """
    rows = read_table(table)
    image, label = column_of(table, rows, IMAGE_COLUMNS), column_of(table, rows, LABEL_COLUMNS)
    found, wrong = [], []
    for at, row in rows:
        try:
            x0, y0, x1, y1 = (float(row[key]) for key in ("x0", "y0", "x1", "y1"))
        except (KeyError, ValueError, TypeError):
            wrong.append(f"line {at}: corners that are not numbers")
            continue
        if not (x0 < x1 and y0 < y1 and max(map(abs, (x0, y0, x1, y1))) < 1e9):
            wrong.append(f"line {at}: the corners are the wrong way round")
            continue
        path = photo_of_row(table, folders, row[image], at)
        found.append(Box(path, clean_text(row[label]), x0, y0, x1, y1, at))
    if wrong:
        said = first_few(wrong, 5, "; ")
        raise UsageError(said, where=str(table), hint="columns x0,y0,x1,y1")
    if not found:
        raise UsageError("holds no boxes", where=str(table))
    return tuple(found)


def class_indices(
    label: str, names: Sequence[str], classes: int | None, ids: Sequence[str] = ()
) -> tuple[int, ...]:
    """Classes of a model that a label means; empty when it names none.

    Args:
        label: A name (whole, or one of the synonyms that commas set apart, in any case; where no
            name is spelled so, with spaces for ``_``), an index, also as ``3.0``, ``a-b`` for all
            indices between two, or several of these set apart by ``|``.
        names: The model's class names.
        classes: How many classes it has, if that is known.
        ids: WordNet ids of the classes, by which a label may name them.
    """
    found: dict[int, None] = {}
    for piece in (part.strip() for part in label.split("|")):
        if piece in ids and piece:
            found[ids.index(piece)] = None
            continue
        low, dash, high = (part.strip() for part in piece.partition("-"))
        ends = whole_number(low), whole_number(high if dash else low)
        if ends[0] is not None and ends[1] is not None and ends[0] >= 0:
            span = range(ends[0], ends[1] + 1) if len(low + high) < 12 else range(0)
            found |= dict.fromkeys(span[: classes or 100_000])
            continue
        called = _called(piece, names, _as_written)
        if called or (index := _index_of(piece)) is None:
            found |= dict.fromkeys(called or _called(piece, names, _with_spaces))
        else:
            found[index] = None
    return tuple(i for i in found if classes is None or i < classes)


def _called(piece: str, names: Sequence[str], spelled: Callable[[str], str]) -> list[int]:
    """Classes of which the name, or one of the synonyms in it, is spelled like a text."""
    wanted = spelled(piece)
    return [
        index
        for index, name in enumerate(names)
        if wanted and wanted in {spelled(one) for one in (name, *name.split(","))}
    ]


def _index_of(text: str) -> int | None:
    """An index that a column of numbers with gaps holds as a float, ``3.0``; None otherwise."""
    whole, _, fraction = text.partition(".")
    return whole_number(whole) if fraction and not fraction.strip("0") else None


def _as_written(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def _with_spaces(name: str) -> str:
    """A name as a folder is called: ``golden_retriever``."""
    return " ".join(_as_written(name.replace("_", " ")).split())


# -- tables -----------------------------------------------------------------------------------


def read_table(table: Path) -> list[tuple[int, Mapping[str, str]]]:
    """Line numbers and cells by column of a CSV table, the headings in small letters.

    Columns are set apart by commas, semicolons or tabs: by the one that gives the heading a column
    of photos, or that a first line ``sep=;`` names.  The text is UTF-8, or UTF-16 with a byte order
    mark, as spreadsheets write it.

    Raises:
        UsageError: It cannot be read, is not such text or not CSV, has too many rows, rows with
            more cells than the heading, or two columns of one name.
    """
    try:
        data = read_regular(table, _MAX_BYTES)
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot be read ({reason})", where=str(table)) from None
    except UnicodeDecodeError:
        raise UsageError(
            "is not UTF-8 text", where=str(table), hint="save it as UTF-8 (CSV UTF-8)"
        ) from None
    at = 0
    try:
        delimiter, skipped = _delimiter(text)
        lines = io.StringIO(text, newline=None)
        for _ in range(skipped):
            lines.readline()
        # Strict: a quote that nobody closes would make one cell of the lines that follow.
        reader = csv.DictReader(
            lines, skipinitialspace=True, restval="", delimiter=delimiter, strict=True
        )
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        check_heading(table, reader.fieldnames)
        rows: list[tuple[int, Mapping[str, str]]] = []
        longer: list[int] = []
        for row in reader:
            at = reader.line_num + skipped
            if any(cell.strip() for cell in row.pop(None, ())):
                longer.append(at)
            rows.append((at, {k: v.strip() for k, v in row.items() if k}))
            if len(rows) > MOST_ROWS:
                raise UsageError(f"more than {MOST_ROWS} rows", where=str(table))
    except csv.Error as error:
        raise UsageError(
            f"is not a CSV table after line {at} ({error})",
            where=str(table),
            hint="a quote begins and ends a whole cell, and is doubled in it",
        ) from None
    if longer:
        these = first_few([str(line) for line in longer], 5)
        raise UsageError(
            f"has more cells than the heading in line {these}",
            where=str(table),
            hint="put a cell that holds the delimiter in quotes",
        )
    return rows


def _delimiter(text: str) -> tuple[str, int]:
    """What sets columns apart, and how many lines stand before the heading."""
    lines = text.splitlines()[:50]
    skipped = next((at for at, line in enumerate(lines) if line.strip()), 0)
    named = re.fullmatch(r'"?sep=(.)"?', lines[skipped].strip("\r\n")) if lines else None
    if named:
        return named[1], skipped + 1
    heading = lines[skipped] if lines else ""
    for one in _DELIMITERS:
        cells = next(csv.reader([heading], delimiter=one, skipinitialspace=True), [])
        if len(cells) > 1 and {cell.strip().lower() for cell in cells} & {*IMAGE_COLUMNS}:
            return one, skipped
    return next((one for one in _DELIMITERS if one in heading), ","), skipped


def check_heading(table: Path, names: Sequence[str]) -> None:
    """Refuse a table with two columns of one name, of which the last would win.

    Raises:
        UsageError: It has.
    """
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise UsageError(
            f"has two columns {clean_text(twice[0], limit=80)!r}",
            where=str(table),
            hint="give each column a name of its own",
        )


def column_of(
    table: Path, rows: Sequence[tuple[int, Mapping[str, str]]], names: Sequence[str]
) -> str:
    """The first of some columns that a table has.

    Raises:
        UsageError: It has none of them.
    """
    heading = list(rows[0][1]) if rows else []
    found = next((name for name in names if name in heading), None)
    if found is None:
        raise UsageError(
            f"has no column {names[0]!r}",
            where=str(table),
            hint=f"its columns: {clean_text(', '.join(heading)) or 'none'}",
        )
    return found


def photo_of_row(table: Path, folders: Sequence[Path], name: str, at: int) -> Path:
    """The photo of a row: a file below one of the folders or the table's own, whatever it says.

    A whole path that leads below one of them is taken too; letters with accents are found however
    the file's name composes them.

    Raises:
        UsageError: The name leads outside.
    """
    if not name:
        raise UsageError(f"line {at} names no photo", where=str(table))
    bases = [folder.absolute() for folder in (*folders, table.parent)]
    if "\\" in name and not any(os.path.isfile(base / name) for base in bases):  # noqa: PTH113
        name = name.replace("\\", "/")  # a table of Windows; elsewhere it may be a letter of a name
    relative = Path(name)
    if base := next(
        (one for one in bases if relative.is_absolute() and one in relative.parents), None
    ):
        relative = relative.relative_to(base)
    drive = PureWindowsPath(name).drive  # C:/photos/1.jpg
    if "\0" in name or relative.is_absolute() or drive or ".." in relative.parts:
        raise UsageError(
            f"line {at} names a file outside the folder",
            where=str(table),
            hint="name photos as they are called in the folder",
        )
    names = dict.fromkeys([relative, *(Path(n) for n in spellings(str(relative)))])
    places = [folder / one for folder in dict.fromkeys([*folders, table.parent]) for one in names]
    # Not Path.is_file: it raises for names that are too long.
    return next((place for place in places if os.path.isfile(place)), places[0])  # noqa: PTH113


def spellings(name: str) -> list[str]:
    """A name as it is written, then with its letters composed and decomposed (Unicode NFC, NFD).

    macOS hands out decomposed names of files, tables are mostly typed composed.
    """
    forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return list(dict.fromkeys(forms))
