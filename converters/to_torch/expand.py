"""Operators that the table does not hold, replaced by the standard's own function bodies."""

from collections.abc import Iterator

import onnx
import onnx.inliner
import onnx.shape_inference

from converters.graph import DEFAULT_DOMAINS, Graph
from converters.graph.standard_bodies import schema_with_body
from converters.to_torch.optable import OpTable

__all__ = ["expand_functions"]

DOMAIN = "onnx-inspector.body"
"""Domain of the local functions that stand for bodies while they are inlined."""

MAX_ROUNDS = 8
"""Bodies call operators that have bodies; the standard nests them three deep."""


def expand_functions(graph: Graph, table: OpTable) -> Graph:
    """Replace operators that the table does not hold by their function bodies.

    Each such node is made to call a local function of its own, which is then inlined: the
    inliner's own way of expanding the standard's functions aborts when a body depends on types
    and an optional input is omitted.

    Args:
        graph: The main graph of a model; a body is expanded together with the graph around it.
        table: The operators that need no expansion.

    Returns:
        The graph, made anew if anything had to be replaced.
    """
    if graph.proto is not graph.model.graph or not any(_missing(graph.model.graph, table, graph)):
        return graph
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for _ in range(MAX_ROUNDS):
        model = _with_types(model)
        functions = list(_redirect(model.graph, table, graph.beside(model=model)))
        if not functions:
            break
        model.functions.extend(functions)
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
        model = onnx.inliner.inline_local_functions(model)
        kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    return graph.beside(model=model)


def _missing(
    proto: onnx.GraphProto, table: OpTable, graph: Graph
) -> Iterator[tuple[onnx.NodeProto, onnx.defs.OpSchema]]:
    """Nodes without an entry whose schema has a body, those of inner graphs included."""
    for node in proto.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _missing(attribute.g, table, graph)
        domain = "" if node.domain in DEFAULT_DOMAINS else node.domain
        opset = graph.opset(domain)
        if table.lookup(domain, node.op_type, opset) is None:
            schema = schema_with_body(node.domain, node.op_type, opset)
            if schema is not None:
                yield node, schema


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types that bodies depend on; as it was where they cannot be inferred."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        return model


def _redirect(proto: onnx.GraphProto, table: OpTable, graph: Graph) -> Iterator[onnx.FunctionProto]:
    """Point every node that needs its body to a function of its own."""
    types = _types(proto)
    for number, (node, schema) in enumerate(list(_missing(proto, table, graph))):
        body = _body(node, schema, graph.opset(node.domain), types)
        if body is None:
            continue
        body.name, body.domain = f"{node.op_type}_{number}", DOMAIN
        node.op_type, node.domain = body.name, DOMAIN
        for entry in body.opset_import:
            # The newest body that is not above the model's opset holds for that opset too; the
            # inliner leaves a function that names an older one.
            entry.version = graph.opset(entry.domain)
        taken = set(body.attribute) | {attribute.name for attribute in body.attribute_proto}
        attributes = [attribute for attribute in node.attribute if attribute.name in taken]
        del node.attribute[:]
        node.attribute.extend(attributes)
        yield body


def _types(proto: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    types = {v.name: v.type for v in (*proto.input, *proto.output, *proto.value_info)}
    for tensor in proto.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    for node in proto.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                types |= _types(attribute.g)
    return types


def _body(
    node: onnx.NodeProto,
    schema: onnx.defs.OpSchema,
    opset: int,
    types: dict[str, onnx.TypeProto],
) -> onnx.FunctionProto | None:
    """The schema's body for this node; None where it has none for this opset."""
    if schema.has_function:
        usable = [v for v in schema.function_opset_versions if v <= opset]
        if not usable:
            return None
        text = schema.get_function_with_opset_version(max(usable))
    else:
        usable = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        given = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
        text = schema.get_context_dependent_function_with_opset_version(
            max(usable, default=schema.since_version), node.SerializeToString(), given
        )
    return onnx.FunctionProto.FromString(text) if text else None
