"""One activation of a layer, sent down to the pixels: everything else of the layer is zero.

    layer      0 0 0 0        the unit (channel, y, x) keeps its signal, all others are zero
    signal     0 1 0 0   ->   down through the rule of deconvnet or guided backpropagation
                              -> pixels (C, H, W), signed

(Zeiler & Fergus 2014, section 2.1; Springenberg et al. 2015, section 3.4.)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.engines.rules import EXTENSIONS
from inspector.errors import UsageError
from inspector.evidence import Evidence
from inspector.target import Target

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.photos.preprocess import Preprocess

__all__ = ["EXTENSIONS", "PROJECTIONS", "Projector", "Unit", "rgb_of"]

Array = np.ndarray[Any, Any]

Unit = tuple[int, int, int]
"""Channel, row and column in a layer's map."""

PROJECTIONS = {"deconvnet": "deconvnet", "guided-backprop": "guided", "gradient": "gradient"}
"""Projections by the name of their method, and the backward rule of each."""


class Projector:
    """Projects single activations of one layer.

    Args:
        model: The opened model.
        tensor: The layer, (N, C, h, w).
        projection: A key of ``PROJECTIONS``.
        extension: The rule for smooth activations, one of ``EXTENSIONS``.

    Attributes:
        notes: What must be said with the projections; grows as they are made.
        coverage: Which activations the rule reached; empty before the first projection.

    Raises:
        UsageError: No such projection or extension.
        MethodRefused: The model's certificate fails.

    Example:
        >>> import inspector
        >>> from inspector.projection.projector import Projector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> photo = inspector.load_photo("sample_models/images/horse_1.png")
        >>> values, _ = model.preprocessing.preprocess.apply(photo)
        >>> projector = Projector(model, "relu_3", "guided-backprop")
        >>> projector(values[None], [(5, 3, 3)]).shape
        (1, 3, 32, 32)
    """

    def __init__(
        self, model: "Opened", tensor: str, projection: str = "deconvnet", extension: str = "refuse"
    ) -> None:
        if projection not in PROJECTIONS:
            known = ", ".join(PROJECTIONS)
            raise UsageError(f"no projection {projection!r}", hint=f"one of {known}")
        if extension not in EXTENSIONS:
            raise UsageError(f"no extension {extension!r}", hint="one of " + ", ".join(EXTENSIONS))
        model.require_certificate([projection])
        self.model, self.tensor = model, tensor
        self._rule = PROJECTIONS[projection], extension
        self.notes: list[str] = []
        self.coverage = ""

    def __call__(self, images: Array, units: Sequence[Unit]) -> Array:
        """Project one unit of each image, with a signal of one.

        The rules are linear in a positive signal: times the activation it is the paper's picture.

        Args:
            images: (N, C, H, W), preprocessed.
            units: One an image.

        Returns:
            (N, C, H, W) signed, channels as the model takes them.

        Raises:
            MethodRefused: Activations that the rule is not defined for.
        """
        targets = [Target(self.tensor, unit, f"{self.tensor}{list(unit)}") for unit in units]
        values = self.model.forward(images, [self.tensor])
        preprocess = self.model.preprocessing.preprocess
        evidence = Evidence(
            self.model.model, images, targets, values, layer=None, preprocess=preprocess
        )
        signals = evidence.input_gradient(*self._rule)
        self.notes.extend(note for note in evidence.notes if note not in self.notes)
        self.coverage = str(evidence.facts.get("coverage", ""))
        return signals


def rgb_of(signal: Array, preprocess: "Preprocess") -> Array:
    """Channels (C, h, w) in the order red, green, blue where there are three."""
    return signal[::-1] if preprocess.channels == "BGR" and len(signal) == 3 else signal
