"""A unit at one snapshot: its strongest activation, the projection, and how alike two are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from inspector.network.receptive_fields.receptive_field import Box

__all__ = ["Cell", "Peak", "Row", "cosine", "likeness", "same_photo", "settled_at"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Row:
    """A unit: a channel of the layer in a slot of the chosen ones."""

    slot: int
    unit: int


@dataclass(frozen=True, eq=False)
class Peak:
    """A unit's strongest activation at one snapshot; a value that is not a number is None."""

    value: float | None
    y: int
    x: int
    place: int
    name: str
    sha256: str


@dataclass(eq=False)
class Cell:
    """A unit at one snapshot.

    Attributes:
        peak: None when it is never active.
        box: Patch in the image: (y0, x0, y1, x1).
        origin: Where the field begins, borders not counted: what patches are aligned by.
        signal: (C, h, w) projection, cut to the patch; let go of once it has been compared.
        picture: It, ready to be shown.
        patch: The pixels behind it, likewise.
        largest: Largest magnitude in the projection.
        previous: Cosine with the projection before, where the photo is the same.
        last: Cosine with the last projection.
    """

    peak: Peak | None = None
    box: "Box" = (0, 0, 0, 0)
    origin: tuple[int, int] = (0, 0)
    signal: Array | None = None
    picture: Any = None
    patch: Any = None
    largest: float = 0.0
    previous: float | None = None
    last: float | None = None

    @property
    def active(self) -> bool:
        """Whether there is an activation to project."""
        return self.peak is not None and self.peak.value is not None


def same_photo(one: Cell, two: Cell) -> bool:
    """Whether one photo won at both snapshots."""
    return one.peak is not None and two.peak is not None and one.peak.place == two.peak.place


def likeness(one: Cell, two: Cell) -> float | None:
    """``cosine`` of two snapshots' projections; None where one has none."""
    if one.signal is None or two.signal is None:
        return None
    return cosine(one.signal, two.signal, _corner(one), _corner(two))


def _corner(cell: Cell) -> tuple[int, int]:
    """Where a patch begins within its unit's receptive field."""
    return cell.box[0] - cell.origin[0], cell.box[1] - cell.origin[1]


def cosine(one: Array, two: Array, at: tuple[int, int], other: tuple[int, int]) -> float | None:
    """Cosine of two projections over the part of the receptive field that both have.

    Args:
        one: (C, h, w), cut off where the field reaches over the image's border.
        two: (C, h', w'), likewise.
        at: Row and column of the receptive field at which ``one`` begins.
        other: The same of ``two``.

    Returns:
        -1 to 1; None where they have nothing in common or one of them is zero.
    """
    top, left = max(at[0], other[0]), max(at[1], other[1])
    bottom = min(at[0] + one.shape[1], other[0] + two.shape[1])
    right = min(at[1] + one.shape[2], other[1] + two.shape[2])
    if bottom <= top or right <= left:
        return None
    a, b = (
        signal[:, top - y : bottom - y, left - x : right - x].astype(np.float64).ravel()
        for signal, (y, x) in ((one, at), (two, other))
    )
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / norms, -1, 1)) if norms > 0 else None


def settled_at(cosines: Sequence[float | None], stable: float) -> int | None:
    """First snapshot from which on all projections are like the last one.

    Args:
        cosines: (S,) with the last projection; None where there is none.
        stable: What they must reach.

    Returns:
        Its place; S - 1 when none before the last is like it, None when there is no last one.
    """
    if not cosines or cosines[-1] is None:
        return None
    place = len(cosines) - 1
    while place > 0 and (cosines[place - 1] or 0.0) >= stable:
        place -= 1
    return place
