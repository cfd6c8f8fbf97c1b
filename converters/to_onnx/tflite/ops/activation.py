"""Activation functions, as operators and fused into others."""

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph
from converters.to_onnx.tflite.model import Operator, Tensor
from converters.to_onnx.tflite.optable import OPS

__all__ = ["activated", "give_activated"]

_BOUNDS = {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
_FUSED = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
"""The schema's ``ActivationFunctionType``; 0 is none."""

_SAME_NAME = {"RELU": "Relu", "TANH": "Tanh", "LOGISTIC": "Sigmoid", "ELU": "Elu"}


def activated(graph: Graph, name: str, op_type: str, hint: str) -> str:
    """Write a rectifier, or another function without options; its value's name."""
    if op_type in _BOUNDS:
        low, high = (graph.number(n, f"{op_type.lower()}_bound") for n in _BOUNDS[op_type])
        return graph.emit("Clip", [name, low, high], hint)
    return graph.emit(_SAME_NAME[op_type], [name], hint)


def give_activated(
    graph: Graph, tensor: Tensor, name: str, fused: int, *, first: bool = False
) -> None:
    """Give an output its value behind the activation function that its operator holds.

    Args:
        graph: The graph.
        tensor: The output.
        name: The value before the activation function.
        fused: The option ``fused_activation_function``.
        first: Whether it has its channels first.

    Raises:
        ConversionFailed: A function that no model for images has (the sign bit).
    """
    if fused:
        op_type = _FUSED.get(fused, "")
        if op_type not in _BOUNDS and op_type not in _SAME_NAME:
            raise ConversionFailed(f"the fused activation function {op_type or fused} is unknown")
        name = graph.renamed(name, f"{tensor.name}_before_activation")
        name = activated(graph, name, op_type, tensor.name)
    graph.give(tensor, name, first=first)


@OPS.register("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "TANH", "LOGISTIC", "ELU")
def without_options(graph: Graph, x: Tensor, *, outputs: list[Tensor], operator: Operator) -> None:
    """Write max(x, 0) and its like."""
    first = graph.is_first(x)
    name = activated(graph, graph.of(x, first=first), operator.op_type, outputs[0].name)
    graph.give(outputs[0], name, first=first)


@OPS.register("HARD_SWISH")
def hard_swish(graph: Graph, x: Tensor, *, outputs: list[Tensor]) -> None:
    """Write x * min(max(x + 3, 0), 6) / 6."""
    first = graph.is_first(x)
    name = graph.emit("HardSwish", [graph.of(x, first=first)], outputs[0].name)
    graph.give(outputs[0], name, first=first)


@OPS.register("LEAKY_RELU")
def leaky_relu(graph: Graph, x: Tensor, *, alpha: float = 0.0, outputs: list[Tensor]) -> None:
    """Write max(x, alpha x)."""
    first = graph.is_first(x)
    name = graph.emit("LeakyRelu", [graph.of(x, first=first)], outputs[0].name, alpha=float(alpha))
    graph.give(outputs[0], name, first=first)


@OPS.register("PRELU")
def prelu(graph: Graph, x: Tensor, alpha: Tensor, *, outputs: list[Tensor]) -> None:
    """Write max(x, 0) + alpha min(x, 0); alpha broadcasts."""
    first, rank = graph.is_first(x), len(x.shape)
    slopes = graph.of(alpha, first=first, rank=rank)
    name = graph.emit("PRelu", [graph.of(x, first=first), slopes], outputs[0].name)
    graph.give(outputs[0], name, first=first)


@OPS.register("GELU")
def gelu(graph: Graph, x: Tensor, *, approximate: bool = False, outputs: list[Tensor]) -> None:
    """Write x Phi(x), exact or by its approximation with a tanh."""
    first, kind = graph.is_first(x), "tanh" if approximate else "none"
    name = graph.emit("Gelu", [graph.of(x, first=first)], outputs[0].name, approximate=kind)
    graph.give(outputs[0], name, first=first)


@OPS.register("SOFTMAX")
def softmax(graph: Graph, x: Tensor, *, beta: float = 1.0, outputs: list[Tensor]) -> None:
    """Write exp(beta x) / sum exp(beta x) along the last axis."""
    first = graph.is_first(x)
    name = graph.of(x, first=first)
    if beta != 1.0:
        factor = graph.number(beta, f"{outputs[0].name}_beta")
        name = graph.emit("Mul", [name, factor], f"{outputs[0].name}_scaled")
    name = graph.emit("Softmax", [name], outputs[0].name, axis=1 if first else -1)
    graph.give(outputs[0], name, first=first)


@OPS.register("LOG_SOFTMAX")
def log_softmax(graph: Graph, x: Tensor, *, outputs: list[Tensor]) -> None:
    """Write x - log sum exp(x) along the last axis."""
    first = graph.is_first(x)
    axis = 1 if first else -1
    name = graph.emit("LogSoftmax", [graph.of(x, first=first)], outputs[0].name, axis=axis)
    graph.give(outputs[0], name, first=first)
