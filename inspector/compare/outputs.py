"""Outputs of two networks on the same photos: how far apart they are, number by number."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inspector.errors import UsageError
from inspector.measures.signal_error import METRICS, Sums, error_statistics
from inspector.opened import Opened

__all__ = ["OutputDifference", "OutputMeter", "OutputPair", "pair_outputs"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class OutputPair:
    """One output of A, and the output of B that is the same.

    Attributes:
        a: What A calls it.
        b: What B calls it.
        order: Place in B of each class of A, where the classes stand in another order.
        whole: Whether it holds whole numbers (classes, indices), which are equal or not.
    """

    a: str
    b: str
    order: tuple[int, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class OutputDifference:
    """How far B is from A at one output, over all photos.

    Attributes:
        pair: The output.
        shape: Of one photo in A.
        relative: RMS of the difference over RMS of A's values; of whole numbers the share of those
            that differ; infinite where B's values are not finite; None where there is none.
        statistics: Errors by their names, each with an interval; None where one is undefined.
        band: Relative error up to which two float32 runs of A differ; None if not measured.
        photos: Photos in which both have one shape.
        other_shape: Photos in which they have not.
    """

    pair: OutputPair
    shape: tuple[int, ...]
    relative: float | None
    statistics: Mapping[str, Any]
    band: float | None
    photos: int
    other_shape: int

    @property
    def moved(self) -> bool | None:
        """Whether B differs from A beyond noise; None where the noise was not measured."""
        if self.other_shape or (self.relative is not None and math.isinf(self.relative)):
            return True
        if self.band is None:
            return None
        # Where A's values are all zero there is no relative error, but a largest one.
        largest = self.statistics.get("max_abs")
        if self.relative is None:
            return largest is None or bool(largest["value"])
        return self.relative > self.band

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        known = self.relative is not None and math.isfinite(self.relative)
        return {
            "name": self.pair.a,
            "b": self.pair.b,
            "shape": self.shape,
            "whole_numbers": self.pair.whole,
            "photos": self.photos,
            "photos_of_other_shape": self.other_shape,
            "relative_error": self.relative if known else None,
            "finite": self.relative is None or known,
            "noise_band": self.band,
            "moved": self.moved,
            **self.statistics,
        }


def pair_outputs(
    a: Opened, b: Opened, blanks: tuple[Array, Array], order: Sequence[int] = ()
) -> tuple[OutputPair, ...]:
    """The outputs that two networks have in common: by name, the others by place and shape.

    Args:
        a: The reference.
        b: The network under test.
        blanks: One input of each, (1, C, H, W).
        order: Place in B of each class of A; empty where they are the same.
    """
    names = list(a.graph.outputs), list(b.graph.outputs)
    left, right = values_of(a, blanks[0], names[0]), values_of(b, blanks[1], names[1])
    found = {
        name: name for name in names[0] if name in names[1] and _alike(left[name], right[name])
    }
    if len(names[0]) == len(names[1]):
        for one, other in zip(*names, strict=True):
            free = one not in found and other not in found.values()
            if free and _alike(left[one], right[other], shape=True):
                found[one] = other
    classes = (a.scores.output, a.scores.tensor) if a.scores.classifier else ()
    return tuple(
        OutputPair(
            name,
            found[name],
            tuple(order) if name in classes and left[name].shape[1:] == (len(order),) else (),
            whole=left[name].dtype.kind != "f",
        )
        for name in names[0]
        if name in found
    )


def values_of(model: Opened, inputs: Array, names: Sequence[str]) -> dict[str, Array]:
    """Outputs (N, ...) as real numbers, maps as (N, C, h, w)."""
    found = model.forward(inputs, list(dict.fromkeys(names)))
    return {name: model.model.forms.of(name).read(np.asarray(v)) for name, v in found.items()}


def _alike(x: Array, y: Array, *, shape: bool = False) -> bool:
    return (
        (x.dtype.kind == "f") == (y.dtype.kind == "f")
        and x.dtype.kind in "fiub"
        and y.dtype.kind in "fiub"
        and x.ndim == y.ndim
        and (not shape or x.shape == y.shape)
    )


def sums_of(pair: OutputPair, reference: Array, other: Array) -> Sums:
    """Sums of one photo's output; of whole numbers those of 1 where both agree, else 0.

    Elements that are infinite or no number in the same way on both sides (what is masked) count as
    equal.
    """
    found = Sums()
    if pair.whole:
        found.add(np.ones(reference.shape), (reference == other).astype(np.float64))
        return found
    x, y = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    same = ~np.isfinite(x) & ((x == y) | (np.isnan(x) & np.isnan(y)))
    found.add(np.where(same, 0.0, x), np.where(same, 0.0, y))
    return found


@dataclass
class OutputMeter:
    """Takes the outputs of two networks, photo by photo.

    Attributes:
        a: The reference.
        b: The network under test.
        pairs: Their outputs.
    """

    a: Opened
    b: Opened
    pairs: tuple[OutputPair, ...]
    _photos: dict[str, list[Sums]] = field(default_factory=dict)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _other_shape: dict[str, int] = field(default_factory=dict)

    def add(self, input_a: Array, input_b: Array) -> None:
        """Measure one photo.

        Args:
            input_a: A's input, (1, C, H, W).
            input_b: B's.
        """
        if not self.pairs:
            return
        left = values_of(self.a, input_a, [pair.a for pair in self.pairs])
        right = values_of(self.b, input_b, [pair.b for pair in self.pairs])
        for pair in self.pairs:
            x, y = left[pair.a], right[pair.b]
            self._shapes.setdefault(pair.a, x.shape[1:])
            if x.shape != y.shape:
                self._other_shape[pair.a] = self._other_shape.get(pair.a, 0) + 1
                continue
            y = y[:, list(pair.order)] if pair.order else y
            self._photos.setdefault(pair.a, []).append(sums_of(pair, x, y))

    def result(
        self, bands: Mapping[str, float], *, seed: int, intervals: bool
    ) -> tuple[OutputDifference, ...]:
        """The differences over all photos.

        Args:
            bands: Relative error that is noise, by A's names of outputs; empty if not measured.
            seed: Of the bootstrap.
            intervals: Whether SciPy is there to compute them.
        """
        return tuple(self._difference(pair, bands, seed, intervals) for pair in self.pairs)

    def _difference(
        self, pair: OutputPair, bands: Mapping[str, float], seed: int, intervals: bool
    ) -> OutputDifference:
        photos = self._photos.get(pair.a, [])
        statistics = error_statistics(photos, seed=seed, intervals=intervals)
        relative = pooled(photos)
        if pair.whole:
            statistics = {"unequal": statistics["mse"], **dict.fromkeys(METRICS)}
            relative = None if relative is None else relative**2
        return OutputDifference(
            pair,
            self._shapes.get(pair.a, ()),
            relative,
            statistics,
            bands.get(pair.a),
            len(photos),
            self._other_shape.get(pair.a, 0),
        )


def pooled(photos: Sequence[Sums]) -> float | None:
    """RMS of the differences over RMS of the reference, over all photos."""
    whole = Sums()
    for one in photos:
        whole.difference += one.difference
        whole.reference += one.reference
        whole.finite = whole.finite and one.finite
    return whole.relative


def require_outputs(a: Opened, b: Opened, pairs: Sequence[OutputPair]) -> None:
    """Refuse two networks that have no output in common.

    Raises:
        UsageError: With the outputs of both.
    """
    if pairs:
        return
    named = [", ".join(list(m.graph.outputs)[:5]) for m in (a, b)]
    raise UsageError(
        f"have no output in common: {named[0]} against {named[1]}",
        where=f"{a.path.name} and {b.path.name}",
        hint="outputs are the same by their name, or by their place and shape",
    )
