"""Features of several layers for many photos: one pass, pooled at once, small enough to keep."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.plain_values import quoted, whole_number
from inspector.errors import ImageRefused, MethodRefused, UsageError
from inspector.passes.activations import activations
from inspector.passes.batches import Batch, Progress, batches
from inspector.passes.journal import Journal

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.studies.transfer.feature_layers import FeatureLayer

__all__ = ["MOST_DIMENSIONS", "MOST_VALUES", "Features", "Pool", "extract"]

Array = np.ndarray[Any, Any]

MOST_DIMENSIONS = 16_384
"""Dimensions of one layer's features."""

MOST_VALUES = 2**27
"""Values of all photos and layers of a model together: half a GiB."""


@dataclass(frozen=True)
class Pool:
    """How a map (C, h, w) becomes a vector.

    Attributes:
        kind: ``mean`` and ``max`` over all places, ``grid`` for means over cells, ``flat`` for
            all values as they are.
        cells: Cells of the grid, down and across.
    """

    kind: str
    cells: int = 1

    @classmethod
    def read(cls, text: str) -> "Pool":
        """Read ``mean``, ``max``, ``grid:2`` or ``flat``.

        Raises:
            UsageError: It is none of them.
        """
        kind, colon, number = (part.strip() for part in text.partition(":"))
        if kind in {"mean", "max", "flat"} and not colon:
            return cls(kind)
        cells = whole_number(number) or 0
        if kind == "grid" and 1 <= cells <= 16:
            return cls(kind, cells)
        raise UsageError(f"no pooling {quoted(text)}", hint="mean, max, grid:1 to grid:16, or flat")

    def dimensions(self, layer: "FeatureLayer") -> int:
        """D of a layer."""
        if not layer.is_map:
            return layer.shape[0]
        channels, height, width = layer.shape
        places = {"grid": self.cells**2, "flat": height * width}.get(self.kind, 1)
        return channels * places

    def __call__(self, values: Array, layer: "FeatureLayer") -> Array:
        """Vectors (N, D) float32 of a layer's values, whose first axis is N."""
        count = len(values)
        if not layer.is_map:
            return values.reshape(count, -1).astype(np.float32)
        maps = np.moveaxis(values, layer.channel_axis, 1).astype(np.float64)
        if self.kind == "max":
            found = maps.max((2, 3))
        elif self.kind == "flat":
            found = maps
        else:
            found = _grid_means(maps, self.cells)
        vectors: Array = found.reshape(count, -1).astype(np.float32)
        return vectors

    @property
    def meaning(self) -> str:
        """In words."""
        return {
            "mean": "mean of each map over all places",
            "max": "maximum of each map over all places",
            "grid": f"mean of each map over each of {self.cells}x{self.cells} cells",
            "flat": "every value of each map",
        }[self.kind]


def _grid_means(maps: Array, cells: int) -> Array:
    """Means over cells, (N, C, cells, cells).

    Cell i reaches from floor(i h / cells) up to ceil((i + 1) h / cells), so that none is empty and
    neighbours overlap where the grid does not divide the map.
    """
    height, width = maps.shape[2:]
    rows, columns = _cuts(height, cells), _cuts(width, cells)
    return np.stack(
        [np.stack([maps[:, :, a:b, c:d].mean((2, 3)) for c, d in columns], -1) for a, b in rows], -2
    )


def _cuts(length: int, cells: int) -> list[tuple[int, int]]:
    return [(i * length // cells, -(-(i + 1) * length // cells)) for i in range(cells)]


@dataclass(frozen=True, eq=False)
class Features:
    """Features of photos.

    Attributes:
        places: Positions in the list of the photos that could be read.
        widths: D of each layer.
        rows: For each batch its photos' features (N, sum of D), as text.
    """

    places: tuple[int, ...]
    widths: tuple[int, ...]
    rows: tuple[str, ...]

    def of(self, layer: int) -> Array:
        """(N, D) float32 of a layer."""
        start, stop = sum(self.widths[:layer]), sum(self.widths[: layer + 1])
        total = sum(self.widths)
        return np.concatenate(
            [
                np.frombuffer(base64.b64decode(text), "<f4").reshape(-1, total)[:, start:stop]
                for text in self.rows
            ]
        )


def extract(
    model: "Opened",
    layers: "Sequence[FeatureLayer]",
    pool: Pool,
    images: Sequence[Any],
    *,
    refused: list[ImageRefused],
    name: str,
    progress: Progress | None,
    journal: Journal,
) -> Features:
    """Read the features of all layers in one pass.

    Args:
        model: The opened model.
        layers: What to read.
        pool: How maps become vectors.
        images: The photos.
        refused: Gets the photos that cannot be read.
        name: Names the model in the journal.
        progress: Called with (what, done, total).
        journal: Gets each batch; photos in it are not opened again.

    Raises:
        UsageError: more dimensions or values than are kept.
        MethodRefused: features that are not finite.
    """
    widths = tuple(pool.dimensions(layer) for layer in layers)
    _check(layers, widths, len(images))
    kept: list[tuple[Sequence[int], str]] = []
    while (key := f"features {name} {len(kept)}") in journal:
        kept.append(tuple(journal[key]))
    known = frozenset(place for places, _ in kept for place in places)
    for batch in batches(model, images, refused, progress, skip=known):
        rows = np.concatenate(_rows(model, layers, pool, batch), axis=1)
        key = f"features {name} {len(kept)}"
        text = base64.b64encode(rows.astype("<f4").tobytes()).decode("ascii")
        journal.keep(key, (batch.places, text))
        kept.append((batch.places, text))
    if not kept:
        raise refused[0] if refused else UsageError("no photos were given")
    return Features(
        tuple(place for places, _ in kept for place in places),
        widths,
        tuple(text for _, text in kept),
    )


def _rows(
    model: "Opened", layers: "Sequence[FeatureLayer]", pool: Pool, batch: Batch
) -> list[Array]:
    """Features of each layer, (N, D)."""
    image = model.input.name
    wanted = [layer.tensor for layer in layers if layer.tensor != image]
    values: Mapping[str, Array] = activations(model, batch.tensors, wanted) if wanted else {}
    found = []
    for layer in layers:
        read = batch.tensors if layer.tensor == image else values[layer.tensor]
        rows = pool(read, layer)
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if bad.size:
            raise MethodRefused(
                f"features of {batch.photos[bad[0]].name} are not finite",
                where=layer.tensor,
                hint="the network overflows; check its preprocessing, or leave the layer out",
            )
        found.append(rows)
    return found


def _check(layers: "Sequence[FeatureLayer]", widths: Sequence[int], photos: int) -> None:
    for layer, width in zip(layers, widths, strict=True):
        if width > MOST_DIMENSIONS:
            raise UsageError(
                f"{width} dimensions a photo",
                where=layer.tensor,
                hint=f"at most {MOST_DIMENSIONS}: take --pool mean or grid:2",
            )
    if photos * sum(widths) > MOST_VALUES:
        raise UsageError(
            f"{photos} photos of {sum(widths)} dimensions in {len(layers)} layers are more than "
            f"{MOST_VALUES} values",
            hint="fewer --layers, or --pool mean",
        )
