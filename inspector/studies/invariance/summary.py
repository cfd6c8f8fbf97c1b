"""What all photos together say about each transform, in numbers and in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from inspector.studies.invariance.curves import Seen
    from inspector.studies.invariance.transforms import Sweep

__all__ = ["Summary", "summaries"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Summary:
    """One transform over n photos.

    Attributes:
        sweep: The transform.
        photos: n.
        nearest: Smallest extent that is not a standstill; None where there is none.
        farthest: Largest extent.
        distances: Mean relative distance at the nearest and at the farthest extent: of the early
            layer (0) and the late one (1); NaN where a photo has no features.
        probability: Mean over photos, untransformed and at the farthest extent.
        lines: How well a straight line through 0 describes the mean distance over the extent,
            early and late: 1 minus the residual's share of the squares.
        kept: Mean share of the values at which the most probable class is still the same.
        halves: For each photo the extent at which half of the probability is gone, or None.
    """

    sweep: "Sweep"
    photos: int
    nearest: float | None
    farthest: float
    distances: tuple[tuple[float, float], tuple[float, float]]
    probability: tuple[float, float]
    lines: tuple[float | None, float | None]
    kept: float
    halves: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        near, far = self.distances
        return {
            "transform": self.sweep.kind,
            "photos": self.photos,
            "nearest": {"extent": self.nearest, **_pair(near)},
            "farthest": {"extent": self.farthest, **_pair(far), "probability": self.probability[1]},
            "untransformed": {"probability": self.probability[0]},
            "straight_line": {"early": self.lines[0], "late": self.lines[1]},
            "label_kept": self.kept,
            "halved": {
                "photos": sum(h is not None for h in self.halves),
                "extents": list(self.halves),
            },
        }

    def sentences(self, names: tuple[str, str]) -> Iterator[str]:
        """In plain language; names of the early and the late layer."""
        (early, late), said = self.distances[0], self.sweep.said
        if self.nearest is not None and np.isfinite([early, late]).all():
            yield (
                f"{said(self.nearest)} moves the features of {names[0]} by {early:.2f} of their "
                f"length, those of {names[1]} by {late:.2f} (mean of {self.photos} photo(s))"
            )
        known = sorted(h for h in self.halves if h is not None)
        enough = -(-self.photos // 2)
        if len(known) >= enough:
            at = known[enough - 1]
            count = sum(h <= at for h in known)
            yield f"{said(at)} or less halves the probability of {count} of {self.photos} photo(s)"
        else:
            yield (
                f"up to {said(self.farthest)} {len(known)} of {self.photos} photo(s) lose half of "
                "their probability"
            )
        if self.sweep.kind == "rotation" and self.farthest >= 90:
            yield (
                f"{self.halves.count(None)} of {self.photos} photo(s) keep more than half of "
                "their probability at every angle"
            )


def summaries(seen: "Sequence[Seen]") -> tuple[Summary, ...]:
    """One a transform; all photos went through the same ones."""
    return tuple(_summary(seen, at) for at in range(len(seen[0].curves)))


def _summary(seen: "Sequence[Seen]", at: int) -> Summary:
    sweep = seen[0].curves[at].sweep
    extent = sweep.extent
    moved = np.asarray([value != sweep.neutral for value in sweep.values])
    nearest = float(extent[moved].min()) if moved.any() else None
    farthest = float(extent.max())
    means = [np.mean([one.relative(at, which) for one in seen], axis=0) for which in (0, 1)]
    near = moved & (extent == nearest)
    far = extent == farthest
    known = np.asarray([one.curves[at].probability for one in seen])
    same = [np.asarray(one.curves[at].label)[moved] == one.label for one in seen]
    before = float(np.mean([one.probability for one in seen]))
    return Summary(
        sweep=sweep,
        photos=len(seen),
        nearest=nearest,
        farthest=farthest,
        distances=(_at(means, near), _at(means, far)),
        probability=(before, float(known[:, far].mean())),
        lines=(_line(sweep, extent, means[0]), _line(sweep, extent, means[1])),
        kept=float(np.mean(same)) if moved.any() else 1.0,
        halves=tuple(one.half_extent(at) for one in seen),
    )


def _at(means: Sequence[Array], where: Array) -> tuple[float, float]:
    """Mean of both curves over some of the values."""
    if not where.any():
        return 0.0, 0.0
    return float(means[0][where].mean()), float(means[1][where].mean())


def _line(sweep: "Sweep", extent: Array, distance: Array) -> float | None:
    """Share of a curve's squares that the best straight line through no change explains."""
    away = extent - (1.0 if sweep.kind == "scale" else 0.0)
    squares = float(distance @ distance)
    if not squares > 0 or not away.any():  # also for NaN
        return None
    slope = float(away @ distance) / float(away @ away)
    rest = distance - slope * away
    return 1 - float(rest @ rest) / squares


def _pair(values: tuple[float, float]) -> dict[str, float | None]:
    early, late = (None if np.isnan(v) else v for v in values)
    return {"distance_early": early, "distance_late": late}
