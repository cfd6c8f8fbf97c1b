"""The patch that a unit sees, and the segment of the photo on which it is active."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.heatmap import lay_on_input
from inspector.passes.activations import activations
from inspector.passes.batches import Progress, batches
from inspector.passes.ranking import Winner

if TYPE_CHECKING:
    from PIL.Image import Image

    from inspector.network.coordinates.placement import Placement
    from inspector.network.receptive_fields.receptive_field import Box, ReceptiveField
    from inspector.opened import Opened
    from inspector.studies.units.contributions import Contributions
    from inspector.studies.units.unit_weights import ClassUnits

__all__ = ["RULES", "Shown", "Threshold", "segments"]

Array = np.ndarray[Any, Any]

RULES = {
    "maximum": "the share {level:g} of the unit's largest activation on any photo",
    "peak": "the share {level:g} of the unit's largest activation on the photo itself",
    "quantile": "the activation that the share {level:g} of all places on all photos exceeds",
}
"""How the threshold of a segment is set."""


@dataclass(frozen=True)
class Threshold:
    """Where a segment ends.

    Attributes:
        rule: A key of ``RULES``.
        level: A share, more than 0 and less than 1.
    """

    rule: str
    level: float

    @classmethod
    def read(cls, text: str) -> "Threshold":
        """Read ``maximum:0.5`` and its like.

        Raises:
            UsageError: It is none.
        """
        rule, _, number = (part.strip() for part in text.partition(":"))
        try:
            level = float(number)
        except ValueError:
            level = np.nan
        if rule not in RULES or not 0 < level < 1:
            raise UsageError(
                f"{text!r} is not a threshold",
                hint="maximum:0.5, peak:0.5 or quantile:0.005; the share lies between 0 and 1",
            )
        return cls(rule, level)

    @property
    def quantile(self) -> float | None:
        """The share of places, if the rule is one."""
        return self.level if self.rule == "quantile" else None

    def value(self, winner: Winner, strongest: float, found: "Contributions") -> float:
        """The activation above which a place belongs to the segment; never negative."""
        if self.rule == "quantile":
            return max(found.tops[winner.unit], 0.0)
        return self.level * (strongest if self.rule == "maximum" else winner.value)

    @property
    def meaning(self) -> str:
        """The rule in words."""
        return RULES[self.rule].format(level=self.level)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rule": self.rule,
            "level": self.level,
            "meaning": self.meaning,
            "segment": "pixels of the network's input where the unit's map, upsampled bilinearly "
            "with half-pixel centres, is larger",
        }


@dataclass(frozen=True, eq=False)
class Shown:
    """A unit on one of its photos.

    Attributes:
        box: What the unit's strongest place sees: (y0, x0, y1, x1) in pixels of the network's
            input.
        threshold: The activation where the segment ends.
        share: Share of the input that the segment covers.
        patch: The picture of the box.
        segment: The picture of the whole input, dark outside of the segment.
    """

    box: "Box"
    threshold: float
    share: float
    patch: "Image"
    segment: "Image"


def segments(
    model: "Opened",
    head: "ClassUnits",
    field: "ReceptiveField",
    winners: Mapping[int, Sequence[Winner]],
    limits: Mapping[tuple[int, int], float],
    *,
    progress: Progress | None,
) -> dict[tuple[int, int], Shown]:
    """Open each photo that won once more, and cut patches and segments out of it.

    Args:
        model: The opened model.
        head: Where the units are.
        field: What a unit sees.
        winners: Each unit's strongest activations.
        limits: The threshold of each unit and place of a photo in the list.
        progress: Called with (what, done, total).

    Returns:
        Patch and segment of each unit and place.

    Raises:
        ImageRefused: A photo has gone since the first pass.
    """
    by_place: dict[int, list[Winner]] = {}
    for winner in sorted((w for found in winners.values() for w in found), key=lambda w: w.place):
        by_place.setdefault(winner.place, []).append(winner)
    places, gone = list(by_place), list[ImageRefused]()
    sources = [by_place[place][0].source for place in places]
    found: dict[tuple[int, int], Shown] = {}
    for batch in batches(model, sources, gone):
        maps = head.features(activations(model, batch.tensors, [head.maps]))
        height, width = batch.tensors.shape[2:]
        placement = model.model.placement(head.maps, (height, width))
        for row, at in enumerate(batch.places):
            for winner in by_place[places[at]]:
                key = winner.unit, winner.place
                found[key] = _cut(
                    model,
                    field,
                    winner,
                    image=batch.tensors[row],
                    unit_map=maps[row, winner.unit],
                    placement=placement,
                    limit=limits[key],
                )
        if progress:
            progress("segments", min(batch.places[-1] + 1, len(places)), len(places))
    if gone:
        raise gone[0]  # it could be read a moment ago
    return found


def _cut(
    model: "Opened",
    field: "ReceptiveField",
    winner: Winner,
    *,
    image: Array,
    unit_map: Array,
    placement: "Placement | None",
    limit: float,
) -> Shown:
    from inspector.studies.units.figure import patch_panel, segment_panel

    pixels = model.preprocessing.preprocess.decode(image)
    box = y0, x0, y1, x1 = field.pixels(winner.y, winner.x)
    size = pixels.shape[0], pixels.shape[1]
    mask = lay_on_input(unit_map, placement, size) > limit
    return Shown(
        box,
        limit,
        float(mask.mean()),
        patch_panel(pixels[y0:y1, x0:x1]),
        segment_panel(pixels, mask, box),
    )
