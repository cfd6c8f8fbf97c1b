"""Input sizes worth trying where a file leaves them free and the network does not."""

import math
from collections.abc import Iterator

from converters.graph import Graph

__all__ = ["sizes_to_try"]

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
