"""Tensors that one forward pass returns, so that all methods can work from it."""

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from converters.errors import ConverterError
from inspector.errors import InspectorError, LimitExceeded
from inspector.model import Model
from inspector.network.classifier.head import LinearHead
from inspector.network.tail import Tail

__all__ = ["tensors_for", "tensors_read"]

Array = np.ndarray[Any, Any]


def tensors_for(
    model: Model, needs: Collection[str], layer: str | None, targets: Sequence[str]
) -> tuple[str, ...]:
    """Tensors that one ONNX Runtime pass must return so that the methods can work.

    Args:
        model: The model.
        needs: What the methods need; see ``inspector.methods``.
        layer: Layer that the layer methods explain through.
        targets: Names of the tensors that targets are read from.
    """
    fetch = dict.fromkeys(targets)
    if "head" in needs and isinstance(model.head, LinearHead):
        fetch[model.head.features] = None
    if "activation" in needs and layer is not None:
        fetch[layer] = None
    if not {"gradient", "tail"}.isdisjoint(needs) and layer is not None:
        for target in targets:
            fetch |= dict.fromkeys(_floating(model, model.tail(layer, target)))
    if "attention" in needs:
        for name, target in itertools.product(model.attention[0], targets):
            tail = model.tail(name, target)
            if tail.connected:
                fetch |= dict.fromkeys((name, *_floating(model, tail)))
    return tuple(fetch)


def tensors_read(model: Model, image: Array, targets: Sequence[str]) -> tuple[str, ...]:
    """Tensors that a backward pass to the input reads, if the forward pass keeps them.

    Args:
        model: The model.
        image: One sample (1, C, H, W), preprocessed.
        targets: Names of the tensors that targets are read from.

    Returns:
        Their names; none where the engine makes its own, or refuses the network: the method says
        so when it asks for the gradient.
    """
    if model.fixed is not None or model.engine == "twin":
        return ()
    name = model.input.name
    start = {name: model.as_in_graph(name, model.input.arrange(image).astype(np.float32))}
    try:
        return model.gradient_engine.reads(start, targets)
    except LimitExceeded:
        raise
    except (ConverterError, InspectorError):
        return ()


def _floating(model: Model, tail: Tail) -> tuple[str, ...]:
    """Frontier tensors worth taking from the forward pass (the input is at hand anyway)."""
    return tuple(name for name in tail.frontier if name != model.input.name)
