"""A model with one more output: the heatmap of its own answer.

The network's nodes stay as they are; behind them stand the backward pass and the formula of a
method.  What was added is named so that it can be taken out again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.graph import Graph, Node
from converters.plain_values import parse_json
from inspector.surgery.gradient.builder import ADDED, Builder
from inspector.surgery.gradient.reverse import Overlay, reverse

__all__ = ["HEATMAP", "METADATA_KEY", "Embedding", "Part", "facts_of", "with_heatmap", "without"]

Array = np.ndarray[Any, Any]

HEATMAP = "heatmap"
"""Name of the output."""

CLASS_INPUT = "heatmap_class"
"""Name of the optional input that picks the class: -1 is the best one."""

METADATA_KEY = "onnx-inspector.heatmap"
_APART = 4


@dataclass(frozen=True)
class Part:
    """A part of the network that is differentiated.

    Attributes:
        start: Tensors of equal values by which it is; their signals add up.
        nodes: The nodes between them and the target.
        last: Their channels are the last axis, not the second.
        overlay: A backward rule.
    """

    start: tuple[str, ...]
    nodes: tuple[Node, ...]
    last: bool = False
    overlay: Overlay | None = None


@dataclass(frozen=True)
class Embedding:
    """What a heatmap is computed from.

    Attributes:
        method: Name of the method.
        target: Tensor that the score is an element of.
        slope: Derivative of a fixed score by it, of one sample; None for the best class.
        layer: Of methods through a layer.
        image: Of methods at the input.
        reduction: How the channels of the input become one map.
        factor: What a CAM is multiplied by.
        laid: How a layer's map (h, w) comes onto the input (H, W): rows (H, h) and columns (W, w)
            of a product from both sides; None leaves it.
        class_input: Whether an optional input picks the class.
        facts: What stands in the file's metadata besides.
    """

    method: str
    target: str
    slope: Array | None = None
    layer: Part | None = None
    image: Part | None = None
    reduction: str = "max_abs"
    factor: float = 1.0
    laid: tuple[Array, Array] | None = None
    class_input: bool = False
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
    seed = _seed(builder, wanted)
    heatmap = _formula(builder, wanted, seed)
    builder.nodes.append(helper.make_node("Identity", [heatmap], [HEATMAP]))
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
    if wanted.class_input:
        kind = onnx.TensorProto.INT32
        model.graph.input.append(helper.make_tensor_value_info(CLASS_INPUT, kind, ["classes"]))
        model.graph.initializer.append(
            numpy_helper.from_array(np.array([-1], np.int32), CLASS_INPUT)
        )
    batch = _batch(graph)
    declared = helper.make_tensor_value_info(HEATMAP, onnx.TensorProto.FLOAT, [batch, None, None])
    model.graph.output.append(declared)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(dict(wanted.facts), sort_keys=True)
    return model


def without(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model without the heatmap that ``with_heatmap`` added."""
    base = onnx.ModelProto()
    base.CopyFrom(model)
    graph = base.graph
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
    tensors = [
        onnx.TensorProto.FromString(one.SerializeToString())
        for one in graph.initializer
        if not one.name.startswith(ADDED) and one.name != CLASS_INPUT
    ]
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


def facts_of(metadata: Mapping[str, str]) -> Mapping[str, Any] | None:
    """What the metadata of a file with a heatmap says of it; None for any other file."""
    text = metadata.get(METADATA_KEY, "")
    if not text or len(text) > _LONGEST:
        return None
    try:
        found = parse_json(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


_LONGEST = 1 << 16


def _seed(b: Builder, wanted: Embedding) -> str:
    """Derivative of every sample's score by the target's tensor."""
    name = wanted.target
    if wanted.slope is not None:
        return b.expanded(b.constant(wanted.slope), name)
    dims = b.dims(name)
    count = int(np.prod(dims[1:]))
    flat = b.reshape(b.value(name), (-1, count))
    if count == 1:  # one unit scores two classes: the side that is predicted
        above = b.scaled(b.positive(b.value(name)), 2.0)
        return b.op("Sub", [above, b.constant(1.0)])
    best = b.op("ArgMax", [flat], axis=1, keepdims=1)
    if wanted.class_input:
        asked = b.op("Cast", [CLASS_INPUT], to=onnx.TensorProto.FLOAT)
        column = b.reshape(asked, (-1, 1))
        top = b.op("Cast", [best], to=onnx.TensorProto.FLOAT)
        none = b.op("Less", [column, b.constant(0.0)])
        best = b.where(none, top, column)
        places = b.constant(np.arange(count, dtype=np.float32)[None])
        hit = b.mask(b.equal(best, places))
    else:
        places = b.constant(np.arange(count)[None], np.int64)
        hit = b.mask(b.op("Equal", [best, places]))
    return b.like(hit, name)


def _signal(b: Builder, part: Part, target: str, seed: str) -> str:
    """What arrives at the start of a part, channels second."""
    found = reverse(b, part.nodes, {target: seed}, part.start, overlay=part.overlay)
    signal = b.add(*found.values())
    return b.transpose(signal, [0, 3, 1, 2]) if part.last else signal


def _formula(b: Builder, wanted: Embedding, seed: str) -> str:
    """The method's map, (N, H, W), or (N, h, w) of a layer that is not stretched."""
    coarse = fine = ""
    if wanted.layer is not None:
        gradient = _signal(b, wanted.layer, wanted.target, seed)
        layer = b.value(wanted.layer.start[0])
        layer = b.transpose(layer, [0, 3, 1, 2]) if wanted.layer.last else layer
        method = "grad-cam" if wanted.image is not None else wanted.method
        coarse = _through_layer(b, method, layer, gradient, wanted.factor)
        if wanted.laid is not None:
            rows, columns = wanted.laid
            left = b.op("MatMul", [b.constant(rows), coarse])
            # Turned by a node, which a runtime does once: of square images both are one constant.
            coarse = b.op("MatMul", [left, b.transpose(b.constant(columns), [1, 0])])
    if wanted.image is not None:
        fine = _signal(b, wanted.image, wanted.target, seed)
        if coarse:
            fine = b.mul(fine, b.unsqueeze(coarse, [1]))
        return _reduced(b, fine, wanted.reduction)
    return coarse


def _through_layer(b: Builder, method: str, layer: str, gradient: str, factor: float) -> str:
    """A method through a layer, from activation and gradient (N, C, h, w) to (N, h, w)."""
    if method == "hires-cam":
        weighed = b.mul(gradient, layer)
    elif method == "layer-cam":
        weighed = b.mul(b.op("Relu", [gradient]), layer)
    elif method == "grad-cam++":
        total = b.mul(gradient, b.sum(layer, [2, 3], keep=True))
        alpha = b.op("Div", [b.op("Relu", [gradient]), b.op("Add", [total, b.constant(2.0)])])
        weighed = b.mul(b.sum(alpha, [2, 3], keep=True), layer)
    elif method == "cam":
        weighed = b.mul(b.scaled(b.mean(gradient, [2, 3]), factor), layer)
    else:
        weighed = b.mul(b.mean(gradient, [2, 3]), layer)
    combined = b.sum(weighed, [1], keep=False)
    return combined if method == "cam" else b.op("Relu", [combined])


def _reduced(b: Builder, signal: str, reduction: str) -> str:
    """Channels (N, C, H, W) as one map (N, H, W)."""
    if reduction == "max_abs":
        return b.reduced("ReduceMax", b.op("Abs", [signal]), [1], keep=False)
    if reduction == "positive":
        return b.sum(b.op("Relu", [signal]), [1], keep=False)
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
