"""Reductions along axes, and what looks for a place along one."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph, to_first
from converters.to_onnx.tflite.model import Operator, Tensor
from converters.to_onnx.tflite.optable import OPS

__all__ = ["axes_of"]

_REDUCERS = {
    "MEAN": "ReduceMean",
    "SUM": "ReduceSum",
    "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin",
    "REDUCE_PROD": "ReduceProd",
}


def axes_of(graph: Graph, axes: Tensor, rank: int) -> list[int]:
    """Axes that a constant names, counted from the front.

    Raises:
        ConversionFailed: There is no such axis.
    """
    found = graph.whole_numbers(axes)
    if any(not -rank <= n < rank for n in found):
        raise ConversionFailed(f"axes {found} of {rank}")
    return sorted({n % rank for n in found})


def _layout(graph: Graph, x: Tensor, axes: Sequence[int], *, keep: bool) -> tuple[bool, list[int]]:
    """Whether to work with channels first, and the axes there.

    Without the axes that go, the others have to be in the file's order.
    """
    rank = len(x.shape)
    order = to_first(rank)
    turned = sorted(order.index(axis) for axis in axes)
    left = [order[n] for n in range(rank) if n not in turned]
    if graph.is_first(x) and (keep or left == sorted(left)):
        return True, turned
    return False, [*axes]


@OPS.register(*_REDUCERS)
def reduce(
    graph: Graph,
    x: Tensor,
    axes: Tensor,
    *,
    keep_dims: bool = False,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write a mean, sum, maximum, minimum or product along axes."""
    named = axes_of(graph, axes, len(x.shape))
    first, turned = _layout(graph, x, named, keep=keep_dims)
    hint, kept = outputs[0].name, first and keep_dims
    name = graph.of(x, first=first)
    if not turned:
        graph.give(outputs[0], name, first=first)
        return
    target = graph.integers(turned, f"{hint}_axes")
    name = graph.emit(
        _REDUCERS[operator.op_type], [name, target], hint, keepdims=int(bool(keep_dims))
    )
    graph.give(outputs[0], name, first=kept)


@OPS.register("REDUCE_ANY", "REDUCE_ALL")
def reduce_logical(
    graph: Graph,
    x: Tensor,
    axes: Tensor,
    *,
    keep_dims: bool = False,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write whether one value, or every one, along axes is true."""
    hint = outputs[0].name
    whole = graph.emit("Cast", [graph.last(x)], f"{hint}_numbers", to=TensorProto.INT32)
    target = graph.integers(axes_of(graph, axes, len(x.shape)), f"{hint}_axes")
    kind = "ReduceMax" if operator.op_type == "REDUCE_ANY" else "ReduceMin"
    name = graph.emit(kind, [whole, target], f"{hint}_found", keepdims=int(bool(keep_dims)))
    graph.give(outputs[0], graph.emit("Cast", [name], hint, to=TensorProto.BOOL))


@OPS.register("ARG_MAX", "ARG_MIN")
def arg(
    graph: Graph, x: Tensor, axis: Tensor, *, operator: Operator, outputs: list[Tensor]
) -> None:
    """Write the place of the largest or smallest value along an axis; of equal ones the first."""
    (along,) = axes_of(graph, axis, len(x.shape))
    first, (turned,) = _layout(graph, x, [along], keep=False)
    kind, hint = "ArgMax" if operator.op_type == "ARG_MAX" else "ArgMin", outputs[0].name
    name = graph.emit(kind, [graph.of(x, first=first)], hint, axis=turned, keepdims=0)
    if outputs[0].dtype != "int64":
        to = helper.np_dtype_to_tensor_dtype(np.dtype(outputs[0].dtype))
        name = graph.emit("Cast", [name], hint, to=to)
    graph.give(outputs[0], name)


@OPS.register("TOPK_V2")
def top_k(graph: Graph, x: Tensor, k: Tensor, *, outputs: list[Tensor]) -> None:
    """Write the k largest values along the last axis, and their places."""
    count = graph.integers(graph.whole_numbers(k)[:1], f"{outputs[0].name}_k")
    hints = [outputs[0].name, f"{outputs[1].name}_wide"]
    values, places = graph.emit_many("TopK", [graph.last(x), count], hints, axis=-1)
    to = helper.np_dtype_to_tensor_dtype(np.dtype(outputs[1].dtype))
    graph.give(outputs[0], values)
    graph.give(outputs[1], graph.emit("Cast", [places], outputs[1].name, to=to))


@OPS.register("CUMSUM")
def cumsum(
    graph: Graph,
    x: Tensor,
    axis: Tensor,
    *,
    exclusive: bool = False,
    reverse: bool = False,
    outputs: list[Tensor],
) -> None:
    """Write sums of everything up to each place of an axis."""
    (along,) = axes_of(graph, axis, len(x.shape))
    name = graph.emit(
        "CumSum",
        [graph.last(x), graph.store(np.array(along, np.int64), f"{outputs[0].name}_axis")],
        outputs[0].name,
        exclusive=int(bool(exclusive)),
        reverse=int(bool(reverse)),
    )
    graph.give(outputs[0], name)


@OPS.register("BATCH_MATMUL")
def batch_matmul(
    graph: Graph,
    a: Tensor,
    b: Tensor,
    *,
    adj_x: bool = False,
    adj_y: bool = False,
    outputs: list[Tensor],
) -> None:
    """Write products of matrices, of which either may be turned."""
    names = []
    for tensor, turn in ((a, adj_x), (b, adj_y)):
        rank, name = len(tensor.shape), graph.last(tensor)
        if turn:
            order = [*range(rank - 2), rank - 1, rank - 2]
            name = graph.turned(name, order, f"{tensor.name}_turned")
        names.append(name)
    graph.give(outputs[0], graph.emit("MatMul", names, outputs[0].name))
