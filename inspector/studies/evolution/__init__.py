"""How features come about: units' strongest activations, projected, along the training."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import MissingExtra, ModelRefused, UsageError
from inspector.passes.batches import Progress
from inspector.passes.journal import Journal
from inspector.render.drawing.chart import require_matplotlib
from inspector.studies import MOST_UNITS, Findings, check_seed, parse_units, study
from inspector.studies.evolution.grid import Row
from inspector.studies.evolution.passes import Run, channel_axis
from inspector.studies.evolution.summary import (
    Evolved,
    depth_correlation,
    evolved,
    label_of,
    sentences_of,
    summary_of,
)

if TYPE_CHECKING:
    from inspector.network.layers import Layer
    from inspector.opened import Opened
    from inspector.studies.evolution.snapshots import Training

__all__ = ["evolution"]

FEW_LAYERS = 5
"""Layers that are shown when none are named; the paper shows its five convolutions."""

MOST_SHOWN = 32
"""Units of a layer that one figure may show."""


@study("evolution", images=True)
def evolution(
    model: "Opened",
    images: Iterable[Any],
    *,
    snapshots: tuple[str, ...] = (),
    layers: str = "",
    units: str = "",
    count: int = 16,
    shown: int = 4,
    seed: int = 0,
    stable: float = 0.9,
    projection: str = "deconvnet",
    extension: str = "refuse",
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Units' strongest projections along training: jumps, and when layers converge.

    At every checkpoint of a training, for units of several layers, the strongest activation over
    all photos, projected down to the pixels (Zeiler & Fergus 2014, section 4.1 and figure 4).
    Marks where another photo takes over ("sudden jumps"), and says from which epoch on the
    projections stay what they are at the end.

    Args:
        model: The opened model, which is the training's last state.
        images: The photos; read once for each checkpoint.
        snapshots: An ONNX file of an earlier epoch, or a folder of them. Needed.
        layers: Layers as tensor names or indices, set apart by commas; five, spread over the
            network, when not given.
        units: Channels as numbers and ranges, such as 0,3,8-11, for every layer; a list for each
            layer when set apart by slashes. Drawn at random when not given.
        count: Units a layer that are drawn at random and measured.
        shown: Units a layer in the figure, the first ones.
        seed: Of the random choice.
        stable: Cosine with the last projection from which on one counts as settled.
        projection: deconvnet, guided-backprop or gradient.
        extension: The rule for smooth activations (SiLU, GELU): refuse, signal-first or, with
            guided-backprop, gradient-first.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found in each photo at each checkpoint.

    Returns:
        The figure; for each unit and checkpoint the winner, its activation and place, and how
        alike projections are; for each layer by when it has converged.

    Raises:
        UsageError: no checkpoints, or of another network; options out of range.
        MethodRefused: a projection that cannot be right for a checkpoint.
        ImageRefused: none of the photos can be read, or one has changed meanwhile.
    """
    from inspector.studies.evolution.snapshots import training

    if not 0 < stable <= 1:
        raise UsageError(f"stable = {stable:g} is not a cosine to reach", hint="above 0, at most 1")
    if not 1 <= shown <= MOST_SHOWN:
        raise UsageError(f"{shown} units of a layer in the figure", hint=f"1 to {MOST_SHOWN}")
    check_seed(seed)
    chosen = _layers(model, layers)
    rows = _rows(model, chosen, units, count, seed)
    course = training(model, snapshots, chosen)
    run = Run(model, list(images), chosen, rows, projection, extension, journal or Journal())
    grid = run.over(course, progress)
    found = [evolved(row, cells, stable) for row, cells in zip(rows, grid, strict=True)]
    summary = [
        summary_of(run, slot, [one for one in found if one.row.slot == slot], course)
        for slot in range(len(chosen))
    ]
    warnings = [*model.preprocessing.warnings, *course.notes, *run.notes]
    sentences = sentences_of(found, summary, course, used=run.used, stable=stable)
    charted = _charted(warnings)
    return Findings(
        study="evolution",
        context=model.context(None),
        options={
            "snapshots": snapshots,
            "layers": layers,
            "units": units,
            "count": count,
            "shown": shown,
            "seed": seed,
            "stable": stable,
            "projection": projection,
            "extension": extension,
        },
        numbers={
            "counted_by": course.word,
            "snapshots": [
                {
                    "label": one.label,
                    "epoch": one.epoch,
                    "file": one.path.name,
                    "sha256": one.sha256,
                    "final": one.final,
                }
                for one in course.snapshots
            ],
            "projection": projection,
            "coverage": run.coverage,
            "stable_cosine": stable,
            "rank_correlation_of_depth_and_settling": depth_correlation(found),
            "layers": summary,
            "units": [one.to_dict(run, course) for one in found],
        },
        table=[entry for one in found for entry in one.table(run, course)],
        sentences=sentences,
        draw=partial(
            _figure,
            model,
            course,
            found,
            summary,
            run,
            shown=shown,
            charted=charted,
            sentences=sentences,
            warnings=warnings,
        ),
        images=run.used,
        refused=tuple(run.refused),
        warnings=tuple(warnings),
    )


# -- layers and units -----------------------------------------------------------------------------


def _layers(model: "Opened", text: str) -> "list[Layer]":
    """The layers that are named, or a few spread over the network."""
    if text.strip():
        found = [model.layer_for(part.strip())[0] for part in text.split(",") if part.strip()]
        return list({layer.tensor: layer for layer in found}.values())
    shapes = model.shapes(model.preprocessing.preprocess.size)
    maps = [
        layer
        for layer in model.layers
        if not layer.gate
        and layer.on_path
        and min((1, *shapes.get(layer.tensor, ())[2:])) > 0
        and np.prod(shapes.get(layer.tensor, (0, 0, 1))[2:]) > 1
    ]
    if not maps:
        raise ModelRefused(
            "no layer has a map larger than 1x1",
            where=model.path.name,
            hint="name tensors (N, C, h, w) with --layers",
        )
    places = np.linspace(0, len(maps) - 1, min(FEW_LAYERS, len(maps)))
    return [maps[place] for place in np.unique(np.rint(places).astype(int))]


def _rows(
    model: "Opened", layers: "Sequence[Layer]", text: str, count: int, seed: int
) -> list[Row]:
    """The units of each layer, as named or drawn at random."""
    channels = [model.shape_of(layer.tensor)[channel_axis(model, layer.tensor)] for layer in layers]
    lists = text.split("/") if "/" in text else [text] * len(layers)
    if len(lists) != len(layers):
        raise UsageError(
            f"{len(lists)} lists of units for {len(layers)} layers",
            hint="one list for all, or as many as layers, set apart by slashes",
        )
    if not 1 <= count <= MOST_UNITS:
        raise UsageError(f"{count} units a layer", hint=f"1 to {MOST_UNITS}")
    rows = []
    for slot, (total, named) in enumerate(zip(channels, lists, strict=True)):
        # By the layer's own index, so that a layer's units do not hang on which others are named.
        random = np.random.default_rng([seed, layers[slot].index + 1])
        drawn = sorted(random.choice(total, min(count, total), replace=False).tolist())
        rows += [Row(slot, u) for u in (parse_units(named, total) if named.strip() else drawn)]
    if len(rows) > MOST_UNITS:
        raise UsageError(f"{len(rows)} units in all", hint=f"at most {MOST_UNITS} at a time")
    return rows


# -- the figure -----------------------------------------------------------------------------------


def _charted(warnings: list[str]) -> bool:
    """Whether the chart of convergence can be drawn; if not, a warning says so."""
    try:
        require_matplotlib()
    except MissingExtra as error:
        warnings.append(f"the chart of convergence is left out: {error}")
        return False
    return True


def _figure(
    model: "Opened",
    course: "Training",
    found: Sequence[Evolved],
    summary: Sequence[Mapping[str, Any]],
    run: Run,
    *,
    shown: int,
    charted: bool,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.evolution.figure import (
        Cell,
        Group,
        Strip,
        convergence_chart,
        evolution_sheet,
    )

    def remark(one: Evolved) -> tuple[str, str]:
        if one.settled is None:
            return "not active", "at the end"
        if one.settled == len(one.cells) - 1:
            return "stable only", "at the end"
        return "stable from", f"{course.word} {label_of(course, one.settled)}"

    def strip(one: Evolved) -> Strip:
        cells = [
            Cell(
                cell.picture,
                cell.patch,
                cell.peak.value if cell.peak else None,
                bool(jump),
                "" if cell.active else "not active" if cell.peak is None else "not finite",
            )
            for cell, jump in zip(one.cells, one.jumps, strict=True)
        ]
        return Strip(one.row.unit, remark(one), cells)

    labels = [one.label for one in course.snapshots]
    groups = [
        Group(layer, [strip(one) for one in found if one.row.slot == slot][:shown])
        for slot, layer in enumerate(summary)
    ]
    return evolution_sheet(
        groups,
        labels=labels,
        word=course.word,
        chart=convergence_chart(summary, labels, course.word) if charted else None,
        title=f"{model.path.name} along its training",
        subtitle=f"strongest activations over {run.used} photo(s), projected by {run.projection}",
        left_out=sum(len(layer["units"]) > shown for layer in summary) > 0,
        sentences=sentences,
        notes=warnings,
    )
