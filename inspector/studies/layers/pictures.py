"""Of the chosen units the patch that excites each most, and its projection where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ConverterError, ExplainedError, ImageRefused, MethodRefused
from inspector.passes.batches import BATCH, Progress, batches
from inspector.projection.projector import Projector

if TYPE_CHECKING:
    from inspector.network.receptive_fields.receptive_field import Box
    from inspector.opened import Opened
    from inspector.studies.layers.hierarchy import Level
    from inspector.studies.layers.measurements import Seen

__all__ = ["Gallery", "Picture", "Winner", "pictures", "projectors"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Winner:
    """A chosen unit at its strongest.

    Attributes:
        unit: Its channel.
        selectivity: Its strongest activation, relative to the mean of the strongest on each photo.
        value: Its strongest activation.
        active: Photos on which it is active.
        place: Place of the photo in the list.
        photo: The photo.
        y: Row in the layer's map.
        x: Column.
    """

    unit: int
    selectivity: float
    value: float
    active: int
    place: int
    photo: "Seen"
    y: int
    x: int


@dataclass(frozen=True, eq=False)
class Picture:
    """What a winner sees.

    Attributes:
        winner: The unit.
        box: Its field in pixels of the network's input, cut off at the border.
        patch: (h, w, 3) pixels of 0..255.
        signal: (C, h, w) projection, channels as the model takes them; None where it is refused.
    """

    winner: Winner
    box: "Box"
    patch: Array
    signal: Array | None


@dataclass(eq=False)
class Gallery:
    """The pictures of one layer.

    Attributes:
        pictures: The most selective unit first.
        refused: Why there are no projections; empty where there are.
        at: Node or file that they are refused for.
        notes: What must be said with them.
        coverage: Which activations the backward rule reached.
    """

    pictures: list[Picture] = field(default_factory=list)
    refused: str = ""
    at: str = ""
    notes: list[str] = field(default_factory=list)
    coverage: str = ""

    def refuse(self, error: ExplainedError) -> None:
        """Keep why there are no projections."""
        self.refused, self.at = str(error), error.where


def projectors(
    model: "Opened", levels: "Sequence[Level]", projection: str, extension: str
) -> "list[Projector | ExplainedError]":
    """What projects the units of each layer, or why nothing may.

    Raises:
        UsageError: No such projection or extension.
    """
    found: list[Projector | ExplainedError] = []
    for level in levels:
        try:
            found.append(Projector(model, level.tensor, projection, extension))
        except (MethodRefused, ConverterError) as error:
            found.append(error)
    return found


def pictures(
    model: "Opened",
    levels: "Sequence[Level]",
    winners: Sequence[Sequence[Winner]],
    by: "Sequence[Projector | ExplainedError]",
    progress: Progress | None,
) -> list[Gallery]:
    """Open the winners' photos again, cut out patches and project.

    Args:
        model: The opened model.
        levels: The layers.
        winners: Of each layer.
        by: From ``projectors``.
        progress: Called with (what, done, total).

    Raises:
        ImageRefused: A photo has gone or changed since the first pass.
    """
    found, done, total = [], 0, sum(map(len, winners))
    step = BATCH if model.batches else 1
    for level, mine, projector in zip(levels, winners, by, strict=True):
        gallery = Gallery()
        if isinstance(projector, ExplainedError):
            gallery.refuse(projector)
        for start in range(0, len(mine), step):
            part = mine[start : start + step]
            images = _opened(model, part)
            signals = _signals(gallery, level, images, part, projector)
            gallery.pictures += [
                _picture(model, level, winner, image, signal)
                for winner, image, signal in zip(part, images, signals, strict=True)
            ]
            done += len(part)
            if progress:
                progress("projections", done, total)
        found.append(gallery)
    return found


def _opened(model: "Opened", winners: Sequence[Winner]) -> Array:
    """The winners' photos, preprocessed: (N, C, H, W)."""
    gone: list[ImageRefused] = []
    opened = list(batches(model, [winner.photo.source for winner in winners], gone))
    if gone:
        raise gone[0]  # it could be read a moment ago
    found = [photo.sha256 for batch in opened for photo in batch.photos]
    for winner, sha256 in zip(winners, found, strict=True):
        if winner.photo.sha256 != sha256:
            raise ImageRefused("the photo has changed meanwhile", where=winner.photo.name)
    return np.concatenate([batch.tensors for batch in opened])


def _signals(
    gallery: Gallery,
    level: "Level",
    images: Array,
    winners: Sequence[Winner],
    projector: "Projector | ExplainedError",
) -> "Array | list[None]":
    """Projections of a signal of one; none where they are refused, which the gallery then says."""
    if gallery.refused or isinstance(projector, ExplainedError):
        return [None] * len(winners)
    units = [
        (winner.y, winner.x, winner.unit) if level.axis == 3 else (winner.unit, winner.y, winner.x)
        for winner in winners
    ]
    try:
        signals = projector(images, units)
    except (MethodRefused, ConverterError) as error:
        gallery.refuse(error)
        return [None] * len(winners)
    gallery.notes, gallery.coverage = list(projector.notes), projector.coverage
    return signals


def _picture(
    model: "Opened", level: "Level", winner: Winner, image: Array, signal: Array | None
) -> Picture:
    y0, x0, y1, x1 = box = level.field.pixels(winner.y, winner.x)
    patch = model.preprocessing.preprocess.decode(image[:, y0:y1, x0:x1])
    # The rules are linear in a positive signal: what goes down is the activation itself.
    down = None if signal is None else winner.value * signal[:, y0:y1, x0:x1]
    return Picture(winner, box, patch, down)
