"""Guided backpropagation."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence


@method(
    "guided-backprop",
    order=2015,
    space="input",
    needs={"input-gradient"},
    rule="guided",
    cost="about 4 F",
)
def guided_backprop(evidence: "Evidence", *, extension: str = "refuse") -> np.ndarray[Any, Any]:
    """Guided backpropagation: a signal passes a ReLU where input and signal are both positive.

    Backward at each rectifier: f'(x) max(R, 0), with R the incoming signal and x its input;
    everything else passes the gradient.  The result (N, C, H, W) is signed: negative pixels are
    right, because no rectifier stands between the first filters and the image.

    The rule is not defined for smooth activations (SiLU, GELU, HardSwish ...).

    Args:
        evidence: The samples to explain.
        extension: For smooth activations: refuse, signal-first for f'(x) max(R, 0), or
            gradient-first for max(f'(x) R, 0).

    Source: Springenberg et al. 2015, section 3.4, equation 2.

    Raises:
        MethodRefused: smooth activations and no extension.
    """
    evidence.note(WEAKLY_CLASS_DEPENDENT)
    return evidence.input_gradient("guided", extension)


WEAKLY_CLASS_DEPENDENT = (
    "guided backpropagation depends only weakly on the class (Nie et al. 2018; Adebayo et al. "
    "2018): it shows what the network can see, not why it decides"
)
