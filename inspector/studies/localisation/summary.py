"""The results told: as plain data, as rows, and in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.measures.boxes import CONNECTIVITIES
from inspector.measures.statistics import LEVEL
from inspector.studies.localisation.maps import LONGEST, Mapper
from inspector.studies.localisation.matches import CENTRE, SIGMA, THRESHOLDS, Rules, threshold_of
from inspector.studies.localisation.measures import (
    COMPARED,
    IOUS,
    MEASURES,
    Interval,
    Tally,
    best_threshold,
)
from inspector.studies.localisation.objects import SLACK

__all__ = ["Results", "conventions", "numbers", "rows", "sentences", "titles", "warnings"]

FEW = 100
"""Photos below which the intervals are too wide to tell most methods apart."""

Entry = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that was measured.

    Attributes:
        entries: One a photo, with its ``name``.
        tallies: By method, the centre among them.
        measured: Intervals by method and measure.
        better: What each method is better by than the centre.
        known: Shares of photos classified right: ``top1``, ``topk``.
        rules: As chosen.
        tolerance: Of the pointing game, in pixels.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.
    """

    entries: Sequence[Entry]
    tallies: Mapping[str, Tally]
    measured: Mapping[str, Mapping[str, Interval]]
    better: Mapping[str, Mapping[str, Interval]]
    known: Mapping[str, Interval]
    rules: Rules
    tolerance: float
    resamples: int
    seed: int

    @property
    def methods(self) -> list[str]:
        """Labels of the methods, without the centre."""
        return [name for name in self.tallies if name != CENTRE]

    @property
    def objects(self) -> int:
        """How many labels all photos have together."""
        return sum(len(entry["objects"]) for entry in self.entries)

    @property
    def seen(self) -> list[float]:
        """For each object the share that the network saw of its best seen box."""
        return [max(one["seen"]) for entry in self.entries for one in entry["objects"]]


def titles(found: Results) -> dict[str, str]:
    """Names of the measures as people read them; each measure once."""
    top = found.rules.top
    named = {
        "top1_error": "top-1 localisation error",
        "topk_error": f"top-{top} localisation error",
        "gt_known": "GT-known",
        "max_box_acc": "MaxBoxAcc",
        "max_box_acc_v2": "MaxBoxAccV2",
        "pointing": f"pointing, {found.tolerance:g} px",
        "pointing_exact": "pointing, 0 px",
    }
    same = {"topk_error": top == 1, "pointing_exact": not found.tolerance}
    return {measure: name for measure, name in named.items() if not same.get(measure)}


def conventions(found: Results) -> dict[str, Any]:
    """Every choice that the papers leave open."""
    return {
        "iou": "intersection over union in continuous pixel coordinates of the whole photo, pixel "
        "i reaching from i to i + 1; a hit from 0.5 on, with any box of the label",
        "box": "around the largest connected component of the pixels strictly above the threshold "
        "times the map's maximum on the photo; never min-max normalised",
        "connectivity": found.rules.connectivity,
        "connectivities": CONNECTIVITIES,
        "thresholds": THRESHOLDS,
        "grid": f"maps are laid on the photo's own pixels, or, where its longer side has more "
        f"than {LONGEST}, on a grid of {LONGEST} cells along it",
        "unseen": "parts of the photo that the network did not see belong to no map's box",
        "true_class": "of a label's alternatives the one with the highest score",
        "top_k": found.rules.top,
        "top_k_maps": "the map of each right class among the best; a wrong class is an error "
        "wherever its box lies",
        "objects": "boxes of one label on a photo are alternatives; several labels of a photo "
        "share its one vote in GT-known, MaxBoxAcc and pointing",
        "max_box_acc": "largest component, IoU 0.5, best threshold for all photos",
        "max_box_acc_v2": f"best of all components, mean over IoU {', '.join(map(str, IOUS))}, "
        "best threshold for each",
        "pointing": {
            "tolerance": found.tolerance,
            "distance": "Euclidean, from the centre of the highest pixel to the nearest box of "
            "the label, in pixels of the photo; shares are over photos, not over classes",
            "plateau": "of equal maxima the pixel nearest to their mean",
        },
        "centre": {
            "box": f"{found.rules.centre:g} of the photo's area, its proportions",
            "gaussian": f"standard deviation {SIGMA:g} of each side",
            "point": "the middle of the photo",
        },
        "box_slack": SLACK,
        "intervals": {
            "level": LEVEL,
            "kind": "percentile bootstrap over photos, the same for all methods",
            "resamples": found.resamples,
            "seed": found.seed,
        },
    }


def numbers(found: Results, mapper: Mapper, left_out: int) -> dict[str, Any]:
    """The result as plain data."""
    seen = found.seen
    return {
        "photos": len(found.entries),
        "objects": found.objects,
        "photos_without_part": left_out,
        "classification": {
            "top1_accuracy": found.known["top1"].to_dict(),
            "topk_accuracy": found.known["topk"].to_dict(),
            "k": found.rules.top,
        },
        "methods": [_method(name, found, mapper) for name in found.methods],
        "centre": _measures(CENTRE, found),
        "refused_methods": [
            {"method": label, "reason": why} for label, why in mapper.refused.items()
        ],
        "seen": {
            "mean": sum(seen) / len(seen),
            "below_half": sum(share < IOUS[1] for share in seen),
        },
        "conventions": conventions(found),
        "photo_results": [_photo(entry) for entry in found.entries],
    }


def _method(name: str, found: Results, mapper: Mapper) -> dict[str, Any]:
    request = mapper.requests[name]
    return {
        "method": name,
        "options": request.settings,
        "layer": mapper.layers[name],
        "threshold": threshold_of(request.method.name, found.rules),
        **_measures(name, found),
        "better_than_centre": {m: one.to_dict() for m, one in found.better[name].items()},
    }


def _measures(name: str, found: Results) -> dict[str, Any]:
    counted = found.tallies[name]
    return {
        **{measure: found.measured[name][measure].to_dict() for measure in MEASURES},
        "max_box_acc_threshold": best_threshold(counted),
        "max_box_acc_curve": counted.largest[:, 1].mean(0, dtype=np.float64).tolist(),
        "empty_maps": counted.empty,
    }


def _photo(entry: Entry) -> dict[str, Any]:
    """One photo's numbers without those at every threshold."""
    kept = ("box", "iou", "point", "gap")
    return {key: value for key, value in entry.items() if key != "methods"} | {
        "methods": {
            name: {
                "ranks": found["ranks"],
                "objects": [{key: one[key] for key in kept} for one in found["objects"]],
            }
            for name, found in entry["methods"].items()
        }
    }


def rows(found: Results, mapper: Mapper) -> list[dict[str, Any]]:
    """One row a method, the centre last."""
    table = []
    for name in found.tallies:
        request = mapper.requests.get(name)
        row: dict[str, Any] = {
            "method": name,
            "layer": mapper.layers.get(name),
            "threshold": threshold_of(request.method.name, found.rules) if request else None,
            "photos": len(found.entries),
        }
        for measure, one in found.measured[name].items():
            row |= {measure: one.value, f"{measure}_low": one.low, f"{measure}_high": one.high}
        table.append(
            row
            | {
                "max_box_acc_threshold": best_threshold(found.tallies[name]),
                "empty_maps": found.tallies[name].empty,
            }
        )
    return table


def sentences(found: Results) -> tuple[str, ...]:
    """The result in plain language."""
    names, top = titles(found), found.rules.top
    known, told = found.known, []
    told.append(
        f"{len(found.entries)} photo(s), {found.objects} labelled object(s); the class alone is "
        f"right on {_percent(known['top1'])} (top-1) and {_percent(known['topk'])} (top-{top})"
    )
    told += [
        _against_centre(found, measure, names[measure])
        for measure in ("gt_known", "max_box_acc", "pointing")
    ]
    never = [m for m in COMPARED if all(found.better[n][m].value <= 0 for n in found.methods)]
    if len(never) == len(COMPARED):
        told.append(
            "no method localises better than the centre of the photo, by any measure: "
            "these maps tell no more of where the objects are than that"
        )
    elif never:
        listed = ", ".join(names[m] for m in never if m in names)
        told.append(f"no method beats the centre in {listed}")
    alike: dict[bytes, list[str]] = {}
    for name in found.methods:
        alike.setdefault(found.tallies[name].largest.tobytes(), []).append(name)
    told += [
        f"{', '.join(group[:-1])} and {group[-1]} hit the same objects at every threshold"
        for group in alike.values()
        if len(group) > 1
    ]
    told += [
        f"{name}: {found.tallies[name].empty} of {found.objects} maps without positive evidence, "
        "counted as misses"
        for name in found.methods
        if found.tallies[name].empty
    ]
    below = sum(share < IOUS[1] for share in found.seen)
    if below:
        told.append(
            f"{below} object(s) cannot be hit: the network saw less than half of each of "
            "their boxes"
        )
    return tuple(told)


def _against_centre(found: Results, measure: str, name: str) -> str:
    """The best method beside the centre, and whether the photos can tell them apart."""
    best = max(found.methods, key=lambda method: found.measured[method][measure].value)
    better = found.better[best][measure]
    told = (
        f"{name}: {best} {_percent(found.measured[best][measure])}, the centre "
        f"{_percent(found.measured[CENTRE][measure])}; difference {100 * better.value:+.1f} points "
        f"(95 % interval {100 * better.low:+.1f} to {100 * better.high:+.1f})"
    )
    certain = better.low > 0 or better.high < 0
    return told if certain else told + ": not told apart by these photos"


def _percent(one: Interval) -> str:
    return f"{100 * one.value:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})"


def warnings(found: Results, mapper: Mapper, left_out: int) -> list[str]:
    """What must be known when the result is read."""
    told = [*mapper.model.preprocessing.warnings, *mapper.model.class_labels.warnings]
    told += [f"{label} is left out: {why}" for label, why in mapper.refused.items()]
    if left_out:
        told.append(f"{left_out} photo(s) of the table are not among those given")
    if found.rules.top >= mapper.classes:
        told.append(
            f"the model has {mapper.classes} class(es), so one of the best "
            f"{found.rules.top} is always right"
        )
    short = sorted(min(entry["size"]) for entry in found.entries)[len(found.entries) // 2]
    if found.tolerance > short / 10:
        told.append(
            f"a tolerance of {found.tolerance:g} pixels is much on photos of {short}: --tolerance 0"
        )
    if len(found.entries) < FEW:
        told.append(
            f"{len(found.entries)} photos: mind the intervals, differences inside them mean nothing"
        )
    return [*told, *mapper.notes.values()]
