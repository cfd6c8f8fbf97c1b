"""Units that are reconstructed from nothing: one unit on, everything else zero."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.passes.batches import BATCH
from inspector.projection.conditioning import (
    TOLERANCE,
    blank_image,
    conditioning,
    largest_difference,
)
from inspector.projection.projector import Projector
from inspector.studies.reconstruction.layers import Layer, Work, parsed_units

if TYPE_CHECKING:
    from inspector.projection.conditioning import Conditioning

__all__ = ["LEFT_OUT", "NONE", "Bare"]

Array = np.ndarray[Any, Any]

NONE = "none"
"""What a user types who wants no such units."""

LEFT_OUT = "left out"


@dataclass(eq=False)
class Bare:
    """Units of a layer that are reconstructed without an image, or why they cannot be.

    Attributes:
        layer: The layer.
        proof: What the way to the pixels depends on.
        difference: Between projections of one unit for images that have nothing in common.
        units: The channels; none where an image is needed.
        why: Why there are none.
        pictures: (C, h, w) signed, one a unit, cut out at the receptive field.
    """

    layer: Layer
    proof: "Conditioning"
    difference: float
    units: tuple[int, ...]
    why: str
    pictures: list[Array] = field(default_factory=list)

    @classmethod
    def of(cls, work: Work, layer: Layer, units: str, seed: int) -> "Bare":
        """Prove that no image is needed, and try it on two random images and none."""
        left_out = units.strip() == NONE
        chosen = () if left_out else parsed_units(units, layer)
        proof = conditioning(work.model, layer.tensor, work.extension)
        # A projector of its own: what it notes of a random image is of no interest.
        projector = Projector(work.model, layer.tensor, "deconvnet", work.extension)
        at = (chosen or (0,))[0], *layer.middle
        difference = largest_difference(projector, at, seed)
        if not proof.free:
            return cls(layer, proof, difference, (), str(proof))
        if difference > TOLERANCE:
            why = f"projections from {layer.tensor} differ by {difference:.1e} between images"
            return cls(layer, proof, difference, (), why)
        return cls(layer, proof, difference, chosen, LEFT_OUT if left_out else "")

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The receptive field of the unit in the middle."""
        return self.layer.field.pixels(*self.layer.middle)

    def project(self, work: Work) -> None:
        """Reconstruct the units, a few at a time."""
        projector = Projector(work.model, self.layer.tensor, "deconvnet", work.extension)
        y0, x0, y1, x1 = self.box
        step = BATCH if work.model.batches else 1
        for start in range(0, len(self.units), step):
            part = [(unit, *self.layer.middle) for unit in self.units[start : start + step]]
            blank = np.repeat(blank_image(work.model), len(part), axis=0)
            self.pictures += list(projector(blank, part)[:, :, y0:y1, x0:x1])

    @property
    def dark(self) -> list[int]:
        """Units from which nothing positive reaches the pixels."""
        return [u for u, p in zip(self.units, self.pictures, strict=True) if not p.any()]

    def numbers(self) -> dict[str, Any]:
        """Plain data."""
        y, x = self.layer.middle
        return {
            "possible": bool(self.units) or self.why == LEFT_OUT,
            "node": self.proof.node,
            "op_type": self.proof.op_type,
            "why": self.why or str(self.proof),
            "linear_steps": self.proof.linear,
            "activations_under_the_rule": self.proof.ruled,
            "steps_that_depend_on_the_image": self.proof.blocking,
            "largest_relative_difference": self.difference,
            "at": {"y": y, "x": x},
            "units": [
                {"unit": unit, "largest": float(np.abs(picture).max(initial=0))}
                for unit, picture in zip(self.units, self.pictures, strict=True)
            ],
        }
