"""What the square's passes say: in warnings, in sentences and in the figure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.network.outputs.labels import count_warning
from inspector.photos.occluder import Box, covered
from inspector.probability import ASSUMED
from inspector.render.drawing.page import number
from inspector.studies.occlusion.sweep import Plan, Sweep

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["agreement_of", "figure_of", "sentences_of", "warnings_of"]

Array = np.ndarray[Any, Any]


def agreement_of(plan: Plan, sweep: Sweep, signal: Array | None) -> float | None:
    """Pearson's r of the projection's energy under the square and the drop in total activation."""
    if signal is None:
        return None
    energy = (np.asarray(signal, np.float64) ** 2).sum(0)
    hidden = np.array([energy[y0:y1, x0:x1].sum() for y0, x0, y1, x1 in plan.boxes])
    drop = sweep.before["total"] - np.asarray(sweep.values["total"])
    if len(drop) < 3 or not hidden.std() > 0 or not drop.std() > 0:
        return None
    return float(np.corrcoef(hidden, drop)[0, 1])


def warnings_of(
    model: "Opened", plan: Plan, sweeps: Sequence[Sweep], notes: Sequence[str]
) -> tuple[str, ...]:
    """What must be known when the result is read; ``notes`` are those of the projection."""
    found = [*model.preprocessing.warnings, *model.class_labels.warnings]
    classes = model.scores.classes
    found += filter(None, [count_warning(model.class_labels.names, classes)])
    if any(one.how == ASSUMED for one in sweeps):
        found.append(
            "the model ends in scores: probabilities are a softmax of them, which is assumed"
        )
    if any(one.how == "sigmoid" and len(one.sums) and classes != 1 for one in sweeps):
        found.append(
            "probabilities are a sigmoid of each class's own score: they do not add up to 1"
        )
    for one in sweeps:
        if not one.before["total"] > 0:
            found.append(
                f"{one.name}: feature map {one.unit} of {plan.tensor} is not active "
                "without the square"
            )
    return tuple(dict.fromkeys([*found, *notes]))


def sentences_of(plan: Plan, one: Sweep) -> Iterator[str]:
    """One photo in plain language."""
    before, boxes = one.before, plan.boxes
    low = one.lowest("total")
    share = one.values["total"][low] / before["total"] if before["total"] > 0 else None
    left = "" if share is None else f" ({share:.0%} is left at the lowest)"
    y, x = _centre(boxes[low])
    yield (
        f"{one.name}: feature map {one.unit} of {plan.tensor} is weakest with the square at "
        f"row {y}, column {x}{left}"
    )
    low = one.lowest("probability")
    y, x = _centre(boxes[low])
    now = one.names[one.values["label"][low]]
    yield (
        f"{one.name}: the probability of {one.target.label!r} is {before['probability']:.3f}, and "
        f"{one.values['probability'][low]:.3f} with the square at row {y}, column {x}, where "
        f"{now!r} is the most probable label"
    )
    changed = {k: n for k, n in one.counts.items() if k != before["label"]}
    often = next(iter(changed), None)
    most = "" if often is None else f", most often to {one.names[often]!r} ({changed[often]})"
    yield (
        f"{one.name}: the most probable label changes at {sum(changed.values())} of {len(boxes)} "
        f"positions{most}"
    )


def _centre(box: Box) -> tuple[int, int]:
    return (box[0] + box[2]) // 2, (box[1] + box[3]) // 2


def figure_of(
    model: "Opened",
    plan: Plan,
    shown: Sequence[Sweep],
    pictures: Mapping[int, tuple[Array, Array | None]],
    *,
    sentences: Sequence[str],
    warnings: Sequence[str],
    total: int,
    why: str = "",
) -> Any:
    """Draw the photos.

    Args:
        model: The opened model.
        plan: The positions.
        shown: The photos to draw.
        pictures: Image (C, H, W) and projection of each, by place.
        sentences: What is to be said.
        warnings: At the foot.
        total: Photos in all.
        why: Why there is no projection.
    """
    from inspector.studies.occlusion.figure import Row, occlusion_sheet

    decode = model.preprocessing.preprocess.decode
    rows = []
    for one in shown:
        y, x = one.at
        image, signal = pictures[one.place]
        box = plan.boxes[one.lowest("probability")]
        rows.append(
            Row(
                title=one.name,
                target=one.target.label,
                unit=one.unit,
                picture=decode(covered(image, [box], plan.colour)[0]),
                totals=np.asarray(one.grid("total", plan)),
                total=one.before["total"],
                signal=signal,
                signal_of=f"activation {number(float(one.peaks[one.unit]))} at row {y}, column {x}",
                probabilities=np.asarray(one.grid("probability", plan)),
                probability=one.before["probability"],
                labels=np.asarray(one.grid("label", plan)),
                label=one.before["label"],
                names=one.names,
                rows=np.array([(y0 + y1) / 2 for y0, _, y1, _ in plan.boxes[:: plan.grid[1]]]),
                columns=np.array([(x0 + x1) / 2 for _, x0, _, x1 in plan.boxes[: plan.grid[1]]]),
            )
        )
    return occlusion_sheet(
        rows,
        title=f"a grey square over {'the photo' if total == 1 else f'{total} photos'}: "
        f"{model.path.name}",
        subtitle=f"layer {plan.tensor}; square of {plan.window} pixels, step {plan.stride}, "
        f"{len(plan.boxes)} positions",
        sentences=sentences[: 3 * len(rows)] if len(rows) <= 4 else (),
        notes=warnings,
        hidden=total - len(rows),
        why=why,
    )
