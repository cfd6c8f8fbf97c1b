"""Pooling and the normalisations that work on maps."""

import numpy as np

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph, is_quantised
from converters.to_onnx.tflite.model import Operator, Tensor
from converters.to_onnx.tflite.ops.activation import give_activated
from converters.to_onnx.tflite.ops.convolution import same_pads
from converters.to_onnx.tflite.optable import OPS

__all__: list[str] = []

_SMALLEST = 1e-6  # of the root in TFLite's normalisation
_MOST_MOVED = 2e-4  # of a level per level


@OPS.register("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
def pool_2d(
    graph: Graph,
    x: Tensor,
    *,
    padding: int = 0,
    stride_h: int = 1,
    stride_w: int = 1,
    filter_height: int = 1,
    filter_width: int = 1,
    fused_activation_function: int = 0,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write the mean, maximum or root of the mean square of windows, of what lies in the map."""
    if len(x.shape) != 4 or min(stride_h, stride_w, filter_height, filter_width) < 1:
        raise ConversionFailed(f"windows of {filter_height} x {filter_width} on {list(x.shape)}")
    kernel, strides, hint = (filter_height, filter_width), (stride_h, stride_w), outputs[0].name
    known = {
        "kernel_shape": [*kernel],
        "strides": [*strides],
        "pads": [0] * 4 if padding else same_pads(x.shape[1:3], kernel, strides, (1, 1)),
    }
    name = graph.first(x)
    if operator.op_type == "MAX_POOL_2D":
        name = graph.emit("MaxPool", [name], hint, **known)
        give_moved = not fused_activation_function
        if give_moved:
            graph.give(outputs[0], name, first=True, moved=x)
            return
    elif operator.op_type == "L2_POOL_2D":
        square = graph.emit("Mul", [name, name], f"{hint}_square")
        mean = graph.emit("AveragePool", [square], f"{hint}_mean", count_include_pad=0, **known)
        name = graph.emit("Sqrt", [mean], hint)
    else:
        name = graph.emit("AveragePool", [name], hint, count_include_pad=0, **known)
        if filter_height * filter_width % 2 == 0 or any(known["pads"]):
            name = _away_from_zero(graph, name, outputs[0], filter_height * filter_width)
    give_activated(graph, outputs[0], name, fused_activation_function, first=True)


def _away_from_zero(graph: Graph, name: str, out: Tensor, count: int) -> str:
    """Means that lie in the middle of two levels, moved to the one that TFLite rounds to.

    ONNX rounds half to even, TFLite's integer pools away from the level 0.  Means are multiples of
    1 / count: all of them are moved from the level 0 by a part of their own that is too small to
    bring any other mean over a half.

    Source: ``AveragePool`` of ``tensorflow/lite/kernels/internal/reference/integer_ops/pooling.h``.
    """
    known = out.quantisation
    if known is None or not is_quantised(out) or known.scale.size != 1:
        return name
    peak = int(np.iinfo(out.dtype).max) + 1
    part = min(_MOST_MOVED, 0.5 / (peak * count))
    name = graph.renamed(name, f"{out.name}_mean")
    name = graph.emit("Mul", [name, graph.number(1 + part, f"{out.name}_factor")], out.name)
    middle = float(known.scale[0]) * int(known.zero_point[0])
    if middle:
        name = graph.renamed(name, f"{out.name}_scaled")
        moved = graph.number(part * middle, f"{out.name}_moved")
        name = graph.emit("Add", [name, moved], out.name)
    return name


@OPS.register("LOCAL_RESPONSE_NORMALIZATION")
def local_response_normalization(
    graph: Graph,
    x: Tensor,
    *,
    radius: int = 0,
    bias: float = 0.0,
    alpha: float = 0.0,
    beta: float = 0.0,
    outputs: list[Tensor],
) -> None:
    """Write x / (bias + alpha sum x^2)^beta over 2 radius + 1 channels."""
    size = 2 * radius + 1
    if len(x.shape) != 4 or not 1 <= size <= 1 << 16:
        raise ConversionFailed(f"a radius of {radius} on {list(x.shape)}")
    name = graph.emit(
        "LRN",
        [graph.first(x)],
        outputs[0].name,
        size=size,
        bias=float(bias),
        alpha=float(alpha) * size,
        beta=float(beta),
    )
    graph.give(outputs[0], name, first=True)


@OPS.register("L2_NORMALIZATION")
def l2_normalization(
    graph: Graph, x: Tensor, *, fused_activation_function: int = 0, outputs: list[Tensor]
) -> None:
    """Write x / sqrt(sum x^2) along the last axis."""
    first, hint = graph.is_first(x), outputs[0].name
    name = graph.of(x, first=first)
    axes = graph.integers([1 if first else len(x.shape) - 1], f"{hint}_axes")
    length = graph.emit("ReduceL2", [name, axes], f"{hint}_length", keepdims=1)
    least = graph.number(_SMALLEST, f"{hint}_least")
    length = graph.emit("Max", [length, least], f"{hint}_divisor")
    name = graph.emit("Div", [name, length], hint)
    give_activated(graph, outputs[0], name, fused_activation_function, first=first)
