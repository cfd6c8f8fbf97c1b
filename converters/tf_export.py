"""What the converters of Keras, TensorFlow and TFLite share around tf2onnx.

tf2onnx does the conversion. Added here is what it gets wrong on models of today (three repairs,
below), a free batch axis where a file wrote a 1, and plain names of inputs and outputs.
"""

import contextlib
import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from converters.errors import ConversionFailed
from converters.source import InputSpec

__all__ = [
    "OPSET", "free_batch", "one_by_one", "repaired", "specs", "tidy", "versions", "write",
]  # fmt: skip

Array = NDArray[Any]

OPSET = 17
"""The newest that tf2onnx writes pooling in; from 18 on it spells means by other operators."""

_PREFIXES = ("serving_default_", "serve_", "StatefulPartitionedCall:")


@contextlib.contextmanager
def repaired() -> Iterator[dict[str, Any]]:
    """tf2onnx with its known gaps closed, quiet; yields handlers for `custom_op_handlers`.

    * Keras compiles grouped convolutions by XLA, which tf2onnx cannot look into.
    * Erfc, in the exact GELU, is 1 - Erf.
    * Its transpose optimiser takes a scalar for a bias.
    """
    import tensorflow as tf  # noqa: PLC0415 - the framework, in the child alone
    from tf2onnx.optimizer import transpose_optimizer  # noqa: PLC0415 - as above

    optimiser = transpose_optimizer.TransposeOptimizer
    function, add = tf.function, optimiser._add_handler  # noqa: SLF001 - what is repaired

    def plain(func: Any = None, **options: Any) -> Any:  # noqa: ANN401 - tf.function's own
        if options.get("jit_compile"):
            return func if func is not None else (lambda inner: inner)
        return function(func, **options) if func is not None else function(**options)

    def add_handler(self: Any, trans: Any, node: Any) -> Any:  # noqa: ANN401 - tf2onnx's own
        scalar = node.inputs[1].is_const() and np.ndim(node.inputs[1].get_tensor_value()) == 0
        if scalar:
            return self._handle_node_having_branches(trans, node)
        return add(self, trans, node)

    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    tf.function, optimiser._add_handler = plain, add_handler  # noqa: SLF001 - as above
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield {"Erfc": (_erfc, [])}
    finally:
        tf.function, optimiser._add_handler = function, add  # noqa: SLF001 - as above
        logging.disable(disabled)


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> Any:  # noqa: ANN401 - tf2onnx's own
    """Erfc(x) = 1 - Erf(x)."""
    del args
    kinds, shapes = [ctx.get_dtype(node.output[0])], [ctx.get_shape(node.output[0])]
    one = ctx.make_const(f"{name}_one", np.ones((), np.float32))
    erf = ctx.make_node("Erf", [node.input[0]], name=f"{name}_erf", dtypes=kinds, shapes=shapes)
    ctx.remove_node(node.name)
    return ctx.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=node.output,
                         dtypes=kinds, shapes=shapes)  # fmt: skip


def free_batch(model: onnx.ModelProto, batch: int = 1) -> None:
    """Leave the first axis of inputs and outputs free, also in constant targets of `Reshape`."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_param = "batch"
    del model.graph.value_info[:]
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        target = numpy_helper.to_array(constants[node.input[1]]).copy()
        if target.size > 1 and target[0] == batch and 0 not in target:
            target[0] = 0  # copied from the input
            name = f"{node.input[1]}_free_{index}"
            model.graph.initializer.append(numpy_helper.from_array(target, name))
            node.input[1] = name


def tidy(model: onnx.ModelProto) -> None:
    """Give inputs and outputs plain names: ``image`` for ``serving_default_image:0``.

    A free batch axis is called ``batch`` in all of them.
    """
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].WhichOneof("value") != "dim_value":
            dims[0].dim_param = "batch"
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    for value in (*model.graph.input, *model.graph.output):
        plain = value.name.partition(":")[0]
        for prefix in _PREFIXES:
            plain = plain.removeprefix(prefix)
        if plain and plain != value.name and plain not in taken:
            _rename(model, value.name, plain)
            taken.add(plain)


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """The inputs of a model."""
    found = []
    for value in model.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = tuple(
            dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else None
            for dim in value.type.tensor_type.shape.dim
        )
        found.append(InputSpec(value.name, shape, kind.name))
    return tuple(found)


def write(model: onnx.ModelProto, draft: Path) -> None:
    """Write a model without what names this machine or this run.

    Raises:
        ConversionFailed: It holds operators that ONNX does not have (tf2onnx writes them down
            without a word), or does not fit into one file.
    """
    unknown = sorted({
        node.op_type for node in model.graph.node
        if not node.domain and not onnx.defs.has(node.op_type)
    })  # fmt: skip
    if unknown:
        raise ConversionFailed(
            "operators that ONNX does not have: " + ", ".join(unknown[:10]),
            hint="a model for inference has none of them: export it without training or input code",
        )
    model.ClearField("doc_string")
    model.graph.name = "model"
    del model.metadata_props[:]
    try:
        draft.write_bytes(model.SerializeToString(deterministic=True))
    except ValueError as error:
        raise ConversionFailed(
            f"weights of more than 2 GiB do not fit into one file ({error})", where=draft.name
        ) from None


def versions(*packages: str) -> Mapping[str, str]:
    """Versions of the packages that took part, of those that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def one_by_one(run: Callable[[Array], Sequence[Array]], images: Array) -> list[Array]:
    """Run a source whose batch is fixed at one, sample by sample."""
    parts = [run(images[index : index + 1]) for index in range(len(images))]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
