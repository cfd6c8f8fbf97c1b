"""Segmenters: a class per pixel.

What is explained of a class is the sum of its scores over a region (Seg-Grad-CAM, Vinogradova et
al. 2020): the part of the photo that the model gives to the class, the part around a point, or a
mask of the user's.  At the last layer such a map would be the class's own scores once more, so the
layer is the smallest map on the way, the bottleneck.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.heatmap import upsample
from inspector.network.classifier.scores import ends_in_activation
from inspector.network.outputs.class_evidence import is_score_like
from inspector.network.outputs.places import is_on_image, steps_along
from inspector.network.outputs.score_tensors import ends_as_features
from inspector.printable import clean_text
from inspector.target import element_target
from inspector.tasks import Item, Outputs, Reading, Sample, task, unknown
from inspector.tasks.numbers import Region
from inspector.tasks.planes import (
    bottleneck,
    cell_of,
    connected,
    is_halved,
    mask_on_grid,
    point_not_seen,
)
from inspector.tasks.words import class_of, read_words

__all__ = ["Segmenter"]

Array = np.ndarray[Any, Any]

LEAST = 0.001
"""Share of the pixels from which a class's region is listed."""

_CELLS = 64
"""Places from which an output is a map of classes and not a few scores."""

_HALVED = 6
"""Times that a map's sides may be half of the input's, where its places lie on one axis."""

_SIDE = 2
"""Cells along each side of a map, at least."""

_COLOURS = 4  # channels of a picture at most

_WIDE, _STEP = 64, 32
"""Channels from which a map can be the features of an encoder, and what they are a multiple of."""

_FIELDS = ("flow", "normal", "disparity", "motion", "displacement", "chroma")

_BACKGROUND = {"background", "__background__", "bg", "unlabeled", "unlabelled", "void"}


@dataclass(frozen=True, eq=False)
class Segmenter:
    """The reading of a segmenter's outputs; see ``Reading``.

    Attributes:
        known: What is known of the outputs.
        output: Name of the map.
        classes: Number of classes.
        channel: Axis of the classes in one sample, 0 or the last one; None of a plane (h, w) of one
            class.
        grid: Height and width where all places lie on one axis, (K, h w) or (h w, K).
    """

    known: Outputs
    output: str
    classes: int
    channel: int | None = 0
    grid: tuple[int, int] | None = None
    task: str = "segmenter"
    method: str = "grad-cam"
    wanted: str = "top1"
    cautions: Mapping[str, str] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """What the model is, in one line."""
        names = f", {len(self.known.labels)} names" if self.known.labels else ""
        count = f"{self.classes} class" + ("es" if self.classes > 1 else "")
        return f"segmenter ({clean_text(self.output)!r}, {count} per pixel{names})"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output that holds a score per class and pixel."""
        return (self.output,)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensor before a softmax or sigmoid."""
        return (self._target(0).tensor,)

    def items(self, sample: Sample) -> Sequence[Item]:
        """Regions that the model gives to a class, the largest first, the background last."""
        winners = self._winners(sample)
        counts = np.bincount(winners[winners >= 0], minlength=self.classes)
        order = sorted(
            np.flatnonzero(counts >= LEAST * winners.size),
            key=lambda number: (self.is_background(int(number)), -counts[number]),
        )
        return [
            self._item(int(n), winners == n, sample, float(counts[n] / winners.size)) for n in order
        ]

    def select(self, text: str, items: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """``top2``, ``tumour``, ``tumour@X,Y`` for the part around a point, ``mask:FILE``.

        A mask is explained by the class that most of it is given to; ``tumour@`` names another.

        Raises:
            UnknownTarget: There is no such class.
            ImageRefused: The class has no such region in this photo, or the mask does not fit it.
        """
        words = read_words(text)
        if words.box is not None or words.rank is not None:
            raise unknown(clean_text(text), self, "write top2, CLASS, CLASS@X,Y or mask:FILE")
        if words.mask:
            return [self._masked(words.mask, sample)]
        if words.top is not None:
            return items[: words.top]
        winners = self._winners(sample)
        number = None
        if words.name:
            number = class_of(words.name, self.known.labels, self.classes)
        if words.point is None:
            among = [item for item in items if item.index == number]
            if number is None or not among:
                raise self._none(sample, f"nothing is given to {self._name(number or 0)}", items)
            return among
        place = cell_of(words.point, sample.geometry, winners.shape)
        if place is None:
            raise point_not_seen(words.point, sample.geometry, sample.photo)
        own = int(winners[place])
        if own < 0 or number not in (None, own):
            given = self._name(own) if own >= 0 else "no class"
            raise self._none(sample, f"this point is given to {given}", items)
        return [self._item(own, connected(winners == own, place), sample, None)]

    def layer(self, maps: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
        """The smallest map before the first upsampling; the last one of that size."""
        features = dict(maps)
        # Behind them lie the scores themselves, before they are enlarged.
        while len(features) > 1 and next(reversed(features.values()))[1] == self.classes:
            features.popitem()
        return bottleneck(features, self.known.size)

    def _winners(self, sample: Sample) -> Array:
        """Class of every cell (h, w); -1 for none."""
        values = np.asarray(sample.values[self.output])
        if self.grid is not None:
            return np.asarray(values.argmax(axis=self.channel).reshape(self.grid))
        if self.channel is None:
            values = values[None]
        if values.ndim == 2:
            return np.asarray(values.astype(np.intp))
        if values.shape[0] == 1 and values.dtype.kind in "iu":
            return np.asarray(values[0].astype(np.intp))
        if self.channel is not None:
            values = np.moveaxis(values, self.channel, 0)
        if self.classes == 1:
            low = 0.5 if float(values.min()) >= 0 and float(values.max()) <= 1 else 0.0
            return np.asarray(np.where(values[0] > low, 0, -1))
        return np.asarray(values.argmax(axis=0))

    def _target(self, number: int, label: str = "") -> Any:
        index: list[int | slice] = [] if self.channel is None else [number]
        if self.channel:
            index = [slice(None)] * self.channel + [number]
        return element_target(self.output, index, label, self.known.scores)

    def _item(self, number: int, mask: Array, sample: Sample, share: float | None) -> Item:
        target = self._target(number, self._name(number))
        region = Region.of_mask(target, mask if self.grid is None else mask.reshape(-1))
        size = sample.geometry.input
        laid = upsample(mask.astype(np.float32), size) > 0.5
        return Item(self._name(number), region, share, number, mask=laid)

    def _masked(self, file: str, sample: Sample) -> Item:
        winners = self._winners(sample)
        mask = mask_on_grid(file, sample.geometry, winners.shape, sample.photo, sample.path)
        given = winners[mask & (winners >= 0)]
        if not given.size:
            raise self._none(sample, "the mask covers nothing that is given to a class", ())
        return self._item(int(np.bincount(given).argmax()), mask, sample, None)

    def _name(self, number: int) -> str:
        names = self.known.labels
        return clean_text(names[number]) if 0 <= number < len(names) else f"class {number}"

    def is_background(self, number: int) -> bool:
        """Whether a class is the background, by its name."""
        return self._name(number).casefold() in _BACKGROUND

    def _none(self, sample: Sample, what: str, items: Sequence[Item]) -> ImageRefused:
        shown = ", ".join(item.label for item in items[:8])
        hint = f"its regions: {shown}" if shown else ""
        return ImageRefused(what, where=sample.photo, hint=hint)


@task("segmenter", rank=3, words=("segmentation", "semantic-segmentation", "image-segmentation"))
def segmenter(outputs: Outputs, asked: bool) -> Reading | None:
    """One map of scores per class, or of class numbers; outputs of several sizes are levels.

    Beside a map of the input's size, smaller ones of as many classes are those of auxiliary heads.
    """
    found = {n: v for n, v in outputs.read().items() if v.ndim in (2, 3)}
    least = _SIDE**2 if asked else _CELLS
    maps = {n: v for n, v in found.items() if math.prod(sorted(v.shape)[-2:]) >= least}
    if not maps or len(maps) < len(found):
        return None
    # Beside the number of each pixel's class may stand how sure that is.
    name, value = max(maps.items(), key=lambda one: (one[1].size, one[1].dtype.kind in "iu"))
    if (flat := _flattened(value, name, outputs)) is not None:
        said = asked or value.shape[flat[1]] == len(outputs.labels) or _ends(outputs, name)
        return Segmenter(outputs, name, value.shape[flat[1]], flat[1], flat[0]) if said else None
    last = value.ndim == 3 and _is_last(value.shape, outputs)
    sides = _sides(value, last=last)
    if min(sides) < _SIDE or math.prod(sides) < least:
        return None  # a line of cells is a sequence, whatever stands on the third axis
    alike = {_sides(v, last=last) for v in maps.values()}
    if len(alike) > 1 and not _are_auxiliary(name, maps, outputs, last=last):
        return None
    if not asked and not is_on_image(outputs.places, name, (-3, -2) if last else (-2, -1)):
        return None  # a table of as many rows and columns
    value = np.moveaxis(value, -1, 0) if last else value
    if value.ndim == 2 and value.dtype.kind == "f" and _is_binary(outputs, name):
        return Segmenter(outputs, name, 1, None)
    if value.ndim == 2 or value.dtype.kind in "iu":
        return _of_numbers(outputs, name, value)
    if value.dtype.kind != "f" or not (asked or _are_classes(outputs, name, len(value), last=last)):
        return None
    return Segmenter(outputs, name, len(value), 2 if last else 0)


def _flattened(value: Array, name: str, outputs: Outputs) -> tuple[tuple[int, int], int] | None:
    """Grid and axis of the classes of a map (K, h w) or (h w, K); None where it is none.

    Where the places of its units are not known: more than the longer side of the input has pixels;
    fewer are a sequence.
    """
    for axis in range(2) if value.ndim == 2 and value.dtype.kind == "f" else ():
        places = value.shape[1 - axis]
        steps = steps_along(outputs.places, name, -1 - axis, places)
        if steps is not None and steps.grid is not None:
            return steps.grid, axis
        for power in range(_HALVED) if steps is None else ():
            height, width = (-(-length // 2**power) for length in outputs.size)
            if height * width == places > max(*outputs.size, value.shape[axis]):
                return (height, width), axis
    return None


def _is_field(name: str) -> bool:
    """Whether a name says that a map's channels are the parts of a vector at each pixel."""
    return any(word in name.lower() for word in _FIELDS)


def _sides(value: Array, *, last: bool) -> tuple[int, ...]:
    """Height and width of a map."""
    return tuple(value.shape[:2] if last and value.ndim == 3 else value.shape[-2:])


def _are_auxiliary(name: str, maps: Mapping[str, Array], outputs: Outputs, *, last: bool) -> bool:
    """Whether the largest map has the input's size, and all others as many classes."""
    axis = -1 if last else 0
    counts = {v.shape[axis] if v.ndim == 3 else 1 for v in maps.values()}
    return len(counts) == 1 and _sides(maps[name], last=last) == tuple(outputs.size)


def _is_last(shape: Sequence[int], outputs: Outputs) -> bool:
    """Whether (h, w, K) is the order of a map: which two axes have the input's size, halved."""
    first, last = is_halved(shape[1:], outputs.size), is_halved(shape[:2], outputs.size)
    if first == last:  # three alike, or none: as many as there are names, or colours
        small = shape[2] <= _COLOURS < min(shape[:2])
        return small or (shape[2] == len(outputs.labels) != shape[0])
    return last


def _ends(outputs: Outputs, name: str) -> bool:
    """Whether an output is a softmax or a sigmoid."""
    graph = outputs.scores.graph
    return graph is not None and ends_in_activation(graph, name)


def _said(outputs: Outputs, name: str, count: int) -> bool:
    """Whether the file says that a map is one of classes, however few."""
    return count == len(outputs.labels) or _ends(outputs, name) or is_score_like(name) > 0


def _are_classes(outputs: Outputs, name: str, count: int, *, last: bool) -> bool:
    """Whether the channels of a map are taken for classes.

    Of which nothing is said: three are colours, also where up to four lie on the last axis, and as
    many as layers have, or what ends as layers do, can be the features of an encoder.

    Raises:
        UsageError: They can be.
    """
    if count == 1:
        return _is_binary(outputs, name)
    if _is_field(name) or is_score_like(name) < 0:
        return False
    if last and count <= _COLOURS and not _said(outputs, name, count):
        return False
    words = any(word in name.lower() for word in ("seg", "mask", "sem", "logit", "class"))
    if words or _said(outputs, name, count):
        return True
    graph = outputs.scores.graph
    wide = count >= _WIDE and count % _STEP == 0
    if wide or (graph is not None and ends_as_features(graph, name)):
        shown = clean_text(name)
        raise UsageError(
            f"the output {shown!r} can be read as features, {count} channels of an encoder, and as "
            f"a map of {count} classes per pixel",
            hint=f"--task segmenter where these are classes; else name a channel, {shown}[i], or "
            f"an element, {shown}[i,j,k], as the target",
        )
    return count != 3


def _is_binary(outputs: Outputs, name: str) -> bool:
    graph = outputs.scores.graph
    words = any(word in name.lower() for word in ("seg", "mask"))
    return words or (len(outputs.labels) in (1, 2) and graph is not None)


def _of_numbers(outputs: Outputs, name: str, value: Array) -> Reading | None:
    """A map of class numbers that an ArgMax made: its scores are explained."""
    del value
    graph = outputs.scores.graph
    at = name
    for _ in range(8):
        node = None if graph is None else graph.producer(at)
        if node is None:
            return None
        if node.is_op("ArgMax"):
            scores, axis = node.inputs[0], int(node.attributes.get("axis", 0))
            shape = np.shape(outputs.probe(scores).get(scores, ()))
            channel = {1: 0, -3: 0, 3: 2, -1: 2}.get(axis)
            if len(shape) != 3 or channel is None:
                return None
            return Segmenter(outputs, scores, int(shape[channel]), channel)
        if not node.is_op("Cast", "Squeeze", "Unsqueeze", "Reshape", "Identity"):
            return None
        at = node.inputs[0]
    return None
