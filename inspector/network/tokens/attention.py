"""Self-attention of a network: which tensors its blocks attend with.

A block of a transformer projects its tokens (the output of ``norm1`` where the normalisation comes
first) to queries, keys and values.  That tensor is the usual layer of Grad-CAM on a transformer:
behind the last block's attention the class token alone carries the score.

    norm1 ─┬─ MatMul (W_q) ─ Reshape ─ Transpose ─┐
           ├─ MatMul (W_k) ─ Reshape ─ Transpose ─┴─ MatMul ─ Softmax ─┐
           └─ MatMul (W_v) ─ Reshape ─ Transpose ──────────────────────┴─ MatMul
"""

from collections.abc import Iterator
from dataclasses import dataclass

from converters.graph import Graph, Node
from converters.graph.activations import data_nodes, data_tensors, find_activations
from converters.graph.operators import MICROSOFT, facts

__all__ = ["attended_tensors", "attention_weights"]

_STEPS = 40
"""Nodes that a walk back from a product to its projection may take."""


def attended_tensors(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """For each self-attention the tensor that it projects to queries, in graph order.

    Returns:
        For each one or several names: the projection's input, then what it is moved from without
        change of a value (windows of a map, a map as rows of a matrix), nearest first.
    """
    walk = _Walk(graph)
    found = [chain for one in _attentions(graph, walk) if (chain := walk.shared(*one.attended))]
    return tuple(dict.fromkeys(found))


def attention_weights(graph: Graph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Weights of every self-attention, as they are multiplied with the values.

    Returns:
        Names of tensors (N, heads, T, T) or (N heads, T, T), in graph order; and nodes that keep
        their weights to themselves, being attention in one operator.
    """
    walk = _Walk(graph)
    found = tuple(_attentions(graph, walk))
    weights = [one.weights for one in found if one.weights and walk.shared(*one.attended)]
    return tuple(weights), tuple(one.node.name for one in found if not one.weights)


@dataclass(frozen=True)
class _Attention:
    """One attention: its node, queries and keys, and its weights where a tensor holds them."""

    node: Node
    attended: tuple[str, str]
    weights: str = ""


def _attentions(graph: Graph, walk: "_Walk") -> Iterator[_Attention]:
    """Every attention in graph order; of one that projects itself, its input is both."""
    softmaxes = {a.output: a for a in find_activations(graph) if a.kind == "Softmax"}
    for node in data_nodes(graph):
        if node.is_op("Attention", "MultiHeadAttention"):
            keys = next((n for n in node.inputs[1:2] if n in walk.carried), node.inputs[0])
            own = node.domain == MICROSOFT and node.op_type == "Attention"
            yield _Attention(node, (node.inputs[0], node.inputs[0] if own else keys))
            continue
        activation = softmaxes.get(node.outputs[0])
        weights = "" if activation is None else _multiplied(graph, activation.output)
        product = walk.product(activation.input) if activation is not None and weights else None
        if product is not None:
            yield _Attention(node, (product.inputs[0], product.inputs[1]), weights)


def _multiplied(graph: Graph, tensor: str) -> str:
    """Attention weights as they are multiplied with values, through masks and casts perhaps.

    Returns:
        Empty where they are not.
    """
    for _ in range(_STEPS):
        users = [node for node in graph.consumers(tensor) if not node.is_op("Shape", "Size")]
        if any(node.op_type in ("MatMul", "Einsum") for node in users):
            return tensor
        onward = next((n for n in users if facts(n).keeps_shape or n.is_op("Where", "Mul")), None)
        if onward is None:
            return ""
        tensor = onward.outputs[0]
    return ""


class _Walk:
    """Walks back over what depends on the image."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.carried = graph, data_tensors(graph)

    def product(self, tensor: str) -> Node | None:
        """The product of queries and keys that attention weights are the softmax of."""
        for _ in range(_STEPS):
            node = self.graph.producer(tensor)
            if node is None:
                return None
            data = [name for name in node.inputs if name in self.carried]
            if node.is_op("MatMul", "FusedMatMul") and len(data) == 2:
                return node
            known = facts(node)
            if not data or not (known.elementwise or known.moves or known.carries):
                return None
            tensor = data[0]
        return None

    def shared(self, queries: str, keys: str) -> tuple[str, ...]:
        """The tensor that queries are projected from, if keys are computed from it too."""
        start = self._projected(queries)
        if start is None:
            return ()
        chain = [start]
        for _ in range(_STEPS):
            node = self.graph.producer(chain[-1])
            if node is None or not self._only_moves(node):
                break
            chain.append(node.inputs[0])
        return tuple(chain) if self._depends(keys, chain) else ()

    def _only_moves(self, node: Node) -> bool:
        """Whether no value is computed: also where two parts of a tensor change places (Swin)."""
        known = facts(node)
        if known.moves or known.carries or known.pads:
            return True
        sources = {
            cut.inputs[0] if cut is not None and cut.is_op("Slice") else name
            for name in node.inputs
            for cut in [self.graph.producer(name)]
        }
        return node.is_op("Concat") and len(sources) == 1

    def _projected(self, tensor: str) -> str | None:
        """Input of the linear layer that a tensor comes from."""
        for _ in range(_STEPS):
            node = self.graph.producer(tensor)
            data = [] if node is None else [n for n in node.inputs if n in self.carried]
            if node is None or not data:
                return None
            known = facts(node)
            if known.convolves or node.op_type in ("Attention", "MultiHeadAttention"):
                return data[0] if not known.convolves else None
            if known.weighted and len(data) == 1:
                return data[0]
            tensor = data[0]
        return None

    def _depends(self, tensor: str, chain: list[str]) -> bool:
        """Whether a tensor is computed from one of a chain."""
        waiting, seen = [tensor], {tensor}
        while waiting:
            name = waiting.pop()
            if name in chain:
                return True
            node = self.graph.producer(name)
            fresh = [n for n in node.inputs if n in self.carried and n not in seen] if node else []
            seen.update(fresh)
            waiting += fresh
        return False
