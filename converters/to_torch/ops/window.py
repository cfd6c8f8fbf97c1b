"""Where the windows of convolutions and pools lie: strides, pads, dilations, rounding.

ONNX allows what PyTorch does not (different pads at both ends, pads wider than half a window,
``SAME_UPPER``); a ``Window`` says whether PyTorch's own arguments are enough, and if they are
not, how the input is to be padded first.  Windows are cached, so the usual node pays one look-up.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from converters.errors import ConverterError

__all__ = ["Window", "conv_window", "pool_window", "torch_pads"]

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Windows over the spatial axes of one tensor.

    Args:
        size: Spatial sizes of the input.
        kernel: Window sizes.
        strides: Steps between windows.
        dilations: Steps between the taps of one window.
        begin: Pads before the first pixel, by axis.
        end: Pads after the last pixel.
        ceil: Whether a last, incomplete window counts.
    """

    size: Sizes
    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    begin: Sizes
    end: Sizes
    ceil: bool = False

    @functools.cached_property
    def symmetric(self) -> bool:
        """Whether both ends of every axis are padded alike."""
        return self.begin == self.end

    @functools.cached_property
    def poolable(self) -> bool:
        """Whether PyTorch's pools accept the pads as they are."""
        halves = all(2 * pad <= k for pad, k in zip(self.begin, self.kernel, strict=True))
        return self.symmetric and halves

    @functools.cached_property
    def dilated(self) -> bool:
        """Whether the taps of a window lie apart."""
        return any(d != 1 for d in self.dilations)

    @functools.cached_property
    def pads(self) -> list[int]:
        """Both pads in the order of ``torch.nn.functional.pad``."""
        return torch_pads(self.begin, self.end)

    @functools.cached_property
    def outputs(self) -> Sizes:
        """Number of windows along each axis."""
        return tuple(self._count(axis) for axis in range(len(self.size)))

    def _count(self, axis: int) -> int:
        span = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        stride, begin = self.strides[axis], self.begin[axis]
        room = self.size[axis] + begin + self.end[axis] - span
        if not self.ceil:
            return room // stride + 1
        count = -(-room // stride) + 1
        # A window that would start in the pad behind the image does not count.
        return count - 1 if (count - 1) * stride >= self.size[axis] + begin else count

    @functools.cached_property
    def overhang(self) -> Sizes:
        """How far the last windows reach beyond the padded input."""
        return tuple(
            max(0, (count - 1) * stride + (k - 1) * dilation + 1 - padded)
            for count, stride, k, dilation, padded in zip(
                self.outputs, self.strides, self.kernel, self.dilations, self._padded, strict=True
            )
        )

    @property
    def _padded(self) -> Sizes:
        sides = zip(self.size, self.begin, self.end, strict=True)
        return tuple(size + begin + end for size, begin, end in sides)


def torch_pads(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Pads by axis, in the order of ``torch.nn.functional.pad`` (last axis first)."""
    return [pad for pair in zip(begin[::-1], end[::-1], strict=True) for pad in pair]


@functools.lru_cache(maxsize=4096)
def conv_window(
    size: Sizes,
    kernel: Sizes,
    strides: Sizes | None,
    pads: Sizes | None,
    dilations: Sizes | None,
    auto_pad: str,
) -> Window:
    """Windows of a convolution over an input of this spatial size."""
    return pool_window(size, kernel, strides, pads, dilations, auto_pad, 0)


@functools.lru_cache(maxsize=4096)
def pool_window(
    size: Sizes,
    kernel: Sizes,
    strides: Sizes | None,
    pads: Sizes | None,
    dilations: Sizes | None,
    auto_pad: str,
    ceil_mode: int,
) -> Window:
    """Windows of a pool over an input of this spatial size.

    Raises:
        ConverterError: When the attributes do not fit the input's rank, or ``auto_pad`` has a
            value that the standard does not know.
    """
    rank = len(size)
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    explicit = pads or (0,) * (2 * rank)
    if not len(kernel) == len(strides) == len(dilations) == len(explicit) // 2 == rank:
        raise ConverterError(f"a window of {len(kernel)} axes does not fit {rank} spatial axes")
    if auto_pad in {"NOTSET", ""}:
        begin, end = explicit[:rank], explicit[rank:]
    elif auto_pad == "VALID":
        begin = end = (0,) * rank
    elif auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        begin, end = _same(size, kernel, strides, dilations, lower=auto_pad == "SAME_LOWER")
    else:
        raise ConverterError(f"auto_pad {auto_pad!r} is not in the standard")
    return Window(size, kernel, strides, dilations, begin, end, bool(ceil_mode))


def _same(
    size: Sizes, kernel: Sizes, strides: Sizes, dilations: Sizes, *, lower: bool
) -> tuple[Sizes, Sizes]:
    """Pads for which the output has ceil(size / stride) pixels; the odd one at one end."""
    small, large = [], []
    for length, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        windows = -(-length // stride)
        total = max(0, (windows - 1) * stride + (k - 1) * dilation + 1 - length)
        small.append(total // 2)
        large.append(total - total // 2)
    begin, end = (large, small) if lower else (small, large)
    return tuple(begin), tuple(end)
