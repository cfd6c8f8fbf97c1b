"""Networks whose file fixes a batch of B images: one photo fills all B places.

A tensor then holds B copies of what one image gives: as its rows, as blocks of rows, as rows that
lie B apart (parts of all images one after the other), or along another axis.  Which of them it is
shows at an image of noise, whose parts differ and whose copies do not.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.engines.independence import alike

__all__ = ["Copies", "FixedBatch", "copies_in"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Copies:
    """Where a tensor holds the copies of one image.

    Attributes:
        batch: B, how many there are.
        axis: Axis along which they lie.
        apart: Parts of one copy lie B apart; else each copy is a block.
    """

    batch: int
    axis: int = 0
    apart: bool = False

    def first(self, value: Any) -> Any:
        """The part of the first copy, of a NumPy array or a tensor of the engine."""
        split = value.reshape(self._split(value.shape))
        place = self.axis + 1 if self.apart else self.axis
        return split[(*[slice(None)] * place, 0)]

    def total(self, value: Array) -> Array:
        """The sum over the copies: of a gradient, that with respect to the one image."""
        place = self.axis + 1 if self.apart else self.axis
        found: Array = value.reshape(self._split(value.shape)).sum(place, dtype=value.dtype)
        return found

    def filled(self, part: Array) -> Array:
        """What the tensor holds when each copy is this part; the inverse of ``first``."""
        if self.apart:
            return np.repeat(part, self.batch, axis=self.axis)
        return np.concatenate([part] * self.batch, axis=self.axis)

    def _split(self, shape: Iterable[int]) -> tuple[int, ...]:
        dims = tuple(shape)
        own = dims[self.axis] // self.batch
        pair = (own, self.batch) if self.apart else (self.batch, own)
        return (*dims[: self.axis], *pair, *dims[self.axis + 1 :])


def copies_in(value: Array, batch: int, tolerance: float) -> Copies | None:
    """Where B copies of one image lie in a tensor; None where it holds no part for each.

    Args:
        value: The tensor for B copies of an image of noise.
        batch: B.
        tolerance: Largest difference between copies, as a share of the tensor's peak.
    """
    for axis in range(np.ndim(value)):
        if value.shape[axis] == 0 or value.shape[axis] % batch:
            continue
        for apart in (False, True):
            found = Copies(batch, axis, apart)
            if alike(value, found.filled(found.first(value)), tolerance):
                return found
    return None


class FixedBatch:
    """Copies in the tensors of one network, each looked up once.

    Args:
        batch: B.
        run: Computes tensors for B images, given the B numbers of the probe images: the same
            number is the same image.
        tolerance: Largest difference between copies, as a share of a tensor's peak.
    """

    def __init__(
        self,
        batch: int,
        run: Callable[[Array, list[str]], Mapping[str, Any]],
        tolerance: Callable[[], float],
    ) -> None:
        self.batch, self._run, self._tolerance = batch, run, tolerance
        self._found: dict[str, Copies | None] = {}
        self.mixed: set[str] = set()
        """Tensors in which the images of a batch act on each other."""

    def settle(self, names: Iterable[str]) -> None:
        """Look several tensors up with one pass."""
        unknown = [name for name in dict.fromkeys(names) if name not in self._found]
        if not unknown:
            return
        same = self._run(np.zeros(self.batch, np.int64), unknown)
        other = self._run(np.arange(self.batch), unknown)
        for name in unknown:
            value, beside = same[name], other[name]
            if not isinstance(value, np.ndarray):  # the maps of ZipMap, one per image
                self._found[name] = None
                continue
            found = self._found[name] = copies_in(value, self.batch, self._tolerance())
            if found is not None:
                value, beside = found.first(value), found.first(beside)
            if not alike(value, beside, self._tolerance()):
                self.mixed.add(name)

    def of(self, name: str) -> Copies | None:
        """Where a tensor holds the copies; None where it holds no part for each."""
        self.settle([name])
        return self._found[name]
