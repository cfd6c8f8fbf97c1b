"""Places where photos of a class show the same thing: a coloured mark, a logo, a watermark.

Maps need not point at it: what is looked for is the content itself.  Without their coarse part,
pixels of different photos are uncorrelated; those of a mark are not, whatever lies behind it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from inspector.audit.interventions import Interventions
from inspector.audit.rows import GRID, Row

__all__ = ["SharedContent", "find_shared_content"]

Array = np.ndarray[Any, Any]

_SIDE = 64
"""Side to which photos are scaled for the comparison, in pixels."""

_CELL = _SIDE // GRID
_WINDOW = 16
_STEP = 8
"""Side of a window and distance to the next, in pixels of the scaled photo."""

_COARSE = 3.0
"""Gaussian that is taken off, in pixels of the scaled photo."""

_FLAT = 2.0
"""Grey levels (root mean square) below which a window has no content."""

_ALIKE = 0.6
"""Correlation from which two windows show the same."""

_FEWEST = 3
_LEAST = 12
"""Photos with the same content, and photos of a class, below which nothing is said."""

_SIGNIFICANT = 0.01
"""P-value, times the number of classes, from which a few photos are alike by chance."""

_PER_CLASS = 64
_PHOTOS = 960
"""Photos that are opened again, per class and in all; the largest classes come first."""

_PIXELS = 1 << 26
"""Pixels of a class's photos after which no more than _LEAST of them are opened."""


@dataclass(frozen=True)
class SharedContent:
    """The same content at the same place in photos of one predicted class.

    Attributes:
        name: The class.
        members: Places of the photos among the rows.
        region: Top, left, bottom, right in shares of the photo.
        others: Photos of other classes that show it too, of those compared.
    """

    name: str
    members: tuple[int, ...]
    region: tuple[float, float, float, float]
    others: int


def find_shared_content(
    rows: Sequence[Row], interventions: Interventions
) -> Iterator[SharedContent]:
    """Per predicted class the window that most of its photos, and fewest others, show alike.

    Args:
        rows: Rows of the audit.
        interventions: Opens the photos.

    Yields:
        One entry per class of which at least three photos do, more often than those of the other
        classes (Fisher's exact test, corrected for the number of classes).
    """
    from scipy import stats  # type: ignore[import-untyped]

    fine = _opened(rows, interventions)
    best: dict[str, _Window] = {}
    for down, across in _windows():
        units = {name: _unit(own[:, down, across]) for name, (_, own) in fine.items()}
        for name in fine:
            found = _window(name, units, down, across)
            if found.score > (best[name].score if name in best else 0):
                best[name] = found
    for name, window in best.items():
        places, own = fine[name]
        rest = sum(len(other) for key, (_, other) in fine.items() if key != name)
        inside, outside = window.members.size, window.others
        table = [[inside, len(own) - inside], [outside, rest - outside]]
        p = float(stats.fisher_exact(table, alternative="greater").pvalue)
        if p * len(fine) >= _SIGNIFICANT:
            continue
        region = _region(own[window.members], window.down, window.across)
        members = tuple(int(places[member]) for member in window.members)
        yield SharedContent(name, members, region, window.others)


@dataclass(frozen=True)
class _Window:
    """One place: which of a class's photos show the same there, and how many others do."""

    down: slice
    across: slice
    members: Array
    others: int
    score: float


def _window(name: str, units: Mapping[str, Array], down: slice, across: slice) -> _Window:
    """Photos of a class that show the same in one window, the more and the rarer the better."""
    own = units[name]
    likeness = own @ own.T
    likeness[likeness < _ALIKE] = 0
    most = int(likeness.sum(1).argmax())
    members = np.flatnonzero(likeness[most])
    if members.size < _FEWEST:
        return _Window(down, across, members, 0, 0.0)
    mean = own[members].mean(0)
    mean /= np.linalg.norm(mean)
    rest = [unit @ mean >= _ALIKE for key, unit in units.items() if key != name]
    others, compared = sum(int(r.sum()) for r in rest), sum(r.size for r in rest)
    share = others / max(compared, 1)
    score = float(likeness[most].sum()) / len(own) - share
    return _Window(down, across, members, others, score)


def _opened(rows: Sequence[Row], interventions: Interventions) -> Mapping[str, tuple[Array, Array]]:
    """Per class the places of its photos, and their fine parts (N, _SIDE, _SIDE, 3)."""
    classes: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if row.get("predicted") is not None and row.get("index") is not None:
            classes.setdefault(str(row["predicted"]), []).append(place)
    found: dict[str, tuple[Array, Array]] = {}
    left = _PHOTOS
    for name, every in sorted(classes.items(), key=lambda one: (-len(one[1]), one[0])):
        if len(every) < _LEAST or left < _LEAST:
            break
        places, parts, pixels = [], [], 0
        for place, photo in interventions.opened(every, min(_PER_CLASS, left)):
            places.append(place)
            parts.append(_fine(photo))
            pixels += photo.shape[0] * photo.shape[1]
            if pixels > _PIXELS and len(parts) >= _LEAST:
                break
        left -= len(parts)
        if len(parts) >= _FEWEST:
            found[name] = np.array(places), np.stack(parts)
    return found


def _fine(pixels: Array) -> Array:
    """A photo (H, W, 3) at the size of the comparison, without its coarse part."""
    small = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    coarse = small.filter(ImageFilter.GaussianBlur(_COARSE))
    return np.asarray(small, np.float32) - np.asarray(coarse, np.float32)


def _windows() -> Iterator[tuple[slice, slice]]:
    starts = range(0, _SIDE - _WINDOW + 1, _STEP)
    for top in starts:
        for left in starts:
            yield slice(top, top + _WINDOW), slice(left, left + _WINDOW)


def _unit(windows: Array) -> Array:
    """Windows (N, ...) as vectors of length 1; of length 0 where they are flat."""
    flat = windows.reshape(len(windows), -1)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(norm > _FLAT * np.sqrt(flat.shape[1]), flat / np.maximum(norm, 1e-9), 0.0)


def _region(fine: Array, down: slice, across: slice) -> tuple[float, float, float, float]:
    """Box of the cells around a window that photos (N, _SIDE, _SIDE, 3) show alike."""
    from scipy import ndimage

    count = len(fine)
    cells = fine.reshape(count, GRID, _CELL, GRID, _CELL, 3).transpose(1, 3, 0, 2, 4, 5)
    units = np.stack([[_unit(cell) for cell in line] for line in cells])
    total = np.square(units.sum(2)).sum(-1)
    alike = (total - count) / (count * (count - 1)) >= _ALIKE
    inside = np.zeros_like(alike)
    inside[
        down.start // _CELL : down.stop // _CELL, across.start // _CELL : across.stop // _CELL
    ] = True
    labels, _ = ndimage.label(alike, np.ones((3, 3)))
    chosen = np.isin(labels, labels[inside & alike]) & alike if (inside & alike).any() else inside
    rows, columns = np.flatnonzero(chosen.any(1)), np.flatnonzero(chosen.any(0))
    top, left = float(rows[0]) / GRID, float(columns[0]) / GRID
    return top, left, float(rows[-1] + 1) / GRID, float(columns[-1] + 1) / GRID
