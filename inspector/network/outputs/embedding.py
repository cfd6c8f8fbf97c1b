"""Outputs that are divided by their own length: embeddings, which hold no scores."""

from converters.graph import Graph, Node
from converters.graph.operators import facts

__all__ = ["is_normalised", "normalised_outputs"]

_STEPS = 16


def normalised_outputs(graph: Graph) -> tuple[str, ...]:
    """Outputs that are divided by their own L2 norm."""
    return tuple(name for name in graph.outputs if is_normalised(graph, name))


def is_normalised(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is another one divided by that one's L2 norm, up to copies and a factor.

    Recognised: ``LpNormalization``, and ``Div`` (or ``Mul`` with a reciprocal) by what is computed
    of the divided tensor through ``ReduceL2``, or squares, their sum and a root.
    """
    for _ in range(_STEPS):
        node = graph.producer(tensor)
        if node is None:
            return False
        if node.is_op("LpNormalization"):
            return int(node.attributes.get("p", 2)) == 2
        scaled = _unscaled(graph, node)
        if scaled is not None:
            tensor = scaled
            continue
        if node.is_op("Div", "Mul") and len(node.inputs) == 2:
            pairs = [(node.inputs[0], node.inputs[1])]
            pairs += [pairs[0][::-1]] if node.is_op("Mul") else []
            return any(_is_norm(graph, other, source) for source, other in pairs)
        known = facts(node)
        if not (known.copies or known.reshapes or _takes_row(graph, node)):
            return False
        tensor = node.inputs[0]
    return False


def _takes_row(graph: Graph, node: Node) -> bool:
    """Whether a node takes one sample's row, as the first of a batch of one."""
    if not node.is_op("Gather") or int(node.attributes.get("axis", 0)) != 0:
        return False
    index = graph.constant(node.inputs[1])
    return index is not None and index.size == 1


def _unscaled(graph: Graph, node: Node) -> str | None:
    """The tensor that a node multiplies with a constant number; None where it does not."""
    if not node.is_op("Div", "Mul") or len(node.inputs) != 2:
        return None
    for tensor, factor in (node.inputs, node.inputs[::-1] if node.is_op("Mul") else node.inputs):
        value = graph.constant(factor)
        if value is not None and value.size == 1:
            return tensor
    return None


def _is_norm(graph: Graph, tensor: str, source: str) -> bool:
    """Whether a tensor is the L2 norm of another one, or one divided by it."""
    squared = rooted = False
    for _ in range(_STEPS):
        node = graph.producer(tensor)
        if node is None:
            return False
        if node.is_op("ReduceL2"):
            return _same(graph, node.inputs[0], source)
        if node.is_op("ReduceSumSquare"):
            return rooted and _same(graph, node.inputs[0], source)
        rooted = rooted or node.is_op("Sqrt") or _is_root(graph, node)
        if node.is_op("Pow", "Mul") and squared:
            return rooted and _same(graph, node.inputs[0], source)
        if node.is_op("ReduceSum"):
            squared = True
        elif not node.is_op(
            "Sqrt",
            "Pow",
            "Max",
            "Clip",
            "Add",
            "Expand",
            "Reciprocal",
            "Div",
            "Reshape",
            "Unsqueeze",
        ):
            return False
        computed = [n for n in node.inputs if n and graph.constant(n) is None]
        if not computed:
            return False
        tensor = computed[0]
    return False


def _is_root(graph: Graph, node: Node) -> bool:
    """Whether a power is a square root, or one divided by it."""
    if not node.is_op("Pow") or len(node.inputs) < 2:
        return False
    power = graph.constant(node.inputs[1])
    return power is not None and power.size == 1 and abs(float(power.ravel()[0])) == 0.5


def _same(graph: Graph, tensor: str, source: str) -> bool:
    """Whether two names hold the same values, up to copies."""
    for _ in range(_STEPS):
        if tensor == source:
            return True
        node = graph.producer(tensor)
        if node is None or not facts(node).copies:
            return False
        tensor = node.inputs[0]
    return False
