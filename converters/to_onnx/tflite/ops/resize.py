"""Maps of another size: interpolation, and depth against space."""

from typing import Any

import numpy as np

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph
from converters.to_onnx.tflite.model import Operator, Tensor
from converters.to_onnx.tflite.optable import OPS

__all__: list[str] = []


@OPS.register("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(
    graph: Graph,
    x: Tensor,
    size: Tensor,
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write a resize, by scales where they give the size: those leave the batch open."""
    if len(x.shape) != 4:
        raise ConversionFailed(f"works on 4 axes, not on {list(x.shape)}")
    hint, wanted, old = outputs[0].name, outputs[0].shape[1:3], x.shape[1:3]
    if graph.is_constant(size):
        wanted = tuple(graph.whole_numbers(size))
    if len(wanted) != 2 or min(*wanted, *old) < 1 or max(wanted) > 1 << 16:
        raise ConversionFailed(f"from {list(old)} to {list(wanted)}")
    nearest = operator.op_type == "RESIZE_NEAREST_NEIGHBOR"
    known: dict[str, Any] = {
        "mode": "nearest" if nearest else "linear",
        "coordinate_transformation_mode": "align_corners"
        if align_corners
        else "half_pixel"
        if half_pixel_centers
        else "asymmetric",
    }
    if nearest:
        rounded = align_corners or half_pixel_centers
        known["nearest_mode"] = "round_prefer_ceil" if rounded else "floor"
    scales = np.array([1, 1, wanted[0] / old[0], wanted[1] / old[1]], np.float32)
    exact = all(
        int(np.floor(np.float32(n) * s)) == w and s * n == w
        for n, s, w in zip(old, scales[2:], wanted, strict=True)
    )
    inputs = [graph.first(x), ""]
    if exact:
        inputs.append(graph.store(scales, f"{hint}_scales"))
    else:
        inputs += ["", graph.integers(wanted, f"{hint}_size")]
        known["axes"] = [2, 3]
    name = graph.emit("Resize", inputs, hint, **known)
    graph.give(outputs[0], name, first=True, moved=x if nearest else None)


@OPS.register("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def depth_and_space(
    graph: Graph, x: Tensor, *, block_size: int = 0, operator: Operator, outputs: list[Tensor]
) -> None:
    """Write blocks of channels as places, or the other way round."""
    if len(x.shape) != 4 or block_size < 1:
        raise ConversionFailed(f"blocks of {block_size} on {list(x.shape)}")
    kind = "DepthToSpace" if operator.op_type == "DEPTH_TO_SPACE" else "SpaceToDepth"
    name = graph.emit(kind, [graph.first(x)], outputs[0].name, blocksize=block_size)
    graph.give(outputs[0], name, first=True, moved=x)


@OPS.register("SPACE_TO_BATCH_ND")
def space_to_batch_nd(
    graph: Graph, x: Tensor, block: Tensor, paddings: Tensor, *, outputs: list[Tensor]
) -> None:
    """Write every block-th place as a sample of its own (dilated convolutions of old files)."""
    rows, columns = _blocks(graph, x, block)
    pads = graph.whole_numbers(paddings)
    n, h, w, c = x.shape
    hint, name = outputs[0].name, graph.first(x)
    if len(pads) != 4 or min(pads) < 0:
        raise ConversionFailed(f"padding of {pads}")
    if any(pads):
        ends = graph.integers([0, 0, pads[0], pads[2], 0, 0, pads[1], pads[3]], f"{hint}_pads")
        name = graph.emit("Pad", [name, ends], f"{hint}_padded")
    h, w = h + pads[0] + pads[1], w + pads[2] + pads[3]
    if h % rows or w % columns:
        raise ConversionFailed(f"blocks of {rows} x {columns} on {h} x {w}")
    split = graph.integers([n, c, h // rows, rows, w // columns, columns], f"{hint}_split")
    name = graph.emit("Reshape", [name, split], f"{hint}_blocks")
    name = graph.emit("Transpose", [name], f"{hint}_turned", perm=[3, 5, 0, 1, 2, 4])
    sizes = [n * rows * columns, c, h // rows, w // columns]
    name = graph.emit("Reshape", [name, graph.integers(sizes, f"{hint}_sizes")], hint)
    graph.give(outputs[0], name, first=True, moved=x)


@OPS.register("BATCH_TO_SPACE_ND")
def batch_to_space_nd(
    graph: Graph, x: Tensor, block: Tensor, crops: Tensor, *, outputs: list[Tensor]
) -> None:
    """Write samples back to the places that they were taken from."""
    rows, columns = _blocks(graph, x, block)
    cut = graph.whole_numbers(crops)
    n, h, w, c = x.shape
    hint = outputs[0].name
    if len(cut) != 4 or min(cut) < 0 or n % (rows * columns):
        raise ConversionFailed(f"blocks of {rows} x {columns} on {n} samples, cut by {cut}")
    n //= rows * columns
    split = graph.integers([rows, columns, n, c, h, w], f"{hint}_split")
    name = graph.emit("Reshape", [graph.first(x), split], f"{hint}_blocks")
    name = graph.emit("Transpose", [name], f"{hint}_turned", perm=[2, 3, 4, 0, 5, 1])
    sizes = graph.integers([n, c, h * rows, w * columns], f"{hint}_sizes")
    name = graph.emit("Reshape", [name, sizes], hint)
    if any(cut):
        ends = [h * rows - cut[1], w * columns - cut[3]]
        name = graph.emit(
            "Slice",
            [
                name,
                graph.integers([cut[0], cut[2]], f"{hint}_starts"),
                graph.integers(ends, f"{hint}_ends"),
                graph.integers([2, 3], f"{hint}_axes"),
            ],
            hint,
        )
    graph.give(outputs[0], name, first=True, moved=x)


def _blocks(graph: Graph, x: Tensor, block: Tensor) -> tuple[int, int]:
    sizes = graph.whole_numbers(block)
    if len(x.shape) != 4 or len(sizes) != 2 or min(sizes) < 1:
        raise ConversionFailed(f"blocks of {sizes} on {list(x.shape)}")
    return sizes[0], sizes[1]
