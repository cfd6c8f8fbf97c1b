"""Operators that work element by element."""

import numpy as np
from onnx import helper

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph, is_quantised
from converters.to_onnx.tflite.model import FLOATS, Operator, Tensor
from converters.to_onnx.tflite.ops.activation import give_activated
from converters.to_onnx.tflite.optable import OPS

__all__ = ["broadcast"]

_ARITHMETIC = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}
_PAIRS = {
    "POW": "Pow",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "EQUAL": "Equal",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual",
    "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual",
    "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or",
}
_SINGLE = {
    "ABS": "Abs",
    "NEG": "Neg",
    "EXP": "Exp",
    "LOG": "Log",
    "SQRT": "Sqrt",
    "SIN": "Sin",
    "COS": "Cos",
    "CEIL": "Ceil",
    "FLOOR": "Floor",
    "ROUND": "Round",
    "SIGN": "Sign",
    "LOGICAL_NOT": "Not",
}


def broadcast(graph: Graph, *tensors: Tensor, rank: int) -> tuple[list[str], bool]:
    """Names of tensors in one layout, and whether it has channels first."""
    whole = any(graph.is_first(t) and len(t.shape) == rank for t in tensors)
    first = whole and rank > 2
    return [
        graph.of(t, first=first, rank=rank) if t.shape or graph.is_constant(t) else graph.last(t)
        for t in tensors
    ], first


@OPS.register(*_ARITHMETIC)
def arithmetic(
    graph: Graph,
    a: Tensor,
    b: Tensor,
    *,
    fused_activation_function: int = 0,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write a sum, difference, product or quotient."""
    names, first = broadcast(graph, a, b, rank=len(outputs[0].shape))
    name = graph.emit(_ARITHMETIC[operator.op_type], names, outputs[0].name)
    give_activated(graph, outputs[0], name, fused_activation_function, first=first)


@OPS.register(*_PAIRS)
def pair(graph: Graph, a: Tensor, b: Tensor, *, operator: Operator, outputs: list[Tensor]) -> None:
    """Write a function of two tensors that ONNX has under another name."""
    names, first = broadcast(graph, a, b, rank=len(outputs[0].shape))
    name = graph.emit(_PAIRS[operator.op_type], names, outputs[0].name)
    graph.give(outputs[0], name, first=first)


@OPS.register("NOT_EQUAL")
def not_equal(graph: Graph, a: Tensor, b: Tensor, *, outputs: list[Tensor]) -> None:
    """Write whether two tensors differ."""
    names, first = broadcast(graph, a, b, rank=len(outputs[0].shape))
    same = graph.emit("Equal", names, f"{outputs[0].name}_equal")
    graph.give(outputs[0], graph.emit("Not", [same], outputs[0].name), first=first)


@OPS.register("SQUARED_DIFFERENCE")
def squared_difference(graph: Graph, a: Tensor, b: Tensor, *, outputs: list[Tensor]) -> None:
    """Write (a - b)^2."""
    names, first = broadcast(graph, a, b, rank=len(outputs[0].shape))
    apart = graph.emit("Sub", names, f"{outputs[0].name}_difference")
    graph.give(outputs[0], graph.emit("Mul", [apart, apart], outputs[0].name), first=first)


@OPS.register("FLOOR_DIV")
def floor_div(graph: Graph, a: Tensor, b: Tensor, *, outputs: list[Tensor]) -> None:
    """Write floor(a / b)."""
    names, first = broadcast(graph, a, b, rank=len(outputs[0].shape))
    hint = outputs[0].name
    if a.dtype in FLOATS or is_quantised(a):
        quotient = graph.emit("Div", names, f"{hint}_quotient")
        graph.give(outputs[0], graph.emit("Floor", [quotient], hint), first=first)
        return
    rest = graph.emit("Mod", names, f"{hint}_rest")  # of the divisor's sign, as Python's
    whole = graph.emit("Sub", [names[0], rest], f"{hint}_multiple")
    graph.give(outputs[0], graph.emit("Div", [whole, names[1]], hint), first=first)


@OPS.register("FLOOR_MOD")
def floor_mod(graph: Graph, a: Tensor, b: Tensor, *, outputs: list[Tensor]) -> None:
    """Write a - b floor(a / b)."""
    names, first = broadcast(graph, a, b, rank=len(outputs[0].shape))
    hint = outputs[0].name
    if a.dtype not in FLOATS:
        graph.give(outputs[0], graph.emit("Mod", names, hint), first=first)
        return
    quotient = graph.emit("Div", names, f"{hint}_quotient")
    times = graph.emit("Floor", [quotient], f"{hint}_times")
    whole = graph.emit("Mul", [times, names[1]], f"{hint}_multiple")
    graph.give(outputs[0], graph.emit("Sub", [names[0], whole], hint), first=first)


@OPS.register(*_SINGLE)
def single(graph: Graph, x: Tensor, *, operator: Operator, outputs: list[Tensor]) -> None:
    """Write a function of one tensor that ONNX has under another name."""
    first = graph.is_first(x)
    name = graph.emit(_SINGLE[operator.op_type], [graph.of(x, first=first)], outputs[0].name)
    graph.give(outputs[0], name, first=first)


@OPS.register("SQUARE")
def square(graph: Graph, x: Tensor, *, outputs: list[Tensor]) -> None:
    """Write x^2."""
    first = graph.is_first(x)
    name = graph.of(x, first=first)
    graph.give(outputs[0], graph.emit("Mul", [name, name], outputs[0].name), first=first)


@OPS.register("RSQRT")
def rsqrt(graph: Graph, x: Tensor, *, outputs: list[Tensor]) -> None:
    """Write 1 / sqrt(x)."""
    first, hint = graph.is_first(x), outputs[0].name
    root = graph.emit("Sqrt", [graph.of(x, first=first)], f"{hint}_root")
    graph.give(outputs[0], graph.emit("Reciprocal", [root], hint), first=first)


@OPS.register("ZEROS_LIKE")
def zeros_like(graph: Graph, x: Tensor, *, outputs: list[Tensor]) -> None:
    """Write zeros of the shape of x."""
    dtype = "float32" if is_quantised(x) or x.dtype == "float16" else x.dtype
    zeros = helper.make_tensor("value", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [1], [0])
    shape = graph.emit("Shape", [graph.last(x)], f"{outputs[0].name}_shape")
    graph.give(outputs[0], graph.emit("ConstantOfShape", [shape], outputs[0].name, value=zeros))


@OPS.register("ADD_N")
def add_n(graph: Graph, *xs: Tensor, outputs: list[Tensor]) -> None:
    """Write a sum of many tensors."""
    names, first = broadcast(graph, *xs, rank=len(outputs[0].shape))
    graph.give(outputs[0], graph.emit("Sum", names, outputs[0].name), first=first)


@OPS.register("SELECT", "SELECT_V2")
def select(
    graph: Graph,
    condition: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write a where a condition holds, else b."""
    rank = len(outputs[0].shape)
    if operator.op_type == "SELECT" and len(condition.shape) == 1 < rank:
        # Of one value per row, in the older operator.
        sizes = graph.integers([-1] + [1] * (rank - 1), f"{outputs[0].name}_rows")
        rows = graph.emit("Reshape", [graph.last(condition), sizes], f"{outputs[0].name}_chosen")
        names, first = [rows, graph.last(a), graph.last(b)], False
    else:
        names, first = broadcast(graph, condition, a, b, rank=rank)
    graph.give(outputs[0], graph.emit("Where", names, outputs[0].name), first=first)


@OPS.register("CAST")
def cast(graph: Graph, x: Tensor, *, outputs: list[Tensor]) -> None:
    """Write a change of type; a quantised tensor's integers are cast, not what they stand for."""
    first, out = graph.is_first(x), outputs[0]
    if is_quantised(x) or is_quantised(out):
        raise ConversionFailed("casts the integers of a quantised tensor")
    dtype = "float32" if out.dtype == "float16" else out.dtype
    if graph.is_constant(x):
        graph.keep(out, graph.array(x).astype(dtype))
        return
    try:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    except TypeError:
        raise ConversionFailed(f"casts to {dtype}") from None
    name = graph.emit("Cast", [graph.of(x, first=first)], out.name, to=kind)
    graph.give(out, name, first=first)
