"""A model whose outputs are signals: nodes of the network, and behind them its backward pass."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from converters.graph import Graph, Node
from inspector.surgery.gradient.builder import ADDED, Builder
from inspector.surgery.gradient.element_types import element_types
from inspector.surgery.gradient.reverse import Overlay, reverse

__all__ = ["GradientProgram", "forward_model", "gradient_program", "tensors_read"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class GradientProgram:
    """A model that computes signals.

    Attributes:
        model: Its inputs are the start tensors, those of the frontier, and one seed per
            differentiated tensor; its outputs the differentiated tensors and the signals.
        seeds: Names of the seeds, by differentiated tensor.
        signals: Names of the signals, by start tensor; one that the differentiated tensors do not
            depend on is missing.
    """

    model: onnx.ModelProto
    seeds: Mapping[str, str]
    signals: Mapping[str, str]


def gradient_program(
    graph: Graph,
    nodes: Sequence[Node],
    start: Sequence[str],
    frontier: Sequence[str],
    targets: Sequence[str],
    *,
    measured: Callable[[str], Array | None],
    overlay: Overlay | None = None,
) -> GradientProgram:
    """Write the model that sends signals from some tensors back to others.

    Args:
        graph: The network.
        nodes: The nodes between them, in the order of the network.
        start: Tensors that are differentiated by, whose values are fed.
        frontier: The other tensors that are fed; those between start and targets are then not
            computed again.
        targets: Tensors that are differentiated.
        measured: Any tensor of one sample; see ``Builder``.
        overlay: A backward rule.

    Raises:
        UnsupportedOperator: Nodes on the way that have no rule.
    """
    builder = Builder(graph, measured, own=True)
    seeds, found = _backward(builder, nodes, start, targets, overlay)
    signals = {}
    for name, signal in found.items():
        out = builder.name(f"{ADDED}of/{name}")
        builder.nodes.append(helper.make_node("Identity", [signal], [out], out))
        signals[name] = out
    fed = [*start, *(name for name in frontier if name not in start)]
    types = element_types(graph)
    inputs = [_declared(name, types.get(name, 0)) for name in fed]
    inputs += [_declared(name, onnx.TensorProto.FLOAT) for name in seeds.values()]
    outputs = [name for name in targets if name not in fed]
    model = _model(graph, nodes, fed, inputs, [*outputs, *signals.values()], builder=builder)
    return GradientProgram(model, seeds, signals)


def tensors_read(
    graph: Graph,
    nodes: Sequence[Node],
    start: Sequence[str],
    targets: Sequence[str],
    *,
    measured: Callable[[str], Array | None],
    overlay: Overlay | None = None,
) -> tuple[str, ...]:
    """Tensors between start and targets that the backward pass reads; see ``gradient_program``.

    Raises:
        UnsupportedOperator: Nodes on the way that have no rule.
    """
    builder = Builder(graph, measured, own=True)
    _backward(builder, nodes, start, targets, overlay)
    read = dict.fromkeys(name for proto in builder.nodes for name in proto.input)
    for node in nodes:
        if node.index in builder.indexed:
            read |= dict.fromkeys(node.inputs)
    made = {name for node in nodes for name in node.outputs}
    return tuple(name for name in read if name in made)


def _backward(
    builder: Builder,
    nodes: Sequence[Node],
    start: Sequence[str],
    targets: Sequence[str],
    overlay: Overlay | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Names of the seeds by target, and of the signals by start tensor."""
    seeds = {name: builder.name(f"{ADDED}seed/{name}") for name in targets}
    return seeds, reverse(builder, nodes, seeds, start, overlay=overlay)


def forward_model(
    graph: Graph, nodes: Sequence[Node], fed: Sequence[str], fetch: Sequence[str]
) -> onnx.ModelProto:
    """The nodes of a part of a network as a model of its own."""
    types = element_types(graph)
    inputs = [_declared(name, types.get(name, 0)) for name in fed]
    return _model(graph, nodes, fed, inputs, fetch)


def _declared(name: str, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind or onnx.TensorProto.FLOAT, None)


def _model(
    graph: Graph,
    nodes: Iterable[Node],
    fed: Collection[str],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    *,
    builder: Builder | None = None,
) -> onnx.ModelProto:
    """The nodes, the constants that they read, and what was written behind them."""
    written = [] if builder is None else builder.nodes
    indexed = {} if builder is None else builder.indexed
    reads = [name for proto in written for name in proto.input]
    reads += [name for node in nodes if node.index in indexed for name in graph.reads(node)]
    # No more than is read: ONNX Runtime would run what nobody asks for.
    kept, initialisers = _read_from(graph, fed, [*reads, *outputs])
    kept |= set(indexed)
    model = onnx.ModelProto()
    model.ir_version = max(graph.model.ir_version, _APART)
    model.opset_import.extend(graph.model.opset_import)
    model.producer_name = "onnx-inspector"
    model.graph.name = "gradient"
    model.graph.node.extend(_without_fed(graph, kept, fed, indexed))
    model.graph.node.extend(written)
    model.graph.input.extend(inputs)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(outputs))
    model.graph.initializer.extend(initialisers)
    if builder is not None:
        model.graph.initializer.extend(builder.initialisers)
    return model


_APART = 4
"""Version of the file format from which constants are not inputs: a runtime may fold them."""


def _read_from(
    graph: Graph, fed: Collection[str], names: Iterable[str]
) -> tuple[set[int], list[onnx.TensorProto]]:
    """Nodes and initialisers that tensors are computed from."""
    known, todo = {"", *fed}, list(names)
    nodes: set[int] = set()
    initialisers: list[onnx.TensorProto] = []
    while todo:
        name = todo.pop()
        if name in known:
            continue
        known.add(name)
        tensor, maker = graph.initialiser(name), graph.producer(name)
        if tensor is not None:
            initialisers.append(tensor)
        elif maker is not None:
            nodes.add(maker.index)
            todo += graph.reads(maker)
    return nodes, initialisers


def _without_fed(
    graph: Graph, kept: Collection[int], fed: Collection[str], indexed: Mapping[int, str]
) -> Iterable[onnx.NodeProto]:
    """Nodes that leave alone what is fed, poolings with their indices."""
    for node in graph.nodes:
        if node.index not in kept:
            continue
        proto = onnx.NodeProto()
        proto.CopyFrom(graph.proto.node[node.index])
        if not set(filter(None, proto.output)) - set(fed) and not indexed.get(node.index):
            continue
        for position, name in enumerate(proto.output):
            if name in fed:  # an output that an operator must have needs some name
                proto.output[position] = f"{ADDED}again/{name}"
        if indexed.get(node.index):
            del proto.output[1:]
            proto.output.append(indexed[node.index])
        yield proto
