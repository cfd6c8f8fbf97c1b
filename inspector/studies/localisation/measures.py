"""How well methods localise over all photos: the papers' measures with bootstrap intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector.measures.statistics import bootstrap
from inspector.studies.localisation.matches import CENTRE, THRESHOLDS, unpacked

__all__ = ["COMPARED", "IOUS", "MEASURES", "Interval", "Tally", "summary", "tally"]

IOUS = (0.3, 0.5, 0.7)
"""Overlaps that MaxBoxAccV2 averages over; the middle one is that of all other measures."""

MEASURES = (
    "top1_error",
    "topk_error",
    "gt_known",
    "max_box_acc",
    "max_box_acc_v2",
    "pointing",
    "pointing_exact",
)

COMPARED = ("gt_known", "max_box_acc", "max_box_acc_v2", "pointing", "pointing_exact")
"""Measures of the map alone, in which a method is held against the centre."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Tally:
    """What a method hit on each of P photos; objects of one photo share its one vote.

    Attributes:
        top1: (P,) whether the best class is right and its box hits.
        topk: (P,) whether one of the best does.
        gt_known: (P,) share of the objects whose box hits, the class being given.
        pointing: (P,) share of the objects that the maximum hits, with tolerance.
        pointing_exact: (P,) without.
        largest: (P, 3, T) share of the objects hit by the largest component's box, for each
            of ``IOUS`` and ``THRESHOLDS``.
        every: (P, 3, T) the same for the best of all components' boxes.
        empty: Maps without positive evidence, over all objects.
    """

    top1: Array
    topk: Array
    gt_known: Array
    pointing: Array
    pointing_exact: Array
    largest: Array
    every: Array
    empty: int


@dataclass(frozen=True)
class Interval:
    """A number over photos with its bootstrap interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain data."""
        return {"value": self.value, "low": self.low, "high": self.high}


def tally(entries: Sequence[Mapping[str, Any]], method: str, tolerance: float) -> Tally:
    """Count what a method hit.

    Args:
        entries: One a photo, of ``matches.entry_of``.
        method: Its label, or ``CENTRE``.
        tolerance: Pixels that the maximum may lie outside a box.
    """
    photos = [entry["methods"][method] for entry in entries]
    least = np.asarray(IOUS, np.float32)[:, None]
    curves = [
        np.stack(
            [
                np.mean([unpacked(one[kind]) >= least for one in photo["objects"]], 0)
                for photo in photos
            ]
        ).astype(np.float32)
        for kind in ("largest", "every")
    ]

    def share(hit: Any) -> Array:
        return np.array([np.mean([hit(one) for one in photo["objects"]]) for photo in photos])

    return Tally(
        top1=np.array([photo["ranks"][0] >= IOUS[1] for photo in photos], float),
        topk=np.array([max(photo["ranks"]) >= IOUS[1] for photo in photos], float),
        gt_known=share(lambda one: one["iou"] >= IOUS[1]),
        pointing=share(lambda one: one["gap"] is not None and one["gap"] <= tolerance),
        pointing_exact=share(lambda one: one["gap"] == 0),
        largest=curves[0],
        every=curves[1],
        empty=sum(one["box"] is None for photo in photos for one in photo["objects"]),
    )


def statistics(found: Tally, weights: Array) -> dict[str, Array]:
    """All measures, under weights of the photos.

    Args:
        found: What a method hit.
        weights: (B, P), how often each photo counts; each row sums to P.

    Returns:
        (B,) by name of ``MEASURES``.
    """
    photos = weights.shape[1]
    return {
        "top1_error": (photos - weights @ found.top1) / photos,
        "topk_error": (photos - weights @ found.topk) / photos,
        "gt_known": weights @ found.gt_known / photos,
        "max_box_acc": (weights @ found.largest[:, 1]).max(1) / photos,
        # The best threshold is chosen for each overlap by itself (Choe et al.).
        "max_box_acc_v2": np.mean(
            [(weights @ found.every[:, place]).max(1) / photos for place in range(len(IOUS))], 0
        ),
        "pointing": weights @ found.pointing / photos,
        "pointing_exact": weights @ found.pointing_exact / photos,
    }


def summary(
    tallies: Mapping[str, Tally],
    right: Mapping[str, Array],
    *,
    resamples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Interval]], dict[str, dict[str, Interval]], dict[str, Interval]]:
    """Measures with percentile bootstrap intervals over photos.

    The same photos are drawn for all methods, so that differences are of pairs; the threshold of
    MaxBoxAcc is chosen anew in each sample.

    Args:
        tallies: By method, the centre among them.
        right: (P,) by name, further shares of photos.
        resamples: How many samples are drawn.
        seed: Of the draws.

    Returns:
        Measures by method; what each method is better by than the centre; the further shares.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    photos = len(next(iter(right.values())))
    methods = [name for name in tallies if name != CENTRE]

    def values(weights: Array) -> Array:
        """All numbers, (K, B), in the order in which they are read below."""
        found = {name: statistics(tally, weights) for name, tally in tallies.items()}
        rows = [found[name][m] for name in tallies for m in MEASURES]
        rows += [found[name][m] - found[CENTRE][m] for name in methods for m in COMPARED]
        rows += [weights @ share / photos for share in right.values()]
        return np.stack(rows)

    ends = bootstrap(values, photos, seed=seed, resamples=resamples)
    all_numbers = np.stack([values(np.ones((1, photos)))[:, 0], *ends], -1)
    intervals = iter([Interval(*map(float, three)) for three in all_numbers])
    return (
        {name: {m: next(intervals) for m in MEASURES} for name in tallies},
        {name: {m: next(intervals) for m in COMPARED} for name in methods},
        {name: next(intervals) for name in right},
    )


def best_threshold(found: Tally) -> float:
    """The lowest threshold at which MaxBoxAcc is reached."""
    return THRESHOLDS[int(found.largest[:, 1].mean(0, dtype=np.float64).argmax())]
