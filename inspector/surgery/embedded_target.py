"""Which number a heatmap explains, chosen by the graph itself while it runs.

Each is the derivative of one score per sample by the tensor that the score is an element of: what a
backward pass starts from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx

from inspector.surgery.gradient.builder import Builder

__all__ = ["CLASS_INPUT", "BestBox", "BestClass", "BestRegion", "FixedScore", "Seed"]

Array = np.ndarray[Any, Any]

CLASS_INPUT = "heatmap_class"
"""Name of the optional input that picks the class: -1 is the best one, another one has no map."""

_FLOAT = onnx.TensorProto.FLOAT
_NEVER = 1e30


class Seed(Protocol):
    """Which number is explained."""

    def written(self, b: Builder, tensor: str) -> str:
        """Derivative of every sample's number by a tensor.

        Args:
            b: Where it is written.
            tensor: The tensor.
        """
        ...


@dataclass(frozen=True)
class FixedScore:
    """The same elements of every sample.

    Attributes:
        slope: Derivative of the score by the tensor, of one sample.
    """

    slope: Array

    def written(self, b: Builder, tensor: str) -> str:
        """The constant for every sample; see ``Seed``."""
        return b.expanded(b.constant(self.slope), tensor)


@dataclass(frozen=True)
class BestClass:
    """Each sample's largest score, or that which an input picks.

    Attributes:
        by_input: Whether ``CLASS_INPUT`` picks it where it is not -1.
    """

    by_input: bool = False

    def written(self, b: Builder, tensor: str) -> str:
        """1 at the class; see ``Seed``."""
        dims = b.dims(tensor)
        count = int(np.prod(dims[1:]))
        flat = b.reshape(b.value(tensor), (-1, count))
        if count == 1:  # one unit scores two classes: the side that is predicted
            above = b.scaled(b.positive(b.value(tensor)), 2.0)
            return b.op("Sub", [above, b.constant(1.0)])
        best = b.op("ArgMax", [flat], axis=1, keepdims=1)
        if not self.by_input:
            return b.like(_one_hot(b, best, count), tensor)
        column = b.reshape(b.op("Cast", [CLASS_INPUT], to=_FLOAT), (-1, 1))
        top = b.op("Cast", [best], to=_FLOAT)
        asked = b.where(b.equal(column, b.constant(-1.0)), top, column)
        places = b.constant(np.arange(count, dtype=np.float32)[None])
        return b.like(b.mask(b.equal(asked, places)), tensor)


def _one_hot(b: Builder, index: str, count: int) -> str:
    """1 at an index (N, 1) of as many places."""
    places = b.constant(np.arange(count)[None], np.int64)
    return b.mask(b.op("Equal", [index, places]))


@dataclass(frozen=True)
class BestBox:
    """The score of the surest box of a detector, one row per candidate box.

    Attributes:
        first: Column of the first class's score among the columns of a row.
        classes: Number of classes.
        columns: Axis of the columns, 1 or 2 of (N, rows, columns); the other one has the rows.
        sure: Column of the objectness that scores are multiplied by; None where there is none.
        explained: Column of the first class's explained number; mostly ``first``.
        shares: Whether scores become probabilities by a softmax over all columns from ``least``.
        least: First column of that softmax.
    """

    first: int
    classes: int
    columns: int
    sure: int | None = None
    explained: int | None = None
    shares: bool = False
    least: int = 0

    def written(self, b: Builder, tensor: str) -> str:
        """1 at the box's class; see ``Seed``."""
        dims = b.dims(tensor)
        width, axis = dims[self.columns], self.columns
        value = b.value(tensor)
        if self.shares:
            value = b.slice(value, [self.least], [width], [axis])
            value = b.op("Softmax", [value], axis=axis)
        at = self.first - (self.least if self.shares else 0)
        scores = b.slice(value, [at], [at + self.classes], [axis])
        if self.sure is not None:
            scores = b.mul(scores, b.slice(value, [self.sure], [self.sure + 1], [axis]))
        # Row and class apart: a constant with one number per row and class would be large.
        rows = 3 - axis
        surest = b.reduced("ReduceMax", scores, [axis], keep=False)
        row = b.op("ArgMax", [surest], axis=1, keepdims=1)
        line = b.unsqueeze(_one_hot(b, row, dims[rows]), [axis])
        own = b.sum(b.where(_holds(b, line), scores, b.constant(0.0)), [rows], keep=False)
        number = b.op("ArgMax", [own], axis=1, keepdims=1)
        hit = b.mul(line, b.unsqueeze(_one_hot(b, number, self.classes), [rows]))
        start = self.first if self.explained is None else self.explained
        before, after = [0, 0, 0], [0, 0, 0]
        before[axis], after[axis] = start, width - start - self.classes
        return b.pad(hit, before, after)


@dataclass(frozen=True)
class BestRegion:
    """The sum of a class's scores over its region: the class that most pixels are given to.

    Attributes:
        background: Classes that count only where there is no other one.
        least: Share of the pixels from which a class counts.
        channels: Axis of the classes, 1 of (N, K, h, w) or 3 of (N, h, w, K); 0 of (N, h, w).
    """

    background: Sequence[int] = ()
    least: float = 0.0
    channels: int = 1

    def written(self, b: Builder, tensor: str) -> str:
        """1 where the pixels are that class's, in its own map; see ``Seed``."""
        dims, value = b.dims(tensor), b.value(tensor)
        if self.channels == 1:
            return self._chosen(b, value, dims[1], dims[2:])
        if self.channels == 0:
            flat = b.reshape(value, (-1, 1, *dims[1:]))
            return b.like(self._chosen(b, flat, 1, dims[1:]), tensor)
        first = b.transpose(value, [0, 3, 1, 2])
        return b.transpose(self._chosen(b, first, dims[3], dims[1:3]), [0, 2, 3, 1])

    def _chosen(self, b: Builder, value: str, classes: int, sides: Sequence[int]) -> str:
        """The same of scores (N, K, h, w)."""
        if classes == 1:  # a probability or a score: above 1 / 2 or above 0
            flat = b.reshape(value, (-1, int(np.prod(sides))))
            low = b.op("Neg", [b.reduced("ReduceMax", b.op("Neg", [flat]), [1], keep=True)])
            high = b.reduced("ReduceMax", flat, [1], keep=True)
            outside = b.op("Add", [b.positive(b.op("Neg", [low])), _above(b, high, 1.0)])
            inside = b.mask(b.op("Less", [outside, b.constant(0.5)]))
            bound = b.reshape(b.scaled(inside, 0.5), (-1, 1, 1, 1))
            return b.mask(b.op("Greater", [value, bound]))
        winners = b.op("ArgMax", [value], axis=1, keepdims=1)
        places = b.constant(np.arange(classes).reshape(1, -1, 1, 1), np.int64)
        given = b.mask(b.op("Equal", [winners, places]))
        counts = b.sum(given, [2, 3], keep=False)
        handicap = np.zeros((1, classes), np.float32)
        handicap[0, list(self.background)] = _NEVER / 10
        enough = max(self.least * float(np.prod(sides)), 0.5)
        few = b.scaled(b.mask(b.op("Less", [counts, b.constant(enough)])), _NEVER)
        ranked = b.op("Sub", [counts, b.op("Add", [few, b.constant(handicap)])])
        best = b.op("ArgMax", [ranked], axis=1, keepdims=1)
        return b.mul(given, b.reshape(_one_hot(b, best, classes), (-1, classes, 1, 1)))


def _holds(b: Builder, mask: str) -> str:
    """A mask of 0 and 1 as a condition."""
    return b.op("Greater", [mask, b.constant(0.5)])


def _above(b: Builder, tensor: str, number: float) -> str:
    return b.mask(b.op("Greater", [tensor, b.constant(number)]))
