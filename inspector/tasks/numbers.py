"""Numbers that a task explains besides an element: a region's sum, a similarity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from inspector.errors import UnknownTarget
from inspector.target import Target

__all__ = ["Followed", "Region", "Similarity"]


@dataclass(frozen=True, eq=False)
class Region(Target):
    """The sum of a map's values over a region: of one class, where the index names one.

    Attributes:
        mask: (h, w) of weights over the last two axes of what the index leaves.
    """

    mask: Any = None

    @classmethod
    def of_mask(cls, target: Target, mask: Any) -> "Region":
        """A region of the map (h, w) that a target's index leaves."""
        return cls(**{f.name: getattr(target, f.name) for f in fields(target)}, mask=mask)

    def of(self, array: Any) -> Any:
        """The region's sum for each sample; see ``Target.of``.

        Raises:
            UnknownTarget: The region has another size than the map.
        """
        values = array[(slice(None), *self.index)]
        if tuple(values.shape[-2:]) != self.mask.shape:
            raise UnknownTarget(
                f"{self.label!r}: a region of {self.mask.shape} on a map of shape "
                f"{tuple(values.shape[-2:])}"
            )
        weights = _like(self.mask, values)
        values = values * weights
        values = values.sum(tuple(range(1, values.ndim)))
        return values if self.sign > 0 else -values


@dataclass(frozen=True, eq=False)
class Similarity(Target):
    """The cosine of the angle between a sample's vector and that of a reference photo.

    Attributes:
        reference: (K,) the reference's vector.
    """

    reference: Any = None

    def of(self, array: Any) -> Any:
        """The cosine for each sample, through the normalisation; see ``Target.of``."""
        values = array.reshape(array.shape[0], -1)
        reference = _like(self.reference / np.linalg.norm(self.reference), values)
        length = (values * values).sum(1) ** 0.5
        found = (values * reference).sum(1) / length
        return found if self.sign > 0 else -found


@dataclass(frozen=True, eq=False)
class Followed(Target):
    """A row of a list of boxes that the graph sorts: rows change places when the photo is changed.

    On a changed photo the number is the largest over its rows of IoU x same class x score, so that
    another object that moves into the row does not stand for this one (D-RISE, Petsiuk et al. 2021,
    equation 4).

    Attributes:
        outputs: Outputs that the list is read from.
        follow: From one sample of the outputs to that number.
    """

    outputs: tuple[str, ...] = ()
    follow: Callable[[Mapping[str, Any]], float] | None = None

    @property
    def read_from(self) -> tuple[str, ...]:
        """The outputs of the list."""
        return self.outputs

    @property
    def moves(self) -> bool:
        """It does."""
        return True

    def measured(self, values: Mapping[str, Any]) -> float:
        """The number on a changed photo."""
        if self.follow is None:
            return super().measured(values)
        found = self.follow({name: np.asarray(value)[0] for name, value in values.items()})
        return found if self.sign > 0 else -found

    @classmethod
    def by(
        cls,
        target: Target,
        outputs: tuple[str, ...],
        follow: Callable[[Mapping[str, Any]], float],
    ) -> "Followed":
        """A target that is followed by a measure."""
        own = {f.name: getattr(target, f.name) for f in fields(target)}
        return cls(**own, outputs=outputs, follow=follow)


def _like(values: Any, other: Any) -> Any:
    """Numbers as an array of another one's kind, type and device."""
    if isinstance(other, np.ndarray):
        return np.asarray(values, dtype=other.dtype)
    return other.new_tensor(np.asarray(values, dtype=np.float64))
