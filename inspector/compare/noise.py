"""Noise band of a network: how far two float32 runs of it differ.

The same photos go through the same network otherwise: with another number of threads, in a batch
with other images, and with every number of the input moved by one unit in its last place.  What
differs by no more than a few times that much says nothing about the network.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from inspector.compare.outputs import OutputPair, pooled, sums_of, values_of
from inspector.engines.runtime import usual_threads
from inspector.errors import ExplainedError, ImageRefused
from inspector.heatmap import Heatmap
from inspector.measures.signal_error import Sums
from inspector.measures.similarity import similarity
from inspector.opened import Opened
from inspector.passes.maps import Map
from inspector.run import ExplainRun, PhotoInput

__all__ = ["FACTOR", "FLOOR", "MAP_FLOOR", "Noise", "NoiseMeter", "jittered"]

Array = np.ndarray[Any, Any]

FACTOR = 4.0
"""How many times the largest difference that was measured counts as noise: three runs are few."""

FLOOR = 1e-6
"""Least band of an output, relative: eight units in the last place of float32."""

MAP_FLOOR = 1e-3
"""Least band of a map, in rank correlation."""

RUNS = {
    "threads": "another number of threads",
    "batch": "in a batch with other images",
    "jitter": "input moved by one unit in the last place",
}
"""The other runs, in words."""


@dataclass(frozen=True)
class Noise:
    """What two float32 runs of one network differ by.

    Attributes:
        photos: Over how many photos it was measured; 0 if not at all.
        outputs: Largest relative error of each run, by output and by the names of ``RUNS``.
        bands: Relative error of an output up to which it is noise.
        maps: Lowest rank correlation of two runs' maps, by method.
        map_bands: Rank correlation of maps down to which it is noise, by method.
        left_out: Runs that the network does not allow, and why.
    """

    photos: int = 0
    outputs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    bands: Mapping[str, float] = field(default_factory=dict)
    maps: Mapping[str, float] = field(default_factory=dict)
    map_bands: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {
            "photos": self.photos,
            "runs": {name: text for name, text in RUNS.items() if name not in self.left_out},
            "left_out": self.left_out,
            "factor": FACTOR,
            "outputs": {
                name: {"relative_error": dict(runs), "band": self.bands[name]}
                for name, runs in self.outputs.items()
            },
            "maps": {
                name: {"rank_correlation": rank, "band": self.map_bands[name]}
                for name, rank in self.maps.items()
            },
        }


def jittered(inputs: Array, seed: int) -> Array:
    """Numbers moved by one unit in their last place, up or down by chance."""
    values = np.asarray(inputs, np.float32)
    up = np.random.default_rng(seed).random(values.shape) < 0.5
    found: Array = np.nextafter(values, np.where(up, np.float32(np.inf), np.float32(-np.inf)))
    return found


class NoiseMeter:
    """Measures the noise of one network, photo by photo.

    Args:
        model: The network.
        pairs: Its outputs.
        methods: Methods whose maps are measured too.
        layer: Layer that they explain through, as the user named it.
        seed: Of the jitter.
    """

    def __init__(
        self,
        model: Opened,
        pairs: Sequence[OutputPair],
        methods: Sequence[str] = (),
        *,
        layer: str | int | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.pairs, self.methods = model, pairs, methods
        self.layer, self.seed = layer, seed
        self.photos = 0
        self.left_out: dict[str, str] = {}
        self._sums: dict[str, dict[str, list[Sums]]] = {pair.a: {} for pair in pairs}
        self._ranks: dict[str, list[float]] = {}
        self._other: Opened | None = None

    def add(self, item: PhotoInput, target: str | None) -> None:
        """Measure one photo.

        Args:
            item: The photo and its tensor.
            target: What its maps explain; None for what the task explains.
        """
        self.photos += 1
        tensor = item[1]
        names = [pair.a for pair in self.pairs]
        if names:
            usual = values_of(self.model, tensor[None], names)
            for kind, found in self._again(tensor, names):
                for pair in self.pairs:
                    x, y = usual[pair.a], found[pair.a]
                    if x.shape == y.shape:
                        own = self._sums[pair.a].setdefault(kind, [])
                        own.append(sums_of(pair, x, y))
        if self.methods:
            self._add_maps(item, target)

    def _again(self, tensor: Array, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Array]]]:
        """The outputs of the other runs, one photo each."""
        runs: dict[str, Callable[[], dict[str, Array]]] = {
            "threads": lambda: values_of(self._with_threads(), tensor[None], names),
            "batch": lambda: {
                name: value[:1]
                for name, value in values_of(self.model, _batch(tensor), names).items()
            },
            "jitter": lambda: values_of(self.model, self._moved(tensor)[None], names),
        }
        if not self.model.batches:
            self.left_out["batch"] = "the model takes one image at a time"
        if self.model.input.integer:
            self.left_out["jitter"] = "the model takes whole numbers"
        for kind, run in runs.items():
            if kind not in self.left_out:
                try:
                    yield kind, run()
                except ExplainedError as error:
                    self.left_out[kind] = str(error)

    def _with_threads(self) -> Opened:
        """The network with another number of threads than it has."""
        if self._other is None:
            usual = self.model.model.execution
            several = (usual.threads or usual_threads() or os.cpu_count() or 1) > 1
            self._other = self.model.run_by(replace(usual, threads=1 if several else 2))
        return self._other

    def _moved(self, tensor: Array) -> Array:
        return jittered(tensor, self.seed + self.photos)

    def _add_maps(self, item: PhotoInput, target: str | None) -> None:
        """Compare the maps of the usual run with those of the others."""
        photo, tensor, geometry = item
        try:
            run = ExplainRun(self.model, list(self.methods), target, self.layer, None)
            usual = _maps(run, item, tensor[None], run.forward(tensor[None]))
            others = []
            if "batch" not in self.left_out and not run.alone:
                values = run.forward(_batch(tensor))
                first = {name: value[:1] for name, value in values.items()}
                others.append(_maps(run, item, tensor[None], first))
            if "jitter" not in self.left_out:
                moved = self._moved(tensor)[None]
                again = photo, moved[0], geometry
                others.append(_maps(run, again, moved, run.forward(moved)))
        except ExplainedError:
            return  # said where the photo itself is explained
        for found in others:
            for key in usual.keys() & found.keys():
                rank = similarity(usual[key].values, found[key].values).rank
                if rank is not None:
                    self._ranks.setdefault(key[0], []).append(rank)

    def result(self) -> Noise:
        """The noise over all photos so far."""
        outputs, bands = {}, {}
        for pair in self.pairs:
            runs = {
                kind: max(error for one in photos if (error := _relative(pair, one)) is not None)
                for kind, photos in self._sums[pair.a].items()
                if any(_relative(pair, one) is not None for one in photos)
            }
            outputs[pair.a] = runs
            if self.photos and self._sums[pair.a]:
                bands[pair.a] = max(FACTOR * max(runs.values(), default=0.0), FLOOR)
        outputs = {name: runs for name, runs in outputs.items() if name in bands}
        maps = {method: min(ranks) for method, ranks in self._ranks.items()}
        floors = {m: 1 - max(FACTOR * (1 - rank), MAP_FLOOR) for m, rank in maps.items()}
        return Noise(self.photos, outputs, bands, maps, floors, self.left_out)


def _batch(tensor: Array) -> Array:
    """A photo, and two others that are not its like."""
    return np.stack([tensor, tensor[:, :, ::-1], tensor[:, ::-1]])


def _relative(pair: OutputPair, one: Sums) -> float | None:
    found = pooled([one])
    return found**2 if pair.whole and found is not None else found


def _maps(
    run: ExplainRun, item: PhotoInput, tensors: Array, values: Mapping[str, Array]
) -> dict[tuple[str, str], Heatmap]:
    """Maps of one photo by method and target."""
    (found,) = run.found([item], tensors, values)
    if isinstance(found, ImageRefused):
        return {}
    return {
        (one.request.label, one.attribution.label): Heatmap.of(one.attribution, item[2])
        for one in found.maps
        if isinstance(one, Map)
    }
