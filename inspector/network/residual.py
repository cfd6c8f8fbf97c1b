"""Residual stream behind a layer: where a convolution of a branch has joined its block again.

In SegFormer and its kind the last convolution lies inside a block's feed-forward branch.  What
stands for its level of the pyramid is the block's output, behind the addition and what normalises
it.
"""

from collections.abc import Callable, Collection, Sequence

from converters.graph import Graph, Node
from converters.graph.operators import facts
from inspector.errors import MethodRefused
from inspector.network.quantisation.levels import copies_of
from inspector.network.tail import tail_of

__all__ = ["block_output"]

_SIZES = ("Shape", "Size")


def block_output(
    graph: Graph, layer: str, targets: Sequence[str], places: Callable[[str], tuple[int, ...]]
) -> str:
    """Output of the block that a layer is a branch of, or a projection; else the layer itself.

    Args:
        graph: The network.
        layer: A tensor.
        targets: Tensors that are explained.
        places: Places of a tensor along its axes of space; it may raise ``MethodRefused``.
    """
    own, projected = places(layer), _projected(graph, layer)
    found = [projected] if projected else reversed(_stream_behind(graph, layer, targets))
    for name in found:
        try:
            if places(name) == own:
                return name
        except MethodRefused:
            continue
    return layer


def _projected(graph: Graph, layer: str) -> str:
    """The block's output that a bare 1x1 convolution makes a layer of; empty for other layers."""
    node = graph.producer(layer)
    weights = None if node is None or not facts(node).convolves else node.inputs[1]
    kernel = None if weights is None else graph.initialiser(weights)
    if node is None or kernel is None or any(size != 1 for size in kernel.dims[2:]):
        return ""
    source = node.inputs[0]
    while (made := graph.producer(source)) is not None and facts(made).moves:
        source = made.inputs[0]
    at = source
    while (made := graph.producer(at)) is not None and facts(made).weights is None:
        computed = [n for n in made.inputs if n and graph.constant(n) is None]
        if facts(made).sums and len(computed) > 1:
            return source
        known = facts(made)
        if not computed or not (known.elementwise or known.normalises or known.copies):
            break
        at = computed[0]
    return ""


def _stream_behind(graph: Graph, layer: str, targets: Sequence[str]) -> list[str]:
    """Tensors that all of a layer passes through behind the addition that ends its branch.

    They end where the level does: before it is enlarged, pooled, laid beside others, or projected
    by weights that no further addition follows.  Mere copies in another order are left out, and
    what no weights follow: the scores themselves.
    """
    copies = copies_of(graph, layer)
    every = {n.index: n for target in targets for n in tail_of(graph, copies, target).nodes}
    nodes = [every[index] for index in sorted(every) if not every[index].is_op(*_SIZES)]
    last_read = {name: place for place, node in enumerate(nodes) for name in graph.reads(node)}
    last_read |= dict.fromkeys(targets, len(nodes))
    end = max((i for i, n in enumerate(nodes) if facts(n).weights is not None), default=0)
    behind, waiting = set(copies), set(copies)
    found: list[str] = []
    joined = projected = False
    for place, node in enumerate(nodes[:end]):
        if behind.isdisjoint(graph.reads(node)):
            continue  # computed from the layer's size alone
        if _leaves_level(node):
            break
        if _is_addition(graph, node, behind):
            joined, projected = True, False
        elif facts(node).weights is not None:
            projected = True
        made = set(filter(None, node.outputs))
        behind |= made
        waiting = {name for name in waiting | made if last_read.get(name, -1) > place}
        computed = not (facts(node).moves or facts(node).copies)
        if joined and not projected and computed and waiting <= made and len(waiting) == 1:
            found += waiting
    return found


def _is_addition(graph: Graph, node: Node, behind: Collection[str]) -> bool:
    """Whether a node adds to the layer's values others that do not depend on it, no constants."""
    others = [n for n in node.inputs if n not in behind and graph.constant(n) is None]
    return facts(node).sums and len(others) < len(node.inputs) and bool(others)


def _leaves_level(node: Node) -> bool:
    known = facts(node)
    enlarged = known.resizes or node.is_op("ConvTranspose", "DepthToSpace")
    return enlarged or known.joins or bool(known.pools and not known.whole)
