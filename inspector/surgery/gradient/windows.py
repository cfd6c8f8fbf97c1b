"""Windows of convolutions and pools: attributes of a node with all defaults filled in."""

from collections.abc import Sequence
from dataclasses import dataclass

from converters.graph import Node

__all__ = ["Window", "window_of"]


@dataclass(frozen=True)
class Window:
    """Where the windows of a node lie, one entry per axis of space.

    Attributes:
        size: Input.
        kernel: Taps.
        strides: Steps from window to window.
        dilations: Steps from tap to tap.
        begin: Pads before the input.
        end: Pads behind it.
        outputs: Windows, as the forward pass made them.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """Pixels from the first tap to the last, both included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def plain(self) -> bool:
        """Whether windows lie side by side, without pads, and cover the input."""
        return (
            self.kernel == self.strides
            and not any((*self.begin, *self.end))
            and all(d == 1 for d in self.dilations)
            and all(
                n == k * o for n, k, o in zip(self.size, self.kernel, self.outputs, strict=True)
            )
        )


def window_of(
    node: Node, size: Sequence[int], kernel: Sequence[int], outputs: Sequence[int]
) -> Window:
    """The windows of a node.

    Args:
        node: A convolution or a pool.
        size: Axes of space of its input.
        kernel: Taps.
        outputs: Axes of space of its output.
    """
    rank = len(kernel)
    strides = tuple(node.attributes.get("strides") or (1,) * rank)
    dilations = tuple(node.attributes.get("dilations") or (1,) * rank)
    mode = node.attributes.get("auto_pad", "NOTSET") or "NOTSET"
    pads = node.attributes.get("pads") or (0,) * (2 * rank)
    if mode == "NOTSET":
        begin, end = tuple(pads[:rank]), tuple(pads[rank:])
    elif mode == "VALID":
        begin = end = (0,) * rank
    else:
        total = [
            max(0, (o - 1) * s + d * (k - 1) + 1 - n)
            for n, k, s, d, o in zip(size, kernel, strides, dilations, outputs, strict=True)
        ]
        less = tuple(t // 2 for t in total)
        more = tuple(t - t // 2 for t in total)
        begin, end = (less, more) if mode == "SAME_UPPER" else (more, less)
    return Window(tuple(size), tuple(kernel), strides, dilations, begin, end, tuple(outputs))
