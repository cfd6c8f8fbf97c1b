"""What the converters of Keras, TensorFlow and TFLite share around tf2onnx.

tf2onnx does the conversion. Added here is what it gets wrong on models of today.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["OPSET", "PREFIXES", "repaired"]

OPSET = 17
"""The newest that tf2onnx writes pooling in; from 18 on it spells means by other operators."""

PREFIXES = ("serving_default_", "serve_", "StatefulPartitionedCall:")
"""What TensorFlow puts before the names of inputs and outputs."""


@contextlib.contextmanager
def repaired() -> Iterator[dict[str, Any]]:
    """tf2onnx with its known gaps closed, quiet; yields handlers for `custom_op_handlers`.

    * Keras compiles grouped convolutions by XLA, which tf2onnx cannot look into.
    * Erfc, in the exact GELU, is 1 - Erf.
    * Its transpose optimiser takes a scalar for a bias.
    * Some of its handlers of TFLite operators lose inputs, or an activation function.
    """
    import tensorflow as tf
    from tf2onnx import handler
    from tf2onnx.optimizer import transpose_optimizer

    from converters.to_onnx.tensorflow.tflite_operators import repaired_handlers

    optimiser = transpose_optimizer.TransposeOptimizer
    function, add = tf.function, optimiser._add_handler  # noqa: SLF001 - what is repaired
    mapping = handler.tfl_op.create_tfl_to_tf_mapping

    def plain(func: Any = None, **options: Any) -> Any:
        if options.get("jit_compile"):
            return func if func is not None else (lambda inner: inner)
        return function(func, **options) if func is not None else function(**options)

    def add_handler(self: Any, trans: Any, node: Any) -> Any:
        scalar = node.inputs[1].is_const() and np.ndim(node.inputs[1].get_tensor_value()) == 0
        if scalar:
            return self._handle_node_having_branches(trans, node)
        return add(self, trans, node)

    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    tf.function, optimiser._add_handler = plain, add_handler  # noqa: SLF001 - as above
    handler.tfl_op.create_tfl_to_tf_mapping = lambda: repaired_handlers(mapping())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield {"Erfc": (_erfc, [])}
    finally:
        tf.function, optimiser._add_handler = function, add  # noqa: SLF001 - as above
        handler.tfl_op.create_tfl_to_tf_mapping = staticmethod(mapping)
        logging.disable(disabled)


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
