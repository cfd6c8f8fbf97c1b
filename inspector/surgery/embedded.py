"""A model with one more output: the heatmap of its own answer.

The network's nodes stay as they are; behind them stand the backward pass and the formula of a
method.  What was added is named so that it can be taken out again.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.errors import UnsupportedNode, UnsupportedOperator
from converters.graph import Graph, Node
from converters.onnx_file.unread import names_read
from inspector.surgery.embedded_facts import METADATA_KEY, NETWORK, digest_of
from inspector.surgery.embedded_target import CLASS_INPUT, BestClass, Seed
from inspector.surgery.gradient.builder import ADDED, Builder
from inspector.surgery.gradient.reverse import Overlay, reverse

__all__ = [
    "HEATMAP",
    "Embedding",
    "Held",
    "Part",
    "network_digest",
    "with_heatmap",
    "without",
]

Array = np.ndarray[Any, Any]

HEATMAP = "heatmap"
"""Name of the output."""

_APART = 4


@dataclass(frozen=True)
class Held:
    """How a tensor holds a map (N, C, h, w) of real numbers.

    Attributes:
        last: Its channels are the last axis, not the second.
        tokens: The token at each place of the map, (h, w); None for maps.
        along: Axis of the tokens, 1 of (N, T, C) or 2 of (N, C, T).
        step: What one level stands for, in a shape that broadcasts; None for real numbers.
        zero: The level of zero, in such a shape.
    """

    last: bool = False
    tokens: Array | None = None
    along: int = 1
    step: Array | None = None
    zero: Array | None = None

    def cells(self, shape: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the map, by the shape of the tensor."""
        if self.tokens is not None:
            return self.tokens.shape[0], self.tokens.shape[1]
        return (shape[1], shape[2]) if self.last else (shape[2], shape[3])

    def read(self, b: Builder, tensor: str) -> str:
        """The map of a tensor of the network."""
        value = b.value(tensor)
        if self.step is not None and not b.floats(tensor):
            level = b.op("Sub", [value, b.constant(self.zero)])
            value = b.mul(level, b.constant(self.step))
        return self._laid(b, value, b.dims(tensor))

    def signal(self, b: Builder, signal: str, tensor: str) -> str:
        """The signal at the map, of that at a tensor of the network."""
        if self.step is not None and not b.floats(tensor):
            signal = b.op("Div", [signal, b.constant(self.step)])
        return self._laid(b, signal, b.dims(tensor))

    def _laid(self, b: Builder, value: str, dims: Sequence[int]) -> str:
        if self.tokens is None:
            return b.transpose(value, [0, 3, 1, 2]) if self.last else value
        places = self.tokens.reshape(-1).tolist()
        if places != list(range(dims[self.along])):
            value = b.op("Gather", [value, b.ints(places)], axis=self.along)
        if self.along == 1:
            value = b.transpose(value, [0, 2, 1])
        return b.reshape(value, (-1, dims[3 - self.along], *self.tokens.shape))


@dataclass(frozen=True)
class Part:
    """A part of the network that is differentiated.

    Attributes:
        start: Tensors of equal values by which it is; their signals add up.
        nodes: The nodes between them and the target.
        held: How they hold a map.
        overlay: A backward rule.
    """

    start: tuple[str, ...]
    nodes: tuple[Node, ...]
    held: Held = field(default_factory=Held)
    overlay: Overlay | None = None


@dataclass(frozen=True)
class Embedding:
    """What a heatmap is computed from.

    Attributes:
        method: Name of the method.
        target: Tensor that the score is an element of.
        seed: Which of its elements.
        layer: Of methods through a layer.
        image: Of methods at the input.
        reduction: How the channels of the input become one map.
        factor: What a CAM is multiplied by.
        laid: How a layer's map (h, w) comes onto the input (H, W): rows (H, h) and columns (W, w)
            of a product from both sides; None leaves it.
        facts: What stands in the file's metadata besides.
    """

    method: str
    target: str
    seed: Seed = field(default_factory=BestClass)
    layer: Part | None = None
    image: Part | None = None
    reduction: str = "max_abs"
    factor: float = 1.0
    laid: tuple[Array, Array] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def with_heatmap(graph: Graph, wanted: Embedding, builder: Builder) -> onnx.ModelProto:
    """A copy of a model with the heatmap as its last output.

    Args:
        graph: The network.
        wanted: What the heatmap is computed from.
        builder: Of this graph, with nothing in it yet.

    Raises:
        UnsupportedOperator: Nodes on the way that have no rule.
    """
    by_input = isinstance(wanted.seed, BestClass) and wanted.seed.by_input
    seed = wanted.seed.written(builder, wanted.target)
    drawn = _formula(builder, wanted, seed)
    if by_input:
        drawn = builder.mul(drawn, _one_or_nan(builder, seed, wanted.target))
    builder.rename(drawn, HEATMAP)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    _inline(model, graph)
    _unbind_constants(model)
    for index, name in builder.indexed.items():
        node = model.graph.node[index]
        del node.output[1:]
        node.output.append(name)
    model.graph.node.extend(builder.nodes)
    model.graph.initializer.extend(builder.initialisers)
    if by_input:
        kind = onnx.TensorProto.INT32
        model.graph.input.append(helper.make_tensor_value_info(CLASS_INPUT, kind, ["classes"]))
        model.graph.initializer.append(
            numpy_helper.from_array(np.array([-1], np.int32), CLASS_INPUT)
        )
    batch = _batch(graph)
    declared = helper.make_tensor_value_info(HEATMAP, onnx.TensorProto.FLOAT, [batch, None, None])
    model.graph.output.append(declared)
    entry = model.metadata_props.add()
    facts = {**wanted.facts, NETWORK: network_digest(model, graph.array)}
    entry.key, entry.value = METADATA_KEY, json.dumps(facts, sort_keys=True)
    return model


def _one_or_nan(b: Builder, seed: str, target: str) -> str:
    """1 for a sample whose class exists, else NaN: zeros would be taken for its map."""
    count = math.prod(b.dims(target)[1:])
    found = b.sum(b.reshape(seed, (-1, count)), [1], keep=True)
    return b.unsqueeze(b.op("Div", [found, found]), [2])


def network_digest(model: onnx.ModelProto, array: Callable[[onnx.TensorProto], Array]) -> str:
    """Hash of the network in a file with a heatmap; see ``digest_of``.

    Args:
        model: The whole file.
        array: Values of a constant, wherever they are stored.
    """
    outputs = (one.name for one in model.graph.output if one.name != HEATMAP)
    read = names_read(model.graph)  # what nothing reads is not there when the file is opened again
    tensors = (one for one in _own_tensors(model.graph) if one.name in read)
    return digest_of(_own_nodes(model.graph), tensors, outputs, array)


def _own_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The network's nodes, without what was added to them."""
    kept = [
        node
        for node in graph.node
        if not node.output[0].startswith(ADDED) and node.output[0] != HEATMAP
    ]
    read = {name for node in kept for name in node.input} | {o.name for o in graph.output}
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    for node in nodes:
        if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1] not in read:
            del node.output[1:]
    return nodes


def _own_tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """The network's constants."""
    return [
        one
        for one in graph.initializer
        if not one.name.startswith(ADDED) and one.name != CLASS_INPUT
    ]


def without(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model without the heatmap that ``with_heatmap`` added."""
    base = onnx.ModelProto()
    base.CopyFrom(model)
    graph = base.graph
    nodes = _own_nodes(graph)
    tensors = [onnx.TensorProto.FromString(one.SerializeToString()) for one in _own_tensors(graph)]
    inputs, outputs = (
        [
            onnx.ValueInfoProto.FromString(one.SerializeToString())
            for one in values
            if one.name not in {CLASS_INPUT, HEATMAP}
        ]
        for values in (graph.input, graph.output)
    )
    for name, values in (
        ("node", nodes),
        ("initializer", tensors),
        ("input", inputs),
        ("output", outputs),
    ):
        del getattr(graph, name)[:]
        getattr(graph, name).extend(values)
    props = [(p.key, p.value) for p in base.metadata_props if p.key != METADATA_KEY]
    del base.metadata_props[:]
    for key, value in props:
        entry = base.metadata_props.add()
        entry.key, entry.value = key, value
    return base


def _signal(b: Builder, part: Part, target: str, seed: str) -> str:
    """What arrives at the start of a part, as a map."""
    found = reverse(b, part.nodes, {target: seed}, part.start, overlay=part.overlay)
    if not found:
        raise UnsupportedOperator(
            [UnsupportedNode(node.name, node.op_type, node.domain, b.opset) for node in part.nodes],
            lacking="no gradient comes through",
            hint=f"the target {target!r} does not follow {part.start[0]!r} smoothly",
        )
    return part.held.signal(b, b.add(*found.values()), part.start[0])


def _formula(b: Builder, wanted: Embedding, seed: str) -> str:
    """The method's map, (N, H, W), or (N, h, w) of a layer that is not stretched."""
    coarse = fine = ""
    if wanted.layer is not None:
        gradient = _signal(b, wanted.layer, wanted.target, seed)
        layer = wanted.layer.held.read(b, wanted.layer.start[0])
        method = "grad-cam" if wanted.image is not None else wanted.method
        cells = math.prod(wanted.layer.held.cells(b.dims(wanted.layer.start[0])))
        coarse = _through_layer(b, method, layer, gradient, wanted.factor, cells=cells)
        if wanted.laid is not None:
            rows, columns = wanted.laid
            left = b.op("MatMul", [b.matrix(rows), coarse])
            # Turned by a node, which a runtime does once: of square images both are one constant.
            coarse = b.op("MatMul", [left, b.transpose(b.matrix(columns), [1, 0])])
    if wanted.image is not None:
        fine = _signal(b, wanted.image, wanted.target, seed)
        if coarse:
            fine = b.mul(fine, b.unsqueeze(coarse, [1]))
        return _reduced(b, fine, wanted.reduction)
    return coarse


def _through_layer(
    b: Builder, method: str, layer: str, gradient: str, factor: float, *, cells: int
) -> str:
    """A method through a layer, from activation and gradient (N, C, h, w) to (N, h, w)."""

    def over_cells(kind: str, tensor: str) -> str:
        """Sum or mean of the cells; of many row by row, for runtimes add them up one by one."""
        steps = [[3], [2]] if cells > _MANY else [[2, 3]]
        for axes in steps:
            tensor = b.reduced(kind, tensor, axes, keep=True)
        return tensor

    if method == "hires-cam":
        weighed = b.mul(gradient, layer)
    elif method == "layer-cam":
        weighed = b.mul(b.rectified(gradient), layer)
    elif method == "grad-cam++":
        total = b.mul(gradient, over_cells("ReduceSum", layer))
        alpha = b.op("Div", [b.rectified(gradient), b.op("Add", [total, b.constant(2.0)])])
        weighed = b.mul(over_cells("ReduceSum", alpha), layer)
    elif method == "cam":
        weighed = b.mul(b.scaled(over_cells("ReduceMean", gradient), factor), layer)
    else:
        weighed = b.mul(over_cells("ReduceMean", gradient), layer)
    combined = b.sum(weighed, [1], keep=False)
    return combined if method == "cam" else b.rectified(combined)


_MANY = 4096
"""Cells whose sum in float32, each added to the sum of those before, is off by more than 1e-5."""


def _reduced(b: Builder, signal: str, reduction: str) -> str:
    """Channels (N, C, H, W) as one map (N, H, W)."""
    if reduction == "max_abs":
        return b.reduced("ReduceMax", b.op("Abs", [signal]), [1], keep=False)
    if reduction == "positive":
        return b.sum(b.rectified(signal), [1], keep=False)
    if reduction == "sum":
        return b.sum(signal, [1], keep=False)
    raise ValueError(f"reduction {reduction!r}")


def _batch(graph: Graph) -> int | str | None:
    for value in graph.inputs.values():
        if value.shape:
            return value.shape[0]
    return None


def _inline(model: onnx.ModelProto, graph: Graph) -> None:
    """Put external data into the file: it would not lie beside the new one."""
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            array = graph.array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _unbind_constants(model: onnx.ModelProto) -> None:
    """Constants that old files also list as inputs: as such a runtime could not prepare them."""
    if model.ir_version >= _APART:
        return
    model.ir_version = _APART
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [
        onnx.ValueInfoProto.FromString(one.SerializeToString())
        for one in model.graph.input
        if one.name not in constants
    ]
    del model.graph.input[:]
    model.graph.input.extend(kept)
