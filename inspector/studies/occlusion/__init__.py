"""What the network loses when a grey square hides a part of the photo: figure 7 of Zeiler & Fergus.

For every position of the square one pass through the network answers three questions: how active
the feature map is that was strongest without it, how probable the class still is, and which class
is the most probable one now.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.passes.batches import Progress, batches
from inspector.passes.journal import Journal
from inspector.studies import Findings, study
from inspector.studies.occlusion.painter import Painter
from inspector.studies.occlusion.summary import agreement_of, figure_of, sentences_of, warnings_of
from inspector.studies.occlusion.sweep import plan_of, sweep_over

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["occlusion"]

Array = np.ndarray[Any, Any]

SHOWN = 12
"""Photos in the figure; all are in the numbers."""


@study("occlusion", images=True)
def occlusion(
    model: "Opened",
    images: Iterable[Any],
    *,
    window: int = 0,
    stride: int = 0,
    fill: str = "mean",
    layer: str | int | None = None,
    feature: str = "total",
    target: tuple[str, ...] = (),
    projection: str = "deconvnet",
    extension: str = "refuse",
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """A grey square slides over each photo: what happens to features and class.

    For each position of the square: the total activation of the feature map that responds most
    strongly without it, the probability of the class, and the most probable label; beside them
    that feature map, projected down to the pixels (Zeiler & Fergus 2014, section 4.2, figure 7).
    The values are the raw ones: where they are low, the square hides what matters.

    Args:
        model: The opened model.
        images: The photos, as paths or in memory; may be a generator.
        window: Side of the square in pixels of the network's input; 0 stands for a seventh of
            the short side.
        stride: Step in pixels; 0 stands for half a window.
        fill: Colour in pixel space: mean (the data set's, where the preprocessing knows it, else
            mid-grey), grey (127.5), or a number from 0 to 255.
        layer: The layer of the feature map, as tensor name or index; that of `inspector explain`
            when not given.
        feature: The feature map: total (the one with the largest sum over its places), peak (with
            the largest single activation), or its number.
        target: The class, as top1, an index or a label; given once it holds for all photos,
            else one a photo. The most probable class of the unoccluded photo when not given.
        projection: How the map's strongest activation is projected down: deconvnet,
            guided-backprop or gradient.
        extension: The rule for smooth activations (SiLU, GELU): refuse, signal-first or, with
            guided-backprop, gradient-first.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found for each few positions of the square.

    Returns:
        The figure, and for each photo the grids of values by position.

    Raises:
        MethodRefused: the model has no class probabilities.
        ModelRefused: the model has no convolution.
        UsageError: options out of range.
        ImageRefused: none of the photos can be read.
    """
    plan = plan_of(model, window, stride, fill, layer=layer, feature=feature)
    texts = _targets(target, images)
    painter = Painter(model, plan.tensor, projection, extension)
    refused: list[ImageRefused] = []
    sweeps: list[Any] = []
    said: list[str] = []
    pictures: dict[Any, Any] = {}
    total = len(images) * len(plan.boxes) if isinstance(images, Sequence) else 0
    journal = journal or Journal()
    for place, name, sha256, image in _photos(model, images, refused):
        text = texts[place] if len(texts) > 1 else texts[0]
        found = sweep_over(
            model,
            plan,
            image,
            (place, name, sha256),
            text=text,
            journal=journal,
            progress=progress,
            total=total,
            note=said.append,
        )
        signal = painter.project(found, image)
        found.agreement = agreement_of(plan, found, signal)
        sweeps.append(found)
        if len(pictures) < SHOWN:
            pictures[place] = image, painter.picture(signal)
    if not sweeps:
        raise refused[0] if refused else UsageError("no photos were given")
    shown = sweeps[: len(pictures)]
    warnings = warnings_of(model, plan, sweeps, [*said, *painter.notes])
    sentences = tuple(line for one in sweeps for line in sentences_of(plan, one))
    chosen, why = model.layer_for(layer)
    return Findings(
        study="occlusion",
        context=model.context((chosen.tensor, why)),
        options={
            "window": window,
            "stride": stride,
            "fill": fill,
            "layer": layer,
            "feature": feature,
            "target": target,
            "projection": projection,
            "extension": extension,
        },
        numbers={
            **plan.to_dict(model),
            "projection": painter.to_dict(),
            "photos": [one.to_dict(plan) for one in sweeps],
        },
        table=[row for one in sweeps for row in one.table(plan)],
        sentences=sentences,
        draw=partial(
            figure_of,
            model,
            plan,
            shown,
            pictures,
            sentences=sentences,
            warnings=warnings,
            total=len(sweeps),
            why=painter.why,
        ),
        images=len(sweeps),
        refused=tuple(refused),
        warnings=warnings,
    )


def _targets(target: Sequence[str] | str, images: Iterable[Any]) -> tuple[str, ...]:
    """The class of all photos, or one a photo."""
    texts = (target,) if isinstance(target, str) else tuple(map(str, target)) or ("top1",)
    if len(texts) > 1 and not (isinstance(images, Sequence) and len(images) == len(texts)):
        raise UsageError(f"{len(texts)} targets", hint="give one for all photos, or one a photo")
    return texts


def _photos(
    model: "Opened", images: Iterable[Any], refused: list[ImageRefused]
) -> Iterator[tuple[int, str, str, Array]]:
    """Place, name, hash and tensor (C, H, W) of each photo that can be read."""
    for batch in batches(model, images, refused):
        for place, photo, tensor in zip(batch.places, batch.photos, batch.tensors, strict=True):
            yield place, photo.name, photo.sha256, tensor
