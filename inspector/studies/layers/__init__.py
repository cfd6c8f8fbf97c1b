"""What a network has learned from its first layer to its last, on one sheet."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from inspector.errors import ImageRefused, UsageError
from inspector.passes.batches import Progress
from inspector.passes.journal import Journal
from inspector.projection.projector import rgb_of
from inspector.studies import Findings, study
from inspector.studies.layers.choice import RULE
from inspector.studies.layers.hierarchy import Hierarchy, hierarchy
from inspector.studies.layers.measurements import Measurements
from inspector.studies.layers.pictures import Gallery, pictures, projectors
from inspector.studies.layers.summary import (
    described,
    sentences_of,
    table_of,
    warnings_of,
    winners_of,
)

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["layers"]

MOST_LAYERS = 64
MOST_SHOWN = 12


@study("layers", images=True)
def layers(
    model: "Opened",
    images: Iterable[Any],
    *,
    layers: str = "",
    most: int = 12,
    units: int = 4,
    projection: str = "deconvnet",
    extension: str = "refuse",
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """One sheet from the first layer to the last: what excites a few units of each.

    The hierarchy of features that Zeiler & Fergus read off their figure 2 (2014, section 4.1):
    edges, textures, parts, objects. For the most selective units of every layer the patch of the
    network's input that excites each most, beside the projection of that one activation; and of
    every layer how far its units see, how far apart they stand, how many are never active, and
    how selective they are. One pass over the photos serves all layers, in bounded memory.

    Args:
        model: The opened model.
        images: The photos, as paths or in memory; may be a generator.
        layers: Layers as tensor names or indices, set apart by commas; all that the scores depend
            on and that have a map, thinned out evenly, when not given.
        most: Layers to thin out to, the first and the last among them.
        units: Units a layer.
        projection: deconvnet, guided-backprop or gradient.
        extension: The rule for smooth activations (SiLU, GELU): refuse, signal-first or, with
            guided-backprop, gradient-first. Layers whose projection is refused show patches only.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found in each chunk of photos.

    Returns:
        The figure; for each layer its facts, and for each unit shown its winner and selectivity.

    Raises:
        UsageError: layers that do not exist, or options out of range.
        ModelRefused: no layer has a map.
        MethodRefused: activations that are not finite, or integers of unknown scale.
        ImageRefused: none of the photos can be read, or one has changed meanwhile.
    """
    if not 2 <= most <= MOST_LAYERS:
        raise UsageError(f"{most} layers", hint=f"2 to {MOST_LAYERS}")
    if not 1 <= units <= MOST_SHOWN:
        raise UsageError(f"{units} units a layer", hint=f"1 to {MOST_SHOWN}")
    found = hierarchy(model, layers, most)
    if len(found.shown) > MOST_LAYERS:
        raise UsageError(f"{len(found.shown)} layers", hint=f"at most {MOST_LAYERS} at a time")
    by = projectors(model, found.shown, projection, extension)
    measurements, refused = (
        Measurements(model, found.shown, journal or Journal()),
        list[ImageRefused](),
    )
    measured = measurements.over(images, refused, progress)
    if not measurements.used:
        raise refused[0] if refused else UsageError("no photos were given")
    winners = [winners_of(one, measurements, units) for one in measured]
    galleries = pictures(model, found.shown, winners, by, progress)
    rows = [
        described(level, one, gallery)
        for level, one, gallery in zip(found.shown, measured, galleries, strict=True)
    ]
    size = model.size(*model.preprocessing.preprocess.size)
    sentences = sentences_of(found, rows, size, measurements.used)
    warnings = [*model.preprocessing.warnings, *warnings_of(found, galleries, measurements.used)]
    return Findings(
        study="layers",
        context=model.context(None),
        options={
            "layers": layers,
            "most": most,
            "units": units,
            "projection": projection,
            "extension": extension,
        },
        numbers={
            "input": size,
            "layers_chosen": found.why,
            "units_chosen": RULE,
            "selectivity": "strongest activation over the photos, relative to the mean of the "
            "strongest on each photo; none counts as 0",
            "most_possible_selectivity": measurements.used,
            "projection": projection,
            "strides": [
                {"layer": level.tensor, "index": level.index, "stride": level.stride}
                for level in found.strides()
            ],
            "layers": rows,
        },
        table=table_of(rows),
        sentences=sentences,
        draw=partial(
            _figure,
            model,
            found,
            rows,
            galleries,
            projection=projection,
            sentences=sentences,
            warnings=warnings,
        ),
        images=measurements.used,
        refused=tuple(refused),
        warnings=tuple(warnings),
    )


def _figure(
    model: "Opened",
    found: Hierarchy,
    rows: Sequence[Mapping[str, Any]],
    galleries: Sequence[Gallery],
    *,
    projection: str,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.layers.figure import Cell, Row, hierarchy_sheet

    preprocess = model.preprocessing.preprocess

    def cells(gallery: Gallery) -> list[Cell]:
        return [
            Cell(
                one.winner.unit,
                one.winner.selectivity,
                one.patch,
                None if one.signal is None else rgb_of(one.signal, preprocess),
            )
            for one in gallery.pictures
        ]

    return hierarchy_sheet(
        [Row(row, cells(gallery)) for row, gallery in zip(rows, galleries, strict=True)],
        projection=projection,
        size=model.size(*preprocess.size),
        title=f"{model.path.name}, from its first layer to its last",
        subtitle=found.why,
        sentences=sentences,
        notes=warnings,
    )
