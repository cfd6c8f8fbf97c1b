"""Guided Grad-CAM."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.methods import method, methods

if TYPE_CHECKING:
    from inspector.evidence import Evidence


@method(
    "guided-grad-cam",
    order=2017,
    space="input",
    needs={"activation", "gradient", "input-gradient"},
    rule="guided",
    cost="about 4 F and the tail, forwards and backwards",
)
def guided_grad_cam(evidence: "Evidence", *, extension: str = "refuse") -> np.ndarray[Any, Any]:
    """Guided Grad-CAM: guided backpropagation, kept where Grad-CAM is positive.

    The Grad-CAM map L (N, h, w), upsampled bilinearly to the input (H, W), times guided
    backpropagation (N, C, H, W), element by element.  Where the layer's cells do not cover the
    input upright, each is laid at its own place, and pixels in no cell are 0.

    Args:
        evidence: The samples to explain.
        extension: Reading of the guided rule for smooth activations: refuse, signal-first or
            gradient-first.

    Source: Selvaraju et al. 2017, section 3.2.
    """
    coarse = evidence.by_sample(methods()["grad-cam"](evidence))
    fine = methods()["guided-backprop"](evidence, extension=extension)
    return fine * evidence.on_input(coarse)[:, None]
