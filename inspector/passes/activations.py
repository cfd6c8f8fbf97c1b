"""Activations of any tensors for a batch of images, as the floats that they stand for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["activations"]

Array = np.ndarray[Any, Any]


def activations(
    model: "Opened", images: Any, tensors: Sequence[str], forward: Any = None
) -> Mapping[str, Array]:
    """Run ONNX Runtime once and read tensors as floats.

    Args:
        model: The network.
        images: (N, C, H, W), preprocessed.
        tensors: Names of any tensors.
        forward: Runs in the place of the model's own, on what it takes in the place of images.

    Returns:
        The tensors by name, first axis N, each in its own layout; quantised ones as what their
        levels stand for.

    Raises:
        MethodRefused: A tensor holds integers of which the file does not say what they stand for.
    """
    found = (forward or model.forward)(images, tensors)
    read = {}
    for name in tensors:
        values, form = np.asarray(found[name]), model.model.forms.of(name)
        form.require_known(values, name)
        read[name] = form.real(values)
    return read
