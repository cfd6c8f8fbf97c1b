"""A method's result, in its own space and on the photo; NumPy only.

`Attribution` is what a method computed: signed values in the layer's or the input's grid.
`Heatmap` is the same laid onto the photo's pixels, before any colouring and not normalised:
its numbers keep the method's unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspector.errors import NotFinite
from inspector.network.coordinates.lattice import Lattice
from inspector.network.coordinates.placement import Placement
from inspector.photos.geometry import Geometry, sample_bilinear

__all__ = [
    "EMPTY",
    "LEAST_UNCOVERED",
    "NO_SIGNAL",
    "REDUCTIONS",
    "SATURATED",
    "SILENT",
    "UNCHANGED",
    "ZERO",
    "Attribution",
    "Heatmap",
    "lay_on_input",
    "normalise",
    "reduce",
    "sample_placed",
    "upsample",
]

EMPTY = "no positive evidence at this layer"
"""What an empty map of a layer means; it is said, never drawn as a constant picture."""

ZERO = ("saturated", "silent layer", "unchanged score", "no signal")
SATURATED, SILENT, UNCHANGED, NO_SIGNAL = ZERO
"""First words of the sentences that say why a map is zero everywhere: the probability is 0 or 1
whatever the image shows; the layer itself is 0; nothing that was hidden changes the score; nothing
comes down to the image.  None of them is a lack of positive evidence, which is said of maps that
would be negative."""

Float32 = NDArray[np.float32]

REDUCTIONS = {
    "max_abs": lambda a: np.abs(a).max(axis=0),
    "sum": lambda a: a.sum(axis=0),
    "mean_abs": lambda a: np.abs(a).mean(axis=0),
    "l2": lambda a: np.sqrt((a * a).sum(axis=0)),
    "positive": lambda a: np.maximum(a, 0).sum(axis=0),
}
"""Channels (C, H, W) to one map (H, W). ``sum`` keeps the sign; the others are >= 0."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """What one method says about one target on one image.

    Attributes:
        values: Signed float32, (h, w) in layer space, or (T, h, w) of a layer that holds parts of
            the image as T grids; (C, H, W) or (H, W) in input space.
        space: "layer" or "input".
        method: The method's name.
        label: The target as people call it.
        index: The target's class index, None when it is not a class.
        tensor: The tensor that the target is read from.
        score: The target's score S, before softmax.
        probability: The target's probability, None when the model has none.
        layer: Tensor name of the layer that was explained through, None for input methods.
        options: Every option's value.
        notes: What must be known when the map is read.
        reduction: How channels become one map, a key of `REDUCTIONS`; ``sum`` keeps the sign.
        signed: Whether negative values mean something (CAM, occlusion).
        opposed: Whether the score is that of the opposite direction, -S.
        channels: What the channels of a (C, H, W) map are: "RGB", "BGR" or "GRAY".
        placement: Where the cells of a layer's map lie on the input; None where it is stretched
            over the whole input as usual.
        lattice: How the map lies on a signal or a volume, whose values are a plane here; None on
            a picture.
        box: Top, left, bottom, right of what is explained, in pixels of the input; None where it
            has no box.
        region: (H, W) of the input, True where it lies; None where it is not a region.
        unit: What the values are, for a colour bar: "change of the score", for example.
        per_pixel: Whether each pixel of the input has a value of its own, as a gradient has; a
            square that was hidden has one for all of its pixels.

    Raises:
        NotFinite: The values are not finite.
        ValueError: Their shape does not fit the space.

    Example:
        >>> import numpy as np
        >>> from inspector.heatmap import Attribution
        >>> found = Attribution(np.array([[0, 2], [1, 3]]), space="layer", method="grad-cam")
        >>> found.empty, found.values.dtype
        (False, dtype('float32'))
    """

    values: Float32
    space: str
    method: str
    label: str = ""
    index: int | None = None
    tensor: str = ""
    score: float | None = None
    probability: float | None = None
    layer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reduction: str = "max_abs"
    channels: str = "RGB"
    signed: bool = False
    placement: Placement | None = None
    lattice: Lattice | None = None
    opposed: bool = False
    box: tuple[float, float, float, float] | None = None
    region: NDArray[np.bool_] | None = None
    unit: str = ""
    per_pixel: bool = False

    def __post_init__(self) -> None:
        """Check what a picture could hide: shape and finiteness."""
        values = np.ascontiguousarray(self.values, np.float32)
        object.__setattr__(self, "values", values)
        grids = None if self.placement is None else self.placement.count
        ranks = {"layer": (2,) if grids is None else (3,), "input": (2, 3)}
        if self.space not in ranks:
            raise ValueError(f"space is layer or input, not {self.space!r}")
        if values.ndim not in ranks[self.space] or values.size == 0:
            raise ValueError(f"a map of shape {values.shape} in {self.space} space")
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"unknown reduction {self.reduction!r}")
        if not bool(np.isfinite(values).all()):
            raise NotFinite(
                f"{self.method}: the map has values that are not finite",
                where=self.layer or self.tensor,
                hint="the network overflows on this image; check its preprocessing",
            )

    @property
    def own(self) -> Float32:
        """The values at their own shape: (l,) or (C, L) of a signal, (d, h, w) of a volume."""
        return self.values if self.lattice is None else self.lattice.own(self.values)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show.

        A map is empty when no value is positive. Signed channels (C, H, W) of the input are
        evidence either way: they are empty when all are zero.
        """
        if self.projection is not None:
            return not bool(self.values.any())
        return not bool((self.values > 0).any())

    @property
    def why_empty(self) -> str:
        """Why there is nothing to show, in short: what a note says, else `EMPTY`."""
        for note in self.notes:
            if note.startswith(ZERO):
                return note.partition(";")[0]
        return EMPTY if self.space == "layer" else "no positive evidence"

    @property
    def projection(self) -> Float32 | None:
        """The signed channels (C, H, W) that a projection panel shows; None when there are none."""
        channels = self.space == "input" and self.values.ndim == 3
        signed = channels and self.reduction != "sum" and self.lattice is None
        return self.values if signed else None

    @property
    def speckled(self) -> bool:
        """Whether the map is drawn as spots: few pixels of a picture are far above all others."""
        own = self.per_pixel and self.space == "input" and self.lattice is None
        return own or self.projection is not None

    def reduced(self) -> Float32:
        """One map, (h, w) or (H, W), signed if the reduction keeps signs; (T, h, w) of T grids."""
        return self.values if self.space == "layer" else reduce(self.values, self.reduction)


LEAST_UNCOVERED = 0.005
"""Share of the photo from which it is said that a map does not cover it; less is rounding."""

_NO_CELL = (
    "no cell of the layer {!r} lies on {:.1%} of the photo, which the network sees: the map says "
    "nothing there (dimmed)"
)


@dataclass(frozen=True, eq=False)
class Heatmap:
    """An attribution on the photo's own pixels, before colouring.

    Attributes:
        values: (H, W) of the photo, float32, in the method's own unit, **not normalised**; NaN
            where the network saw nothing of the photo.
        seen: (H, W), True where it did.
        attribution: Where the values come from.
        geometry: How the photo and the network's input lie on each other.
    """

    values: Float32
    seen: NDArray[np.bool_]
    attribution: Attribution
    geometry: Geometry

    @classmethod
    def of(cls, attribution: Attribution, geometry: Geometry) -> "Heatmap":
        """Lay an attribution onto the photo.

        Maps of a layer are first upsampled to the input, bilinear with half-pixel centres; one
        whose cells lie elsewhere is laid cell by cell, and pixels in no cell are not seen.
        """
        grid = attribution.reduced()
        if attribution.lattice is not None:
            values, seen = attribution.lattice.laid(grid)
            return cls(values, seen, attribution, geometry)
        if attribution.placement is not None and attribution.space == "layer":
            at = geometry.to_input(np.arange(geometry.photo[0]), np.arange(geometry.photo[1]))
            values, seen = sample_placed(grid, attribution.placement, *at)
            seen &= geometry.seen()
            values[~seen] = np.nan
            return cls(values, seen, attribution, geometry)
        if grid.shape != geometry.input:
            if attribution.space == "input":
                raise ValueError(f"a map of {grid.shape} for an input of {geometry.input}")
            grid = upsample(grid, geometry.input)
        values, seen = geometry.lay_back(grid)
        return cls(values, seen, attribution, geometry)

    @property
    def own(self) -> Float32:
        """The values at the sample's own shape: (L,) of a signal, (D, H, W) of a volume."""
        lattice = self.attribution.lattice
        return self.values if lattice is None else self.values.reshape(lattice.sizes)

    @property
    def uncovered(self) -> float:
        """Share of the photo's pixels that the network sees and no cell of the map covers."""
        if self.seen.shape != self.geometry.photo:
            return 0.0
        return float((self.geometry.seen() & ~self.seen).mean())

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known when the map is read, also of how it lies on the photo."""
        share, found = self.uncovered, self.attribution.notes
        if share < LEAST_UNCOVERED:
            return found
        return (
            *found,
            _NO_CELL.format(self.attribution.layer, share),
        )

    @property
    def maximum(self) -> float:
        """Largest value on the photo; 0 when nothing was seen."""
        return float(np.max(self.values, where=self.seen, initial=-np.inf)) if self._any else 0.0

    @property
    def minimum(self) -> float:
        """Smallest value on the photo; 0 when nothing was seen."""
        return float(np.min(self.values, where=self.seen, initial=np.inf)) if self._any else 0.0

    @property
    def _any(self) -> bool:
        return bool(self.seen.any())

    @property
    def signed(self) -> bool:
        """Whether colours diverge from zero: the method's maps are signed, or this one is."""
        return self.attribution.signed or self.minimum < 0

    @property
    def limit(self) -> float:
        """The value that full colour stands for: the maximum, of the magnitude if signed."""
        return max(self.maximum, -self.minimum, 0.0)

    def normalised(self) -> Float32:
        """The values divided by `limit`: zero stays zero, NaN stays NaN."""
        return normalise(self.values)


def reduce(values: ArrayLike, how: str = "max_abs") -> Float32:
    """Channels (C, H, W) to one map (H, W); a map (H, W) is returned as it is.

    Raises:
        ValueError: ``how`` is not a key of `REDUCTIONS`.
    """
    array = np.asarray(values, np.float32)
    if how not in REDUCTIONS:
        raise ValueError(f"unknown reduction {how!r}; known: {', '.join(REDUCTIONS)}")
    if array.ndim == 2:
        return array
    result: Float32 = REDUCTIONS[how](array).astype(np.float32)
    return result


def upsample(values: ArrayLike, size: tuple[int, int]) -> Float32:
    """Resize maps (..., h, w) to ``size``, (..., H, W): bilinear, half-pixel centres.

    The same as ONNX ``Resize`` (linear, half_pixel), torch ``interpolate(mode="bilinear",
    align_corners=False)`` and OpenCV, up and down, without antialiasing.
    """
    array = np.asarray(values)
    rows, columns = (
        (np.arange(new) + 0.5) * (old / new) - 0.5
        for new, old in zip(size, array.shape[-2:], strict=True)
    )
    return sample_bilinear(array, rows, columns)


def lay_on_input(values: ArrayLike, placement: Placement | None, size: tuple[int, int]) -> Float32:
    """A layer's map on the pixels of the input, 0 where no cell lies.

    Args:
        values: (h, w), or (T, h, w) of T grids; of the usual stretch also several maps.
        placement: Where its cells lie; None for the usual stretch.
        size: Height and width (H, W) of the input.
    """
    if placement is None:
        return upsample(values, size)
    laid, seen = sample_placed(values, placement, np.arange(size[0]), np.arange(size[1]))
    laid[~seen] = 0
    return laid


def sample_placed(
    values: ArrayLike, placement: Placement, rows: ArrayLike, columns: ArrayLike
) -> tuple[Float32, NDArray[np.bool_]]:
    """Values of a placed map at positions of the input, linear between the centres of its cells.

    Args:
        values: (h, w), or (T, h, w) of T grids, which add up where they overlap.
        placement: Where the cells lie.
        rows: Row of the input of each row of the result, in pixel centres, (R,).
        columns: Column of the input of each column of the result, (K,).

    Returns:
        (R, K), NaN where no cell lies; and where one does.
    """
    array = np.asarray(values)
    at = [np.asarray(axis, np.float64) for axis in (rows, columns)]
    total = np.zeros((at[0].size, at[1].size))
    seen = np.zeros(total.shape, np.bool_)
    for grid in placement.grids:
        own = array if placement.count is None else array[grid.index]
        own = own.T if grid.swapped else own
        places, inside = [], []
        for line, positions in zip((grid.rows, grid.columns), at, strict=True):
            low, high = line.hull
            # Half open: cells side by side share no position.
            inside.append(np.flatnonzero((positions >= low - 1e-9) & (positions < high - 1e-9)))
            places.append((positions[inside[-1]] - line.offset) / line.stride - line.start)
        own = own[grid.rows.start : grid.rows.stop, grid.columns.start : grid.columns.stop]
        where = np.ix_(*inside)
        total[where] += sample_bilinear(own, *places)
        seen[where] = True
    total[~seen] = np.nan
    return total.astype(np.float32), seen


def normalise(values: ArrayLike) -> Float32:
    """Divide by the maximum, so that zero stays zero; or the largest magnitude if signed.

    NaN (pixels that the network did not see) stays NaN; a map of zeros stays zeros.
    """
    array = np.asarray(values, np.float32)
    limit = float(np.nanmax(np.abs(array), initial=0.0)) if array.size else 0.0
    if limit == 0:
        return array.copy()
    # In float64: the reciprocal of a denormal maximum overflows float32.
    return (array.astype(np.float64) / limit).astype(np.float32)
