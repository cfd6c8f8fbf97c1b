"""Whether maps depend on the weights: the randomisation test of Adebayo et al. 2018."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, ModelRefused, UsageError
from inspector.heatmap import Heatmap
from inspector.measures.faithfulness import reference_maps
from inspector.measures.similarity import rank_correlation
from inspector.measures.statistics import mean_interval
from inspector.methods import Request, parse_requests
from inspector.passes.batches import Progress, batches
from inspector.passes.journal import Journal
from inspector.passes.maps import Map
from inspector.photos.geometry import Geometry
from inspector.run import ExplainRun
from inspector.studies import Findings, check_seed, study
from inspector.surgery.random_weights import permuted_weights, weights_top_down

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["sanity"]

Array = np.ndarray[Any, Any]

ALIKE = 0.5
"""Rank correlation with every weight permuted, from which a map does not depend on the weights."""

_USUAL = ("gradient", "guided-backprop", "grad-cam", "hires-cam", "layer-cam")
_REFERENCES = ("random", "edges", "centre")


@study("sanity", images=True, needs=("scipy",), draws=True)
def sanity(
    model: "Opened",
    images: Iterable[Any],
    *,
    method: tuple[str, ...] = (),
    target: str = "top1",
    count: int = 8,
    stages: int = 6,
    seed: int = 0,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Whether the maps change when the weights do: randomisation from the scores down to the image.

    Layer after layer, the last one first, the weights are put into a random order, and each map is
    compared with that of the network as it is (Adebayo et al. 2018, section 3.1, cascading). A map
    that stays alike does not depend on what the network has learned. Their second test, random
    labels, needs the training data and a training: it is not done here.

    Args:
        model: The opened model.
        images: The photos, as paths or in memory.
        method: Methods with options, as `explain` takes them; five common ones when none is given.
        target: What is explained of each photo, as in `explain`; an index or the like stays the
            same, and top1 is that of the network as it is.
        count: Photos to use, the first ones that can be read.
        stages: Steps from the scores down to the image, at most one per layer.
        seed: Of the order of the weights and of the random map.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found for each photo.

    Returns:
        The figure, and for each method the rank correlation of its maps at each stage, over photos,
        beside that of a random map, an edge detector and the photo's centre.

    Raises:
        ModelRefused: the model has no layer with weights of its own.
        UsageError: options out of range.
        ImageRefused: none of the photos can be read.
    """
    check_seed(seed)
    if count < 1 or stages < 1:
        raise UsageError(f"count = {count}, stages = {stages}", hint="both are 1 or more")
    requests = parse_requests(list(method) or _usual(model))
    layers = weights_top_down(model.graph)
    if not layers:
        raise ModelRefused("no layer has weights of its own", where=model.path.name)
    ends = np.unique(np.rint(np.linspace(0, len(layers), min(stages, len(layers)) + 1)[1:]))
    depths = [int(end) for end in ends]
    kept_rows = Journal() if journal is None else journal
    refused: list[ImageRefused] = []
    photos = list(islice(_photos(model, images, refused), count))
    if not photos:
        raise refused[0] if refused else UsageError("no photos were given")
    networks = _Networks(model, [names for _, names in layers], depths, seed)
    rows = []
    for done, (photo, digest, tensor) in enumerate(photos):
        key = f"{done}:{digest}"
        if key not in kept_rows:
            kept_rows.keep(key, _of_photo(networks, tensor, requests, target, seed))
        rows += [{"photo": photo, **row} for row in kept_rows[key]]
        if progress:
            progress("photos", done + 1, len(photos))
    names = [layers[depth - 1][0] for depth in depths]
    curves = _curves(rows, len(depths))
    sentences, warnings = (
        _sentences(curves, len(photos)),
        _warnings(curves, requests, photos, count),
    )
    return Findings(
        study="sanity",
        context=model.context(None),
        options={
            "method": [request.label for request in requests],
            "target": target,
            "count": count,
            "stages": stages,
            "seed": seed,
        },
        numbers={
            "layers": [tensor for tensor, _ in layers],
            "stages": [
                {"down_to": tensor, "layers": depth}
                for depth, tensor in zip(depths, names, strict=True)
            ],
            "similarity": "Spearman's rank correlation of the maps' magnitudes",
            "methods": curves,
            "label_randomisation": "not done: it needs the training data",
        },
        table=rows,
        sentences=sentences,
        draw=partial(_figure, curves, names, model.path.name, sentences, warnings),
        images=len(photos),
        refused=tuple(refused),
        warnings=warnings,
    )


def _photos(
    model: "Opened", images: Iterable[Any], refused: list[ImageRefused]
) -> Iterator[tuple[str, str, Array]]:
    """Name, hash and tensor (C, H, W) of each photo that can be read."""
    for batch in batches(model, images, refused):
        for photo, tensor in zip(batch.photos, batch.tensors, strict=True):
            yield photo.name, photo.sha256, tensor


def _usual(model: "Opened") -> list[str]:
    return [name for name in _USUAL if model.layers or name in {"gradient", "guided-backprop"}]


class _Networks:
    """The network as it is and with the weights of its upper layers permuted; opened when asked."""

    def __init__(
        self,
        model: "Opened",
        layers: Sequence[Sequence[str]],
        depths: Sequence[int],
        seed: int,
    ) -> None:
        self.model, self.layers, self.depths, self.seed = model, layers, depths, seed
        self._opened: dict[int, Opened] = {}

    def at(self, stage: int) -> "Opened":
        """The network in which so many stages are permuted; 0 is the network as it is."""
        if not stage:
            return self.model
        if stage not in self._opened:
            names = [name for own in self.layers[: self.depths[stage - 1]] for name in own]
            self._opened[stage] = self.model.with_file(
                permuted_weights(self.model.file, names, self.seed)
            )
        return self._opened[stage]


def _of_photo(
    networks: _Networks, tensor: Array, requests: Sequence[Request], target: str, seed: int
) -> list[dict[str, Any]]:
    """Rows of one photo: method, stage, rank correlation (None where there is none)."""
    first, text = _maps(networks.model, tensor, requests, target)
    blind = reference_maps(tensor, seed)
    rows = []
    for label, own in first.items():
        for name in _REFERENCES:
            found = None if own is None else rank_correlation(np.abs(own), blind[name])
            rows.append(_row(label, 0, name, found))
    for stage in range(1, len(networks.depths) + 1):
        others, _ = _maps(networks.at(stage), tensor, requests, text)
        for label, own in first.items():
            other = others[label]
            found = None
            if own is not None and other is not None:
                found = rank_correlation(np.abs(own), np.abs(other))
            rows.append(_row(label, stage, "", found))
    return rows


def _row(method: str, stage: int, reference: str, value: float | None) -> dict[str, Any]:
    rounded = None if value is None else round(value, 6)
    return {"method": method, "stage": stage, "reference": reference, "rank": rounded}


def _maps(
    opened: "Opened", tensor: Array, requests: Sequence[Request], target: str
) -> tuple[dict[str, Array | None], str]:
    """Maps (H, W) of one photo by method, and the target as an index."""
    found: dict[str, Array | None] = dict.fromkeys(request.label for request in requests)
    run = ExplainRun(opened, [_text(request) for request in requests], target, None, None)
    values = run.forward(tensor[None])
    (targets,) = run.targets(values, 1)
    if len(targets) != 1:
        raise UsageError(f"{target!r} names several targets", hint="ask for one")
    size = (tensor.shape[1], tensor.shape[2])
    for one in run.maps(tensor[None], values, [targets])[0]:
        if isinstance(one, Map):
            drawn = Heatmap.of(one.attribution, Geometry.identity(size)).values
            found[one.request.label] = np.nan_to_num(drawn)
    index = targets[0].class_index
    return found, target if index is None or target != "top1" else str(index)


def _text(request: Request) -> str:
    options = ",".join(f"{key}={value}" for key, value in request.options.items())
    return f"{request.method.name}:{options}" if options else request.method.name


# -- the result -----------------------------------------------------------------------------------


def _curves(rows: Sequence[dict[str, Any]], stages: int) -> dict[str, Any]:
    """Per method the mean of each stage and of each reference, with its interval."""
    found: dict[str, Any] = {}
    for label in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == label]
        found[label] = {
            "stages": [_mean([r for r in own if r["stage"] == at]) for at in range(1, stages + 1)],
            **{name: _mean([r for r in own if r["reference"] == name]) for name in _REFERENCES},
        }
    return found


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    values = np.array([row["rank"] for row in rows if row["rank"] is not None])
    if not values.size:
        return None
    mean, low, high = mean_interval(values, 0.0)
    return {"value": mean, "low": low, "high": high, "photos": int(values.size)}


def _sentences(curves: dict[str, Any], photos: int) -> tuple[str, ...]:
    found = []
    for label, own in curves.items():
        last, edges = own["stages"][-1], own["edges"]
        if last is None:
            found.append(f"{label}: no map to compare with every weight permuted")
            continue
        shown = f"{last['value']:.2f} ({last['low']:.2f} to {last['high']:.2f})"
        beside = "" if edges is None else f"; an edge detector has {edges['value']:.2f}"
        verdict = (
            "does not depend on the weights: do not read it as an explanation"
            if last["value"] >= ALIKE
            else "depends on the weights"
        )
        found.append(
            f"{label} {verdict}: rank correlation {shown} with every weight permuted{beside}"
            f", over {photos} photo(s)"
        )
    return tuple(found)


def _warnings(
    curves: dict[str, Any],
    requests: Sequence[Request],
    photos: Sequence[Any],
    count: int,
) -> tuple[str, ...]:
    found = ["label randomisation, the second test of the paper, needs the training data: not done"]
    missing = [request.label for request in requests if curves[request.label]["stages"][0] is None]
    if missing:
        found.append(f"no map of {', '.join(missing)}: `inspector explain` says why")
    if len(photos) < count:
        found.append(f"{len(photos)} photo(s), fewer than the {count} of --count")
    return tuple(found)


def _figure(*args: Any) -> Any:
    from inspector.studies.sanity.figure import sanity_sheet

    return sanity_sheet(*args)
