"""The verdict of a comparison in one sentence, and the numbers that gates speak of."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.measures.signal_error import METRICS, mean_statistic, share_statistic
from inspector.printable import clean_text

if TYPE_CHECKING:
    from inspector.compare.outputs import OutputDifference
    from inspector.compare.result import Comparison, MapPair

__all__ = ["NUMBERS", "PLAIN", "moved", "numbers", "sentence"]

PLAIN = ("moved", "layers_apart")
"""Numbers without an interval."""

_OF_MAPS: dict[str, Callable[["MapPair"], float | None]] = {
    "rank_correlation": lambda pair: pair.similarity.rank,
    "pearson": lambda pair: pair.similarity.pearson,
    "iou_of_top": lambda pair: pair.similarity.iou,
    "peak_shift": lambda pair: pair.similarity.peak_share,
}

NUMBERS = ("flip_rate", "probability_shift", *METRICS, *_OF_MAPS, *PLAIN)
"""Names of the numbers; beside them stands ``output``, with the errors of each output."""


def moved(found: "Comparison") -> bool | None:
    """Whether B differs from A beyond noise; None where the noise was not measured."""
    if not found.noise.photos:
        return None
    return any(one.moved for one in found.outputs) or bool(_maps_beyond(found))


def numbers(found: "Comparison", seed: int) -> dict[str, Any]:
    """The numbers that gates speak of; those of outputs are the worst output's.

    Args:
        found: The comparison.
        seed: Of the bootstrap over photos.
    """
    worst = _worst(found.outputs)
    shown = dict.fromkeys(METRICS) if worst is None else worst.statistics
    flips = [image.flip for image in found.images if image.flip is not None]
    of_photos: dict[str, list[float]] = {name: [] for name in ("probability_shift", *_OF_MAPS)}
    for image in found.images:
        own = [pair for pair in image.maps if pair.role == "a"]
        shifts = [abs(b - a) for p in own[:1] for a, b in [p.probabilities] if None not in (a, b)]  # type: ignore[operator]
        of_photos["probability_shift"] += shifts
        for name, of in _OF_MAPS.items():
            known = [value for pair in own if (value := of(pair)) is not None]
            of_photos[name] += [float(np.mean(known))] if known else []
    intervals = found.intervals
    means = {n: mean_statistic(v, seed=seed, intervals=intervals) for n, v in of_photos.items()}
    apart = moved(found)
    return {
        "flip_rate": share_statistic(sum(flips), len(flips), intervals=intervals),
        "probability_shift": means.pop("probability_shift"),
        **{name: shown.get(name) for name in METRICS},
        **means,
        "moved": None if apart is None else int(apart),
        "layers_apart": len(found.parting.outliers) if found.parting.layers else None,
        "output": {one.pair.a: dict(one.statistics) for one in found.outputs},
    }


def sentence(found: "Comparison") -> str:
    """The verdict: whether B is A, and if not by how much, and where they part."""
    apart = moved(found)
    if apart is None:
        return f"how far B is from A, its noise not measured: {'; '.join(_parts(found))}"
    if not apart:
        return f"B is A within float32 noise: {'; '.join(_parts(found))}"
    where = "the graphs could not be aligned"
    if found.parting.layers:
        first = found.parting.first
        where = "no single layer stands out"
        if first is not None:
            where = f"the first layer that parts: {clean_text(first.point.name)}"
    elif not found.parting.sentence:
        where = "layers were not compared"
    return f"B differs from A beyond float32 noise: {'; '.join([*_parts(found), where])}"


def _parts(found: "Comparison") -> Iterator[str]:
    """Outputs, predictions and maps in words."""
    worst = _worst(found.outputs)
    if worst is not None:
        yield _output(worst, len(found.outputs))
    flips = [image.flip for image in found.images if image.flip is not None]
    if flips:
        yield f"{sum(flips)} of {len(flips)} predictions flip"
    beyond = _maps_beyond(found)
    if beyond:
        ranks = [pair.similarity.rank for pair in beyond if pair.similarity.rank is not None]
        worst_rank = f", rank correlation down to {min(ranks):.3f}" if ranks else ""
        yield f"{len(beyond)} of {len(found.pairs)} maps differ{worst_rank}"


def _output(one: "OutputDifference", count: int) -> str:
    name = clean_text(one.pair.a)
    place = f"output {name}" if count == 1 else f"output {name}, the farthest of {count},"
    if one.other_shape:
        return f"{place} has another shape in {one.other_shape} photos"
    if one.relative is not None and math.isinf(one.relative):
        return f"{place} is not finite in B"
    if one.pair.whole:
        return f"{place} differs in {one.relative or 0:.2%} of its whole numbers"
    sqnr, cosine = (one.statistics.get(name) for name in ("sqnr", "cosine"))
    if one.relative == 0 or sqnr is None:
        largest = one.statistics.get("max_abs")
        return f"{place} {'is equal' if largest is None or not largest['value'] else 'differs'}"
    noise = ""
    if one.band is not None:
        noise = f" (float32 noise alone: {-20 * math.log10(one.band):.0f} dB)"
    alike = "" if cosine is None else f", cosine {_near_one(cosine['value'])}"
    return f"{place} has SQNR {sqnr['value']:.1f} dB{noise}{alike}"


def _near_one(value: float) -> str:
    """A cosine with so many digits that it differs from 1 where it does, up to nine."""
    digits = 4 if value > 1 - 1e-12 else min(9, max(4, math.ceil(-math.log10(1 - value)) + 1))
    return f"{value:.{digits}f}"


def _worst(outputs: "Sequence[OutputDifference]") -> "OutputDifference | None":
    """The output at which B is farthest from A."""

    def error(one: "OutputDifference") -> float:
        if one.other_shape:
            return math.inf
        return -1.0 if one.relative is None else one.relative

    return max(outputs, key=error, default=None)


def _maps_beyond(found: "Comparison") -> "list[MapPair]":
    """Pairs of maps for A's target that differ beyond A's own noise."""
    bands = found.noise.map_bands
    return [
        pair
        for pair in found.pairs
        if pair.similarity.one_sided
        or (
            pair.similarity.rank is not None
            and pair.similarity.rank < bands.get(pair.method, -math.inf)
        )
    ]
