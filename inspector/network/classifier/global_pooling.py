"""Global average (or sum) over the positions of a feature map, and how it is recognised."""

from dataclasses import dataclass, replace

import numpy as np

from converters.graph import Graph, Node
from inspector.network.classifier.affine import NotAffine
from inspector.network.layers import channel_axes
from inspector.network.shapes import Shapes
from inspector.network.space import size_text, space_axes
from inspector.printable import clean_text

__all__ = ["Pooling", "find_pooling", "pooling_ends"]


def pooling_ends(graph: Graph) -> list[str]:
    """Tensors before and behind every node that may pool."""
    return [
        name
        for node in graph.nodes
        if "Pool" in node.op_type or node.is_op("ReduceMean", "ReduceSum")
        for name in (node.inputs[0], node.outputs[0])
    ]


@dataclass(frozen=True)
class Pooling:
    """A pooling that gives one number per channel.

    Attributes:
        features: The tensor whose positions are pooled: 4-D, of signals 3-D, of volumes 5-D.
        pooled: The result.
        nodes: The nodes that pool, in order.
        channel_axis: 1 for (N, C, h, w), the last for (N, h, w, C).
        channels: C; None when it is not known.
        layout: Shape of ``pooled`` without the batch; 0 stands for C.
        summed: Positions are summed up, not averaged.
        scale: Constant factor on the mean.
        assumed: Why the pooling may not be global, when the file alone does not prove it; a
            linear layer behind it that takes exactly C values does.
    """

    features: str
    pooled: str
    nodes: tuple[Node, ...]
    channel_axis: int
    channels: int | None
    layout: tuple[int, ...]
    summed: bool = False
    scale: float = 1.0
    assumed: str = ""


def find_pooling(graph: Graph, shapes: Shapes, tensor: str) -> Pooling | None:
    """The global pooling that makes a tensor; None when something else makes it.

    Raises:
        NotAffine: It is a pooling, but not over all positions, or not over positions at all.
    """
    node = graph.producer(tensor)
    if node is None:
        return None
    found = None
    if node.is_op("GlobalAveragePool"):
        layout = (0, *(1,) * space_axes(graph))
        found = Pooling(node.inputs[0], tensor, (node,), 1, None, layout)
    elif node.is_op("AveragePool"):
        found = _average_pool(graph, shapes, node, tensor)
    elif node.is_op("ReduceMean", "ReduceSum"):
        found = _reduction(graph, shapes, node, tensor)
    return None if found is None else _from_source(graph, shapes, found)


def _from_source(graph: Graph, shapes: Shapes, found: Pooling) -> Pooling:
    """Step back over what only copies or turns the feature map, and look up its channels."""
    features, channel_axis = found.features, found.channel_axis
    nodes = list(found.nodes)
    while (node := graph.producer(features)) is not None:
        last = space_axes(graph) + 1
        to_last = [0, *range(2, last + 1), 1]
        if channel_axis == last and list(node.attributes.get("perm", ())) == to_last:
            channel_axis = 1
        elif not node.is_op("Identity", "Dropout"):
            break
        nodes.insert(0, node)
        features = node.inputs[0]
    shape = shapes.of(features)
    if shape is not None and len(shape) != space_axes(graph) + 2:
        raise NotAffine(
            found.nodes[0], f"it pools a tensor with {len(shape)} axes, not a map (N, C, h, w)"
        )
    return replace(
        found,
        features=features,
        channel_axis=channel_axis,
        nodes=tuple(nodes),
        channels=None if shape is None else shape[channel_axis],
    )


def _average_pool(graph: Graph, shapes: Shapes, node: Node, tensor: str) -> Pooling:
    """An ``AveragePool`` with one window, which is the whole map."""
    kernel = [int(k) for k in node.attributes.get("kernel_shape", ())]
    space = space_axes(graph)
    pads = [int(p) for p in node.attributes.get("pads", [0] * 2 * len(kernel))]
    strides = [int(s) for s in node.attributes.get("strides", [1] * len(kernel))]
    pool = Pooling(node.inputs[0], tensor, (node,), 1, None, (0, *(1,) * space))
    window = "x".join(map(str, kernel))
    if len(kernel) != space or any(d != 1 for d in node.attributes.get("dilations", ())):
        raise NotAffine(node, f"its window {window} is not over a whole map")
    if node.attributes.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        raise NotAffine(node, "its padding depends on the size of the map")
    shape = shapes.of(node.inputs[0])
    size = None if shape is None else shape[2:]
    if size is None or len(size) != space or None in size:
        unknown = f"the size of the map that its window {window} slides over is not known"
        if set(strides) != {1} or any(pads):
            raise NotAffine(node, unknown)
        # One window at stride 1 without padding is the whole map; that there is only one is
        # proven by a linear layer which takes C values.
        return replace(pool, assumed=unknown)
    whole = [int(s) for s in size if s is not None]
    padded = [s + pads[i] + pads[i + space] for i, s in enumerate(whole)]
    if padded != kernel:
        raise NotAffine(node, f"its window {window} is not the whole map {size_text(whole)}")
    counted = any(pads) and node.attributes.get("count_include_pad", 0)
    return replace(pool, scale=float(np.prod(whole)) / float(np.prod(kernel)) if counted else 1.0)


def _reduction(graph: Graph, shapes: Shapes, node: Node, tensor: str) -> Pooling:
    """``ReduceMean`` or ``ReduceSum`` over all axes of space, at once or one after the other."""
    nodes, axes, source = [node], _axes(graph, shapes, node), node.inputs[0]
    keeps = bool(node.attributes.get("keepdims", 1))
    inner = graph.producer(source)
    if len(axes) == 1 and inner is not None and inner.is_op(node.op_type):
        before = _axes(graph, shapes, inner)
        inner_keeps = bool(inner.attributes.get("keepdims", 1))
        if len(before) == 1 and inner_keeps == keeps:
            if not keeps:  # axes behind the one that is gone have moved up
                axes = [a + (a >= before[0]) for a in axes]
            axes, nodes, source = sorted([*before, *axes]), [inner, node], inner.inputs[0]
    space = space_axes(graph)
    first, last = list(range(2, space + 2)), list(range(1, space + 1))
    channel_axis = 1 if axes == first else space + 1 if axes == last else None
    # The mean over the channels of a signal looks like that over the places of a turned one.
    if space != 2 and channel_axis not in {None, channel_axes(graph).get(source, channel_axis)}:
        channel_axis = None
    if channel_axis is None:
        raise NotAffine(
            node,
            f"it runs over axes {axes} of {clean_text(source)!r}, not over the positions of a map",
        )
    ones = (1,) * space
    layout = (0,) if not keeps else (0, *ones) if channel_axis == 1 else (*ones, 0)
    summed = node.is_op("ReduceSum")
    return Pooling(source, tensor, tuple(nodes), channel_axis, None, layout, summed)


def _axes(graph: Graph, shapes: Shapes, node: Node) -> list[int]:
    """Axes of a reduction, counted from the front."""
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1]:
        constant = graph.constant(node.inputs[1])
        if constant is None:
            raise NotAffine(node, "its axes are computed")
        axes = constant.ravel().tolist()
    if not axes:
        raise NotAffine(node, "it runs over all axes")
    shape = shapes.of(node.inputs[0])
    rank = space_axes(graph) + 2 if shape is None else len(shape)
    return sorted(int(a) + rank if a < 0 else int(a) for a in axes)
