"""What the converters of Keras and TensorFlow share around tf2onnx.

tf2onnx does the conversion. Added here is what it gets wrong on models of today.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

__all__ = ["OPSET", "PREFIXES", "from_function", "repaired"]

OPSET = 17
"""The newest that tf2onnx writes pooling in; from 18 on it spells means by other operators."""

PREFIXES = ("serving_default_", "serve_", "StatefulPartitionedCall:")
"""What TensorFlow puts before the names of inputs and outputs."""


@contextlib.contextmanager
def repaired() -> Iterator[dict[str, Any]]:
    """tf2onnx with its known gaps closed, quiet; yields handlers for `custom_op_handlers`.

    * Keras compiles grouped convolutions by XLA, which tf2onnx cannot look into.
    * Erfc, in the exact GELU, is 1 - Erf.
    * Its transpose optimiser takes a scalar for a bias, and multiplies the weights of a convolution
      by a factor that only one branch behind it has.
    * Keras' argmax reads the sign of a zero from its bits, for which ONNX 17 has no operator.
    """
    import tensorflow as tf
    from tf2onnx.optimizer import transpose_optimizer

    optimiser = transpose_optimizer.TransposeOptimizer
    function = tf.function
    add, multiply = optimiser._add_handler, optimiser._mul_handler  # noqa: SLF001 - what is repaired

    def plain(func: Any = None, **options: Any) -> Any:
        if options.get("jit_compile"):
            return func if func is not None else (lambda inner: inner)
        return function(func, **options) if func is not None else function(**options)

    def add_handler(self: Any, trans: Any, node: Any) -> Any:
        scalar = node.inputs[1].is_const() and np.ndim(node.inputs[1].get_tensor_value()) == 0
        if scalar:
            return self._handle_node_having_branches(trans, node)
        return add(self, trans, node)

    def mul_handler(self: Any, trans: Any, node: Any) -> Any:
        source = trans.inputs[0]
        within = source is None or source.graph is trans.graph
        return multiply(self, trans, node) if within else False

    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    tf.function = plain
    optimiser._add_handler, optimiser._mul_handler = add_handler, mul_handler  # noqa: SLF001 - as above
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield {
                "BitwiseAnd": (_sign_bit, []),
                "Bitcast": (_left, []),
                "Erfc": (_erfc, []),
            }
    finally:
        tf.function = function
        optimiser._add_handler, optimiser._mul_handler = add, multiply  # noqa: SLF001 - as above
        logging.disable(disabled)


def from_function(call: Any, signature: Sequence[Any], handlers: Any, opset: int) -> Any:
    """The ONNX model of a TensorFlow function, whose captured tensors become constants.

    tf2onnx's own function takes captured constants (onnx-tf writes weights so) for inputs.

    Args:
        call: A ``tf.function`` of tensors.
        signature: One ``tf.TensorSpec`` per tensor.
        handlers: What ``repaired`` yields.
        opset: Version of the default operator set.
    """
    import tensorflow as tf
    from tf2onnx import convert, tf_loader

    concrete = call.get_concrete_function(*signature)
    captured = {tensor.name for _, tensor in concrete.graph.captures}
    inputs = [tensor.name for tensor in concrete.inputs if tensor.name not in captured]
    outputs = [t.name for t in concrete.outputs if t.dtype != tf.dtypes.resource]
    names = convert.tensor_names_from_structed(concrete, inputs, outputs)
    with tf.device("/cpu:0"):
        frozen = tf_loader.from_function(concrete, inputs, outputs)
        proto, _ = convert._convert_common(  # noqa: SLF001 - as tf2onnx's own from_function does
            frozen,
            name=concrete.name,
            continue_on_error=True,
            opset=opset,
            custom_op_handlers=handlers,
            input_names=inputs,
            output_names=outputs,
            tensors_to_rename=names,
        )
    return proto


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> Any:
    """Erfc(x) = 1 - Erf(x)."""
    del args
    kinds, shapes = [ctx.get_dtype(node.output[0])], [ctx.get_shape(node.output[0])]
    one = ctx.make_const(f"{name}_one", np.ones((), np.float32))
    erf = ctx.make_node("Erf", [node.input[0]], name=f"{name}_erf", dtypes=kinds, shapes=shapes)
    ctx.remove_node(node.name)
    return ctx.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        name=name,
        outputs=node.output,
        dtypes=kinds,
        shapes=shapes,
    )


def _left(ctx: Any, node: Any, name: str, args: Any) -> Any:
    """A node as it is: bits of a number go where only their sign is read (`_sign_bit`)."""
    del ctx, name, args
    return node


def _sign_bit(ctx: Any, node: Any, name: str, args: Any) -> Any:
    """Bits of a float32 & 0x80000000: the lowest integer for x < 0 and for -0.0, else 0."""
    del args
    lowest = int(np.iinfo(np.int32).min)
    bits = next((inner for inner in node.inputs if inner.type == "Bitcast"), None)
    masks = [inner.get_tensor_value() for inner in node.inputs if inner.is_const()]
    if bits is None or masks != [lowest] or ctx.get_dtype(bits.input[0]) != TensorProto.FLOAT:
        return node  # and the operators that ONNX does not have are named
    shape, x = ctx.get_shape(node.output[0]), bits.input[0]

    def make(kind: str, inputs: list[str], dtype: int) -> str:
        made = ctx.make_node(kind, inputs, dtypes=[dtype], shapes=[shape])
        return str(made.output[0])

    zero = ctx.make_const(f"{name}_zero", np.zeros((), np.float32)).output[0]
    below = make("Less", [x, zero], TensorProto.BOOL)
    inverse = make("Reciprocal", [x], TensorProto.FLOAT)  # of -0.0 it is -inf
    negative = make(
        "Or", [below, make("Less", [inverse, zero], TensorProto.BOOL)], TensorProto.BOOL
    )
    values = [
        ctx.make_const(f"{name}_{value}", np.array(value, np.int32)).output[0]
        for value in (lowest, 0)
    ]
    outputs = list(node.output)
    ctx.remove_node(node.name)
    return ctx.make_node(
        "Where",
        [negative, *values],
        name=name,
        outputs=outputs,
        dtypes=[TensorProto.INT32],
        shapes=[shape],
    )
