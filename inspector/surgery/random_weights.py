"""Weights of a network from its scores down to the image, and the network with them permuted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from converters.graph import Graph, Node
from converters.graph.operators import facts
from converters.onnx_file import OnnxFile

__all__ = ["permuted_weights", "weights_top_down"]

_CARRIERS = 8
"""Nodes between an initialiser and the layer that reads it, at most: dequantisation, transposes."""


def weights_top_down(graph: Graph) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Layers with weights of their own, the last one first, each with its initialisers.

    A layer is a convolution or a matrix product; its bias and the batch normalisations behind it
    belong to it.  Weights that two layers share stand with the upper one.

    Args:
        graph: The model.

    Returns:
        Per layer the tensor that it computes, and the names of its initialisers.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    taken: set[str] = set()
    waiting: list[str] = []
    for node in reversed(graph.nodes):
        weights = facts(node).weights
        if weights is not None:
            read = [name for name in node.inputs[weights:] if name]
        elif facts(node).normalises == "constants":
            read = list(node.inputs[1:])
        else:
            continue
        own = [name for one in read for name in _initialisers(graph, one)]
        waiting += [name for name in dict.fromkeys(own) if name not in taken]
        taken.update(own)
        if weights is not None and waiting and own:
            found.append((node.outputs[0], tuple(waiting)))
            waiting = []
    return tuple(found)


def _initialisers(graph: Graph, tensor: str) -> Iterator[str]:
    """Initialisers of real numbers or levels that a weight is made of."""
    for _ in range(_CARRIERS):
        stored = graph.initialiser(tensor)
        if stored is not None:
            kind = graph.elem_type(tensor)
            if int(np.prod(stored.dims)) > 1 and kind in _NUMBERS:
                yield tensor
            return
        node = graph.producer(tensor)
        if node is None or not _carries(node):
            return
        tensor = node.inputs[0]


def _carries(node: Node) -> bool:
    own = facts(node)
    return bool(node.inputs) and (own.copies or own.rounds or own.moves)


_NUMBERS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
    onnx.TensorProto.INT32,
}
"""Types of weights; biases of quantised layers are int32."""


def permuted_weights(file: OnnxFile, names: Sequence[str], seed: int) -> OnnxFile:
    """A model whose named initialisers hold their own values in a random order.

    Their distribution stays, so that nothing overflows or falls silent, and levels stay levels.

    Args:
        file: The model, which is left as it is.
        names: Of initialisers.
        seed: Of the order, which for each name does not depend on which others are named.

    Returns:
        The same file with another ``model``: its hash is still that of the bytes that were read,
        so that its certificate, which is of the operators and not of the weights, holds.
    """
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    wanted, places = set(names), {name: i for i, name in enumerate(file.graph.initialisers)}
    for stored in model.graph.initializer:
        if stored.name in wanted:
            values = file.graph.array(file.graph.initialiser(stored.name) or stored)
            stored.CopyFrom(_shuffled(values, stored.name, (seed, places[stored.name])))
    return replace(file, model=model)


def _shuffled(values: np.ndarray[Any, Any], name: str, seed: tuple[int, int]) -> onnx.TensorProto:
    order = np.random.default_rng(seed).permutation(values.size)
    return numpy_helper.from_array(values.ravel()[order].reshape(values.shape), name)
