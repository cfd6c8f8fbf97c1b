"""Tensors whose lengths an image decides, such as a list of what was found in it."""

import onnx

from converters.graph import Graph, Node
from converters.graph.activations import data_tensors

__all__ = ["lengths_by_image"]

_LISTS = frozenset(
    ("NonZero", "NonMaxSuppression", "Unique", "Compress", "StringSplit", "SequenceLength")
)
"""Operators that give as many elements as they find."""

_ASKED = {
    **dict.fromkeys(("ConstantOfShape", "Range", "SequenceAt", "SplitToSequence"), 0),
    **dict.fromkeys(("Reshape", "Slice", "Expand", "Tile", "Resize", "Upsample", "Pad"), 1),
    **dict.fromkeys(("TopK", "OneHot", "Squeeze", "Unsqueeze", "Split", "CenterCropPad"), 1),
    **dict.fromkeys(("AffineGrid", "Col2Im", "MaxUnpool"), 1),
}
"""The first input from which on values decide the lengths of what an operator makes."""


def lengths_by_image(graph: Graph) -> frozenset[str]:
    """Tensors whose lengths, or whose values by way of such lengths, other images change.

    More of them than there are: what a body makes of an image counts.
    """
    data, found = data_tensors(graph), set[str]()
    for node in graph.nodes:
        if not found.isdisjoint(graph.reads(node)) or _decides(graph, node, data):
            found.update(filter(None, node.outputs))
    return frozenset(found)


def _decides(graph: Graph, node: Node, data: frozenset[str]) -> bool:
    """Whether the values of an image decide how long what a node makes is."""
    if any(isinstance(value, onnx.GraphProto) for value in node.attributes.values()):
        return not data.isdisjoint(graph.reads(node))
    if node.op_type in _LISTS:
        return not data.isdisjoint(node.inputs)
    first = _ASKED.get(node.op_type)
    return first is not None and not data.isdisjoint(node.inputs[first:])
