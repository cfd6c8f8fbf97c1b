"""The graph input that takes the picture: its layout, its size and the type of its numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from converters.graph import Graph, Value
from inspector.errors import ModelRefused
from inspector.network.inputs import described, inputs_to_feed

__all__ = ["ImageInput", "find_image_input"]

_CHANNELS = {1, 3, 4}


@dataclass(frozen=True)
class ImageInput:
    """The graph input that takes the picture.

    Attributes:
        name: Tensor name.
        layout: ``NCHW`` or ``NHWC``.
        batch: Fixed batch size, or None when it is free.
        channels: 1 or 3 (4 is left to the preprocessing to refuse).
        height: Pixels, or None when it is free.
        width: Pixels, or None when it is free.
        integer: Whether the model takes whole pixel values (uint8 and the like).
        bounds: Smallest and largest number that the input's type holds, None for floats.
    """

    name: str
    layout: str
    batch: int | None
    channels: int
    height: int | None
    width: int | None
    integer: bool = False
    bounds: tuple[int, int] | None = None

    def arrange(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Bring images (N, C, H, W) into the layout and type of the model.

        Values are rounded and clipped to what an integer type holds: a cast would wrap them.
        """
        if self.integer:
            images = np.clip(np.rint(images), *(self.bounds or (0, 255)))
        return images.transpose(0, 2, 3, 1) if self.layout == "NHWC" else images

    def restore(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Bring an array in the model's layout back to (N, C, H, W)."""
        return values.transpose(0, 3, 1, 2) if self.layout == "NHWC" else values


def find_image_input(graph: Graph) -> ImageInput:
    """Find the graph input that takes a picture, and its layout.

    Raises:
        ModelRefused: no input of rank 4 with 1, 3 or 4 channels, or a second input that must
            be fed.
    """
    candidates = [value for value in graph.inputs.values() if _is_image(graph, value)]
    listing = ", ".join(map(described, graph.inputs.values()))
    if not candidates:
        raise ModelRefused(
            "no input takes an image (rank 4 with 1, 3 or 4 channels)",
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
    layout = _layout(graph, value)
    shape = value.shape or (None,) * 4
    batch, *rest = (axis if isinstance(axis, int) else None for axis in shape)
    channels, height, width = rest if layout == "NCHW" else (rest[2], rest[0], rest[1])
    return ImageInput(
        name=value.name,
        layout=layout,
        batch=batch,
        channels=channels or 3,
        height=height,
        width=width,
        integer=value.elem_type not in _FLOATS,
        bounds=_bounds(value.elem_type),
    )


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
