"""Numbers that a task explains besides an element: a region's sum, a similarity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from inspector.errors import UnknownTarget
from inspector.target import Target
from inspector.tasks import laid_out

__all__ = ["Detected", "Region", "Similarity"]


@dataclass(frozen=True, eq=False)
class Region(Target):
    """The sum of a map's values over a region: of one class, where the index names one.

    Attributes:
        mask: Weights over the last axes of what the index leaves: (h, w), or (h, w, C) where the
            channels come last.
    """

    mask: Any = None

    @classmethod
    def of_mask(cls, target: Target, mask: Any) -> "Region":
        """A region of the map (h, w) that a target's index leaves."""
        return cls(**{f.name: getattr(target, f.name) for f in fields(target)}, mask=mask)

    def _of(self, array: Any) -> Any:
        """The region's sum for each sample; see ``Target.of``.

        Raises:
            UnknownTarget: The region has another size than the map.
        """
        values = array[(slice(None), *self.index)]
        rank = self.mask.ndim
        if tuple(values.shape[-rank:]) != self.mask.shape:
            raise UnknownTarget(
                f"{self.label!r}: a region of {self.mask.shape} on a map of shape "
                f"{tuple(values.shape[-rank:])}"
            )
        weights = _like(self.mask, values)
        values = values * weights
        values = values.sum(tuple(range(1, values.ndim)))
        return values if self.sign > 0 else -values

    def _slope(self, array: Any) -> Any:
        """The region's weights where the index points; see ``Target.slope``."""
        found = np.zeros(array.shape, np.float32)
        found[(slice(None), *self.index)] = self.sign * np.asarray(self.mask, np.float32)
        return found


@dataclass(frozen=True, eq=False)
class Similarity(Target):
    """The cosine of the angle between a sample's vector and that of a reference photo.

    Attributes:
        reference: (K,) the reference's vector.
    """

    reference: Any = None

    def _of(self, array: Any) -> Any:
        """The cosine for each sample, through the normalisation; see ``Target.of``."""
        values = array.reshape(array.shape[0], -1)
        reference = _like(self.reference / np.linalg.norm(self.reference), values)
        length = (values * values).sum(1) ** 0.5
        found = (values * reference).sum(1) / length
        return found if self.sign > 0 else -found

    @property
    def linear(self) -> bool:
        """A cosine is not."""
        return False

    def _slope(self, array: Any) -> Any:
        """(r - cos(v, r) v / |v|) / |v| for the unit vector r; see ``Target.slope``."""
        values = array.reshape(array.shape[0], -1).astype(np.float64)
        reference = np.asarray(self.reference, np.float64).reshape(-1)
        reference = reference / np.linalg.norm(reference)
        length = np.linalg.norm(values, axis=1, keepdims=True)
        unit = values / length
        found = (reference - (unit @ reference)[:, None] * unit) / length
        return (self.sign * found).reshape(array.shape).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Detected(Target):
    """The score of a box, which can be found again among the boxes of a changed photo.

    Where the graph sorts its boxes, rows change places when the photo is changed: the number is
    then the largest similarity to the box over all rows, so that another object that moves into
    the row does not stand for this one.

    Attributes:
        outputs: Outputs that boxes are read from.
        similar: From one sample of the outputs to the largest similarity over its boxes: IoU x
            cosine of the class scores x objectness (D-RISE, Petsiuk et al. 2021, section 3.3).
        sorted_rows: Whether rows change places.
    """

    outputs: tuple[str, ...] = ()
    similar: Callable[[Mapping[str, Any]], float] | None = None
    sorted_rows: bool = False

    @property
    def read_from(self) -> tuple[str, ...]:
        """The outputs with boxes where rows change places."""
        return self.outputs if self.sorted_rows else super().read_from

    @property
    def moves(self) -> bool:
        """Whether rows change places."""
        return self.sorted_rows

    @property
    def seen_in(self) -> tuple[str, ...]:
        """The outputs with boxes."""
        return self.outputs

    def measured(self, values: Mapping[str, Any]) -> float:
        """The number on a changed photo."""
        if not self.sorted_rows:
            return super().measured(values)
        with laid_out():
            found = self.similarity({name: np.asarray(v)[0] for name, v in values.items()})
        return found if self.sign > 0 else -found

    def similarity(self, values: Mapping[str, Any]) -> float:
        """Similarity of the box to the most similar one of a changed photo."""
        return 0.0 if self.similar is None else self.similar(values)

    @classmethod
    def by(
        cls,
        target: Target,
        outputs: tuple[str, ...],
        similar: Callable[[Mapping[str, Any]], float],
        *,
        sorted_rows: bool,
    ) -> "Detected":
        """A target that is found again by a similarity."""
        own = {f.name: getattr(target, f.name) for f in fields(target)}
        return cls(**own, outputs=outputs, similar=similar, sorted_rows=sorted_rows)


def _like(values: Any, other: Any) -> Any:
    """Numbers as an array of another one's kind, type and device."""
    if isinstance(other, np.ndarray):
        return np.asarray(values, dtype=other.dtype)
    return other.new_tensor(np.asarray(values, dtype=np.float64))
