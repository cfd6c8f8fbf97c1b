"""The layer at which two networks part: each layer's own error, apart from what it inherits.

The error between two runs grows with depth whatever its cause, so the layer with the largest
*accumulated* error says little.  A layer's *own* error is what B's layer makes of A's input::

    own error = | B's step(A's activations) - A's activation |  /  | A's activation |     (RMS)

with B's step run in the twin, which can start at any tensor.  A layer stands out

* where B is quantised: if its own error is more than 3.5 times what a sound quantiser would leave
  there (``inspector.compare.rounding``), or than the median layer of such multiples;
* elsewhere: if it lies above median + max(4 sigma, log 4.5) in the logarithm, sigma being 1.4826
  times the median absolute deviation (Leys et al. 2013).  The others are the tensors whose own
  error exceeds rounding, if they are common (three, and a fifth of all); else they are rounding
  itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.compare.alignment import Alignment, Point, Probe, first
from inspector.compare.rounding import Spread, expected_rounding
from inspector.errors import ConverterError
from inspector.measures.signal_error import Sums

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LayerError", "Meter", "Parting", "Sums", "bound_of", "verdict"]

Array = np.ndarray[Any, Any]

ROUNDING = 1e-4
"""Relative error below which a layer counts as equal: the order of operations differs."""

FEWEST, SHARE = 3, 0.2
"""How many tensors must differ beyond rounding for that to be the networks' common noise."""

SIGMAS, FACTOR = 4.0, 4.5
"""How far beyond the others an error must lie: robust deviations, and at least this factor."""

QUANTISED_FACTOR = 3.5
"""How many times the expected rounding an error must be (docs/compare.md has the measurements)."""

DIFFERENT = 0.15
"""Median own error above which the weights themselves are other ones: int8 stays near 0.02."""


@dataclass(frozen=True)
class LayerError:
    """How far two networks are apart at one tensor.

    Attributes:
        point: The tensor.
        shape: Of one image, (C, h, w) for maps.
        accumulated: Both networks run on their own inputs.
        own: B's layer run on A's activations; None where B does nothing there, or it cannot run.
        stands_out: Whether the own error lies beyond the other layers'.
        why: Why there is no own error, if the twin cannot run the layer.
        expected: Relative own error that a sound quantiser would leave; None where B does not
            quantise.
    """

    point: Point
    shape: tuple[int, ...]
    accumulated: Sums
    own: Sums | None
    stands_out: bool = False
    why: str = ""
    expected: float | None = None

    @property
    def own_error(self) -> float | None:
        """Relative own error."""
        return None if self.own is None else self.own.relative

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        point = self.point
        return {
            "name": point.name,
            "a": point.a,
            "b": point.b,
            "layer": point.layer,
            "shape": self.shape,
            "operators": point.operators,
            "constants": point.weights,
            "accumulated": self.accumulated.to_dict(),
            "own": None if self.own is None else self.own.to_dict(),
            "expected": self.expected,
            "stands_out": self.stands_out,
            "why": self.why,
        }


@dataclass(frozen=True)
class Parting:
    """Where two networks part.

    Attributes:
        alignment: Which tensors correspond, and how that was found.
        layers: Errors at each, in A's order; empty when the graphs cannot be aligned.
        images: How many images they were measured over.
        median: Median own error of the tensors that differ, as far as that is common; of a
            quantised B in multiples of the expected ones.
        bound: The same above which a layer stands out.
        sentence: The verdict for people.
        of_expected: Whether median and bound are multiples of the expected errors.
    """

    alignment: Alignment
    layers: tuple[LayerError, ...] = ()
    images: int = 0
    median: float | None = None
    bound: float | None = None
    sentence: str = ""
    of_expected: bool = False

    @property
    def outliers(self) -> tuple[LayerError, ...]:
        """The layers that stand out, in order."""
        return tuple(layer for layer in self.layers if layer.stands_out)

    @property
    def first(self) -> LayerError | None:
        """The first layer at which the networks part; None if no single layer stands out."""
        return next(iter(self.outliers), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {
            "aligned": bool(self.layers),
            "how": self.alignment.how,
            "why": self.alignment.why,
            "images": self.images,
            "parts_at": self.first.point.name if self.first else None,
            "stand_out": [layer.point.name for layer in self.outliers],
            "rule": {
                "rounding": ROUNDING,
                "common_from": FEWEST,
                "common_share": SHARE,
                "sigmas": 0.0 if self.of_expected else SIGMAS,
                "factor": QUANTISED_FACTOR if self.of_expected else FACTOR,
                "of_expected_rounding": self.of_expected,
                "median_own_error": self.median,
                "bound": self.bound,
            },
            "verdict": self.sentence,
            "layers": [layer.to_dict() for layer in self.layers],
        }


@dataclass
class Meter:
    """Adds up the errors of aligned layers, image by image.

    Attributes:
        a: The reference.
        b: The network under test.
        alignment: Their corresponding tensors.
    """

    a: Probe
    b: Probe
    alignment: Alignment
    images: int = 0
    _accumulated: list[Sums] = field(default_factory=list)
    _own: list[Sums | None] = field(default_factory=list)
    _shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _refused: dict[int, str] = field(default_factory=dict)
    _spreads: list[Spread] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make room for every point; B may do nothing at one (the image itself)."""
        points = self.alignment.points
        graph = self.b.model.graph
        self._spreads = [Spread.at(graph, point.b) for point in points]
        self._accumulated = [Sums() for _ in points]
        self._own = [Sums() if point.operators else None for point in points]

    def add(self, image_a: Array, image_b: Array) -> None:
        """Measure one image.

        Args:
            image_a: A's input, (1, C, H, W).
            image_b: B's input of the same photo.
        """
        points = self.alignment.points
        found_a = self.a.run(image_a, list(dict.fromkeys(p.a for p in points)))
        found_b = self.b.run(image_b, list(dict.fromkeys(p.b for p in points)))
        reference = [p.forms[0].read(found_a[p.a]) for p in points]
        for index, point in enumerate(points):
            own = point.forms[1].read(found_b[point.b])
            if own.shape != reference[index].shape:  # depends on what is in the image
                continue
            self._shapes[index] = own.shape[1:]
            self._spreads[index].add(reference[index])
            self._accumulated[index].add(reference[index], own)
            sums = self._own[index]
            if sums is not None and index not in self._refused:
                self._add_own(index, sums, reference, image_b)
        self.images += 1

    def _add_own(self, index: int, sums: Sums, reference: Sequence[Array], image: Array) -> None:
        try:
            value = self._step(self.alignment.points[index], reference, image)
        except ConverterError as error:
            self._refused[index] = str(error)
            return
        if value.shape == reference[index].shape:
            sums.add(reference[index], value)

    def _step(self, point: Point, reference: Sequence[Array], image: Array) -> Array:
        """What B's nodes make of A's activations."""
        import torch

        model = self.b.model
        feeds: dict[str, Tensor] = {}
        if point.image:
            fed = model.input.arrange(np.repeat(image, self.b.batch, axis=0))
            feeds[model.input.name] = self._tensor(fed)
        for source in point.sources:
            origin = self.alignment.points[source]
            value = origin.forms[1].write(reference[source])
            repeated = np.repeat(value, self.b.batch, axis=0) if self.b.batch > 1 else value
            feeds |= dict.fromkeys(origin.carriers, self._tensor(repeated))
        with torch.no_grad():
            found = model.twin_engine.program.run(feeds, [point.b])[point.b]
        found = found.to(torch.float32) if found.is_floating_point() else found
        return point.forms[1].read(first(found.cpu().numpy(), self.b.batch))

    def _tensor(self, value: Array) -> "Tensor":
        import torch

        twin = self.b.model.twin_engine.program
        real = value.dtype.kind == "f"
        return torch.tensor(value, dtype=twin.dtype if real else None, device=twin.device)

    def _own_of(self, index: int) -> Sums | None:
        """A point's own error.

        Where both networks agree before and behind a step, ONNX Runtime itself has shown what B
        makes of A's input; the twin may differ from it by a unit of the last place.
        """
        places = (index, *self.alignment.points[index].sources)
        errors = [self._accumulated[place].relative for place in places]
        own = None if index in self._refused else self._own[index]
        agree = all(error is not None and error <= ROUNDING for error in errors)
        return self._accumulated[index] if own is not None and agree else own

    def result(self) -> Parting:
        """The errors so far, and the verdict."""
        expected = expected_rounding(self.b.model.graph, self.alignment.points, self._spreads)
        layers = [
            LayerError(
                point,
                self._shapes.get(index, ()),
                self._accumulated[index],
                self._own_of(index),
                why=self._refused.get(index, ""),
                expected=expected[index],
            )
            for index, point in enumerate(self.alignment.points)
        ]
        return verdict(self.alignment, layers, self.images)


def bound_of(errors: Sequence[float]) -> tuple[float, float]:
    """Median of the others, and the error above which one lies beyond them; see the module's text.

    Args:
        errors: Own relative errors of all tensors that B computes.
    """
    beyond = [error for error in errors if ROUNDING < error < math.inf]
    common = len(beyond) >= max(FEWEST, SHARE * len(errors))
    logs = np.log10(beyond if common else [ROUNDING])
    median = float(np.median(logs))
    sigma = 1.4826 * float(np.median(np.abs(logs - median)))
    return 10**median, 10 ** (median + max(SIGMAS * sigma, math.log10(FACTOR)))


def excesses(layers: Sequence[LayerError], bound: float) -> dict[int, float]:
    """Own errors by the layer's index, as multiples of the expected ones; empty without any.

    Args:
        layers: The layers.
        bound: Own error above which a layer stands out whose expected error is not known.
    """
    if all(layer.expected is None for layer in layers):
        return {}
    found = {}
    for index, layer in enumerate(layers):
        if (error := layer.own_error) is not None:
            expected = bound / QUANTISED_FACTOR if layer.expected is None else layer.expected
            found[index] = error / max(expected, ROUNDING) if error > ROUNDING else 0.0
    return found


def verdict(alignment: Alignment, layers: Sequence[LayerError], images: int) -> Parting:
    """Mark the layers that stand out, and say what follows."""
    errors = {i: error for i, layer in enumerate(layers) if (error := layer.own_error) is not None}
    if not errors:
        why = alignment.why if not layers else "no layer's own error could be measured"
        return Parting(alignment, tuple(layers), images, sentence=why)
    usual, bound = bound_of([*errors.values()])
    median = usual
    excess = excesses(layers, bound)
    if excess:
        median = float(np.median([one for one in excess.values() if one] or [0.0]))
        bound = QUANTISED_FACTOR * max(median, 1.0)
    measured = excess or errors
    marked = tuple(
        replace(layer, stands_out=measured.get(index, 0.0) > bound)
        for index, layer in enumerate(layers)
    )
    sentence = _sentence(marked, usual)
    return Parting(alignment, marked, images, median, bound, sentence, bool(excess))


def _sentence(layers: Sequence[LayerError], median: float) -> str:
    outliers = [layer for layer in layers if layer.stands_out]
    if outliers:
        return _named(outliers, median)
    known = [layer for layer in layers if layer.own_error is not None]
    worst = max(known, key=lambda layer: layer.own_error or 0.0)
    largest = worst.own_error or 0.0
    if largest <= ROUNDING:
        return f"the networks do not part: no layer's own error exceeds {ROUNDING:g}"
    text = (
        f"no single layer stands out: own errors reach {largest:.2g} at {worst.point.name!r}, the "
        f"median is {median:.2g}"
    )
    if median > DIFFERENT:
        text += "; the weights differ throughout"
    begin = next(i for i, layer in enumerate(known) if (layer.own_error or 0.0) > ROUNDING)
    if any(layer.point.weighted for layer in known[:begin]):
        text += f"; equal up to rounding before {known[begin].point.name!r}"
    return text


def _named(outliers: Sequence[LayerError], median: float) -> str:
    layer = outliers[0]
    made = [f"layer {layer.point.layer}"] if layer.point.layer is not None else []
    if layer.point.weighted:
        made.append(" ".join((*layer.point.learned[:1], *layer.point.weights[:1])))
    place = f" ({', '.join(made)})" if made else ""
    text = f"the networks part at {layer.point.name!r}{place}: {_size(layer, median)}"
    if len(outliers) > 1:
        worst = max(outliers, key=lambda other: other.own_error or 0.0)
        more = "1 more stands" if len(outliers) == 2 else f"{len(outliers) - 1} more stand"
        text += f"; {more} out"
        if worst is not layer:
            text += f", most of all {worst.point.name!r}"
    return text


def _size(layer: LayerError, median: float) -> str:
    error = layer.own_error or 0.0
    if math.isinf(error):
        return "B's values are not finite there"
    if layer.expected is not None:
        expected = max(layer.expected, ROUNDING)
        return (
            f"own error {error:.2g} of its RMS, {error / expected:.3g} times the {expected:.2g} "
            "that rounding leaves there"
        )
    times = error / max(median, ROUNDING)
    return f"own error {error:.2g} of its RMS, {times:.3g} times the median of {median:.2g}"
