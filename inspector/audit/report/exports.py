"""Exports of an audit for viewers of data sets: FiftyOne, ViRelAy."""

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from converters.regular_file import read_regular
from inspector.audit.data_set import Entry
from inspector.audit.data_set.frames import on_upright_photo
from inspector.audit.report import AuditReport
from inspector.errors import ImageRefused, UsageError
from inspector.photos.photo import STORED_ON_ITS_SIDE, Photo, orientation_of
from inspector.render import File, fiftyone, virelay
from inspector.whole_file import inside, write_whole

__all__ = ["EXPORTS", "require_exports", "write_exports"]

EXPORTS = ("fiftyone", "virelay")
"""Viewers that an audit is exported for."""

_MOST_PICTURE = 1 << 24


def require_exports(names: Sequence[str], *, thumbnails: bool) -> None:
    """Refuse to begin where an export could not be written.

    Args:
        names: Some of ``EXPORTS``.
        thumbnails: Whether small pictures are written.

    Raises:
        MissingExtra: A package is not installed.
        UsageError: There is no such export, or it needs the small pictures.
    """
    for name in names:
        if name not in EXPORTS:
            raise UsageError(f"no export {name!r}", hint="one of " + ", ".join(EXPORTS))
    if "virelay" in names:
        virelay.check()
        if not thumbnails:
            raise UsageError(
                "the export for ViRelAy holds the small pictures",
                hint="leave --no-thumbnails or --export virelay out",
            )


def write_exports(
    names: Sequence[str], report: AuditReport, entries: Sequence[Entry], folder: Path
) -> list[Path]:
    """Write exports of a finished audit below its folder.

    Args:
        names: Some of ``EXPORTS``.
        report: The audit.
        entries: Its photos, in the order of the rows.
        folder: The report's folder.

    Returns:
        The files.

    Raises:
        UsageError: The place cannot be written to.
    """
    written = []
    rows, document = report.rows, report.document()
    made: Mapping[str, Any] = {
        "fiftyone": lambda: fiftyone.files(
            document, rows, _places(entries, folder / fiftyone.FOLDER), _boxes(entries)
        ),
        "virelay": lambda: virelay.files(document, rows, lambda row: _picture(folder, row)),
    }
    for name in dict.fromkeys(names):
        files: list[File] = list(made[name]())
        written += [
            write_whole(inside(folder, f"{name}/{file.name}"), file.content()) for file in files
        ]
    return written


def _places(entries: Sequence[Entry], start: Path) -> dict[str, str]:
    """Paths of the photos from a folder, so that both can be moved together."""
    found = {}
    for entry in entries:
        path = entry.path.absolute()
        try:
            found[entry.photo] = Path(os.path.relpath(path, start.absolute())).as_posix()
        except ValueError:  # another drive
            found[entry.photo] = path.as_posix()
    return found


def _boxes(entries: Sequence[Entry]) -> dict[str, list[fiftyone.Box]]:
    """Objects in shares of their photos; only photos with objects in pixels are opened."""
    found: dict[str, list[fiftyone.Box]] = {}
    for entry in entries:
        objects, size = entry.objects, entry.size
        in_pixels = any(not one.relative for one in objects)
        if in_pixels and (size is None or orientation_of(entry.path) in STORED_ON_ITS_SIDE):
            try:
                size = Photo.open(entry.path).size
                objects = on_upright_photo(entry, size).objects
            except ImageRefused:
                continue
        for one in objects:
            top, left, bottom, right = one.corners
            if not one.relative and size is not None:
                top, bottom, left, right = (
                    *(top / size[0], bottom / size[0]),
                    *(left / size[1], right / size[1]),
                )
            corners = left, top, right - left, bottom - top
            found.setdefault(entry.photo, []).append((one.label, corners))
    return found


def _picture(folder: Path, row: Mapping[str, Any]) -> Image.Image:
    """The small photo of a row, which this program wrote."""
    if not row.get("thumbnail"):
        return Image.new("RGB", (1, 1))
    return Image.open(BytesIO(read_regular(folder / row["thumbnail"], _MOST_PICTURE)))
