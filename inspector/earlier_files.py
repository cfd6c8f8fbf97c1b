"""Files of an earlier run in the folder that is written into: whose they are, and which go.

The report ``STEM.json`` says which photo and which model its maps are of.  Files of the same photo
and model are replaced, and those that the new run does not write are removed, so that no picture
lies beside a report that does not know it.  Files of another photo or model stay, and the run is
refused before it begins.
"""

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from converters.plain_values import parse_json, quoted
from converters.regular_file import read_regular, sha256_of
from inspector.errors import UsageError
from inspector.photos.own_figures import is_own_figure

__all__ = ["NOTHING", "WHEN", "Earlier", "When", "earlier_files"]

When = Literal["replace", "skip", "fail"]

WHEN: tuple[When, ...] = ("replace", "skip", "fail")
"""What is done where a photo has results of the same model already."""

_LARGEST_REPORT = 64 << 20
_SHOWN = 5
_SUFFIXES = {".png", ".svg", ".pdf", ".npz", ".npy"}


@dataclass(frozen=True)
class Earlier:
    """Results of the same photo and model that lie where new ones will be written.

    Attributes:
        folder: The folder.
        names: The files' names.
    """

    folder: Path
    names: tuple[str, ...]

    def remove(self, kept: Iterable[Path]) -> None:
        """Remove the files that the new run did not write; others than our own are left alone."""
        new = {path.name for path in kept}
        for name in self.names:
            path = self.folder / name
            mine = is_own_figure(path) if path.suffix == ".png" else not path.is_symlink()
            if name not in new and mine:
                with contextlib.suppress(OSError):
                    path.unlink()


NOTHING = Earlier(Path(), ())
"""No earlier results."""


def earlier_files(
    folder: Path, photos: Sequence[tuple[str, Any]], model: str, when: When = "replace"
) -> dict[str, Earlier]:
    """What earlier runs left of some photos.

    Args:
        folder: The folder that is written into; it need not exist.
        photos: Start of the file names, and path, of each photo; or what has a hash of its own.
        model: SHA-256 of the model.
        when: "fail" refuses results of the same photo and model too.

    Returns:
        Results of the same photo and model, by the start of the file names.

    Raises:
        UsageError: Files of another photo or model, or that are not a report at all, would be
            overwritten; all of them are named.
    """
    found: dict[str, Earlier] = {}
    foreign: list[str] = []
    for stem, photo in photos:
        path = folder / f"{stem}.json"
        if not os.path.lexists(path):
            continue
        report = _report(path)
        why = _foreign(report, photo, model)
        if not why and when == "fail":
            why = "holds results of this photo and model"
        if why:
            foreign.append(f"{path.name} {why}")
        else:
            found[stem] = Earlier(folder, tuple(_names(report, stem)))
    if foreign:
        more = len(foreign) - _SHOWN
        named = "; ".join(foreign[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise UsageError(
            named, where=str(folder), hint="choose another folder with -o, or remove these files"
        )
    return found


def _report(path: Path) -> Any:
    """A report; None where the file is none, or leads elsewhere."""
    try:
        return parse_json(read_regular(path, _LARGEST_REPORT, follow=False))
    except (OSError, ValueError):
        return None


def _foreign(report: Any, photo: Any, model: str) -> str:
    """Why results are not those of this photo and model; empty where they are."""
    try:
        theirs, image = report["model"], report["image"]
        names = theirs["name"], image["name"]
        hashes = theirs["sha256"], image["sha256"]
    except (KeyError, TypeError):
        return "is not a report of `inspector explain`"
    if hashes[0] != model:
        return f"holds results of another model ({quoted(names[0])})"
    # A photo that cannot be read is refused when it is opened, and nothing is written of it.
    if hashes[1] != (_sha256(photo) or hashes[1]):
        return f"holds results of another photo ({quoted(names[1])})"
    return ""


def _sha256(photo: Any) -> str:
    """Hash of a photo's bytes, or its own of what is not a file; empty where it cannot be read."""
    if not isinstance(photo, str | Path):
        return str(photo.sha256)
    try:
        return sha256_of(photo)
    except OSError:
        return ""


def _names(report: Any, stem: str) -> Iterable[str]:
    """Names of the pictures and numbers of a report, which may be forged: those of its photo."""
    results = report.get("results")
    listed = results if isinstance(results, list) else []
    maps = [one.get("files") for one in listed if isinstance(one, dict)]
    found = [name for files in maps if isinstance(files, dict) for name in files.values()]
    texts = [name for name in found if isinstance(name, str)]
    sheets = [f"{stem}.sheet.{kind}" for kind in ("png", "svg", "pdf")]
    for name in dict.fromkeys([*texts, *sheets]):
        path = PurePath(name)
        if name.startswith(f"{stem}.") and path.name == name and path.suffix in _SUFFIXES:
            yield name
