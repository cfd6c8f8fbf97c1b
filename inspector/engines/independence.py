"""Whether a network gives one answer per image: the same twice, and the same beside others.

f(x_1, x_2)[1] = f(x_1) must hold in every tensor that is read.  Broken by normalisation in
training mode, ranges and sums taken over axis 0, and reshapes that fold the batch.  What the graph
says is asked first, then two different images are run together and alone.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from typing import Any

import numpy as np
import onnx

from converters.graph import Graph, Node
from converters.graph.operators import facts, mixes_samples
from inspector.engines.samples import rows
from inspector.errors import ModelRefused
from inspector.network.quantisation.levels import is_quantised

__all__ = [
    "HALF_TOLERANCE",
    "LEVEL_TOLERANCE",
    "TOLERANCE",
    "alike",
    "by_chance",
    "mixing_node",
    "probe_pair",
    "rounding_of",
    "samples_alone",
    "stochastic_node",
    "trains",
]

Array = np.ndarray[Any, Any]
Run = Callable[[Array], Mapping[str, Array]]

TOLERANCE, HALF_TOLERANCE = 1e-5, 2e-3
"""Largest difference of a sample alone and in company, as a share of the tensor's peak: the
rounding of float32, and of a network that computes in float16."""

LEVEL_TOLERANCE = 1 / 127
"""The same behind quantisation: one level of a tensor whose peak is its last level."""


def by_chance(where: str) -> ModelRefused:
    """The refusal of a network whose answer depends on chance."""
    return ModelRefused(
        "the network's answer depends on chance: the same image gives other numbers every time",
        where=where,
        hint="export it for inference (model.eval()), or name a target before the node",
    )


def rounding_of(graph: Graph) -> float:
    """Largest difference that rounding makes in a network, as a share of a tensor's peak."""
    if is_quantised(graph):
        return LEVEL_TOLERANCE
    kinds = {value.elem_type for value in graph.inputs.values()} | {
        tensor.data_type
        for name in graph.initialisers
        if (tensor := graph.initialiser(name)) is not None
    }
    narrow = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    return HALF_TOLERANCE if kinds & narrow else TOLERANCE


def trains(graph: Graph) -> bool:
    """Whether a normalisation computes its statistics anew in each run, as in training."""
    return any(
        node.op_type == "BatchNormalization" and mixes_samples(graph, node) for node in graph.nodes
    )


def mixing_node(graph: Graph, tensors: Iterable[str]) -> str:
    """The first node before some tensors that says of itself that it mixes the samples of axis 0.

    Args:
        graph: The network.
        tensors: Names of the tensors that are read.

    Returns:
        ``OPERATOR node 'name'``; empty when there is none.
    """
    for node in graph.nodes_before(tensors):
        computed = any(graph.constant(name) is None for name in node.inputs if name)
        if computed and mixes_samples(graph, node):
            return _named(node)
    return ""


def stochastic_node(graph: Graph, tensors: Iterable[str]) -> str:
    """The first node before some tensors that draws random numbers.

    Args:
        graph: The network.
        tensors: Names of the tensors that are read.

    Returns:
        ``OPERATOR node 'name'``; empty when there is none.
    """
    for node in graph.nodes_before(tensors):
        if facts(node).stochastic or (node.is_op("Dropout") and _drops(graph, node)):
            return _named(node)
    return ""


def _drops(graph: Graph, node: Node) -> bool:
    """Whether a Dropout node is in training mode, as its opset writes it."""
    if graph.opset() < 7:
        return not node.attributes.get("is_test", 0)
    if len(node.inputs) < 3 or not node.inputs[2]:
        return False
    mode, ratio = graph.constant(node.inputs[2]), graph.constant(node.inputs[1])
    if mode is not None and not mode.any():
        return False
    return ratio is None or bool(np.any(ratio > 0))


def _named(node: Node) -> str:
    return f"{node.op_type} node {node.name or node.outputs[0]!r}"


def probe_pair(image: Array) -> Array:
    """Two different images in the range of a given one: (2, ...) from (...).

    The second is the first turned upside down, mirrored, and mixed with noise of its own spread,
    so that ranges, means and winners differ.
    """
    noise = np.random.default_rng(0).standard_normal(image.shape)
    spread = float(np.std(image)) or 1.0
    low, high = float(np.min(image)), float(np.max(image))
    other = 0.5 * np.flip(image, axis=(-1, -2)) + 0.5 * (np.mean(image) + spread * noise)
    other = np.clip(other, low - spread, high + spread).astype(image.dtype)
    return np.stack([image, other])


def samples_alone(run: Run, pair: Array, *, tolerance: float) -> bool:
    """Whether two images give the same numbers together and alone, in every tensor.

    Args:
        run: Computes the tensors in question for a batch (N, ...).
        pair: Two different images, from ``probe_pair``.
        tolerance: Largest difference, as a share of the tensor's peak.
    """
    together, alone = run(pair), [run(pair[i : i + 1]) for i in range(2)]
    for name, both in together.items():
        parts = [part[name] for part in alone]
        if rows(both) != 2 or any(rows(part) != 1 for part in parts):
            return False
        if not all(alike(both[i], parts[i][0], tolerance) for i in range(2)):
            return False
    return True


def alike(left: Any, right: Any, tolerance: float) -> bool:
    """Whether two arrays are one up to rounding: a share of their peak; one level of integers.

    Args:
        left: Any array of numbers, or a sequence of some.
        right: What should hold the same.
        tolerance: Largest difference, as a share of the peak of both.
    """
    if isinstance(left, list) and any(isinstance(one, np.ndarray) for one in left):
        return len(left) == len(right) and all(map(alike, left, right, repeat(tolerance)))
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape or left.dtype.kind not in "fiub":
        return left.shape == right.shape and bool(np.all(left == right))
    a, b = left.astype(np.float64), right.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return True
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    finite = np.concatenate([a[np.isfinite(a)], b[np.isfinite(b)]])
    peak = float(np.abs(finite).max()) if finite.size else 0.0
    limit = 1.0 if left.dtype.kind in "iu" else tolerance * peak
    return bool(np.nan_to_num(difference, nan=np.inf).max() <= limit)
