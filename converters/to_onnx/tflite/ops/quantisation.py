"""Operators between integers and the numbers that they stand for."""

from converters.to_onnx.tflite.graph import Graph, is_quantised
from converters.to_onnx.tflite.model import Tensor
from converters.to_onnx.tflite.optable import OPS

__all__: list[str] = []


@OPS.register("DEQUANTIZE")
def dequantize(graph: Graph, x: Tensor, *, outputs: list[Tensor]) -> None:
    """Take integers, or floats of 16 bits, for float32: they are carried as such already."""
    if graph.is_constant(x):
        if is_quantised(x):  # stays stored in its levels
            graph.give(outputs[0], graph.last(x))
        else:
            graph.keep(outputs[0], graph.array(x))
        return
    first = graph.is_first(x)
    graph.give(outputs[0], graph.of(x, first=first), first=first)


@OPS.register("QUANTIZE")
def quantize(graph: Graph, x: Tensor, *, outputs: list[Tensor]) -> None:
    """Round to the steps of the output."""
    first = graph.is_first(x)
    graph.give(outputs[0], graph.of(x, first=first), first=first)


@OPS.register("FAKE_QUANT")
def fake_quant(
    graph: Graph,
    x: Tensor,
    *,
    min: float = 0.0,  # noqa: A002 - the schema's names
    max: float = 0.0,  # noqa: A002
    outputs: list[Tensor],
) -> None:
    """Clip to the range that training rounded to, as the interpreter does without rounding."""
    first, hint = graph.is_first(x), outputs[0].name
    low, high = graph.number(min, f"{hint}_least"), graph.number(max, f"{hint}_most")
    name = graph.emit("Clip", [graph.of(x, first=first), low, high], hint)
    graph.give(outputs[0], name, first=first)


@OPS.register("DENSIFY")
def densify(graph: Graph, x: Tensor, *, outputs: list[Tensor]) -> None:
    """Take a sparse constant as it was written out when the file was read."""
    graph.keep(outputs[0], graph.stored(x))
