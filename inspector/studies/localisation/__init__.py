"""How well maps find the objects that they explain, beside a box in the middle of the photo."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.heatmap import Heatmap
from inspector.measures.boxes import CONNECTIVITIES
from inspector.passes.batches import Batch, Progress, batches
from inspector.passes.journal import Journal, identity_of
from inspector.photos.dataset import Box
from inspector.studies import Findings, check_seed, study
from inspector.studies.localisation import summary
from inspector.studies.localisation.maps import Mapper, MapsOfPhoto
from inspector.studies.localisation.matches import CENTRE, THRESHOLDS, Rules, entry_of, wanted
from inspector.studies.localisation.measures import summary as summarised
from inspector.studies.localisation.measures import tally
from inspector.studies.localisation.objects import Object, boxed_photos, check_inside, objects_of

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.studies.localisation.figure import Example

__all__ = ["localisation"]

MOST_EXAMPLES, MOST_RESAMPLES = 20, 100_000

Subject = tuple[Path, tuple[Box, ...], tuple[Object, ...]]


@study("localisation", images=False, needs=("scipy",), draws=True)
def localisation(
    model: "Opened",
    images: Iterable[Any] = (),
    *,
    boxes: str | Path = "",
    method: tuple[str, ...] = (),
    layer: str | int | None = None,
    top: int = 5,
    threshold: float = 0.0,
    connectivity: int = 8,
    tolerance: float = 15.0,
    centre: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
    examples: int = 4,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Boxes and maxima of maps against the objects' true boxes, beside the photo's centre.

    Top-1 and top-5 localisation error and GT-known accuracy of boxes cut out of the maps at the
    papers' thresholds (Zhou et al. 2016, section 3.2; Selvaraju et al. 2017, section 4.1),
    MaxBoxAcc over all thresholds (Choe et al. 2020) and the pointing game (Zhang et al. 2016),
    with bootstrap intervals over photos. IMAGE are the photos, or the folder that they are in;
    without, they are taken from the folder of the table.

    Args:
        model: The opened model, a classifier.
        images: Photos, or folders of photos; of the table's photos those are used.
        boxes: CSV table of the objects, columns image, label, x0, y0, x1, y1 in pixels of the
            upright photo; a label may have alternatives, as in a|b or 151-268.
        method: A method to compare, options included, as for `inspector explain`; cam, grad-cam
            and grad-cam++ when none is given.
        layer: The layer that gradient methods explain through; that of `inspector explain` when
            not given.
        top: Best classes among which the right one may be.
        threshold: Share of the map's maximum at which boxes are cut out; 0 stands for the papers',
            0.2 for cam and 0.15 for the others.
        connectivity: Neighbours of a pixel in a component, 4 or 8.
        tolerance: Pixels that the maximum may miss a box by in the pointing game.
        centre: Share of the photo's area that the baseline's box covers.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.
        examples: Photos in the figure, evenly from the best to the worst hit, at most 20.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found on each photo.

    Returns:
        The figure, a row a method, and for each photo its boxes and overlaps.

    Raises:
        UsageError: no table of boxes, or options out of range.
        MethodRefused: no classes, or no method that is right for this model.
        ImageRefused: no photo is left.
    """
    rules = Rules(top, threshold, connectivity, centre)
    check_seed(seed)
    _check(rules, tolerance=tolerance, resamples=resamples, examples=examples)
    photos, left_out = boxed_photos(boxes, images)
    mapper = Mapper(model, method, layer)
    rules = Rules(min(top, mapper.classes), threshold, connectivity, centre)
    refused: list[ImageRefused] = []
    subjects = _subjects(photos, mapper, refused)
    entries = _entries(
        mapper,
        subjects,
        rules,
        refused,
        progress=progress,
        journal=journal if journal is not None else Journal(),
    )
    if not entries:
        raise refused[0]
    names = [*mapper.requests, CENTRE]
    tallies = {name: tally(list(entries.values()), name, tolerance) for name in names}
    right = {
        "top1": np.array([entry["right"][0] for entry in entries.values()], float),
        "topk": np.array([any(entry["right"]) for entry in entries.values()], float),
    }
    measured, better, known = summarised(tallies, right, resamples=resamples, seed=seed)
    found = summary.Results(
        list(entries.values()), tallies, measured, better, known, rules, tolerance, resamples, seed
    )
    shown = _examples(mapper, subjects, entries, examples)
    sentences, warnings = summary.sentences(found), summary.warnings(found, mapper, left_out)
    return Findings(
        study="localisation",
        context=model.context(None),
        options={
            "boxes": str(boxes),
            "method": method,
            "layer": layer,
            "top": top,
            "threshold": threshold,
            "connectivity": connectivity,
            "tolerance": tolerance,
            "centre": centre,
            "resamples": resamples,
            "seed": seed,
            "examples": examples,
        },
        numbers=summary.numbers(found, mapper, left_out),
        sentences=sentences,
        draw=partial(_figure, found, shown, mapper, sentences=sentences, warnings=warnings),
        table=summary.rows(found, mapper),
        images=len(entries),
        refused=tuple(refused),
        warnings=tuple(warnings),
    )


def _check(rules: Rules, *, tolerance: float, resamples: int, examples: int) -> None:
    """Refuse options out of range."""
    wrong = {
        "top": (rules.top >= 1, "1 or more"),
        "threshold": (0 <= rules.threshold < 1, "0 (the papers') to below 1"),
        "connectivity": (rules.connectivity in CONNECTIVITIES, "4 or 8"),
        "tolerance": (0 <= tolerance < 1e6, "0 or more pixels"),
        "centre": (0 < rules.centre <= 1, "above 0 and at most 1"),
        "resamples": (1 <= resamples <= MOST_RESAMPLES, f"1 to {MOST_RESAMPLES}"),
        "examples": (0 <= examples <= MOST_EXAMPLES, f"0 to {MOST_EXAMPLES}"),
    }
    for name, (fits, hint) in wrong.items():
        if not fits:
            raise UsageError(f"{name} cannot be that", hint=hint)


# -- the photos -----------------------------------------------------------------------------------


def _subjects(
    photos: Sequence[tuple[Path, tuple[Box, ...]]], mapper: Mapper, refused: list[ImageRefused]
) -> list[Subject]:
    """Photos whose labels the model knows."""
    names, found = mapper.model.class_labels.names, []
    for path, rows in photos:
        try:
            found.append((path, rows, objects_of(rows, names, mapper.classes)))
        except ImageRefused as error:
            refused.append(error)
    return found


def _entries(
    mapper: Mapper,
    subjects: Sequence[Subject],
    rules: Rules,
    refused: list[ImageRefused],
    *,
    progress: Progress | None,
    journal: Journal,
) -> dict[int, dict[str, Any]]:
    """What was found on each photo, by its place among the subjects."""
    keys = [
        f"{place} {identity_of({'boxes': [(row.label, row.corners) for row in rows]}, [path])}"
        for place, (path, rows, _) in enumerate(subjects)
    ]
    skip = frozenset(place for place, key in enumerate(keys) if key in journal)
    opened = batches(mapper.model, [path for path, _, _ in subjects], refused, progress, skip=skip)
    for batch in opened:
        for row, looked in _looked(mapper, batch, subjects, rules, refused):
            place = batch.places[row]
            path, _, objects = subjects[place]
            try:
                entry = entry_of(looked, objects, batch.geometries[row], mapper.requests, rules)
            except ImageRefused as error:
                refused.append(ImageRefused(error.what, where=str(path), hint=error.hint))
                continue
            photo = batch.photos[row]
            journal.keep(keys[place], {"name": photo.name, "sha256": photo.sha256, **entry})
    return {place: journal[key] for place, key in enumerate(keys) if key in journal}


def _looked(
    mapper: Mapper,
    batch: Batch,
    subjects: Sequence[Subject],
    rules: Rules,
    refused: list[ImageRefused],
) -> list[tuple[int, MapsOfPhoto]]:
    """Maps of those photos of a batch whose boxes lie on them."""
    rows = []
    for row, (place, photo) in enumerate(zip(batch.places, batch.photos, strict=True)):
        try:
            check_inside(subjects[place][1], photo.size)
        except ImageRefused as error:
            refused.append(error)
            continue
        rows.append(row)
    if not rows:
        return []

    def choose(row: int, scores: np.ndarray[Any, Any]) -> list[int]:
        return wanted(scores, subjects[batch.places[rows[row]]][2], rules.top)

    return list(zip(rows, mapper(batch.tensors[rows], choose), strict=True))


# -- the figure -----------------------------------------------------------------------------------


def _examples(
    mapper: Mapper, subjects: Sequence[Subject], entries: dict[int, dict[str, Any]], count: int
) -> "list[Example]":
    """Photos from the best to the worst hit, opened once more for their maps.

    Raises:
        ImageRefused: A photo has gone since it was measured.
    """
    from inspector.studies.localisation.figure import Example

    def overlap(place: int) -> float:
        """Mean IoU over methods and objects."""
        found = entries[place]["methods"]
        return float(
            np.mean([one["iou"] for name in mapper.requests for one in found[name]["objects"]])
        )

    order = sorted(entries, key=lambda place: (-overlap(place), place))
    spread = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    chosen = [order[at] for at in spread]
    gone: list[ImageRefused] = []
    shown = []
    for batch in batches(mapper.model, [subjects[place][0] for place in chosen], gone):
        if gone:
            break
        own = [entries[chosen[at]] for at in batch.places]
        looked = mapper(batch.tensors, partial(_first_class, own))
        for entry, photo, geometry, one in zip(
            own, batch.photos, batch.geometries, looked, strict=True
        ):
            (found,) = one.maps.values()
            maps = {name: Heatmap.of(attribution, geometry) for name, attribution in found.items()}
            shown.append(Example(photo, _caption(entry, mapper), entry, maps))
    if gone:
        raise gone[0]  # it could be read a moment ago
    return shown


def _first_class(entries: Sequence[dict[str, Any]], row: int, _: Any) -> list[int]:
    """The class of a photo's first object."""
    return [entries[row]["objects"][0]["class"]]


def _caption(entry: dict[str, Any], mapper: Mapper) -> str:
    names = mapper.model.class_labels.names

    def name(index: int) -> str:
        return names[index] if index < len(names) and names[index] else f"class {index}"

    said, true = entry["predicted"][0], entry["objects"][0]["class"]
    verdict = "right" if entry["right"][0] else f"the model says {name(said)}"
    return f"{name(true)} ({verdict})"


def _figure(
    found: summary.Results,
    examples: "Sequence[Example]",
    mapper: Mapper,
    *,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.localisation.figure import Line, localisation_sheet

    lines = [
        Line(
            name,
            found.measured[name],
            found.tallies[name].empty,
            found.tallies[name].largest[:, 1].mean(0).tolist(),
        )
        for name in found.tallies
    ]
    return localisation_sheet(
        lines,
        examples,
        title=f"where {mapper.model.path.name} looks, and where the objects are",
        titles=summary.titles(found),
        known=found.known,
        thresholds=THRESHOLDS,
        sentences=sentences,
        notes=warnings,
    )
