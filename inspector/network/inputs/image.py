"""The graph input that takes the picture: its layout, its size and the type of its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from converters.graph import Graph, Value
from inspector.errors import ModelRefused
from inspector.network.inputs.choice import described, inputs_to_feed
from inspector.network.space import first_convolution, own_shape, plane, unfolded

__all__ = ["FREE_DEPTH", "ImageInput", "find_image_input"]

_CHANNELS = {1, 3, 4}

FREE_DEPTH = 32
"""Slices, and pixels per side of a slice, where neither the file nor the user says them."""


@dataclass(frozen=True)
class ImageInput:
    """The graph input that takes the picture.

    Attributes:
        name: Tensor name.
        layout: ``NCHW`` or ``NHWC``; of signals and volumes too, whether channels come first.
        batch: Fixed batch size, or None when it is free.
        channels: Bands per place: 1 or 3 of a photo.
        height: Pixels, or None when it is free. 1 of a signal, and of a volume all its slices
            below each other.
        width: Pixels (samples of a signal), or None when it is free.
        integer: Whether the model takes whole pixel values (uint8 and the like).
        bounds: Smallest and largest number that the input's type holds, None for floats.
        space: Axes of space: 1 of a signal, 2 of a picture, 3 of a volume.
        depth: Slices of a volume; 1 of others.
        free_depth: Whether the file leaves their number free.
    """

    name: str
    layout: str
    batch: int | None
    channels: int
    height: int | None
    width: int | None
    integer: bool = False
    bounds: tuple[int, int] | None = None
    space: int = 2
    depth: int = 1
    free_depth: bool = False

    def sizes(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Sizes along the axes of space of a plane (H, W): (L,), (H, W) or (D, H, W)."""
        return own_shape(size, self.space, self.depth)

    @property
    def axes(self) -> str:
        """Names of the input's axes: ``NCHW``, ``NLC``, ``NCDHW``."""
        space = {1: "L", 2: "HW", 3: "DHW"}[self.space]
        return f"NC{space}" if self.layout == "NCHW" else f"N{space}C"

    def arrange(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Bring images (N, C, H, W) into the layout and type of the model.

        Values are rounded and clipped to what an integer type holds: a cast would wrap them.
        """
        if self.integer:
            images = np.clip(np.rint(images), *(self.bounds or (0, 255)))
        if self.space != 2:
            images = unfolded(images, self.sizes((images.shape[2], images.shape[3])))
        return np.moveaxis(images, 1, -1) if self.layout == "NHWC" else images

    def restore(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Bring an array in the model's layout back to (N, C, H, W)."""
        values = np.moveaxis(values, -1, 1) if self.layout == "NHWC" else values
        return values if self.space == 2 else plane(values)


def find_image_input(graph: Graph) -> ImageInput:
    """Find the graph input that takes a picture, and its layout.

    Raises:
        ModelRefused: no input that a convolution shows to take signals, pictures or volumes, or a
            second input that must be fed.
    """
    convolved = [value for value in graph.inputs.values() if _is_convolved(graph, value)]
    candidates = [value for value in graph.inputs.values() if _is_image(graph, value)] or convolved
    listing = ", ".join(map(described, graph.inputs.values()))
    if not candidates:
        raise ModelRefused(
            "no input takes an image: of rank 4 with 1, 3 or 4 channels, or of rank 3, 4 or 5 "
            "and read by a convolution over the same axes",
            where=f"inputs {listing or '(none)'}",
        )
    if len(graph.inputs) > 1:
        raise ModelRefused(
            "the model needs more than an image",
            where=f"inputs {listing}",
            hint="give the others constants: "
            + " ".join(inputs_to_feed(graph, candidates[0].name)),
        )
    value = candidates[0]
    if value in convolved and not _is_image(graph, value):
        return _of_bands(graph, value)
    layout = _layout(graph, value)
    shape = value.shape or (None,) * 4
    batch, *rest = (axis if isinstance(axis, int) else None for axis in shape)
    channels, height, width = rest if layout == "NCHW" else (rest[2], rest[0], rest[1])
    return ImageInput(
        name=value.name,
        layout=layout,
        batch=batch,
        channels=channels or (first_convolution(graph, value.name) or (2, 3))[1],
        height=height,
        width=width,
        integer=value.elem_type not in _FLOATS,
        bounds=_bounds(value.elem_type),
    )


def _is_convolved(graph: Graph, value: Value) -> bool:
    """Whether the first convolution behind an input has as many axes, and as many channels."""
    if not value.elem_type or value.shape is None or len(value.shape) not in {3, 4, 5}:
        return False
    found = first_convolution(graph, value.name)
    if found is None or found[0] != len(value.shape) - 2:
        return False
    return any(
        not isinstance(axis, int) or axis == found[1] for axis in (value.shape[1], value.shape[-1])
    )


def _of_bands(graph: Graph, value: Value) -> ImageInput:
    """An input of signals, of volumes, or of pictures of any number of bands."""
    space, channels = first_convolution(graph, value.name) or (2, 3)
    shape = value.shape or ()
    to_first = [0, len(shape) - 1, *range(1, len(shape) - 1)]
    turned = any(
        node.is_op("Transpose") and list(node.attributes.get("perm", ())) == to_first
        for node in graph.consumers(value.name)
    )
    last = shape[-1] == channels and (shape[1] != channels or turned)
    sides = _sides(shape[1:-1] if last else shape[2:])
    depth = (sides[0] or FREE_DEPTH) if space == 3 else 1
    rows = {1: 1, 2: sides[0], 3: None}[space]
    if space == 3 and sides[0] and sides[1]:
        rows = sides[0] * sides[1]
    return ImageInput(
        name=value.name,
        layout="NHWC" if last else "NCHW",
        batch=shape[0] if isinstance(shape[0], int) else None,
        channels=channels,
        height=rows,
        width=sides[-1],
        integer=value.elem_type not in _FLOATS,
        bounds=_bounds(value.elem_type),
        space=space,
        depth=depth,
        free_depth=space == 3 and sides[0] is None,
    )


def _sides(shape: Sequence[int | str | None]) -> list[int | None]:
    return [axis if isinstance(axis, int) else None for axis in shape]


_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
}


def _bounds(elem_type: int) -> tuple[int, int] | None:
    """Smallest and largest number of an integer type; None for types that are none."""
    if elem_type in _FLOATS or elem_type not in onnx.helper.get_all_tensor_dtypes():
        return None
    kind = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    if kind.kind == "b":
        return 0, 1
    if kind.kind not in "iu":
        return None
    limits = np.iinfo(kind)
    return int(limits.min), int(limits.max)


def _is_image(graph: Graph, value: Value) -> bool:
    if value.elem_type == 0 or (value.shape is not None and len(value.shape) != 4):
        return False
    if value.shape is None:  # undeclared rank: its first consumer tells
        return any(node.is_op("Conv", "Transpose") for node in graph.consumers(value.name))
    first, last = value.shape[1], value.shape[3]
    return any(not isinstance(axis, int) or axis in _CHANNELS for axis in (first, last))


def _layout(graph: Graph, value: Value) -> str:
    shape = value.shape or (None,) * 4
    first = isinstance(shape[1], int) and shape[1] in _CHANNELS
    last = isinstance(shape[3], int) and shape[3] in _CHANNELS
    if first != last:
        return "NCHW" if first else "NHWC"
    transposed = any(
        node.is_op("Transpose") and list(node.attributes.get("perm", ())) == [0, 3, 1, 2]
        for node in graph.consumers(value.name)
    )
    return "NHWC" if transposed else "NCHW"
