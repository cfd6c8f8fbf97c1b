"""Operators that the ONNX standard also writes as a function body of simpler ones."""

from typing import Any

import onnx

from converters.graph import Graph, Node
from converters.graph.operators import has_row

__all__ = ["is_known", "schema_with_body"]


def schema_with_body(domain: str, op_type: str, opset: int) -> Any:
    """The schema of an operator that the standard writes as a body too; None of others.

    Args:
        domain: As the file spells it.
        op_type: The operator's type.
        opset: The file's version of the domain.
    """
    try:
        schema: Any = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def is_known(graph: Graph, node: Node) -> bool:
    """Whether a node's operator has its facts, or a body of operators of the standard."""
    if has_row(node):
        return True
    return schema_with_body(node.domain, node.op_type, graph.opset(node.domain)) is not None
