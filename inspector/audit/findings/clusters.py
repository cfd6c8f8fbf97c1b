"""Clusters of alike maps per class: spectral relevance analysis (Lapuschkin et al. 2019).

A model that decides by a watermark has, among the maps of the class, a cluster of its own: the same
place lights up in many photos.  What the photos of a cluster have in common is said beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inspector.audit.rows import GRID, Row
from inspector.errors import require
from inspector.measures.statistics import holm

__all__ = ["find_clusters", "require_clustering"]

Array = np.ndarray[Any, Any]

MOST = 1500
"""Maps per class that are clustered; the others join the nearest cluster."""

_LEAST = 12
"""Maps below which a class is not clustered."""

_MOST_CLUSTERS = 8
_LEAST_SHARE = 0.05
_HIGH = 0.5
"""Share of the mean map's maximum that the region of a cluster reaches."""

_SIGNIFICANT = 0.01


def require_clustering() -> None:
    """Refuse to go on where scikit-learn is not installed.

    Raises:
        MissingExtra: It is not.
    """
    require("sklearn.cluster", "clusters of alike maps", "audit")


def find_clusters(
    rows: Sequence[Row], groups: Sequence[str], seed: int
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Cluster the maps of each predicted class.

    The maps, GRID x GRID and divided by their sum, are nodes of a nearest-neighbour graph; the
    largest gap among the first eigenvalues of its Laplacian says how many clusters there are.

    Args:
        rows: Rows of the audit.
        groups: Columns that name groups.
        seed: Of the sample of large classes and of the assignment.

    Returns:
        The clusters as plain data, and the cluster of each row by its place.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    require_clustering()
    found: list[dict[str, Any]] = []
    of_row: dict[int, str] = {}
    classes: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if row.get("grid") and row.get("predicted") is not None:
            classes.setdefault(str(row["predicted"]), []).append(place)
    for name, places in sorted(classes.items()):
        if len(places) < _LEAST:
            continue
        maps = np.stack([_map(rows[place]["grid"]) for place in places])
        labels = _labels(maps, seed)
        sizes = np.bincount(labels)
        order = [c for c in np.argsort(-sizes, kind="stable") if sizes[c] > 0]
        for number, cluster in enumerate(order):
            own = [places[i] for i in np.flatnonzero(labels == cluster)]
            if len(own) < max(_LEAST_SHARE * len(places), 3):
                continue
            identity = f"{name}-{number + 1}"
            of_row |= dict.fromkeys(own, identity)
            mean = maps[labels == cluster].mean(0)
            found.append(
                {
                    "id": identity,
                    "class": name,
                    "photos": len(own),
                    "share": len(own) / len(places),
                    "members": [rows[place]["photo"] for place in own],
                    "map": np.round(mean / mean.max(), 3).tolist(),
                    "region": _region(mean),
                    "shared": _shared(rows, own, [p for p in places if p not in set(own)], groups),
                }
            )
    return found, of_row


def _map(digits: str) -> Array:
    """A map of a row, (GRID, GRID), that sums to 1."""
    values = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(GRID, GRID).astype(np.float64)
    return np.asarray(values / max(float(values.sum()), 1.0))


def _labels(maps: Array, seed: int) -> Array:
    """The cluster (N,) of each map."""
    from sklearn.cluster import KMeans
    from sklearn.neighbors import (
        NearestNeighbors,
        kneighbors_graph,
    )

    flat = maps.reshape(len(maps), -1)
    rng = np.random.default_rng(seed)
    chosen = np.arange(len(flat))
    if len(flat) > MOST:
        chosen = np.sort(rng.choice(len(flat), MOST, replace=False))
    sample = flat[chosen]
    near = min(max(int(2 * np.sqrt(len(sample))), 10), len(sample) - 1)
    graph = kneighbors_graph(sample, near, include_self=False).toarray()
    weights = np.maximum(graph, graph.T)
    degree = weights.sum(1)
    scale = 1 / np.sqrt(np.maximum(degree, 1e-12))
    laplacian = np.eye(len(sample)) - scale[:, None] * weights * scale[None]
    values, vectors = np.linalg.eigh(laplacian)
    most = min(_MOST_CLUSTERS, len(sample) - 2)
    gaps = np.diff(values[: most + 1])
    count = int(gaps.argmax()) + 1
    if count == 1:
        return np.zeros(len(flat), np.intp)
    places = vectors[:, :count]
    places = places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-12)
    labels = KMeans(count, n_init=10, random_state=seed).fit_predict(places)
    if len(chosen) == len(flat):
        return np.asarray(labels, np.intp)
    nearest = NearestNeighbors(n_neighbors=1).fit(sample).kneighbors(flat, return_distance=False)
    return np.asarray(labels[nearest[:, 0]], np.intp)


def _region(mean: Array) -> list[float]:
    """Top, left, bottom, right of the high part of a cluster's mean map, as shares of the photo."""
    high = mean >= _HIGH * mean.max()
    rows, columns = np.flatnonzero(high.any(1)), np.flatnonzero(high.any(0))
    return [float(value) / GRID for value in (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)]


def _shared(
    rows: Sequence[Row], inside: Sequence[int], outside: Sequence[int], groups: Sequence[str]
) -> list[dict[str, Any]]:
    """What photos of a cluster have more often than the others of their class.

    Fisher's exact test, corrected for the number of tests (Holm).
    """
    from scipy import stats  # type: ignore[import-untyped]

    tried: list[tuple[str, float, float, float]] = []
    if not outside:
        return []
    for name, value in sorted(_values(rows, inside, groups)):
        one, other = (
            [_has(rows[place], name, value) for place in part] for part in (inside, outside)
        )
        table = [[sum(one), len(one) - sum(one)], [sum(other), len(other) - sum(other)]]
        p = float(stats.fisher_exact(table, alternative="greater").pvalue)
        tried.append((f"{name} = {value}", sum(one) / len(one), sum(other) / len(other), p))
    corrected = holm([p for *_, p in tried])
    kept = [
        {"what": what, "inside": own, "outside": rest, "p": p}
        for (what, own, rest, _), p in zip(tried, corrected, strict=True)
        if p < _SIGNIFICANT
    ]
    return sorted(kept, key=lambda one: float(one["p"]))


def _values(
    rows: Sequence[Row], places: Sequence[int], groups: Sequence[str]
) -> set[tuple[str, str]]:
    names = [*groups, "label", "correct"]
    return {
        (name, str(value))
        for place in places
        for name in names
        if (value := rows[place].get(name)) is not None
    }


def _has(row: Mapping[str, Any], name: str, value: str) -> bool:
    return row.get(name) is not None and str(row[name]) == value
