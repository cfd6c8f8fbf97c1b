"""Lengths of the axes of a graph's tensors, and which of them are channels."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from converters.graph import Graph, Node
from converters.graph.activations import data_nodes
from inspector.network.layers import channel_axes
from inspector.network.shapes import Shape, Shapes

__all__ = ["GraphExtents"]


class GraphExtents:
    """Lengths of the axes of a graph's tensors, and which axes are channels.

    Args:
        graph: The graph.
        shapes: Concrete shapes of its tensors, as far as known.
    """

    def __init__(self, graph: Graph, shapes: Mapping[str, Sequence[int]] | None = None) -> None:
        """Index the graph once."""
        self.graph = graph
        self._shapes = Shapes(graph, shapes)
        self.nodes = data_nodes(graph)
        self.carried = {*graph.inputs, *(n for node in self.nodes for n in node.outputs)}

    @cached_property
    def channels(self) -> dict[str, int]:
        """Axis of the channels, for maps of features."""
        return channel_axes(self.graph)

    def shape(self, tensor: str) -> Shape | None:
        """Shape of a tensor, as far as it is known."""
        return self._shapes.of(tensor)

    def extent(self, tensor: str, axis: int) -> int | None:
        """Length of one axis; None when it is not known."""
        shape = self.shape(tensor)
        return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None

    def rank(self, tensor: str, otherwise: int) -> int:
        """Number of axes of a tensor."""
        shape = self.shape(tensor)
        return otherwise if shape is None else len(shape)

    def ints(self, node: Node, position: int, attribute: str) -> list[int] | None:
        """A list that is an attribute in old opsets and a constant input in new ones."""
        if attribute in node.attributes:
            value = node.attributes[attribute]
            return [int(v) for v in (value if isinstance(value, list) else [value])]
        if len(node.inputs) <= position or not node.inputs[position]:
            return None
        array = self.graph.constant(node.inputs[position])
        return None if array is None else [int(v) for v in array.ravel()]
