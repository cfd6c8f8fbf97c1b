"""Units that speak for a class: ranked by the head's weight, with what excites them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, MethodRefused, UsageError
from inspector.passes.activations import activations
from inspector.passes.batches import Progress, batches
from inspector.passes.journal import Journal
from inspector.passes.ranking import Winner, strongest
from inspector.projection.field import patch_field
from inspector.studies import Findings, study
from inspector.studies.units.contributions import Contributions, contributions_of, half_of_positive
from inspector.studies.units.segmentation import Shown, Threshold, segments
from inspector.studies.units.unit_weights import HINT, ClassUnits, class_units, linear_head
from inspector.target import parse_target

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["units"]

Array = np.ndarray[Any, Any]
Pictures = Mapping[tuple[int, int], Shown]

MOST_SHOWN = 32
"""Units of one figure, and photos of one unit."""

SIGNS = ("positive", "negative", "both")


@study("units", images=True)
def units(
    model: "Opened",
    images: Iterable[Any],
    *,
    target: str = "",
    count: int = 6,
    photos: int = 6,
    sign: str = "positive",
    threshold: str = "maximum:0.5",
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Units of a class, ranked by the head's weight, with what excites them.

    For a class the units of the last feature maps with the largest weights in the linear head
    (Zhou et al. 2016, class-specific units): how much each adds to the class's score on the
    photos, the patches that excite it most, and the segments of those photos on which it is
    active. Refused where the head is not linear in the mean of the maps.

    Args:
        model: The opened model.
        images: The photos, as paths or in memory.
        target: The class, as label or index; the one most often predicted on the photos when not
            given.
        count: Units, at most 32; so many of each sign with --sign both.
        photos: Photos a unit, at most 32.
        sign: Weights to rank by, largest first: positive, negative or both.
        threshold: Where a segment ends: maximum:S or peak:S for the share S of the unit's largest
            activation over all photos or on that photo, quantile:Q for the activation that the
            share Q of all places on all photos exceeds, such as quantile:0.005.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found in the photos.

    Returns:
        The figure; weights and contributions of all units; winners and segments of those shown.

    Raises:
        UsageError: options out of range.
        MethodRefused: the head rules an exact account of the score out.
        ImageRefused: none of the photos can be read.
    """
    images, journal, limit = list(images), journal or Journal(), Threshold.read(threshold)
    _check(images, count, photos, sign)
    index, why = _class(model, target, images, progress=progress, journal=journal)
    head = class_units(model, index)
    shown = _chosen(head.weights, count, sign)
    found = contributions_of(
        model,
        head,
        index,
        images,
        quantile=limit.quantile,
        units=shown if limit.quantile else (),
        progress=progress,
        journal=journal,
    )
    refused: list[ImageRefused] = []
    winners, used = strongest(
        model,
        head.maps,
        images,
        shown,
        count=photos,
        refused=refused,
        progress=progress,
        journal=journal,
        channel_axis=head.channel_axis,
    )
    if not used or used != found.photos:
        raise refused[0] if refused else UsageError("the photos changed while they were read")
    limits = {
        (w.unit, w.place): limit.value(w, rows[0].value, found)
        for rows in winners.values()
        for w in rows
    }
    field, notes = patch_field(model, head.maps)
    warnings = [*model.preprocessing.warnings, *model.class_labels.warnings, *notes]
    pictures = segments(model, head, field, winners, limits, progress=progress)
    warnings += [*head.notes, *found.notes()]
    names = model.class_labels.names
    label = names[index] if index < len(names) else f"class {index}"
    rows = [_unit(unit, head, found, winners[unit], pictures) for unit in shown]
    sentences = _sentences(label, head, found, rows, limit)
    return Findings(
        study="units",
        context=model.context(None),
        options={
            "target": target,
            "count": count,
            "photos": photos,
            "sign": sign,
            "threshold": threshold,
        },
        numbers={
            "class": {"index": index, "label": label, "chosen": why},
            "head": head.to_dict(),
            "account": found.to_dict(),
            "receptive_field": {"size": field.size, "stride": field.stride},
            "threshold": limit.to_dict(),
            "units": rows,
            "largest_contributions": [int(k) for k in np.argsort(found.ranks)[:MOST_SHOWN]],
        },
        table=_table(head, found, shown),
        sentences=sentences,
        draw=partial(
            _figure,
            model,
            head,
            rows,
            winners,
            pictures,
            sentences=sentences,
            warnings=warnings,
            label=label,
            over=found.over,
            limit=limit,
        ),
        images=used,
        refused=tuple(refused),
        warnings=tuple(warnings),
    )


# -- what is meant --------------------------------------------------------------------------------


def _check(images: Sequence[Any], count: int, photos: int, sign: str) -> None:
    for what, number in (("units", count), ("photos a unit", photos)):
        if not 1 <= number <= MOST_SHOWN:
            raise UsageError(f"{number} {what}", hint=f"1 to {MOST_SHOWN}")
    if sign not in SIGNS:
        raise UsageError(f"no sign {sign!r}", hint="one of " + ", ".join(SIGNS))
    if not images:
        raise UsageError("no photos were given")


def _class(
    model: "Opened",
    target: str,
    images: Sequence[Any],
    *,
    progress: Progress | None,
    journal: Journal,
) -> tuple[int, str]:
    """The class that is meant, and how it was chosen.

    Raises:
        UsageError: the target is not a class, or several.
        MethodRefused: the model has no classes, or no linear head.
        ImageRefused: none of the photos can be read.
    """
    scores = model.scores
    if not scores.classifier:
        raise MethodRefused(f"there is no classifier: {scores.why}", hint=HINT)
    if target.strip() and target.strip().casefold() != "top1":
        found = parse_target(target, scores=scores, labels=model.class_labels.names)
        if len(found) != 1 or found[0].class_index is None or found[0].sign < 0:
            raise UsageError(f"{target!r} is not one class", hint="give a label or an index")
        return found[0].class_index, "asked for"
    linear_head(model)  # refused before a pass over the photos, not after it
    votes = _predicted(model, images, progress, journal)
    best = min(votes, key=lambda index: (-votes[index], index))
    return best, f"predicted on {votes[best]} of {votes.total()} photos, more than any other"


def _predicted(
    model: "Opened", images: Sequence[Any], progress: Progress | None, journal: Journal
) -> Counter[int]:
    """How often each class is the most probable one."""
    name = model.scores.tensor
    keys = [f"top1 {place}" for place in range(len(images))]
    known = {place for place, key in enumerate(keys) if key in journal}
    refused: list[ImageRefused] = []
    for batch in batches(model, images, refused, progress, skip=known):
        rows = activations(model, batch.tensors, [name])[name].reshape(len(batch.places), -1)
        for place, row in zip(batch.places, rows, strict=True):
            journal.keep(keys[place], int(row.argmax()))
    votes = Counter[int](journal[key] for key in keys if key in journal)
    if not votes:
        raise refused[0]
    return votes


def _chosen(weights: Array, count: int, sign: str) -> tuple[int, ...]:
    """Units with the largest weights of a sign, first to last; of equal ones the lower first."""
    up = [int(k) for k in np.argsort(-weights, kind="stable") if weights[k] > 0][:count]
    down = [int(k) for k in np.argsort(weights, kind="stable") if weights[k] < 0][:count]
    chosen = {"positive": up, "negative": down, "both": up + down}[sign]
    if not chosen:
        raise UsageError(f"no unit has a {sign} weight for the class", hint="try another --sign")
    return tuple(chosen)


# -- the result -----------------------------------------------------------------------------------


def _unit(
    unit: int, head: ClassUnits, found: Contributions, winners: Sequence[Winner], pictures: Pictures
) -> dict[str, Any]:
    return {
        **_row(unit, head, found),
        "winners": [_winner(winner, pictures[unit, winner.place]) for winner in winners],
    }


def _winner(winner: Winner, shown: Shown) -> dict[str, Any]:
    y0, x0, y1, x1 = shown.box
    return {
        "image": {"name": winner.name, "place": winner.place, "sha256": winner.sha256},
        "activation": winner.value,
        "at": {"y": winner.y, "x": winner.x},
        "patch": {"top": y0, "left": x0, "bottom": y1, "right": x1},
        "segment": {"threshold": shown.threshold, "share_of_input": shown.share},
    }


def _row(unit: int, head: ClassUnits, found: Contributions) -> dict[str, Any]:
    """Numbers of one unit."""
    ranks = 1 + int((head.weights > head.weights[unit]).sum())
    ranks += int((head.weights[:unit] == head.weights[unit]).sum())
    return {
        "unit": unit,
        "rank_by_weight": ranks,
        "weight": float(head.weights[unit]),
        "rank_by_contribution": int(found.ranks[unit]),
        "contribution": float(found.everywhere[unit]),
        "contribution_on_own": float(found.on_own[unit]) if found.own else None,
    }


def _table(head: ClassUnits, found: Contributions, shown: Sequence[int]) -> list[dict[str, Any]]:
    """All units, one a row, by weight."""
    order = np.argsort(-head.weights, kind="stable")
    ranks = found.ranks
    return [
        {
            "unit": int(unit),
            "rank_by_weight": rank,
            "weight": float(head.weights[unit]),
            "rank_by_contribution": int(ranks[unit]),
            "contribution": float(found.everywhere[unit]),
            "contribution_on_own": float(found.on_own[unit]) if found.own else None,
            "shown": int(unit) in shown,
        }
        for rank, unit in enumerate(order, 1)
    ]


def _sentences(
    label: str,
    head: ClassUnits,
    found: Contributions,
    rows: Sequence[Mapping[str, Any]],
    limit: Threshold,
) -> tuple[str, ...]:
    mean = found.mean
    gained = float(np.maximum(mean, 0).sum())
    share = float(np.maximum(mean[[row["unit"] for row in rows]], 0).sum()) / (gained or 1.0)
    listed = ", ".join(str(row["unit"]) for row in rows[:8]) + (", ..." if len(rows) > 8 else "")
    text = [
        f"{len(rows)} of {len(mean)} units are shown for {label!r}, by weight: {listed}",
        head.made,
        (
            f"{found.own} of {found.photos} photos are called {label!r}; on {found.over} the units "
            f"shown make {share:.0%} of what is positive in its score; half of that takes "
            f"{half_of_positive(mean)} of all units"
        ),
        _agreement(mean, rows),
        (
            "on every photo the contributions of all units and the bias add up to the score but "
            f"for {found.residual:.1e} of the largest score"
        ),
    ]
    idle = [str(row["unit"]) for row in rows if not row["winners"]]
    if idle:
        text.append(f"never active on the photos: unit(s) {', '.join(idle)}")
    empty = sum(w["segment"]["share_of_input"] == 0 for row in rows for w in row["winners"])
    if empty:
        text.append(f"{empty} segment(s) are empty: the unit stays below {limit.meaning} there")
    return tuple(text)


def _agreement(mean: Array, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of the units with the largest weights also add, or take, most."""
    parts = []
    for sign, what in ((1, "add"), (-1, "take")):
        ranked = [row["unit"] for row in rows if sign * row["weight"] > 0]
        most = {int(k) for k in np.argsort(-sign * mean, kind="stable")[: len(ranked)]}
        kind = "positive" if sign > 0 else "negative"
        if ranked:
            parts.append(
                f"of the {len(ranked)} largest {kind} weights {len(most & set(ranked))} "
                f"are among the {len(ranked)} units that {what} most"
            )
    return "; ".join(parts)


def _figure(
    model: "Opened",
    head: ClassUnits,
    rows: Sequence[Mapping[str, Any]],
    winners: Mapping[int, Sequence[Winner]],
    pictures: Pictures,
    *,
    label: str,
    over: str,
    limit: Threshold,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.units.figure import Row, unit_sheet

    drawn = []
    for row in rows:
        found = winners[row["unit"]]
        shown = [pictures[w.unit, w.place] for w in found]
        own = row["contribution_on_own"]
        drawn.append(
            Row(
                unit=row["unit"],
                rank=row["rank_by_weight"],
                weight=row["weight"],
                contribution=row["contribution"] if own is None else own,
                contribution_rank=row["rank_by_contribution"],
                values=[w.value for w in found],
                patches=[s.patch for s in shown],
                segments=[s.segment for s in shown],
            )
        )
    return unit_sheet(
        drawn,
        title=f"units for {label!r} in {model.path.name}",
        subtitle=f"{len(head.weights)} units of {head.maps}; contributions: mean over {over}",
        threshold=limit.meaning,
        sentences=sentences,
        notes=warnings,
    )
