"""What excites a unit: its strongest activations over many photos, each projected to pixels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.passes.batches import BATCH, Progress, batches
from inspector.passes.journal import Journal
from inspector.passes.ranking import Winner, strongest
from inspector.projection.field import patch_field
from inspector.projection.projector import Projector, rgb_of
from inspector.studies import Findings, parse_units, study

if TYPE_CHECKING:
    from inspector.network.receptive_fields.receptive_field import Box, ReceptiveField
    from inspector.opened import Opened

__all__ = ["top_activations"]

Array = np.ndarray[Any, Any]

MOST_WINNERS = 100


@study("top-activations", images=True)
def top_activations(
    model: "Opened",
    images: Iterable[Any],
    *,
    layer: str | int | None = None,
    units: str = "",
    count: int = 9,
    projection: str = "deconvnet",
    extension: str = "refuse",
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Strongest activations of units over photos, each beside its projection.

    For each unit of a layer the photos that excite it most, one activation a photo: the patch of
    the network's input that the unit sees, and that one activation projected down to the pixels,
    all others set to zero (Zeiler & Fergus 2014, figure 2). One pass over the photos in bounded
    memory; only the winners are projected.

    Args:
        model: The opened model.
        images: The photos, as paths or in memory; may be a generator.
        layer: The layer, as tensor name or index; that of `inspector explain` when not given.
        units: Channels as numbers and ranges, such as 0,3,8-11; the first 8 when not given.
        count: Photos a unit, at most 100.
        projection: deconvnet, guided-backprop or gradient.
        extension: The rule for smooth activations (SiLU, GELU): refuse, signal-first or, with
            guided-backprop, gradient-first.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found in each photo.

    Returns:
        The figure, and for each unit its winners with value, place and receptive field.

    Raises:
        UsageError: units out of range, or options out of range.
        MethodRefused: a projection that cannot be right for this model; a layer of integers.
        ImageRefused: none of the photos can be read.
    """
    if not 1 <= count <= MOST_WINNERS:
        raise UsageError(f"{count} photos a unit", hint=f"1 to {MOST_WINNERS}")
    tensor = model.layer_for(layer)[0].tensor
    shape = model.shape_of(tensor)
    chosen = parse_units(units, shape[1])
    projector = Projector(model, tensor, projection, extension)
    refused: list[ImageRefused] = []
    winners, used = strongest(
        model,
        tensor,
        images,
        chosen,
        count=count,
        refused=refused,
        progress=progress,
        journal=journal,
    )
    if not used:
        raise refused[0] if refused else UsageError("no photos were given")
    field, notes = patch_field(model, tensor)
    warnings = [*model.preprocessing.warnings, *notes]
    shown = _projected(projector, field, winners, progress)
    warnings += shown.notes
    sentences = _sentences(winners, used, count, tensor)
    rows = [_unit(unit, winners[unit], shown) for unit in chosen]
    return Findings(
        study="top-activations",
        context=model.context(None),
        options={
            "layer": layer,
            "units": units,
            "count": count,
            "projection": projection,
            "extension": extension,
        },
        numbers={
            "layer": tensor,
            "layer_shape": shape[1:],
            "projection": projection,
            "receptive_field": {"size": field.size, "stride": field.stride},
            "coverage": shown.coverage,
            "units": rows,
        },
        table=_table(rows),
        sentences=sentences,
        draw=partial(
            _figure, model, tensor, winners, shown, sentences=sentences, warnings=warnings
        ),
        images=used,
        refused=tuple(refused),
        warnings=tuple(warnings),
    )


# -- the winners ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Shown:
    """Boxes, patches and projections by unit and photo.

    Attributes:
        boxes: (y0, x0, y1, x1) in pixels of the network's input.
        patches: (h, w, 3) pixels 0..255.
        projections: (C, h, w) signed, channels as the model takes them.
        notes: What must be said with them.
        coverage: Which activations the backward rule reached.
    """

    boxes: "dict[tuple[int, int], Box]"
    patches: dict[tuple[int, int], Array]
    projections: dict[tuple[int, int], Array]
    notes: list[str]
    coverage: str


def _projected(
    projector: "Projector",
    field: "ReceptiveField",
    winners: Mapping[int, Sequence[Winner]],
    progress: Progress | None,
) -> _Shown:
    """Project every winner of every unit, a few at a time.

    Raises:
        ImageRefused: A photo has gone since the first pass.
    """
    shown = _Shown({}, {}, {}, projector.notes, "")
    # By photo, so that one that excites several units is opened for neighbouring batches.
    every = sorted((w for found in winners.values() for w in found), key=lambda w: w.place)
    step = BATCH if projector.model.batches else 1
    for start in range(0, len(every), step):
        _project(projector, field, every[start : start + step], shown)
        if progress:
            progress("projections", min(start + step, len(every)), len(every))
    return replace(shown, coverage=projector.coverage)


def _project(
    projector: "Projector", field: "ReceptiveField", winners: Sequence[Winner], shown: _Shown
) -> None:
    gone: list[ImageRefused] = []
    opened = batches(projector.model, (winner.source for winner in winners), gone)
    images = np.concatenate([batch.tensors for batch in opened] or [np.zeros(0)])
    if gone:
        raise gone[0]  # it could be read a moment ago
    signals = projector(images, [(w.unit, w.y, w.x) for w in winners])
    preprocess = projector.model.preprocessing.preprocess
    for winner, image, signal in zip(winners, images, signals, strict=True):
        y0, x0, y1, x1 = box = field.pixels(winner.y, winner.x)
        key = winner.unit, winner.place
        shown.boxes[key] = box
        # The rules are linear in a positive signal: what goes down is the activation itself.
        shown.projections[key] = winner.value * signal[:, y0:y1, x0:x1]
        shown.patches[key] = preprocess.decode(image[:, y0:y1, x0:x1])


# -- the result -----------------------------------------------------------------------------------


def _unit(unit: int, winners: Sequence[Winner], shown: _Shown) -> dict[str, Any]:
    rows = []
    for winner in winners:
        y0, x0, y1, x1 = shown.boxes[unit, winner.place]
        signal = shown.projections[unit, winner.place]
        rows.append(
            {
                "image": {"name": winner.name, "place": winner.place, "sha256": winner.sha256},
                "activation": winner.value,
                "at": {"y": winner.y, "x": winner.x},
                "patch": {"top": y0, "left": x0, "bottom": y1, "right": x1},
                "largest_in_projection": float(np.abs(signal).max(initial=0)),
            }
        )
    return {"unit": unit, "winners": rows}


def _table(units: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "unit": entry["unit"],
            "rank": rank,
            "image": winner["image"]["name"],
            "activation": winner["activation"],
            **winner["at"],
            **winner["patch"],
        }
        for entry in units
        for rank, winner in enumerate(entry["winners"], 1)
    ]


def _sentences(
    winners: Mapping[int, Sequence[Winner]], used: int, count: int, tensor: str
) -> tuple[str, ...]:
    found = [f"{len(winners)} unit(s) of {tensor}, strongest over {used} photo(s)"]
    never = [str(unit) for unit, rows in winners.items() if not rows]
    if never:
        found.append(f"never active: unit(s) {', '.join(never)}")
    few = [str(unit) for unit, rows in winners.items() if 0 < len(rows) < count]
    if few:
        found.append(f"active on fewer than {count} photo(s): unit(s) {', '.join(few)}")
    tops = [rows[0].name for rows in winners.values() if rows]
    often = max(sorted(set(tops)), key=tops.count, default="")
    if tops.count(often) > max(1, len(tops) / 2):
        found.append(f"{often} is the strongest photo of {tops.count(often)} of them")
    return tuple(found)


def _figure(
    model: "Opened",
    tensor: str,
    winners: Mapping[int, Sequence[Winner]],
    shown: _Shown,
    *,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.top_activations.figure import Row, activation_sheet

    preprocess = model.preprocessing.preprocess
    rows = []
    for unit, found in winners.items():
        keys = [(unit, winner.place) for winner in found]
        signals = [rgb_of(shown.projections[key], preprocess) for key in keys]
        patches = [shown.patches[key] for key in keys]
        values = [winner.value for winner in found]
        rows.append(Row(f"unit {unit}", values, patches, signals))
    return activation_sheet(
        rows,
        title=f"strongest activations in {model.path.name}",
        subtitle=tensor,
        sentences=sentences,
        notes=warnings,
    )
