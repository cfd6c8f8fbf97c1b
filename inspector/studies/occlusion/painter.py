"""The chosen feature map's strongest activation, sent down to the pixels where that is possible."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ConverterError, MethodRefused
from inspector.projection.projector import Projector, rgb_of

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.studies.occlusion.sweep import Sweep

__all__ = ["Painter"]

Array = np.ndarray[Any, Any]


class Painter:
    """Projects feature maps, or says why it cannot.

    Args:
        model: The opened model.
        tensor: The layer.
        projection: As for ``Projector``.
        extension: Likewise.

    Attributes:
        why: Why there are no projections; empty when there are.

    Raises:
        UsageError: No such projection or extension.
    """

    def __init__(self, model: "Opened", tensor: str, projection: str, extension: str) -> None:

        self.model, self.projection = model, projection
        self.why = ""
        self._projector: Projector | None = None
        try:
            self._projector = Projector(model, tensor, projection, extension)
        except (MethodRefused, ConverterError) as error:
            self.why = str(error)

    @property
    def notes(self) -> list[str]:
        """What must be said with the projections."""
        if self.why:
            return [f"no projection: {self.why}"]
        return list(self._projector.notes) if self._projector else []

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        coverage = self._projector.coverage if self._projector and not self.why else ""
        return {
            "rule": self.projection,
            "of": "the strongest activation of the feature map",
            "coverage": coverage,
            "refused": self.why or None,
        }

    def project(self, sweep: "Sweep", image: Array) -> Array | None:
        """Project a photo's strongest activation; once refused, none is tried again.

        Args:
            sweep: Names the feature map and the place of its largest activation.
            image: (C, H, W), preprocessed and unoccluded.

        Returns:
            (C, H, W) signed; None where the projection is refused.
        """
        if self._projector is None or self.why:
            return None
        try:
            return np.asarray(self._projector(image[None], [(sweep.unit, *sweep.at)])[0])
        except (MethodRefused, ConverterError) as error:
            self.why = str(error)
            return None

    def picture(self, signal: Array | None) -> Array | None:
        """A projection's channels in red, green, blue."""
        return None if signal is None else rgb_of(signal, self.model.preprocessing.preprocess)
