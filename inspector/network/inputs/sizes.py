"""Input sizes worth trying where a file leaves them free and the network does not."""

import math
from collections.abc import Iterator

from converters.graph import Graph, Node

__all__ = ["lengths_to_try", "sizes_to_try"]

Size = tuple[int, int]

_SQUARES = (256, 192, 240, 288, 299, 300, 160, 320, 336, 128, 384, 112, 96, 64)
"""Sides in use, nearest to 224 first."""

_LARGE = (416, 448, 480, 512, 518, 560, 600, 608, 640, 768, 800, 1024)

_LINES = ((32, 100), (32, 128), (32, 320), (48, 192), (48, 320), (64, 256))
"""Sizes of networks that read a line of text."""

_SMALL = (32, 28)
_EXTRA_TOKENS = (0, 1, 2)  # class and distillation tokens
_SIDES = range(2, 129)  # of a grid of tokens


def sizes_to_try(graph: Graph, before: Size, fixed: tuple[int | None, int | None]) -> list[Size]:
    """Input sizes in the order in which to try them.

    Args:
        graph: The graph; the length of a position embedding times the stride of the patches is
            the size that it was made for.
        before: The size that was tried already.
        fixed: Height and width that the file fixes, None where it leaves them free.
    """
    squares, rest = ([(side, side) for side in sides] for sides in (_SQUARES, (*_SMALL, *_LARGE)))
    wanted = [*_embedded(graph), *squares, *_LINES, *rest]
    found = [(fixed[0] or height, fixed[1] or width) for height, width in wanted]
    return [size for size in dict.fromkeys(found) if size != before]


def lengths_to_try(graph: Graph) -> Iterator[int]:
    """Lengths of a signal that a dense layer behind its convolutions asks for.

    Each dense layer fixes how many numbers come in; from there the chain of convolutions and
    pooling is gone back to the signal: ``(cells - 1) * stride + window - padding`` per step.

    Args:
        graph: The graph of a network of signals (N, C, L) that are free in length.
    """
    for dense in graph.nodes:
        if not dense.is_op("Gemm", "MatMul") or len(dense.inputs) < 2:
            continue
        weight = graph.constant(dense.inputs[1])
        if weight is None or weight.ndim != 2:
            continue
        numbers = weight.shape[1 if dense.attributes.get("transB") else 0]
        length = _length_before(graph, dense.inputs[0], int(numbers))
        if length is not None and length > 1:
            yield length


def _length_before(graph: Graph, tensor: str, numbers: int) -> int | None:
    """Length of the signal of which so many numbers come out; None where it cannot be followed."""
    chain: list[Node] = []
    while (node := graph.producer(tensor)) is not None and node.inputs:
        chain.append(node)
        tensor = next((n for n in node.inputs if n and graph.constant(n) is None), "")
    first = next((node for node in chain if node.is_op("Conv")), None)
    weight = None if first is None else graph.constant(first.inputs[1])
    if weight is None or weight.ndim != 3 or numbers % weight.shape[0]:
        return None
    length = numbers // int(weight.shape[0])
    for node in chain:
        if node.is_op("Conv", "MaxPool", "AveragePool"):
            length = _before_window(graph, node, length)
    return length


def _before_window(graph: Graph, node: Node, cells: int) -> int:
    """The shortest signal of which a convolution or a pooling makes so many cells."""
    weight = graph.constant(node.inputs[1]) if node.is_op("Conv") else None
    windows = node.attributes.get("kernel_shape") or (1 if weight is None else weight.shape[2],)
    (stride, spread) = (
        int((node.attributes.get(name) or (1,))[0]) for name in ("strides", "dilations")
    )
    if node.attributes.get("auto_pad", "NOTSET") in {"SAME_UPPER", "SAME_LOWER"}:
        return (cells - 1) * stride + 1
    padding = sum(int(n) for n in node.attributes.get("pads") or ())
    return (cells - 1) * stride + spread * (int(windows[0]) - 1) + 1 - padding


def _embedded(graph: Graph) -> Iterator[Size]:
    """Sizes that fit the constants which are added to tokens or to a grid of them."""
    strides = [
        (int(steps[0]), int(steps[1]))
        for node in graph.nodes
        if node.is_op("Conv") and len(steps := node.attributes.get("strides", ())) == 2
    ]
    if not strides:
        return
    step = strides[0]
    for node in graph.nodes:
        if not node.is_op("Add"):
            continue
        for name in node.inputs:
            value = graph.constant(name)
            shape = () if value is None else value.shape
            if len(shape) == 4 and min(shape[2:]) in _SIDES:
                yield shape[2] * step[0], shape[3] * step[1]
            if len(shape) not in (2, 3):
                continue
            for extra in _EXTRA_TOKENS:
                side = math.isqrt(max(0, shape[-2] - extra))
                if side in _SIDES and side * side == shape[-2] - extra:
                    yield side * step[0], side * step[1]
