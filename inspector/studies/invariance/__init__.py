"""How far features and probability move when the photo moves: figure 5 of Zeiler & Fergus."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, MethodRefused, UsageError
from inspector.network.outputs.labels import count_warning
from inspector.passes.batches import Progress, batches
from inspector.passes.feature_vectors import (
    FeatureVector,
    feature_vector,
    first_layer,
    last_hidden,
    last_map,
)
from inspector.passes.journal import Journal
from inspector.photos.occluder import fill_colour
from inspector.probability import ASSUMED
from inspector.studies import Findings, study
from inspector.studies.invariance.curves import Seen, follow
from inspector.studies.invariance.summary import Summary, summaries
from inspector.studies.invariance.transforms import Sweep, parse_sweep, transformed

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["invariance"]

Array = np.ndarray[Any, Any]

SHOWN = 5
"""Photos whose examples stand in the figure; the curves are of all."""

EXAMPLES = 5
"""Values of each transform at which a photo is shown."""

MOST_PHOTOS = 1000


@study("invariance", images=True, needs=("scipy",), draws=True)
def invariance(
    model: "Opened",
    images: Iterable[Any],
    *,
    early: str | int | None = None,
    late: str | int | None = None,
    translation: str = "-0.268:0.268:25",
    horizontal: str = "",
    scale: str = "1:1.8:17",
    rotation: str = "0:350:36",
    count: int = 5,
    target: tuple[str, ...] = (),
    fill: str = "mean",
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """How far features and probability move when photos are shifted, magnified and turned.

    For each transform the Euclidean distance between the features of the transformed and of the
    original photo, at an early and at a late layer, and the probability of the class (Zeiler &
    Fergus 2014, section 4.1, figure 5). Distances are divided by the length of the original's
    feature vector. What moves is the network's input; what comes in from outside is grey.

    Args:
        model: The opened model.
        images: The photos, as paths or in memory; may be a generator.
        early: The early layer, as tensor name or index; the first convolutional layer when not
            given.
        late: The late layer; what the classifier's last linear node reads when not given.
        translation: Vertical translation as FROM:TO:STEPS in shares of the height; positive is
            down. Empty to leave it out.
        horizontal: Horizontal translation likewise, in shares of the width; left out when empty.
        scale: Ratios as FROM:TO:STEPS; above 1 is larger. Empty to leave it out.
        rotation: Degrees as FROM:TO:STEPS, counter-clockwise. Empty to leave it out.
        count: Photos to use, the first ones that can be read; at most 1000.
        target: The true class, as top1, an index or a label; given once it holds for all photos,
            else one a photo. The most probable class of the untransformed photo when not given.
        fill: Colour of what comes in from outside, in pixel space: mean (the data set's, where
            the preprocessing knows it, else mid-grey), grey (127.5), or a number from 0 to 255.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found for each photo and transform.

    Returns:
        The figure, the curves of each photo, and for each transform what all photos say.

    Raises:
        MethodRefused: the model has no class probabilities; features that are not finite.
        ModelRefused: the model has no convolution, and no layers are named.
        UsageError: options out of range.
        ImageRefused: none of the photos can be read.
    """
    if not 1 <= count <= MOST_PHOTOS:
        raise UsageError(f"{count} photos", hint=f"1 to {MOST_PHOTOS}")
    if not model.scores.classifier:
        raise MethodRefused(
            f"the model gives no class probabilities: {model.scores.why}", where=model.path.name
        )
    ranges = {
        "translation": translation,
        "horizontal": horizontal,
        "scale": scale,
        "rotation": rotation,
    }
    sweeps = _sweeps(model, ranges)
    layers = _layers(model, early, late)
    colour = fill_colour(model.preprocessing.preprocess, fill)
    refused: list[ImageRefused] = []
    pictures: list[Array] = []
    seen: list[Seen] = []
    texts = _targets(target, images)
    total = (min(count, len(images)) if isinstance(images, Sequence) else count) * sum(
        len(sweep.values) for sweep in sweeps
    )
    done = _Done(progress, total)
    for place, name, sha256, image in islice(_photos(model, images, refused), count):
        seen.append(
            follow(
                model,
                layers,
                sweeps,
                image,
                photo=(place, name, sha256),
                colour=colour,
                text=texts[place] if len(texts) > 1 else texts[0],
                journal=Journal() if journal is None else journal,
                progress=done,
            )
        )
        if len(pictures) < SHOWN:
            pictures.append(image)
    if not seen:
        raise refused[0] if refused else UsageError("no photos were given")
    over = len(images) - len(seen) - len(refused) if isinstance(images, Sequence) else 0
    found = summaries(seen)
    names = layers[0].tensor, layers[1].tensor
    sentences = tuple(line for one in found for line in one.sentences(names))
    warnings = _warnings(model, layers, sweeps, seen, target=target, over=over, count=count)
    return Findings(
        study="invariance",
        context=model.context(None),
        options={
            "early": early,
            "late": late,
            **ranges,
            "count": count,
            "target": target,
            "fill": fill,
        },
        numbers={
            "early_layer": layers[0].to_dict(),
            "late_layer": layers[1].to_dict(),
            **_CHOICES,
            "input_size": model.size(*model.preprocessing.preprocess.size),
            "fill_as_network_values": [float(v) for v in colour],
            "photos_left_out": over,
            "transforms": [sweep.to_dict() for sweep in sweeps],
            "summary": [one.to_dict() for one in found],
            "photos": [one.to_dict() for one in seen],
        },
        table=[row for one in seen for row in one.table()],
        sentences=sentences,
        draw=partial(
            _figure,
            model,
            layers,
            seen,
            found,
            pictures,
            colour=colour,
            sentences=sentences,
            warnings=warnings,
        ),
        images=len(seen),
        refused=tuple(refused),
        warnings=warnings,
    )


_CHOICES = {
    "distance": "Euclidean distance of the transformed photo's features from the original's, "
    "divided by the Euclidean length of the original's",
    "moved": "the network's input, about its centre; bilinear between pixel centres, translations "
    "by whole pixels",
}
"""What the paper leaves open."""


# -- what is asked for ----------------------------------------------------------------------------


def _sweeps(model: "Opened", ranges: "dict[str, str]") -> list[Sweep]:
    size = model.size(*model.preprocessing.preprocess.size)
    kinds = {"translation": "vertical translation", "horizontal": "horizontal translation"}
    found = [parse_sweep(kinds.get(key, key), text, size) for key, text in ranges.items()]
    sweeps = [sweep for sweep in found if sweep is not None]
    if not sweeps:
        raise UsageError("no transform is left", hint="give one of them as FROM:TO:STEPS")
    return sweeps


def _layers(
    model: "Opened", early: str | int | None, late: str | int | None
) -> tuple[FeatureVector, FeatureVector]:
    first = first_layer(model) if early is None else feature_vector(model, early)
    if late is not None:
        return first, feature_vector(model, late)
    return first, last_hidden(model) or last_map(model)


def _targets(target: Sequence[str] | str, images: Iterable[Any]) -> tuple[str, ...]:
    """The class of all photos, or one a photo."""
    texts = (target,) if isinstance(target, str) else tuple(map(str, target)) or ("top1",)
    if len(texts) > 1 and not (isinstance(images, Sequence) and len(images) == len(texts)):
        raise UsageError(f"{len(texts)} targets", hint="give one for all photos, or one a photo")
    return texts


def _photos(
    model: "Opened", images: Iterable[Any], refused: list[ImageRefused]
) -> "Iterable[tuple[int, str, str, Array]]":
    """Place, name, hash and tensor (C, H, W) of each photo that can be read.

    One by one: photos behind the last that is used are not opened.
    """
    for place, source in enumerate(images):
        for batch in batches(model, [source], refused):
            photo = batch.photos[0]
            yield place, photo.name, photo.sha256, batch.tensors[0]


class _Done:
    """Counts transformed images."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, more: int) -> None:
        """So many more are done."""
        self.done += more
        if self.progress:
            self.progress("transformed images", self.done, self.total)


# -- the result -----------------------------------------------------------------------------------


def _warnings(
    model: "Opened",
    layers: tuple[FeatureVector, FeatureVector],
    sweeps: Sequence[Sweep],
    seen: Sequence[Seen],
    *,
    target: Sequence[str],
    over: int,
    count: int,
) -> tuple[str, ...]:

    labels = model.class_labels
    found = [*model.preprocessing.warnings, *labels.warnings]
    found += filter(None, [count_warning(labels.names, model.scores.classes)])
    if len(seen) < count:
        found.append(f"{len(seen)} photo(s), fewer than the {count} of --count")
    if over:
        found.append(f"{over} further photo(s) are left out: --count takes more")
    if not target:
        found.append(
            "no true class is given: the class is the one that the network finds most "
            "probable on the untransformed photo"
        )
    if any(one.source == ASSUMED for one in seen):
        found.append(
            "the model ends in scores: probabilities are a softmax of them, which is assumed"
        )
    if any(one.source == "sigmoid" for one in seen) and model.scores.classes != 1:
        found.append(
            "probabilities are a sigmoid of each class's own score: they do not add up to 1"
        )
    if layers[0].tensor == layers[1].tensor:
        found.append(f"both layers are {layers[0].tensor}")
    if any(sweep.kind == "scale" and min(sweep.values) < 1 for sweep in sweeps):
        found.append("scales below 1 leave pixels out without smoothing first: fine detail aliases")
    for one in seen:
        dead = [layer.tensor for layer, norm in zip(layers, one.norms, strict=True) if not norm > 0]
        if dead:
            found.append(
                f"{one.name}: all features of {', '.join(dead)} are 0, so distances "
                "over their length are not defined"
            )
    return tuple(dict.fromkeys(found))


def _figure(
    model: "Opened",
    layers: tuple[FeatureVector, FeatureVector],
    seen: Sequence[Seen],
    found: Sequence[Summary],
    pictures: Sequence[Array],
    *,
    colour: Array,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.invariance.figure import Row, invariance_sheet

    decode = model.preprocessing.preprocess.decode
    rows = []
    for at, one in enumerate(found):
        sweep = one.sweep
        chosen = np.unique(np.linspace(0, len(sweep.values) - 1, EXAMPLES).round().astype(int))
        shown = [sweep.values[i] for i in chosen]
        rows.append(
            Row(
                title=sweep.kind,
                unit=sweep.unit,
                values=sweep.values,
                words=[sweep.named(value) for value in shown],
                examples=[
                    [decode(transformed(image, sweep.kind, value, colour)) for value in shown]
                    for image in pictures
                ],
                early=[person.relative(at, 0) for person in seen],
                late=[person.relative(at, 1) for person in seen],
                probability=[np.asarray(person.curves[at].probability) for person in seen],
            )
        )
    return invariance_sheet(
        rows,
        photos=[f"{one.name}: {one.target.label}" for one in seen],
        layers=(layers[0].tensor, layers[1].tensor),
        title=f"features and probability under transforms: {model.path.name}",
        sentences=sentences,
        notes=warnings,
    )
