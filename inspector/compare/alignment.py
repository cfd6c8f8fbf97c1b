"""Which tensors of two networks are the same layer, and which nodes of B make each of them.

Two ways, in this order:

* by tensor name.  A quantised or optimised file keeps the names of the float one.  Where a tensor
  is quantised, its values are read behind the ``DequantizeLinear``: ONNX Runtime's quantiser
  deletes the ``Relu`` and leaves its work to the clamp of ``QuantizeLinear``, so that the tensor
  *named* like the ReLU's output still holds negative values before it::

      float   Conv ─ Relu ─ X ─ ...
      int8    Conv ─ X ─ QuantizeLinear ─ DequantizeLinear ─ X' ─ ...        X is compared with X'

* by the sequence of layers, where both networks have as many, of equal shapes.

Maps whose channels are the last axis are brought to (N, C, h, w) first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.graph import Graph, Node
from converters.graph.operators import OPERATORS
from inspector.engines.runtime import Runtime
from inspector.model import Model
from inspector.network.form import Form, Forms
from inspector.network.layers import Layer

__all__ = ["WEIGHTED", "Alignment", "Point", "Probe", "align"]

Array = np.ndarray[Any, Any]

WEIGHTED = frozenset(op_type for (_, op_type), known in OPERATORS.items() if known.weighted)
"""Operators that learn: what lies between others is arithmetic, and nearly exact."""

ENOUGH = 0.5
"""Share of A's layers that must be found by name; fewer may be an accident of numbered names."""


@dataclass(frozen=True)
class Point:
    """One tensor that both networks compute.

    Attributes:
        name: What A calls it.
        a: The tensor of A that its values are read from.
        b: The tensor of B likewise.
        carriers: All tensors of B that hold these values; B is started from them.
        forms: How A and B hold the values.
        sources: Indices of the points that B computes it from.
        image: Whether B computes it (also) from the image itself.
        operators: Operator types of B between the sources and the point, in order.
        weights: Names of B's constants that they read.
        layer: Index of A's layer that it is, or the convolution of; None for others (the scores).
        learned_nodes: Nodes of B between them that learn: convolutions and matrix products.
    """

    name: str
    a: str
    b: str
    carriers: tuple[str, ...]
    forms: tuple[Form, Form] = (Form(), Form())
    sources: tuple[int, ...] = ()
    image: bool = False
    operators: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    layer: int | None = None
    learned_nodes: tuple[Node, ...] = ()

    @property
    def learned(self) -> tuple[str, ...]:
        """Convolutions and matrix products among the operators."""
        return tuple(name for name in self.operators if name in WEIGHTED)

    @property
    def weighted(self) -> bool:
        """Whether there are any."""
        return bool(self.learned)


@dataclass(frozen=True)
class Alignment:
    """Corresponding tensors of two networks, in A's order.

    Attributes:
        points: The tensors; empty when the graphs cannot be aligned.
        how: ``names``, ``sequence`` or empty.
        why: A sentence for people: how, or why not.
    """

    points: tuple[Point, ...]
    how: str
    why: str

    def counterpart(self, tensor: str) -> str | None:
        """B's tensor for one of A."""
        return next((p.b for p in self.points if tensor in (p.a, p.name)), None)


class Probe:
    """Every tensor of a model for one image, as the graph spells it out.

    Args:
        model: The network; its own session is left alone, since exposing tensors slows it down.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        way = model.execution
        self._runtime = Runtime(
            model.file,
            device="cpu",
            threads=way.threads,
            optimise=bool(way.text) and way.optimise,
            provider=way.provider,
        )

    @property
    def batch(self) -> int:
        """Images that the model insists on, else 1."""
        return self.model.input.batch or 1

    def run(self, image: Array, tensors: Sequence[str]) -> dict[str, Array]:
        """Values (1, ...) of tensors for one input (1, C, H, W)."""
        feed = np.repeat(self.model.input.arrange(image), self.batch, axis=0)
        found = self._runtime.run(self.model.feeds(feed), tensors)
        return {name: first(np.asarray(value), self.batch) for name, value in found.items()}


def first(value: Array, batch: int) -> Array:
    """The first image's row of a tensor that was computed for ``batch`` equal images."""
    return value[:1] if batch > 1 and value.ndim and value.shape[0] == batch else value


def align(a: Probe, b: Probe, images: tuple[Array, Array], *, same_input: bool) -> Alignment:
    """Find the corresponding tensors of two networks.

    Args:
        a: The reference.
        b: The network under test.
        images: One input of each, (1, C, H, W).
        same_input: Whether both are preprocessed alike, so that their inputs correspond.
    """
    found = _by_name(a.model, b.model)
    layers = a.model.layers
    named = _matching(a, b, images, found)
    tensors = {name for point in named for name in (point.a, point.name)}
    hits = sum(layer.tensor in tensors for layer in layers)
    if named and hits >= ENOUGH * max(1, len(layers)):
        how, why = "names", f"by tensor name: {len(named)} tensors, {hits} of {len(layers)} layers"
    else:
        sequence, why = _by_sequence(a.model, b.model)
        named, how = _matching(a, b, images, sequence), "sequence"
        if not sequence or len(named) < len(sequence):
            return Alignment((), "", _shapes_differ(sequence, named) if sequence else why)
    points = [_input_point(a.model, b.model), *named] if same_input else named
    return Alignment(tuple(_with_steps(b.model.graph, points)), how, why)


def _by_name(a: Model, b: Model) -> list[Point]:
    """Tensors that both graphs compute from the image under one name."""
    shared = _computed(b.graph)
    forms = a.forms, b.forms
    layers = {layer.convolution: layer.index for layer in reversed(a.layers)}
    layers |= {layer.tensor: layer.index for layer in a.layers}
    points, taken = [], set()
    for name in _computed(a.graph):
        if name not in shared:
            continue
        (read_a, _), (read_b, carriers) = _readable(a.graph, name), _readable(b.graph, name)
        if read_a in taken or _maker(a.graph, name) or _maker(b.graph, name):
            continue  # a quantiser's own tensors: their values are read at the one they stand for
        taken.add(read_a)
        where = forms[0].of(read_a), forms[1].of(read_b)
        layer = layers.get(read_a, layers.get(name))
        points.append(Point(name, read_a, read_b, carriers, where, layer=layer))
    return points


def _by_sequence(a: Model, b: Model) -> tuple[list[Point], str]:
    """The layers in order, and the scores; a sentence how, or why not."""
    counts = len(a.layers), len(b.layers)
    if not counts[0] or counts[0] != counts[1]:
        return [], (
            "the graphs cannot be aligned: too few tensors of one name and shape, and "
            f"{counts[0]} layers against {counts[1]}"
        )
    forms = a.forms, b.forms
    points = [
        Point(
            left.tensor,
            left.tensor,
            right.tensor,
            _carriers(b.graph, right),
            (forms[0].of(left.tensor), forms[1].of(right.tensor)),
            layer=left.index,
        )
        for left, right in zip(a.layers, b.layers, strict=True)
        if _same_end(left, right, forms, (a.graph, b.graph))
    ]
    if a.scores.classifier and b.scores.classifier:
        read_a, (read_b, carriers) = a.scores.tensor, _readable(b.graph, b.scores.tensor)
        points.append(Point(read_a, _readable(a.graph, read_a)[0], read_b, carriers))
    return points, f"by the sequence of layers: {len(points)} tensors of {counts[0]} layers"


def _same_end(
    left: Layer,
    right: Layer,
    forms: tuple[Forms, Forms],
    graphs: tuple[Graph, Graph],
) -> bool:
    """Whether two layers are read behind the same operator, or a quantiser hides which it was.

    A layer whose activation runs with channels last may be read before it.
    """
    for layer, form, graph in zip((left, right), forms, graphs, strict=True):
        node = graph.producer(layer.tensor)
        dequantised = node is not None and node.op_type == "DequantizeLinear"
        if dequantised or form.of(layer.tensor).levels is not None:
            return True
    return left.chain[-1:] == right.chain[-1:]


def _carriers(graph: Graph, layer: Layer) -> tuple[str, ...]:
    """Tensors that hold a layer's values, from the one before its quantiser on."""
    name = layer.tensor
    node = graph.producer(name)
    while node is not None and node.op_type in {"DequantizeLinear", "Cast", "Identity"}:
        name = node.inputs[0]
        node = graph.producer(name)
    if name != layer.tensor and node is not None and node.op_type == "QuantizeLinear":
        return _readable(graph, node.inputs[0])[1]
    return _readable(graph, layer.tensor)[1]


def _shapes_differ(points: Sequence[Point], kept: Sequence[Point]) -> str:
    names = {point.name for point in kept}
    point = next(point for point in points if point.name not in names)
    return (
        "the graphs cannot be aligned: too few tensors of one name and shape, and layer "
        f"{point.name!r} differs in shape or type from {point.b!r}"
    )


def _input_point(a: Model, b: Model) -> Point:
    """The image itself, which either network may quantise."""
    read, carriers = _readable(b.graph, b.input.name)
    forms = tuple(Form(3 if m.input.layout == "NHWC" else 1) for m in (a, b))
    read_a = _readable(a.graph, a.input.name)[0]
    return Point(a.input.name, read_a, read, carriers, (forms[0], forms[1]))


def _matching(
    a: Probe, b: Probe, images: tuple[Array, Array], points: Sequence[Point]
) -> list[Point]:
    """Points whose values are floating-point arrays of one shape on both sides."""
    left = a.run(images[0], list(dict.fromkeys(p.a for p in points)))
    right = b.run(images[1], list(dict.fromkeys(p.b for p in points)))
    return [p for p in points if _alike(p, left, right)]


def _alike(point: Point, left: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    x, y = point.forms[0].read(left[point.a]), point.forms[1].read(right[point.b])
    return x.dtype.kind == y.dtype.kind == "f" and x.shape == y.shape and x.size > 1


def _computed(graph: Graph) -> dict[str, None]:
    """Tensors that depend on the image, in order."""
    live = set(graph.inputs)
    found: dict[str, None] = {}
    for node in graph.nodes:
        if not node.is_op("Shape", "Size") and any(name in live for name in graph.reads(node)):
            found |= dict.fromkeys(name for name in node.outputs if name)
            live.update(found)
    return found


def _readable(graph: Graph, tensor: str) -> tuple[str, tuple[str, ...]]:
    """Where a tensor's values are read, and all tensors that hold them."""
    dequantised = []
    levels = [
        user.outputs[0]
        for user in graph.consumers(tensor)
        if user.op_type == "QuantizeLinear" and user.inputs[0] == tensor
    ]
    for name in levels:  # grows: some exporters put a Cast in between
        for user in graph.consumers(name):
            if user.op_type == "DequantizeLinear" and user.inputs[0] == name:
                dequantised.append(user.outputs[0])
            elif user.is_op("Cast", "Identity"):
                levels.append(user.outputs[0])
    return (dequantised[0] if dequantised else tensor), (tensor, *dequantised)


def _maker(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is a quantiser's own, and no output of the graph that it stands for."""
    node = graph.producer(tensor)
    while node is not None and node.is_op("Cast", "Identity"):
        node = graph.producer(node.inputs[0])
    quantised = node is not None and node.op_type in {"QuantizeLinear", "DequantizeLinear"}
    return quantised and tensor not in graph.outputs


def _with_steps(graph: Graph, points: Sequence[Point]) -> list[Point]:
    """The points with what B does between them."""
    owner = {name: index for index, point in enumerate(points) for name in point.carriers}
    live = {*graph.inputs, *_computed(graph)}
    return [_with_step(graph, point, index, owner, live) for index, point in enumerate(points)]


def _with_step(
    graph: Graph, point: Point, index: int, owner: Mapping[str, int], live: set[str]
) -> Point:
    """Walk back from the point to the nearest other points."""
    sources: dict[int, None] = {}
    nodes: dict[int, Node] = {}
    image, todo, seen = False, [point.b], set[str]()
    while todo:
        name = todo.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        node = graph.producer(name)
        if owner.get(name, index) != index:
            sources[owner[name]] = None
        elif name in graph.inputs:
            image = True
        elif node is not None and name in live:
            nodes[node.index] = node
            todo += graph.reads(node)
    ordered = [nodes[i] for i in sorted(nodes)]
    weights = dict.fromkeys(n for node in ordered for n in graph.reads(node) if n and n not in live)
    return Point(
        point.name,
        point.a,
        point.b,
        point.carriers,
        point.forms,
        sources=tuple(sorted(sources)),
        image=image,
        operators=tuple(node.op_type for node in ordered),
        weights=tuple(weights),
        layer=point.layer,
        learned_nodes=tuple(node for node in ordered if node.op_type in WEIGHTED),
    )
