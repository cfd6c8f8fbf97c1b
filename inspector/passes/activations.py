"""Activations of any tensors for a batch of images, as the floats that they stand for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import MethodRefused
from inspector.network.quantisation import levels_of

if TYPE_CHECKING:
    from inspector.model import Model

__all__ = ["activations"]

Array = np.ndarray[Any, Any]


def activations(model: "Model", images: Array, tensors: Sequence[str]) -> Mapping[str, Array]:
    """Run ONNX Runtime once and read tensors as floats.

    Args:
        model: The network.
        images: (N, C, H, W), preprocessed.
        tensors: Names of any tensors.

    Returns:
        The tensors by name, first axis N; quantised ones as what their levels stand for.

    Raises:
        MethodRefused: A tensor holds integers of which the file does not say what they stand for.
    """
    found = model.forward(images, tensors)
    return {name: _floats(model, name, np.asarray(found[name])) for name in tensors}


def _floats(model: "Model", name: str, values: Array) -> Array:
    if values.dtype.kind == "f":
        return values
    levels = levels_of(model.graph, name) if values.dtype.kind in "iu" else None
    if levels is None:
        raise MethodRefused(
            f"the layer holds {values.dtype}, and the file does not say what they stand for",
            where=name,
            hint="choose one that `inspector layers` lists",
        )
    return np.asarray(levels.values(values))
