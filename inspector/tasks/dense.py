"""Dense predictions: a number per pixel, such as depth, an anomaly or saliency, or a whole picture.

What is explained of a plane is the largest number, that at a point, or the sum over a mask of the
user's.  Of a picture (style transfer, denoising, super-resolution, generators) no single number
means anything: it is the sum over a square, over all its channels, as local attribution maps take a
patch of the output (Gu & Dong 2021).  Unless the user names one it is the square of most detail.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inspector.errors import ImageRefused
from inspector.network.outputs.places import is_on_image
from inspector.printable import clean_text
from inspector.target import element_target
from inspector.tasks import Item, Outputs, Reading, Sample, others_said, task, unknown
from inspector.tasks.numbers import Region
from inspector.tasks.planes import bottleneck, cell_of, mask_on_grid, point_not_seen
from inspector.tasks.words import read_words

__all__ = ["Dense"]

Array = np.ndarray[Any, Any]

_CELLS = 64
"""Places from which an output is a plane and not a few numbers."""

SQUARE = 8
"""Sides of the square that is explained of a picture, as parts of the picture's."""

_COLOURS = {3, 4}

SKEWED = 0.1
"""Difference of a plane's shape from the input's, as a share, beyond which it is a table."""


@dataclass(frozen=True, eq=False)
class Dense:
    """The reading of a plane of numbers, or of a picture; see ``Reading``.

    Attributes:
        known: What is known of the outputs.
        output: Name of the plane.
        shape: Of one sample.
        channel: Its axis of channels; None of a plane (h, w).
        others: Further planes, which are not explained.
    """

    known: Outputs
    output: str
    shape: tuple[int, ...]
    channel: int | None
    others: tuple[str, ...] = ()
    task: str = "dense"
    method: str = "hires-cam"
    cautions: Mapping[str, str] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Numbers per pixel."""
        return 1 if self.channel is None else self.shape[self.channel]

    @property
    def wanted(self) -> str:
        """What is explained unless the user says so."""
        return "maximum" if self.channels == 1 else "detail"

    @property
    def why(self) -> str:
        """What the model is, in one line."""
        if self.channels > 1:
            return (
                f"dense prediction ({clean_text(self.output)!r}, a picture of {self.channels} "
                "channels: squares of it are explained, summed over all channels)"
            )
        return (
            f"dense prediction ({clean_text(self.output)!r}, one number per pixel"
            f"{others_said(self.task, self.others)})"
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The plane."""
        return (self.output,)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The plane, or what a sigmoid makes it of."""
        return (self._element((0,) * len(self._sides), "").tensor,)

    def items(self, sample: Sample) -> Sequence[Item]:
        """The largest number; of a picture the square of the most detail."""
        planes = self._planes(sample)
        if self.channels > 1:
            return [self._square(_detailed(planes, self._step), "detail", sample)]
        finite = np.where(np.isfinite(planes[0]), planes[0], -np.inf)
        at = np.unravel_index(int(finite.argmax()), finite.shape)
        return [self._at((int(at[0]), int(at[1])), "maximum", sample)]

    def select(self, text: str, items: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """``maximum`` or ``top1``, ``@X,Y`` for the number at a point, ``mask:FILE`` for a sum.

        Of a picture ``detail``, ``@X,Y`` for the square around a point, and ``mask:FILE``.

        Raises:
            UnknownTarget: Anything else.
            ImageRefused: The network does not see the point, or the mask does not fit the photo.
        """
        words = read_words(text)
        if text == self.wanted or words.top == 1:
            return items
        shape = self._planes(sample).shape[1:]
        if words.mask:
            mask = mask_on_grid(words.mask, sample.geometry, shape, sample.photo, sample.path)
            if not mask.any():
                raise ImageRefused("the network sees nothing of the mask", where=sample.photo)
            return [self._region(mask, "mask", sample)]
        if words.point is None or words.name:
            raise unknown(clean_text(text), self, f"write {self.wanted}, @X,Y or mask:FILE")
        place = cell_of(words.point, sample.geometry, shape)
        if place is None:
            raise point_not_seen(words.point, sample.geometry, sample.photo)
        label = f"@{words.point[0]:g},{words.point[1]:g}"
        if self.channels > 1:
            return [self._square(place, label, sample)]
        return [self._at(place, label, sample)]

    def layer(self, maps: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
        """The bottleneck."""
        return bottleneck(maps, self.known.size)

    @property
    def _sides(self) -> tuple[int, ...]:
        """Height and width of the plane."""
        return tuple(n for axis, n in enumerate(self.shape) if axis != self.channel)

    @property
    def _step(self) -> tuple[int, int]:
        """Height and width of the square that is explained of a picture."""
        height, width = (max(1, n // SQUARE) for n in self._sides)
        return height, width

    def _planes(self, sample: Sample) -> Array:
        """Channels first, (C, h, w)."""
        values = np.asarray(sample.values[self.output])
        return values[None] if self.channel is None else np.moveaxis(values, self.channel, 0)

    def _element(self, place: tuple[int, ...], label: str) -> Any:
        """One number of the first channel; without a place all of them."""
        index = list(place)
        if self.channel is not None and place:
            index.insert(self.channel, 0)
        elif self.channel == 0 and self.channels == 1:
            index = [0]
        return element_target(self.output, index, label, self.known.scores)

    def _at(self, place: tuple[int, int], label: str, sample: Sample) -> Item:
        height, width = self._sides
        down, across = sample.geometry.input[0] / height, sample.geometry.input[1] / width
        box = (
            place[0] * down - down,
            place[1] * across - across,
            (place[0] + 2) * down,
            (place[1] + 2) * across,
        )
        return Item(label, self._element(place, label), box=box)

    def _square(self, middle: tuple[int, int], label: str, sample: Sample) -> Item:
        """The square around a place, moved inside where it would reach out."""
        mask = np.zeros(self._sides, np.bool_)
        spans, box = [], []
        for at, side, whole, size in zip(
            middle, self._step, self._sides, sample.geometry.input, strict=True
        ):
            start = min(max(at - side // 2, 0), whole - side)
            spans.append(slice(start, start + side))
            box.append((start * size / whole, (start + side) * size / whole))
        mask[tuple(spans)] = True
        (top, bottom), (left, right) = box
        target = self._region(mask, label, sample).target
        return Item(label, target, box=(top, left, bottom, right))

    def _region(self, mask: Array, label: str, sample: Sample) -> Item:
        target = self._element((), label)
        weights = mask
        if self.channel == 2:
            weights = np.repeat(mask[..., None], self.channels, axis=2)
        shape, size = mask.shape, sample.geometry.input
        rows = np.arange(size[0]) * shape[0] // size[0]
        columns = np.arange(size[1]) * shape[1] // size[1]
        return Item(label, Region.of_mask(target, weights), mask=mask[np.ix_(rows, columns)])


def _detailed(planes: Array, step: tuple[int, int]) -> tuple[int, int]:
    """Middle of the square, on a raster of half its side, whose values differ most."""
    height, width = planes.shape[1:]
    best, place = -1.0, (height // 2, width // 2)
    for top in range(0, max(height - step[0], 0) + 1, max(1, step[0] // 2)):
        for left in range(0, max(width - step[1], 0) + 1, max(1, step[1] // 2)):
            part = planes[:, top : top + step[0], left : left + step[1]]
            spread = float(part.var(axis=(1, 2), dtype=np.float64).sum())
            if spread > best:
                best, place = spread, (top + step[0] // 2, left + step[1] // 2)
    return place


@task("dense", rank=4, words=("depth-estimation", "image-to-image", "super-resolution"))
def dense(outputs: Outputs, asked: bool) -> Reading | None:
    """A plane (N, 1, h, w) or (N, h, w) of real numbers, or a picture of 3 or 4 channels.

    Of several planes (the side outputs of U2-Net) the largest is explained, the first one of these.
    """
    found = {n: v for n, v in outputs.read().items() if v.dtype.kind == "f"}
    planes = {n: v for n, v in found.items() if _is_plane(v, outputs.size, asked=asked)}
    # Beside a map of anomalies stands the photo's own score.
    if not planes or any(v.size > 1 for n, v in found.items() if n not in planes):
        return None
    if len(planes) > 1 and any(_channels(v) != 1 for v in planes.values()):
        return None
    name = max(planes, key=lambda n: planes[n].size)  # the first of the largest
    value = planes.pop(name)
    channel = _channel_axis(value.shape, any_number=asked)
    axes = (-3, -2) if channel == 2 else (-2, -1)
    if not asked and not is_on_image(outputs.places, name, axes):
        return None  # a table of as many rows and columns
    return Dense(outputs, name, value.shape, channel, tuple(planes))


def _is_plane(value: Array, size: tuple[int, int], *, asked: bool) -> bool:
    """Whether an output holds numbers at places of the input: enough of them, of its shape."""
    channel = _channel_axis(value.shape, any_number=asked)
    if value.ndim not in (2, 3) or (value.ndim == 3 and channel is None):
        return False
    height, width = (n for axis, n in enumerate(value.shape) if axis != channel)
    if height * width < _CELLS:
        return False
    return bool(abs(height * size[1] - width * size[0]) <= SKEWED * height * size[1] + max(size))


def _channels(value: Array) -> int:
    channel = _channel_axis(value.shape, any_number=False)
    return 1 if channel is None else int(value.shape[channel])


def _channel_axis(shape: tuple[int, ...], *, any_number: bool) -> int | None:
    """Axis of the channels: the first, or the last where that alone is one of colours."""
    if len(shape) != 3:
        return None
    if shape[0] == 1 or shape[0] in _COLOURS:
        return 0
    if shape[2] == 1 or shape[2] in _COLOURS:
        return 2
    return 0 if any_number else None
