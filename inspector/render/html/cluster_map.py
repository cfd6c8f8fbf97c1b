"""Map of the clusters: alike mean maps lie close together.

The mean maps, each divided by its sum, are laid out in the plane of their first two principal
components; tiles that would cover one another are then moved apart.  Distances on the plane say
what is alike, positions say nothing; the likeness to the nearest other cluster stands beside it as
a number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converters.plain_values import finite_number

__all__ = ["HEIGHT", "WIDTH", "cluster_map"]

Array = np.ndarray[Any, Any]

WIDTH, HEIGHT = 360.0, 300.0
"""Size of the map in its own units."""

_MOST = 48
"""Clusters that are drawn, the largest first."""

_SMALLEST, _LARGEST = 18.0, 40.0
"""Sides of tiles."""

_LINE = 12.0
"""Height of a tile's name below it."""

_FILLED = 0.4
"""Share of the map that tiles may cover: beyond it, they become smaller."""

_ROUNDS = 200


def cluster_map(clusters: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tiles of the map, the largest cluster first.

    Args:
        clusters: Clusters of the report; those without a mean map (h, w) are left out.

    Returns:
        For each its `place` among the clusters, corner `x` and `y`, `side`, `nearest` (the place of
        the cluster whose mean map is most alike; None where there is no other) and `likeness`, the
        cosine between both.
    """
    known = [
        (place, found) for place, one in enumerate(clusters) if (found := _flat(one)) is not None
    ]
    sizes = {flat.size for _, flat in known}
    if len(sizes) != 1:
        return []
    photos = {place: finite_number(clusters[place].get("photos")) or 0.0 for place, _ in known}
    known.sort(key=lambda one: (-photos[one[0]], one[0]))
    known = known[:_MOST]
    maps = np.stack([flat for _, flat in known])
    most = max(1.0, photos[known[0][0]])
    sides = np.array(
        [max(_SMALLEST, _LARGEST * (photos[place] / most) ** 0.5) for place, _ in known]
    )
    sides *= min(1.0, (_FILLED * WIDTH * HEIGHT / float((sides * (sides + _LINE)).sum())) ** 0.5)
    places, corners = _plane(maps), None
    while corners is None:
        corners = _apart(places, sides)
        sides = sides if corners is not None else 0.9 * sides
    units = maps / np.maximum(np.linalg.norm(maps, axis=1, keepdims=True), 1e-12)
    likeness = units @ units.T
    np.fill_diagonal(likeness, -1.0)
    tiles = []
    for at, (place, _) in enumerate(known):
        other = int(likeness[at].argmax())
        alone = len(known) == 1
        tiles.append(
            {
                "place": place,
                "x": round(float(corners[at, 0]), 1),
                "y": round(float(corners[at, 1]), 1),
                "side": round(float(sides[at]), 1),
                "nearest": None if alone else known[other][0],
                "likeness": None if alone else round(float(likeness[at, other]), 3),
            }
        )
    return tiles


def _flat(cluster: Mapping[str, Any]) -> Array | None:
    """A cluster's mean map as a vector of sum 1; None where it has none."""
    try:
        values = np.asarray(cluster.get("map"), dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        return None
    total = float(np.abs(values).sum())
    return values.reshape(-1) / total if total > 0 else None


def _plane(maps: Array) -> Array:
    """Places (K, 2) of maps (K, D) from 0 to 1: their first two principal components."""
    centred = maps - maps.mean(0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(maps), 2))
    count = min(2, left.shape[1])
    places[:, :count] = left[:, :count] * lengths[:count]
    for axis in range(count):  # the sign of a component is nobody's: the largest part is positive
        column = places[:, axis]
        places[:, axis] = column * (np.sign(column[np.abs(column).argmax()]) or 1.0)
    extent = places.max(0) - places.min(0)
    middle = (places.max(0) + places.min(0)) / 2
    return np.asarray(0.5 + (places - middle) / max(float(extent.max()), 1e-12))


def _apart(places: Array, sides: Array) -> Array | None:
    """Upper left corners (K, 2) of tiles that cover no other; None where none are found."""
    half = np.stack([sides / 2 + 1, (sides + _LINE) / 2], 1)
    low, high = half, np.array([WIDTH, HEIGHT]) - half
    centres = low + places * (high - low)
    order = np.sign(np.arange(len(sides))[:, None] - np.arange(len(sides))[None])
    for _ in range(_ROUNDS):
        gaps = centres[:, None] - centres[None]
        need = half[:, None] + half[None] - np.abs(gaps)
        covered = (need > 1e-6).all(2) & (order != 0)
        if not covered.any():
            return np.asarray(centres - np.stack([sides, sides + _LINE], 1) / 2)
        # Along the axis on which less is to be done; of two at one place, the later one goes on.
        axis = need.argmin(2)
        push = np.take_along_axis(need, axis[..., None], 2)[..., 0]
        side = np.sign(np.take_along_axis(gaps, axis[..., None], 2)[..., 0])
        moves = np.where(covered, np.where(side == 0, order, side) * push / 2, 0.0)
        for one in (0, 1):
            centres[:, one] += np.where(axis == one, moves, 0.0).sum(1)
        centres = np.clip(centres, low, high)
    return None
