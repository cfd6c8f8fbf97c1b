"""The deconvolutional network."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


@method(
    "deconvnet",
    order=2014,
    space="input",
    needs={"input-gradient"},
    rule="deconvnet",
    cost="about 4 F",
)
def deconvnet(evidence: "Evidence", *, extension: str = "refuse") -> np.ndarray[Any, Any]:
    """Deconvnet: a signal passes a ReLU where the signal is positive, whatever its input.

    Backward at each rectifier: max(R, 0), with R the incoming signal; convolutions pass through
    their transposed filters and max-pooling through its switches.  Where pooling windows
    overlap, the signals of a position that won several times add up (overwriting them would
    lose signal).  The result (N, C, H, W) is signed.

    The rule is not defined for smooth activations (SiLU, GELU, HardSwish ...).

    Args:
        evidence: The samples to explain.
        extension: For smooth activations: refuse, or signal-first (max(R, 0) there too).

    Source: Zeiler & Fergus 2014, section 2.1.

    Raises:
        MethodRefused: smooth activations and no extension.
    """
    evidence.note(
        "deconvnet projections depend only weakly on the class (Nie et al. 2018): they show "
        "what the network can see, not why it decides"
    )
    return evidence.input_gradient("deconvnet", extension)
