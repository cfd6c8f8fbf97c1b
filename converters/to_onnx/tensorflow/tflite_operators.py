"""Repairs of tf2onnx's handlers of TFLite operators, and a guard against inputs that get lost.

tf2onnx 1.17 drops the bias of a fully connected layer whose input has more than two axes, and that
of a transposed convolution, and multiplies the result of a softmax by beta instead of its argument.
No error is raised, so the file is complete and computes something else.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["repaired_handlers"]

Handler = Callable[..., Any]

_BIAS = {
    "TFL_FULLY_CONNECTED": 2,
    "TFL_TRANSPOSE_CONV": 3,
    "TFL_CONV_3D_TRANSPOSE": 3,
}
"""Position of the bias of operators whose handlers may lose it."""


def repaired_handlers(mapping: Mapping[str, tuple[Handler, Any]]) -> dict[str, tuple[Handler, Any]]:
    """Handlers of TFLite operators that keep every input.

    Args:
        mapping: tf2onnx's own, of functions and their arguments by operator.
    """
    return {name: (_guarded(name, func), known) for name, (func, known) in mapping.items()}


def _guarded(op_type: str, handler: Handler) -> Handler:
    def call(ctx: Any, node: Any, **known: Any) -> None:
        inputs, name = list(node.input), node.name
        bias = _taken_bias(ctx, node, op_type)
        if op_type == "TFL_SOFTMAX":
            _scale_argument(ctx, node)
        handler(ctx, node, **known)
        if bias:
            add = ctx.insert_new_node_on_output(
                "Add", node.output[0], inputs=[node.output[0], bias]
            )
            add.skip_conversion = True
        lost = [x for x in inputs if _holds_numbers(ctx, x) and not ctx.find_output_consumers(x)]
        if lost:
            raise ValueError(f"tf2onnx loses {', '.join(lost[:3])}, inputs of {op_type} {name}")

    return call


def _taken_bias(ctx: Any, node: Any, op_type: str) -> str:
    """Name of the bias, which is no input of the node any more; empty when there is none."""
    position = _BIAS.get(op_type)
    if position is None or len(node.input) <= position:
        return ""
    bias: str = node.input[position]
    ctx.replace_inputs(node, node.input[:position])
    return bias


def _scale_argument(ctx: Any, node: Any) -> None:
    """Softmax(beta * x), by a product before it."""
    from tf2onnx import utils

    beta = node.get_attr_value("beta")
    if beta in (None, 1):
        return
    factor = ctx.make_const(utils.make_name("beta"), np.array(beta, np.float32)).output[0]
    product = ctx.insert_new_node_on_input(node, "Mul", [node.input[0], factor], input_index=0)
    product.skip_conversion = True
    node.set_attr("beta", 1.0)


def _holds_numbers(ctx: Any, name: str) -> bool:
    """Whether a tensor is of floats: integers say shapes and axes, which become attributes."""
    from onnx import TensorProto

    return ctx.get_dtype(name) in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
