"""What a unit reconstructs: guided backpropagation, deconvnet, gradient, and without an image."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, MethodRefused, UsageError
from inspector.measures.statistics import require_scipy
from inspector.passes.batches import Progress
from inspector.passes.journal import Journal
from inspector.projection.projector import rgb_of
from inspector.studies import Findings, check_seed, study
from inspector.studies.reconstruction.layers import Work, chosen_layers, chosen_unit, mixed_warnings
from inspector.studies.reconstruction.photos import (
    MEASURES,
    METHODS,
    Photos,
    Pictures,
    clipped,
    on_photos,
)
from inspector.studies.reconstruction.unconditioned import LEFT_OUT, NONE, Bare

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["reconstruction"]

MOST_LAYERS = 16

WITHOUT_IMAGE = (
    "without an image there is neither guided backpropagation nor a gradient: both ask which "
    "rectifiers were active"
)


@study("reconstruction", images=False)
def reconstruction(
    model: "Opened",
    images: Iterable[Any],
    *,
    layers: tuple[str, ...] = (),
    most: int = 8,
    unit: str = "",
    unconditioned: str = "",
    extension: str = "refuse",
    seed: int = 0,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Three reconstructions of single units side by side, and those that need no image.

    From the strongest unit of each layer on each photo, guided backpropagation, deconvnet and
    gradient down to the pixels; and, where the way down is proved not to depend on the image (no
    max-pooling, no gates), units reconstructed from nothing: one unit on, everything else zero
    (Springenberg et al. 2015, section 4). Without photos the latter alone.

    Args:
        model: The opened model.
        images: The photos, as paths or in memory; may be none.
        layers: A layer, as tensor name or index, or several of them set apart by commas; when
            none is given, all that the scores depend on and that have a map, thinned out evenly.
        most: Layers to thin out to.
        unit: The channel to reconstruct from, at its strongest place; each photo's strongest unit
            of the layer when not given.
        unconditioned: Channels to reconstruct without an image, such as 0,3,8-11; the first 8
            when not given; none leaves them out.
        extension: The rule for smooth activations (SiLU, GELU): refuse, signal-first or
            gradient-first.
        seed: Of the random images on which the proof is tried.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found in each photo.

    Returns:
        The figure; for each photo and layer the unit, its place and what was measured; for each
        layer whether an image is needed, and why.

    Raises:
        UsageError: layers or units that do not exist, or options out of range.
        MethodRefused: a reconstruction that cannot be right for this model; no photos, and every
            chosen layer needs one.
        ImageRefused: none of the photos can be read.
    """
    check_seed(seed)
    if not 1 <= most <= MOST_LAYERS:
        raise UsageError(f"{most} layers", hint=f"1 to {MOST_LAYERS}")
    images = list(images)
    if images:
        require_scipy()
    if unconditioned.strip() == NONE and not images:
        raise UsageError("neither photos nor units to do without", hint="give photos")
    work = Work(model, chosen_layers(model, layers, most), extension)
    channels = [chosen_unit(unit, layer) for layer in work.layers]
    bare = [Bare.of(work, layer, unconditioned, seed) for layer in work.layers]
    if not images and not any(one.units for one in bare):
        raise MethodRefused(
            "; ".join(dict.fromkeys(one.why for one in bare)),
            where=model.path.name,
            hint="give photos: the reconstruction is conditioned on them",
        )
    for done, one in enumerate(bare, 1):
        one.project(work)
        if progress:
            progress("units without an image", done, len(bare))
    refused: list[ImageRefused] = []
    photos, pictures = on_photos(
        work, images, channels, refused=refused, progress=progress, journal=journal or Journal()
    )
    if images and not photos:
        raise refused[0]
    sentences = _sentences(work, bare, photos)
    warnings = [*model.preprocessing.warnings, *work.notes, *mixed_warnings(work.layers)]
    return Findings(
        study="reconstruction",
        context=model.context(None),
        options={
            "layers": layers,
            "most": most,
            "unit": unit,
            "unconditioned": unconditioned,
            "extension": extension,
            "seed": seed,
        },
        numbers=_numbers(work, bare, photos),
        table=_table(photos),
        sentences=sentences,
        draw=partial(_figure, work, bare, photos, pictures, sentences=sentences, warnings=warnings),
        images=len(photos),
        refused=tuple(refused),
        warnings=tuple(warnings),
    )


# -- the result -----------------------------------------------------------------------------------


def _numbers(work: Work, bare: Sequence[Bare], photos: Photos) -> dict[str, Any]:
    return {
        "layers": [
            {
                "layer": one.layer.tensor,
                "shape": one.layer.shape,
                "receptive_field": {"size": one.layer.field.size, "stride": one.layer.field.stride},
                "coverage": work.coverage.get(one.layer.tensor, {}),
                "means": _means(photos, place),
                "unconditioned": one.numbers(),
            }
            for place, one in enumerate(bare)
        ],
        "photos": [
            {
                "image": {"name": photo["name"], "place": place, "sha256": photo["sha256"]},
                "layers": photo["layers"],
            }
            for place, photo in photos.items()
        ],
    }


def _means(photos: Photos, layer: int) -> dict[str, dict[str, float]]:
    """Mean of each measure over the photos on which it is defined, by method."""
    entries = [photo["layers"][layer] for photo in photos.values() if photo["layers"][layer]]
    found: dict[str, dict[str, float]] = {}
    for method in METHODS if entries else ():
        for name in MEASURES:
            values = [entry["methods"][method][name] for entry in entries]
            known = [value for value in values if value is not None]
            if known:
                found.setdefault(method, {})[name] = float(np.mean(known))
    return found


def _table(photos: Photos) -> list[dict[str, Any]]:
    return [
        {
            "image": photo["name"],
            "layer": entry["layer"],
            "unit": entry["unit"],
            **entry["at"],
            "activation": entry["activation"],
            "method": method,
            **numbers,
        }
        for photo in photos.values()
        for entry in photo["layers"]
        if entry
        for method, numbers in entry["methods"].items()
    ]


def _sentences(work: Work, bare: Sequence[Bare], photos: Photos) -> tuple[str, ...]:
    found = []
    if photos:
        found.append(f"reconstructed from {len(work.layers)} layer(s) on {len(photos)} photo(s)")
        silent = sum(entry is None for photo in photos.values() for entry in photo["layers"])
        if silent:
            found.append(f"not active, and left out: {silent} unit(s)")
        entries = [entry for photo in photos.values() for entry in photo["layers"] if entry]
        if saturated := clipped(entries):
            found.append(saturated)
    free = [one for one in bare if one.proof.free and not (one.why and one.why != LEFT_OUT)]
    if free:
        worst = max(one.difference for one in free)
        names = (
            free[-1].layer.tensor
            if len(free) == len(bare)
            else ", ".join(one.layer.tensor for one in free)
        )
        reach = f"all {len(bare)} layers, up to {names}" if len(free) == len(bare) else names
        differ = f"{worst:.1g} of the largest magnitude" if worst else "none at all"
        found.append(
            f"the deconvnet needs no image for {reach}: every step is linear with constant "
            "coefficients or an activation under its rule; measured difference between images "
            f"that have nothing in common: {differ}"
        )
        found.append(WITHOUT_IMAGE)
    tied = [one for one in bare if one not in free]
    if tied:
        found.append(tied[0].why)
        found.append(
            f"not without an image: {', '.join(one.layer.tensor for one in tied)} (measured "
            f"difference: up to {max(one.difference for one in tied):.2g} of the largest magnitude)"
        )
    dark = [f"{one.layer.tensor} {unit}" for one in bare for unit in one.dark]
    if dark:
        listed = ", ".join(dark[:8]) + (", ..." if len(dark) > 8 else "")
        found.append(f"nothing positive reaches the pixels from {len(dark)} unit(s): {listed}")
    return tuple(found)


def _figure(
    work: Work,
    bare: Sequence[Bare],
    photos: Photos,
    pictures: Pictures,
    *,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.reconstruction import figure as sheet

    preprocess = work.model.preprocessing.preprocess
    blocks = []
    for place in sorted({place for place, _ in pictures}):
        cells: list[sheet.Cell | None] = []
        for layer, entry in zip(work.layers, photos[place]["layers"], strict=True):
            picture = pictures.get((place, layer.tensor))
            cells.append(
                None
                if picture is None or entry is None
                else sheet.Cell(
                    f"unit {entry['unit']}",
                    entry["activation"],
                    picture.patch,
                    [rgb_of(picture.signals[method], preprocess) for method in METHODS],
                )
            )
        blocks.append(sheet.Block(photos[place]["name"], cells))
    rows = [
        sheet.Row(
            one.layer.tensor,
            one.layer.field.size,
            [f"unit {u}" for u in one.units],
            [rgb_of(p, preprocess) for p in one.pictures],
        )
        for one in bare
    ]
    over = len(photos) - len(blocks)
    more = [f"the first {len(blocks)} of {len(photos)} photos are shown"] if over > 0 else []
    return sheet.reconstruction_sheet(
        blocks,
        rows,
        methods=METHODS,
        columns=[(layer.tensor, layer.field.size) for layer in work.layers],
        title=f"reconstructions from {work.model.path.name}",
        sentences=[*sentences, *more],
        notes=warnings,
    )
