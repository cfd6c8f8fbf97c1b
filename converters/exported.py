"""What is done to a model that another exporter made, before it is written as a draft.

Plain names of inputs and outputs, and nothing in the file that names this machine or this run.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from converters.errors import ConversionFailed
from converters.source import InputSpec

__all__ = ["one_by_one", "specs", "tidy", "write"]

Array = NDArray[Any]


def tidy(model: onnx.ModelProto, prefixes: Sequence[str] = (), outputs: Sequence[str] = ()) -> None:
    """Give inputs and outputs plain names: ``image`` for ``serving_default_image:0``.

    A free batch axis is called ``batch`` in all of them.

    Args:
        model: Changed in place.
        prefixes: What exporters put before the names that the author gave.
        outputs: The author's names of the outputs, in order, where the exporter dropped them.
    """
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].WhichOneof("value") != "dim_value":
            dims[0].dim_param = "batch"
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    given = [*("" for _ in model.graph.input), *(outputs or ("" for _ in model.graph.output))]
    for value, name in zip((*model.graph.input, *model.graph.output), given, strict=True):
        plain = name or value.name.partition(":")[0]
        for prefix in prefixes:
            plain = plain.removeprefix(prefix)
        if plain and plain != value.name and plain not in taken:
            _rename(model, value.name, plain)
            taken.add(plain)


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    _rename_in(model.graph, old, new)


def _rename_in(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a tensor in a graph and in its bodies, which read it by its name."""
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename_in(attribute.g, old, new)


def specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """The inputs of a model, with their spans of values where they are quantised at once."""
    found, constants = [], {t.name: t for t in model.graph.initializer}
    for value in model.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = tuple(
            dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else None
            for dim in value.type.tensor_type.shape.dim
        )
        found.append(InputSpec(value.name, shape, kind.name, _span(model, value.name, constants)))
    return tuple(found)


def _span(
    model: onnx.ModelProto, name: str, constants: Mapping[str, onnx.TensorProto]
) -> tuple[float, float] | None:
    """Lowest and highest value that the quantiser of an input can represent."""
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] != name:
            continue
        if len(node.input) < 3 or not {node.input[1], node.input[2]} <= constants.keys():
            return None
        scale, zero = (numpy_helper.to_array(constants[key]) for key in node.input[1:3])
        if scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu":
            return None
        bounds = np.iinfo(zero.dtype)
        step, middle = float(scale.reshape(())), int(zero.reshape(()))
        return (bounds.min - middle) * step, (bounds.max - middle) * step
    return None


def write(model: onnx.ModelProto, draft: Path) -> None:
    """Write a model without what names this machine or this run.

    Raises:
        ConversionFailed: It holds operators that ONNX does not have (exporters write them down
            without a word), or does not fit into one file.
    """
    unknown = sorted(
        {
            node.op_type
            for node in model.graph.node
            if not node.domain and not onnx.defs.has(node.op_type)
        }
    )
    if unknown:
        random = any("Random" in kind for kind in unknown)
        raise ConversionFailed(
            "operators that ONNX does not have: " + ", ".join(unknown[:10]),
            hint=_AUGMENTED if random else _FOR_INFERENCE,
        )
    if _computes_in(model, onnx.TensorProto.BFLOAT16):
        raise ConversionFailed(
            "computes in bfloat16, which ONNX Runtime does not on a processor",
            hint="save it with layers that compute in float32 (Keras: build it under the policy "
            "'float32', and load the weights)",
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


_FOR_INFERENCE = "a model for inference has none of them: export it without training or input code"
_AUGMENTED = (
    "it draws random numbers: layers of augmentation (RandomFlip and the like) are at work in it. "
    "Give its .keras file, in which they rest, or export the network without them"
)


def _computes_in(model: onnx.ModelProto, kind: int) -> bool:
    """Whether a node makes values of a type."""
    return any(
        attribute.name == "to" and attribute.i == kind
        for node in model.graph.node
        for attribute in node.attribute
    ) or any(tensor.data_type == kind for tensor in model.graph.initializer)


def one_by_one(run: Callable[[Array], Sequence[Array]], images: Array) -> list[Array]:
    """Run a source whose batch is fixed at one, sample by sample."""
    parts = [run(images[index : index + 1]) for index in range(len(images))]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
