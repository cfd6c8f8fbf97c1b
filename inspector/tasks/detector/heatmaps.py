"""Heads that write maps over one grid: CenterNet, CenterFace, FastestDet."""

from collections.abc import Iterator, Mapping

import numpy as np

from inspector.tasks import Outputs
from inspector.tasks.detector.rows import (
    Array,
    Layout,
    Rows,
    best_of,
    from_centre,
    looks_like_shares,
    probabilities,
)

__all__ = ["centres", "one_map"]

_STRIDES = (2, 4, 8, 16, 32)
_LANDMARKS = 10


def centres(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """A map of scores (K, h, w) beside sizes and offsets (2, h, w): CenterNet, Zhou et al. 2019.

    A box is wherever a score is the largest of its 3 x 3 neighbours.  CenterFace, told by its one
    class and its ten planes of landmarks, writes rows before columns and logarithms of the sizes.
    """
    maps = {n: v for n, v in values.items() if v.ndim == 3 and _stride(outputs, v) is not None}
    if len({v.shape[1:] for v in maps.values()}) != 1:
        return
    pairs = [n for n, v in maps.items() if len(v) == 2]
    heat = _named(maps, ("hm", "heat", "center", "score", "cls"), pairs) or next(
        (n for n in maps if n not in pairs and len(maps[n]) != _LANDMARKS), None
    )
    pairs = [n for n in pairs if n != heat]
    if heat is None or not 1 <= len(pairs) <= 2 or len(maps) < 2:
        return
    size = next(
        (n for n in pairs if any(w in n.lower() for w in ("wh", "size", "scale"))), pairs[0]
    )
    shift = next((n for n in pairs if n != size), None)
    if shift is None and not any(word in heat.lower() for word in ("hm", "heat")):
        return
    count, height, width = maps[heat].shape
    face = count == 1 and any(len(v) == _LANDMARKS for v in maps.values())
    stride = _stride(outputs, maps[heat]) or 1
    kind = "none" if looks_like_shares(maps[heat]) else "sigmoid"

    def read(found: Mapping[str, Array]) -> Rows:
        own = probabilities(found[heat].astype(np.float64), kind)
        table = np.where(_is_peak(own), own, 0).reshape(count, -1).T
        rows, columns = np.mgrid[:height, :width]
        places = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)
        sizes = found[size].astype(np.float64).reshape(2, -1).T
        offsets = np.zeros_like(places)
        if shift is not None:
            offsets = found[shift].astype(np.float64).reshape(2, -1).T
        if face:
            sizes, offsets = np.exp(np.clip(sizes[:, ::-1], -60, 60)), offsets[:, ::-1] + 0.5
        boxes = from_centre(np.hstack([places + offsets, sizes]) * stride)
        return best_of(boxes, table, outputs.size)

    def element(row: int, number: int) -> tuple[str, tuple[int, ...]]:
        return heat, (number, row // width, row % width)

    what = f"{'CenterFace' if face else 'CenterNet'} maps (N, {count}, {height}, {width})"
    names = tuple(filter(None, (heat, size, shift)))
    yield Layout("centernet", what, names, count, False, read, element, height * width)


def one_map(outputs: Outputs, values: Mapping[str, Array]) -> Iterator[Layout]:
    """(5 + K, h, w): FastestDet's objectness, box and softmax over the classes of every cell."""
    for name, value in values.items():
        stride = _stride(outputs, value) if value.ndim == 3 and len(value) > 5 else None
        if stride is None or not looks_like_shares(value[:1]) or not looks_like_shares(value[5:]):
            continue
        count, (height, width) = len(value) - 5, value.shape[1:]
        if not np.allclose(value[5:].sum(axis=0), 1, atol=1e-3) or looks_like_shares(value[:5]):
            continue

        def read(
            found: Mapping[str, Array], name: str = name, grid: tuple[int, int] = (height, width)
        ) -> Rows:
            rows = found[name].astype(np.float64).reshape(len(found[name]), -1).T
            i, j = np.mgrid[: grid[0], : grid[1]]
            places = np.stack([j.ravel(), i.ravel()], axis=1) + np.tanh(rows[:, 1:3])
            centre = places / (grid[1], grid[0])
            boxes = from_centre(np.hstack([centre, probabilities(rows[:, 3:5], "sigmoid")]))
            whole = np.array([outputs.size[1], outputs.size[0]] * 2)
            table = rows[:, :1] ** 0.6 * rows[:, 5:] ** 0.4
            return best_of(boxes * whole, table, outputs.size, rows[:, 0])

        def element(
            row: int, number: int, name: str = name, width: int = width, count: int = count
        ) -> tuple[str, tuple[int, ...]]:
            return name, (5 + number if count > 1 else 0, row // width, row % width)

        what = f"FastestDet map (N, 5 + {count}, {height}, {width})"
        yield Layout("fastestdet", what, (name,), count, False, read, element, height * width)


def _stride(outputs: Outputs, value: Array) -> int | None:
    """Pixels per cell of a map (C, h, w) over the whole input; None where it is not such a map."""
    shape = value.shape[1:]
    grids = {s: tuple(-(-length // s) for length in outputs.size) for s in _STRIDES}
    return next((stride for stride, grid in grids.items() if grid == shape), None)


def _is_peak(maps: Array) -> Array:
    """Whether a value of (K, h, w) is the largest of its 3 x 3 neighbours."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.asarray(maps >= around.max(axis=(-2, -1)))


def _named(maps: Mapping[str, Array], words: tuple[str, ...], others: list[str]) -> str | None:
    found = (n for word in words for n in maps if word in n.lower() and n not in others)
    return next(found, None)
