"""Golden photos of a lock: outputs and a small map of each, and how far noise moves them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.regular_file import sha256_of
from inspector.audit.data_set import Entry
from inspector.audit.rows import GRID, Auditor, small_map
from inspector.compare.noise import FACTOR, FLOOR, NoiseMeter, jittered
from inspector.compare.outputs import OutputPair, values_of
from inspector.errors import ExplainedError, ImageRefused
from inspector.passes.maps import Map
from inspector.photos.photo import Photo
from inspector.run import PhotoInput

__all__ = ["GRID_FLOOR", "GoldenPhoto", "fingerprint", "golden_photos", "map_error"]

Array = np.ndarray[Any, Any]

GRID_FLOOR = 0.02
"""Least band of a small map, relative: its cells are rounded to 255 levels."""

VALUES = 256
"""Most values that are kept of an output: every k-th."""

_DIGITS = 7


@dataclass(frozen=True)
class GoldenPhoto:
    """What a model did with one photo.

    Attributes:
        photo: Its name in the data set.
        outputs: Shape and values of each output; values that are not finite are None.
        grid: Its small map, `GRID` x `GRID` bytes in hexadecimal digits; empty without evidence.
    """

    photo: str
    outputs: dict[str, dict[str, Any]]
    grid: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the lock."""
        return {"photo": self.photo, "outputs": self.outputs, "map": self.grid}


def golden_photos(
    auditor: Auditor, entries: Sequence[Entry], *, noise: bool = True
) -> tuple[list[GoldenPhoto], dict[str, Any]]:
    """Outputs and small maps of some photos, and the bands within which noise moves them.

    Args:
        auditor: The model.
        entries: The photos; those that are refused are left out.
        noise: Whether the bands are measured.

    Returns:
        The photos; and ``outputs`` (relative, by name) and ``map``, empty without ``noise``.
    """
    opened = auditor.opened
    names = list(opened.graph.outputs)
    meter = NoiseMeter(opened, ())
    found, moved = [], [0.0]
    pairs: tuple[OutputPair, ...] = ()
    for entry in entries:
        try:
            photo = Photo.open(entry.path)
            item = (photo, *opened.preprocessing.preprocess.apply(photo))
            values = values_of(opened, item[1][None], names)
            grid = _grid(auditor, item, item[1])
        except ExplainedError:
            continue
        if grid is None:
            continue
        found.append(GoldenPhoto(entry.photo, {n: _kept(values[n]) for n in names}, grid))
        if not noise:
            continue
        if not pairs:
            pairs = tuple(OutputPair(n, n, whole=values[n].dtype.kind != "f") for n in names)
            meter = NoiseMeter(opened, pairs)
        meter.add(item, None)
        if not opened.input.integer:
            again = _grid(auditor, item, jittered(item[1], len(found)))
            moved.append(map_error(grid, again or "") or 0.0)
    if not noise:
        return found, {}
    bands = meter.result().bands
    outputs = {name: float(f"{bands.get(name, FLOOR):.3g}") for name in names}
    return found, {
        "outputs": outputs,
        "map": float(f"{max(FACTOR * max(moved), GRID_FLOOR):.3g}"),
    }


def map_error(one: str, other: str) -> float | None:
    """RMS of the difference of two small maps over that of the first; None if one is not a map."""
    both = [_cells(text) for text in (one, other)]
    if both[0] is None or both[1] is None:
        return None
    size = float(np.linalg.norm(both[0]))
    return float(np.linalg.norm(both[1] - both[0])) / (size or 1.0)


def fingerprint(entries: Sequence[Entry]) -> str:
    """Hash of a data set: names, contents, labels, boxes and groups of its photos.

    It does not depend on where the data set lies, nor on dates of files.
    """
    whole = hashlib.sha256()
    for entry in sorted(entries, key=lambda one: one.photo):
        described = [
            entry.photo,
            entry.label,
            [one.described() for one in entry.objects],
            dict(sorted(entry.groups.items())),
            _hash_of(entry.path),
            None if entry.mask is None else _hash_of(entry.mask),
        ]
        whole.update(json.dumps(described, default=str).encode() + b"\n")
    return whole.hexdigest()


def _hash_of(path: Any) -> str:
    """Hash of a file's contents; empty where it cannot be read, which its row says."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _grid(auditor: Auditor, item: PhotoInput, tensor: Array) -> str | None:
    """The small map of one photo; None where none is drawn."""
    tensors = np.ascontiguousarray(tensor)[None]
    photo, _, geometry = item
    values = auditor.run.forward(tensors)
    (found,) = auditor.run.found([(photo, tensors[0], geometry)], tensors, values)
    maps = () if isinstance(found, ImageRefused) else found.maps
    one = next((one for one in maps if isinstance(one, Map)), None)
    return None if one is None else small_map(one.attribution, geometry)


def _kept(value: Array) -> dict[str, Any]:
    """Shape of one photo's output, and every k-th of its values in seven digits."""
    flat = np.asarray(value[0], np.float64).ravel()
    step = max(1, -(-flat.size // VALUES))
    values = [float(f"{v:.{_DIGITS}g}") if np.isfinite(v) else None for v in flat[::step]]
    return {"shape": [int(n) for n in value.shape[1:]], "values": values}


def _cells(text: str) -> Array | None:
    """Cells of a small map; zeros of an empty one."""
    if not text:
        return np.zeros(GRID * GRID)
    try:
        cells = np.frombuffer(bytes.fromhex(text), np.uint8)
    except ValueError:
        return None
    return cells / 255 if cells.size == GRID * GRID else None
