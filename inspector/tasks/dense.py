"""Dense predictions: one number per pixel, such as depth, an anomaly, saliency or a larger picture.

What is explained is the largest number, that at a point, or the sum over a mask of the user's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inspector.errors import ImageRefused
from inspector.printable import clean_text
from inspector.target import element_target
from inspector.tasks import Item, Outputs, Reading, Sample, task, unknown
from inspector.tasks.numbers import Region
from inspector.tasks.planes import bottleneck, cell_of, mask_on_grid
from inspector.tasks.words import read_words

__all__ = ["Dense"]

Array = np.ndarray[Any, Any]

_CELLS = 64
"""Places from which an output is a plane and not a few numbers."""


@dataclass(frozen=True, eq=False)
class Dense:
    """The reading of a plane of numbers; see ``Reading``."""

    known: Outputs
    output: str
    channel: bool
    task: str = "dense"
    method: str = "hires-cam"
    wanted: str = "maximum"
    cautions: Mapping[str, str] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """What the model is, in one line."""
        return f"dense prediction ({clean_text(self.output)!r}, one number per pixel)"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The plane."""
        return (self.output,)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The plane, or what a sigmoid makes it of."""
        return (self._element((0, 0), "").tensor,)

    def items(self, sample: Sample) -> Sequence[Item]:
        """The largest number."""
        plane = self._plane(sample)
        finite = np.where(np.isfinite(plane), plane, -np.inf)
        at = np.unravel_index(int(finite.argmax()), plane.shape)
        return [self._at((int(at[0]), int(at[1])), "maximum", sample)]

    def select(self, text: str, items: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """``maximum`` or ``top1``, ``@X,Y`` for the number at a point, ``mask:FILE`` for a sum.

        Raises:
            UnknownTarget: Anything else.
            ImageRefused: The network does not see the point, or the mask does not fit the photo.
        """
        words = read_words(text)
        if text == "maximum" or words.top == 1:
            return items
        shape = self._plane(sample).shape
        if words.mask:
            mask = mask_on_grid(words.mask, sample.geometry, shape, sample.photo)
            if not mask.any():
                raise ImageRefused("the network sees nothing of the mask", where=sample.photo)
            return [self._region(mask, sample)]
        if words.point is None or words.name:
            raise unknown(clean_text(text), self, "write maximum, @X,Y or mask:FILE")
        place = cell_of(words.point, sample.geometry, shape)
        if place is None:
            raise ImageRefused("the network does not see this point", where=sample.photo)
        return [self._at(place, f"@{words.point[0]:g},{words.point[1]:g}", sample)]

    def layer(self, maps: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
        """The bottleneck."""
        return bottleneck(maps, self.known.size)

    def _plane(self, sample: Sample) -> Array:
        values = np.asarray(sample.values[self.output])
        return values[0] if self.channel else values

    def _element(self, place: tuple[int, ...], label: str) -> Any:
        index = (0, *place) if self.channel else place
        return element_target(self.output, index, label, self.known.scores)

    def _at(self, place: tuple[int, int], label: str, sample: Sample) -> Item:
        height, width = self._plane(sample).shape
        down, across = sample.geometry.input[0] / height, sample.geometry.input[1] / width
        box = (
            place[0] * down - down,
            place[1] * across - across,
            (place[0] + 2) * down,
            (place[1] + 2) * across,
        )
        return Item(label, self._element(place, label), box=box)

    def _region(self, mask: Array, sample: Sample) -> Item:
        target = self._element((), "mask")
        shape, size = mask.shape, sample.geometry.input
        rows = np.arange(size[0]) * shape[0] // size[0]
        columns = np.arange(size[1]) * shape[1] // size[1]
        return Item("mask", Region.of_mask(target, mask), mask=mask[np.ix_(rows, columns)])


@task("dense", rank=4, words=("depth-estimation", "image-to-image", "super-resolution"))
def dense(outputs: Outputs, asked: bool) -> Reading | None:
    """One plane (N, 1, h, w) or (N, h, w) of real numbers."""
    del asked
    found = {n: v for n, v in outputs.probe().items() if v.dtype.kind == "f"}
    planes = {
        n: v
        for n, v in found.items()
        if v.shape[-1:] and v.size >= _CELLS and (v.ndim == 2 or (v.ndim == 3 and len(v) == 1))
    }
    # A picture has the proportions of the input, up to a cell; a table of boxes has not.
    height, width = outputs.size
    wide = {
        n: v
        for n, v in planes.items()
        if abs(v.shape[-2] * width - v.shape[-1] * height) <= max(height, width)
    }
    if len(found) != 1 or not wide:
        return None
    name, value = next(iter(wide.items()))
    return Dense(outputs, name, value.ndim == 3)
