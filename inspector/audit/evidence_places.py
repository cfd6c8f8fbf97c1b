"""Places of the evidence on some photos: shares inside boxes and masks, centre, spread, border.

Maps of photos of one size are measured together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from inspector.audit.data_set import Entry
from inspector.audit.data_set.described import Annotated
from inspector.errors import ImageRefused
from inspector.heatmap import Attribution, lay_on_input
from inspector.photos.geometry import Geometry
from inspector.tasks.planes import mask_on_grid

__all__ = [
    "BORDER",
    "GRID",
    "Marks",
    "evidence_places",
    "grid_of",
    "heat_of",
    "heats_of",
    "marks_of",
    "small_map",
]

Array = np.ndarray[Any, Any]
Row = dict[str, Any]

GRID = 16
"""Cells per side of the small map that rows are compared by."""

BORDER = 0.1
"""Share of each side that counts as the border: 36 % of the area together."""

_TOGETHER = 1 << 16
"""Pixels of maps that are measured together: more fall out of the processor's caches."""


@dataclass(frozen=True, eq=False)
class Marks:
    """What annotations say of one photo, on the network's input; None of what they do not say.

    Objects that the network saw nothing of say nothing of where it looked: they are left out.

    Attributes:
        places: Share of each pixel (H, W) that some object covers.
        mask: The same of its mask, or of the outlines of its objects.
    """

    places: Array | None = None
    mask: Array | None = None


def marks_of(entry: Entry, geometry: Geometry) -> Marks:
    """What is marked on a photo.

    Raises:
        ImageRefused: Its mask cannot be read, or is of another size; an outline is none.
    """
    seen = _seen_of(geometry).cover
    chosen = [one for one in entry.objects if one.label in {entry.label, None}] or entry.objects
    places, mask = _union([_box(one, geometry) for one in chosen]), None
    if entry.mask is not None:
        name, path = entry.photo, entry.path
        mask = mask_on_grid(str(entry.mask), geometry, geometry.input, name, path)
    elif any(one.outline is not None for one in chosen):
        mask = _union([_outlined(one, geometry, entry.photo) for one in chosen])
    places, mask = (None if m is None or not (m * seen).any() else m for m in (places, mask))
    return Marks(places, mask)


def heat_of(attribution: Attribution, geometry: Geometry) -> Array:
    """Positive evidence (H, W) on the network's input."""
    found: Array = _laid([attribution], geometry)[0]
    return found


def heats_of(attributions: Sequence[Attribution], geometries: Sequence[Geometry]) -> list[Array]:
    """Positive evidence (H, W) of several photos on the network's input."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for number, (one, geometry) in enumerate(zip(attributions, geometries, strict=True)):
        key = (one.space, one.reduction, one.values.shape, id(one.placement), geometry)
        alike.setdefault(key, []).append(number)
    found: dict[int, Array] = {}
    for numbers in alike.values():
        geometry = geometries[numbers[0]]
        for some in _few(numbers, geometry):
            found |= zip(some, _laid([attributions[n] for n in some], geometry), strict=True)
    return [found[number] for number in range(len(attributions))]


def _laid(attributions: Sequence[Attribution], geometry: Geometry) -> Array:
    """Positive evidence (N, H, W) of maps of one kind."""
    first = attributions[0]
    values = np.stack([one.reduced() for one in attributions])
    if first.space == "layer" and first.placement is None:
        values = lay_on_input(values, None, geometry.input)
    elif first.space == "layer":
        values = np.stack([lay_on_input(one, first.placement, geometry.input) for one in values])
    return np.clip(np.nan_to_num(values.astype(np.float64)), 0, None)


def _few(numbers: Sequence[int], geometry: Geometry) -> list[Sequence[int]]:
    """Maps in groups that are measured together."""
    size = max(1, _TOGETHER // (geometry.input[0] * geometry.input[1]))
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def evidence_places(
    heats: Sequence[Array], geometries: Sequence[Geometry], marks: Sequence[Marks]
) -> list[Row]:
    """Where the evidence lies: shares of the positive sum over what was seen of each photo.

    Args:
        heats: Positive evidence (H, W) of each photo.
        geometries: How each photo and the input lie on each other.
        marks: What is marked on each.

    Returns:
        Columns of each photo's row.
    """
    alike: dict[Geometry, list[int]] = {}
    for number, geometry in enumerate(geometries):
        alike.setdefault(geometry, []).append(number)
    found: dict[int, Row] = {}
    for geometry, numbers in alike.items():
        for some in _few(numbers, geometry):
            stack = np.stack([heats[number] for number in some])
            rows = _measured(stack, _seen_of(geometry), [marks[number] for number in some])
            found |= zip(some, rows, strict=True)
    return [found[number] for number in range(len(heats))]


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the network sees of photos of one size.

    Attributes:
        area: Top, left, bottom, right of the photo on the input, cut to it.
        cover: Share of each pixel (H, W) of the input that the photo covers.
        whole: The sum of it.
        cells: Pixels that it covers a part of.
        inner: As ``cover``, of the photo without its border.
    """

    area: tuple[float, float, float, float]
    cover: Array
    whole: float
    cells: int
    inner: Array


@lru_cache(maxsize=32)
def _seen_of(geometry: Geometry) -> _Seen:
    """What is seen of photos of a size, which ask for the same."""
    area = _photo_area(geometry)
    cover = _cover(area, geometry.input)
    top, left, bottom, right = area
    margin = BORDER * (bottom - top), BORDER * (right - left)
    inner = (top + margin[0], left + margin[1], bottom - margin[0], right - margin[1])
    cells = max(int((cover > 0).sum()), 2)
    return _Seen(area, cover, float(cover.sum()), cells, _cover(inner, geometry.input))


def _measured(heats: Array, seen: _Seen, marks: Sequence[Marks]) -> list[Row]:
    """``evidence_places`` of maps (N, H, W) of photos of one size."""
    height, width = heats.shape[1:]
    top, left, bottom, right = seen.area
    heats = heats * seen.cover
    totals = _sums(heats)
    safe = np.where(totals, totals, 1)
    y = (heats.sum(2) * (np.arange(height) + 0.5)).sum(1) / safe
    x = (heats.sum(1) * (np.arange(width) + 0.5)).sum(1) / safe
    downs, across = (y - top) / max(bottom - top, 1e-9), (x - left) / max(right - left, 1e-9)
    spreads = _entropies(heats, safe, seen.cells)
    borders = 1 - _sums(heats * seen.inner) / safe
    grids = _grids(heats, seen.area)
    made = []
    for number, (heat, total, own) in enumerate(zip(heats, totals.tolist(), marks, strict=True)):
        row: Row = {"empty": total == 0, "grid": grids[number]}
        for name, mark in (("box", own.places), ("mask", own.mask)):
            if mark is not None:
                row[f"{name}_area"] = round(float((mark * seen.cover).sum()) / seen.whole, 6)
                if total:
                    row[f"inside_{name}"] = round(float((heat * mark).sum()) / total, 6)
        if total:
            row |= {
                "centre_y": round(float(downs[number]), 6),
                "centre_x": round(float(across[number]), 6),
                "entropy": round(spreads[number], 6),
                "border": round(float(borders[number]), 6),
            }
        if total and own.places is not None:
            peak = np.unravel_index(int(heat.argmax()), heat.shape)
            middle = int((top + bottom) / 2), int((left + right) / 2)
            row["pointing"] = bool(own.places[peak] >= 0.5)
            row["pointing_centre"] = bool(own.places[middle] >= 0.5)
        made.append(row)
    return made


def _sums(planes: Array) -> Array:
    """Sums (N,) of planes (N, H, W)."""
    return np.asarray(planes.reshape(len(planes), -1).sum(1))


def _entropies(heats: Array, totals: Array, cells: int) -> list[float]:
    """Entropy of each map (N, H, W) as a share of an even one's."""
    positive = heats > 0
    counts = _sums(positive)
    shares = heats[positive] / np.repeat(totals, counts)
    terms = shares * np.log(shares)
    ends = np.cumsum(counts)
    most = np.log(cells)
    return [
        float(-terms[end - count : end].sum() / most)
        for count, end in zip(counts.tolist(), ends.tolist(), strict=True)
    ]


def _photo_area(geometry: Geometry) -> tuple[float, float, float, float]:
    """Top, left, bottom, right of the photo on the input, cut to it."""
    ends = []
    for size, length, scale, shift in zip(
        geometry.photo, geometry.input, geometry.scale, geometry.shift, strict=True
    ):
        ends.append((max(0.0, shift), min(float(length), shift + scale * size)))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


@lru_cache(maxsize=32)
def _cover(corners: tuple[float, float, float, float], size: tuple[int, int]) -> Array:
    """Share of each pixel (H, W) that a box (top, left, bottom, right) covers; not to be changed.

    Photos of one size ask for the same ones.
    """
    top, left, bottom, right = corners
    rows, columns = (
        np.clip(np.minimum(at + 1, high) - np.maximum(at, low), 0, 1)
        for at, low, high in (
            (np.arange(size[0]), top, bottom),
            (np.arange(size[1]), left, right),
        )
    )
    found: Array = np.asarray(rows[:, None] * columns[None])
    found.flags.writeable = False
    return found


def _union(covers: Sequence[Array]) -> Array | None:
    """Share of each pixel that some object covers; None of no objects."""
    return np.maximum.reduce(covers) if covers else None


def _box(one: Annotated, geometry: Geometry) -> Array:
    """Share of each pixel of the input that an object's box covers."""
    (sy, sx), (ty, tx), (height, width) = geometry.scale, geometry.shift, geometry.photo
    top, left, bottom, right = one.corners
    if one.relative:
        top, bottom, left, right = top * height, bottom * height, left * width, right * width
    corners = (top * sy + ty, left * sx + tx, bottom * sy + ty, right * sx + tx)
    return _cover(corners, geometry.input)


def _outlined(one: Annotated, geometry: Geometry, photo: str) -> Array:
    """Share of each pixel of the input that an object covers, by its outline where it has one.

    Raises:
        ImageRefused: It is none that somebody drew.
    """
    if one.outline is None:
        return _box(one, geometry)
    try:
        return one.outline.cover(geometry, relative=one.relative)
    except ValueError as error:
        raise ImageRefused(f"the outline of an object is none: {error}", where=photo) from None


def grid_of(heat: Array, area: tuple[float, float, float, float]) -> str:
    """A small map of the photo's part of the input: GRID x GRID bytes in hexadecimal digits."""
    return _grids(heat[None], area)[0]


def _grids(heats: Array, area: tuple[float, float, float, float]) -> list[str]:
    """Small maps of maps (N, H, W) of photos of one size; empty where there is no evidence."""
    top, left, bottom, right = area
    if bottom <= top or right <= left:
        return [""] * len(heats)
    cells = _boxes(_boxes(heats.astype(np.float32), left, right).swapaxes(1, 2), top, bottom)
    cells = cells.swapaxes(1, 2).astype(np.float64)
    peaks = np.maximum(cells.max((1, 2), keepdims=True), 1e-30)
    levels = np.rint(255 * cells / peaks).astype(np.uint8)
    there = heats.max((1, 2)) > 0
    return [own.tobytes().hex() if seen else "" for own, seen in zip(levels, there, strict=True)]


def _boxes(values: Array, low: float, high: float) -> Array:
    """Means (..., GRID) over equal parts of the last axis from ``low`` to ``high``, float32.

    Those of Pillow's box filter, which takes one picture at a time and whose order of the two axes
    depends on its version: up to that, the same to the last bit.
    """
    found = np.zeros((*values.shape[:-1], GRID))
    for places, weights in _parts(values.shape[-1], low, high):
        found += values[..., places] * weights
    return found.astype(np.float32)


@lru_cache(maxsize=64)
def _parts(length: int, low: float, high: float) -> list[tuple[Array, Array]]:
    """First, second, ... pixel of each part of an axis, and how much it weighs there."""
    low, extent = float(np.float32(low)), float(np.float32(high) - np.float32(low))
    step = extent / GRID
    wide = max(step, 1.0)
    centres = low + (np.arange(GRID) + 0.5) * step
    first = np.maximum((centres - wide / 2 + 0.5).astype(int), 0)
    last = np.minimum((centres + wide / 2 + 0.5).astype(int), length)
    places = first[:, None] + np.arange(int((last - first).max()))
    at = (places - centres[:, None] + 0.5) * (1 / wide)
    inside = (at > -0.5) & (at <= 0.5) & (places < last[:, None])
    weights = inside / np.maximum(inside.sum(1, keepdims=True), 1)
    return list(zip(np.minimum(places, length - 1).T, weights.T, strict=True))


def small_map(attribution: Attribution, geometry: Geometry) -> str:
    """The small map of an attribution, as `grid_of` gives it and rows hold it."""
    seen = _seen_of(geometry)
    return grid_of(heat_of(attribution, geometry) * seen.cover, seen.area)
