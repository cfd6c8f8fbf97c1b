"""Convolutions, transposed ones, and fully connected layers."""

from collections.abc import Sequence

import numpy as np

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph
from converters.to_onnx.tflite.model import Operator, Quantisation, Tensor
from converters.to_onnx.tflite.ops.activation import give_activated
from converters.to_onnx.tflite.optable import OPS

__all__ = ["same_pads"]

_SAME = 0
"""The schema's ``Padding``: SAME is 0, VALID 1."""


def same_pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Padding that gives ceil(size / stride) places: before each axis, then behind each.

    Args:
        sizes: Lengths of the axes of the input.
        kernel: Of the window.
        strides: Of the window.
        dilations: Of the window.
    """
    before, behind = [], []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (window - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        before.append(total // 2)
        behind.append(total - total // 2)
    return [*before, *behind]


def bias_of(graph: Graph, bias: Tensor | None, x: Tensor, weights: Tensor) -> list[str]:
    """Name of the bias, if there is one: its steps are those of the sums, input times weights."""
    if bias is None:
        return []
    if graph.is_constant(bias):
        stored = graph.stored(bias)
        if stored.dtype.kind not in "iu":
            return [graph.store(graph.array(bias).ravel(), bias.name)]
        if x.quantisation is None or weights.quantisation is None:
            raise ConversionFailed(f"its bias {bias.name} is of integers, its input is not")
        scale = (x.quantisation.scale * weights.quantisation.scale).astype(np.float32)
        if stored.dtype != np.int32:  # 16x8: sums of 64 bits, which ONNX cannot dequantise
            return [graph.store((stored.ravel() * scale).astype(np.float32), bias.name)]
        known = Quantisation(scale, np.zeros(scale.size, np.int64))
        name = graph.store(stored.ravel(), f"{bias.name}_levels")
        return [graph.dequantise(name, "int32", known, bias.name)]
    return [graph.last(bias)]


def _require_maps(x: Tensor, weights: Tensor, rank: int) -> None:
    if len(x.shape) != rank or len(weights.shape) != rank:
        raise ConversionFailed(f"works on {rank} axes, not on {list(x.shape)}")


def _strides(*values: int) -> list[int]:
    if any(not 1 <= n <= 1 << 16 for n in values):
        raise ConversionFailed(f"strides or dilations of {list(values)}")
    return [*values]


def _give_convolved(
    graph: Graph,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None,
    operator: Operator,
    *,
    order: Sequence[int],
    group: int,
    padding: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    fused: int,
    outputs: list[Tensor],
) -> None:
    """Write a convolution of maps or volumes, with what its operator holds besides.

    Args:
        graph: The graph.
        x: (N, places, C).
        weights: In the file's order of axes.
        bias: Of the outputs' channels.
        operator: Its ``pads``, where it has some, say the padding.
        order: Of the weights' axes, that gives (out, in / groups, window).
        group: How many groups of channels there are.
        padding: The option of the schema.
        strides: Of the window.
        dilations: Of the window.
        fused: The option ``fused_activation_function``.
        outputs: The operator's.
    """
    kernel = [weights.shape[axis] for axis in order[2:]]
    pads = operator.pads
    if pads is None:
        pads = (0,) * (2 * len(kernel))
        if padding == _SAME:
            pads = tuple(same_pads(x.shape[1:-1], kernel, strides, dilations))
    name = graph.emit(
        "Conv",
        [graph.first(x), graph.weights(weights, order), *bias_of(graph, bias, x, weights)],
        outputs[0].name,
        kernel_shape=kernel,
        strides=[*strides],
        dilations=[*dilations],
        pads=[*pads],
        group=group,
    )
    give_activated(graph, outputs[0], name, fused, first=True)


def _groups(x: Tensor, own: int) -> int:
    """How many groups of channels weights of so many channels make."""
    if not own or x.shape[-1] % own:
        raise ConversionFailed(f"weights of {own} channels for {x.shape[-1]}")
    return x.shape[-1] // own


@OPS.register("CONV_2D")
def conv_2d(
    graph: Graph,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int = 0,
    stride_h: int = 1,
    stride_w: int = 1,
    dilation_h_factor: int = 1,
    dilation_w_factor: int = 1,
    fused_activation_function: int = 0,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write a convolution; weights (out, h, w, in / groups)."""
    _require_maps(x, weights, 4)
    _give_convolved(
        graph,
        x,
        weights,
        bias,
        operator,
        order=[0, 3, 1, 2],
        group=_groups(x, weights.shape[3]),
        padding=padding,
        strides=_strides(stride_h, stride_w),
        dilations=_strides(dilation_h_factor, dilation_w_factor),
        fused=fused_activation_function,
        outputs=outputs,
    )


@OPS.register("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(
    graph: Graph,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int = 0,
    stride_h: int = 1,
    stride_w: int = 1,
    dilation_h_factor: int = 1,
    dilation_w_factor: int = 1,
    fused_activation_function: int = 0,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write a convolution of each channel by itself; weights (1, h, w, in * multiplier)."""
    _require_maps(x, weights, 4)
    if weights.shape[0] != 1 or not x.shape[3] or weights.shape[3] % x.shape[3]:
        raise ConversionFailed(f"weights of {list(weights.shape)} for {x.shape[3]} channels")
    _give_convolved(
        graph,
        x,
        weights,
        bias,
        operator,
        order=[3, 0, 1, 2],
        group=x.shape[3],
        padding=padding,
        strides=_strides(stride_h, stride_w),
        dilations=_strides(dilation_h_factor, dilation_w_factor),
        fused=fused_activation_function,
        outputs=outputs,
    )


@OPS.register("CONV_3D")
def conv_3d(
    graph: Graph,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int = 0,
    stride_d: int = 1,
    stride_h: int = 1,
    stride_w: int = 1,
    dilation_d_factor: int = 1,
    dilation_h_factor: int = 1,
    dilation_w_factor: int = 1,
    fused_activation_function: int = 0,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write a convolution of volumes; weights (d, h, w, in, out)."""
    _require_maps(x, weights, 5)
    _give_convolved(
        graph,
        x,
        weights,
        bias,
        operator,
        order=[4, 3, 0, 1, 2],
        group=_groups(x, weights.shape[3]),
        padding=padding,
        strides=_strides(stride_d, stride_h, stride_w),
        dilations=_strides(dilation_d_factor, dilation_h_factor, dilation_w_factor),
        fused=fused_activation_function,
        outputs=outputs,
    )


def _transposed(
    graph: Graph,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None,
    *,
    order: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    outputs: list[Tensor],
) -> str:
    """Write a transposed convolution, whose output's size the file says; its value's name."""
    before, behind, more = [], [], []
    for size, wanted, window, stride in zip(
        x.shape[1:-1], outputs[0].shape[1:-1], kernel, strides, strict=True
    ):
        total = (size - 1) * stride + window - wanted
        before.append(max(total, 0) // 2)
        behind.append(max(total, 0) - max(total, 0) // 2)
        more.append(max(-total, 0))
    if any(n >= stride for n, stride in zip(more, strides, strict=True)):
        raise ConversionFailed(f"its output {list(outputs[0].shape)} is too large for its input")
    return graph.emit(
        "ConvTranspose",
        [graph.first(x), graph.weights(weights, order), *bias_of(graph, bias, x, weights)],
        outputs[0].name,
        kernel_shape=[*kernel],
        strides=[*strides],
        pads=[*before, *behind],
        output_padding=more,
    )


@OPS.register("TRANSPOSE_CONV")
def transpose_conv(
    graph: Graph,
    shape: Tensor,
    weights: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    stride_h: int = 1,
    stride_w: int = 1,
    fused_activation_function: int = 0,
    outputs: list[Tensor],
) -> None:
    """Write a transposed convolution; weights (out, h, w, in)."""
    del shape  # the output's own says the same
    _require_maps(x, weights, 4)
    name = _transposed(
        graph,
        x,
        weights,
        bias,
        order=[3, 0, 1, 2],
        kernel=weights.shape[1:3],
        strides=_strides(stride_h, stride_w),
        outputs=outputs,
    )
    give_activated(graph, outputs[0], name, fused_activation_function, first=True)


@OPS.register("CONV_3D_TRANSPOSE")
def conv_3d_transpose(
    graph: Graph,
    shape: Tensor,
    weights: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    stride_d: int = 1,
    stride_h: int = 1,
    stride_w: int = 1,
    fused_activation_function: int = 0,
    outputs: list[Tensor],
) -> None:
    """Write a transposed convolution of volumes; weights (d, h, w, out, in)."""
    del shape  # as above
    _require_maps(x, weights, 5)
    name = _transposed(
        graph,
        x,
        weights,
        bias,
        order=[4, 3, 0, 1, 2],
        kernel=weights.shape[:3],
        strides=_strides(stride_d, stride_h, stride_w),
        outputs=outputs,
    )
    give_activated(graph, outputs[0], name, fused_activation_function, first=True)


@OPS.register("Convolution2DTransposeBias")
def transpose_conv_of_mediapipe(
    graph: Graph,
    x: Tensor,
    weights: Tensor,
    bias: Tensor,
    *,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write MediaPipe's own transposed convolution; its options are a C structure.

    Source: ``mediapipe/util/tflite/operations/transpose_conv_bias.cc``.
    """
    _require_maps(x, weights, 4)
    if len(operator.custom_options) < 12:
        raise ConversionFailed("its options are not those of MediaPipe")
    _, width, height = np.frombuffer(operator.custom_options[:12], "<i4")
    name = _transposed(
        graph,
        x,
        weights,
        bias,
        order=[3, 0, 1, 2],
        kernel=weights.shape[1:3],
        strides=_strides(int(height), int(width)),
        outputs=outputs,
    )
    graph.give(outputs[0], name, first=True)


@OPS.register("FULLY_CONNECTED")
def fully_connected(
    graph: Graph,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    *,
    weights_format: int = 0,
    fused_activation_function: int = 0,
    outputs: list[Tensor],
) -> None:
    """Write x W' + b; weights (out, in); all axes of x but those of its rows are taken together."""
    if weights_format:
        raise ConversionFailed("its weights are shuffled for one processor")
    if len(weights.shape) != 2 or not weights.shape[1]:
        raise ConversionFailed(f"weights of {list(weights.shape)}")
    width = weights.shape[1]
    size = int(np.prod(x.shape, dtype=np.int64))
    if size % width:
        raise ConversionFailed(f"weights of {width} inputs for {list(x.shape)}")
    rows, out = size // width, outputs[0]
    name = _flat(graph, x, rows, width, out.name)
    name = graph.emit(
        "Gemm",
        [name, graph.weights(weights, [0, 1]), *bias_of(graph, bias, x, weights)],
        out.name,
        transB=1,
    )
    if len(out.shape) != 2:
        target = graph.integers(out.shape, f"{out.name}_shape")
        name = graph.emit("Reshape", [name, target], out.name)
    give_activated(graph, out, name, fused_activation_function)


def _flat(graph: Graph, x: Tensor, rows: int, width: int, hint: str) -> str:
    """A tensor as (rows, width); a map of one place needs no other order of axes."""
    if len(x.shape) == 2 and x.shape == (rows, width):
        return graph.last(x)
    first = graph.is_first(x) and all(n == 1 for n in x.shape[1:-1])
    name = graph.of(x, first=first)
    if x.shape[:1] == (rows,):
        return graph.emit("Flatten", [name], f"{hint}_flat", axis=1)
    target = graph.integers([-1, width], f"{hint}_rows")
    return graph.emit("Reshape", [name, target], f"{hint}_flat")
