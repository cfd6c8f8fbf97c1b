"""Control flow: a choice between two bodies, and a loop.

A body is a graph of its own in the file.  Its inputs are the operator's; ONNX's bodies read the
values of the graph around them by name, so only what a loop changes is handed from run to run.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph, carried_type
from converters.to_onnx.tflite.model import Subgraph, Tensor
from converters.to_onnx.tflite.optable import OPS
from converters.to_onnx.tflite.subgraph import needed, write_operators

__all__: list[str] = []


@OPS.register("IF")
def if_(
    graph: Graph,
    condition: Tensor,
    *xs: Tensor,
    then_subgraph_index: int = 0,
    else_subgraph_index: int = 0,
    outputs: list[Tensor],
) -> None:
    """Write one of two bodies, by a truth that is computed or known."""
    numbers = (then_subgraph_index, else_subgraph_index)
    for number in numbers:
        _require_ends(graph.subgraph(number), number, len(xs), len(outputs))
    if graph.is_constant(condition):
        number = numbers[0 if graph.stored(condition).any() else 1]
        part, inner = graph.subgraph(number), graph.inner(number, apart=False)
        _lend(graph, inner, part, xs)
        write_operators(inner, part)
        for out, index in zip(outputs, part.outputs, strict=True):
            graph.lend(out, _value(inner, part, index))
        return
    branches = {}
    for word, number in zip(("then_branch", "else_branch"), numbers, strict=True):
        part, inner = graph.subgraph(number), graph.inner(number, apart=True)
        _lend(graph, inner, part, xs)
        write_operators(inner, part)
        branches[word] = _body(inner, word, [], _ends(inner, part, part.outputs))
    names = graph.emit_many(
        "If", [_truth(graph, condition)], [out.name for out in outputs], **branches
    )
    for out, name in zip(outputs, names, strict=True):
        graph.lend(out, name)


@OPS.register("WHILE")
def while_(
    graph: Graph,
    *xs: Tensor,
    cond_subgraph_index: int = 0,
    body_subgraph_index: int = 0,
    outputs: list[Tensor],
) -> None:
    """Write a body that runs as long as another one says so.

    What the body hands on as it is, is not state: it stays the value around the loop, and a
    constant where it is one.
    """
    test, body = (graph.subgraph(n) for n in (cond_subgraph_index, body_subgraph_index))
    _require_ends(test, cond_subgraph_index, len(xs), 1)
    _require_ends(body, body_subgraph_index, len(xs), len(xs))
    states = [n for n in range(len(xs)) if body.outputs[n] != body.inputs[n]]
    first = graph.inner(cond_subgraph_index, apart=False)
    _lend(graph, first, test, xs)
    write_operators(first, test)
    begins = _truth(first, test.tensors[test.outputs[0]])

    inner = graph.inner(body_subgraph_index, apart=True)
    _lend(graph, inner, body, xs, apart=states)
    given = [inner.name(f"{outputs[0].name}_{word}") for word in ("step", "goes_on")]
    inputs = [
        helper.make_tensor_value_info(given[0], TensorProto.INT64, []),
        helper.make_tensor_value_info(given[1], TensorProto.BOOL, []),
    ]
    for n in states:
        tensor = body.tensors[body.inputs[n]]
        name = inner.name(tensor.name or "state")
        inputs.append(_declared(name, tensor))
        inner.lend(tensor, name)
    write_operators(inner, body)
    again = inner.inner(cond_subgraph_index, apart=False)
    for n, (index, x) in enumerate(zip(test.inputs, xs, strict=True)):
        if n in states:
            again.lend(test.tensors[index], _value(inner, body, body.outputs[n]))
        else:
            _hand(graph, again, x, test.tensors[index])
    write_operators(again, test)
    goes_on = _truth(again, test.tensors[test.outputs[0]])

    ends = [helper.make_tensor_value_info(goes_on, TensorProto.BOOL, [])]
    ends += _ends(inner, body, [body.outputs[n] for n in states])
    made = _body(inner, "body", inputs, ends)
    names = iter(
        graph.emit_many(
            "Loop",
            ["", begins, *(graph.last(xs[n]) for n in states)],
            [outputs[n].name for n in states],
            body=made,
        )
        if states
        else ()
    )
    for n, (x, out) in enumerate(zip(xs, outputs, strict=True)):
        if n in states:
            graph.lend(out, next(names))
        else:
            _hand(graph, graph, x, out)


def _require_ends(part: Subgraph, number: int, inputs: int, outputs: int) -> None:
    if (len(part.inputs), len(part.outputs)) != (inputs, outputs):
        raise ConversionFailed(
            f"graph {number} takes {len(part.inputs)} tensors and gives {len(part.outputs)}, "
            f"in the place of {inputs} and {outputs}"
        )
    if min((*part.inputs, *part.outputs), default=0) < 0:
        raise ConversionFailed(f"graph {number} leaves out an input or output")
    if len({*part.inputs}) < inputs:
        raise ConversionFailed(f"graph {number} names an input twice")


def _lend(
    graph: Graph, inner: Graph, part: Subgraph, xs: Sequence[Tensor], apart: Sequence[int] = ()
) -> None:
    """Give the inputs of a body the values around it, but those that are handed to it apart."""
    for n, (x, index) in enumerate(zip(xs, part.inputs, strict=True)):
        if n not in apart:
            _hand(graph, inner, x, part.tensors[index])


def _hand(graph: Graph, inner: Graph, x: Tensor, tensor: Tensor) -> None:
    """Give a tensor the value of another one of a graph around it."""
    same = tensor.quantisation is x.quantisation is None or (
        x.quantisation is not None and x.quantisation.same_as(tensor.quantisation)
    )
    if graph.is_constant(x) and same:
        inner.keep(tensor, graph.stored(x))
    else:
        inner.lend(tensor, graph.last(x))


def _value(inner: Graph, part: Subgraph, index: int) -> str:
    """Name of an output of a body."""
    tensor = part.tensors[index]
    if not inner.knows(tensor):
        raise ConversionFailed(f"{tensor.name or index} of its body is never computed")
    return inner.last(tensor)


def _truth(graph: Graph, tensor: Tensor) -> str:
    """Name of a truth value without axes."""
    if not graph.knows(tensor) or tensor.dtype != "bool":
        raise ConversionFailed(f"{tensor.name or tensor.index} is not a truth value")
    name = graph.last(tensor)
    if not tensor.shape:
        return name
    shape = graph.store(np.zeros(0, np.int64), f"{tensor.name}_no_axes")
    return graph.emit("Reshape", [name, shape], f"{tensor.name}_alone")


def _declared(name: str, tensor: Tensor) -> onnx.ValueInfoProto:
    """The type of a body's input or output; a free shape may change from run to run."""
    shape = None if tensor.free else tensor.shape
    return helper.make_tensor_value_info(name, carried_type(tensor), shape)


def _body(
    inner: Graph, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> onnx.GraphProto:
    """A body of ONNX: its outputs are values of nodes of its own, each once."""
    ends = []
    for value in outputs:
        end = onnx.ValueInfoProto()
        end.CopyFrom(value)
        end.name = inner.emit("Identity", [value.name], f"{value.name}_out")
        ends.append(end)
    nodes = needed(inner.nodes, [end.name for end in ends])
    return helper.make_graph(nodes, name, inputs, ends)


def _ends(inner: Graph, part: Subgraph, places: Sequence[int]) -> list[onnx.ValueInfoProto]:
    """Values and types of outputs of a body."""
    return [_declared(_value(inner, part, n), part.tensors[n]) for n in places]
