"""Bodies of ``If`` nodes put in the place of the node, where it is known which one runs.

PyTorch writes ``squeeze`` and code that asks for a shape as a branch, although a network always
takes the same one.  Without the node its layers are layers like all others.
"""

from collections.abc import Mapping
from dataclasses import replace

import onnx
from onnx import helper

from converters.graph import Graph, Node
from converters.onnx_file import OnnxFile
from inspector.surgery.names import free_name

__all__ = ["BODIES", "with_branches"]

BODIES = frozenset(("then_branch", "else_branch"))
"""Attributes of an ``If``."""


def with_branches(file: OnnxFile, taken: Mapping[int, bool]) -> OnnxFile:
    """A model in which some ``If`` nodes are the nodes of one of their bodies.

    Args:
        file: The model, which is left as it is.
        taken: The condition of each, by the index of the node.

    Returns:
        The same file with another ``model``. What an ``If`` made keeps its name; what its body
        makes besides does so too, unless the name is taken.
    """
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    graph = model.graph
    writer = _Writer(file.graph, graph)
    nodes: list[onnx.NodeProto] = []
    for node, proto in zip(file.graph.nodes, graph.node, strict=True):
        nodes += writer.branch(node, then=taken[node.index]) if node.index in taken else [proto]
    nodes = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    return replace(file, model=model)


class _Writer:
    """Writes bodies into the main graph.

    Args:
        graph: The model as it was.
        into: Where initialisers of bodies are put.
    """

    def __init__(self, graph: Graph, into: onnx.GraphProto) -> None:
        self._into = into
        self._names = {*graph.inputs, *graph.initialisers, *graph.tensors}

    def branch(self, node: Node, *, then: bool) -> list[onnx.NodeProto]:
        """Nodes of the body that runs, and those that give its results their names."""
        body: onnx.GraphProto = node.attributes["then_branch" if then else "else_branch"]
        made = {name for one in body.node for name in one.output if name}
        names: dict[str, str] = {}
        copied = []
        for result, wanted in zip(body.output, node.outputs, strict=False):
            if not wanted:
                continue
            if result.name in made and result.name not in names:
                names[result.name] = wanted
            else:  # a constant of the body, a tensor around it, or one that is given out twice
                copied.append((result.name, wanted))
        stored = [*body.initializer, *(one.values for one in body.sparse_initializer)]
        for name in [*made, *(one.name for one in stored)]:
            if name not in names:
                names[name] = free_name(name, self._names)
        for tensor in body.initializer:
            self._into.initializer.add().CopyFrom(tensor)
            self._into.initializer[-1].name = names[tensor.name]
        for sparse in body.sparse_initializer:
            self._into.sparse_initializer.add().CopyFrom(sparse)
            self._into.sparse_initializer[-1].values.name = names[sparse.values.name]
        found = [_renamed(one, names) for one in body.node]
        for source, wanted in copied:
            given = [names.get(source, source)]
            found.append(helper.make_node("Identity", given, [wanted], wanted))
        return found


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy of a node with other names, in the bodies inside it too."""
    found = onnx.NodeProto()
    found.CopyFrom(node)
    for position, name in enumerate(found.input):
        found.input[position] = names.get(name, name)
    for position, name in enumerate(found.output):
        found.output[position] = names.get(name, name)
    for attribute in found.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            _rename_inside(body, names)
    return found


def _rename_inside(body: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Other names for what a body reads of its surroundings; what it makes hides them."""
    own = {value.name for value in body.input} | {one.name for one in body.initializer}
    own |= {name for node in body.node for name in node.output}
    outer = {old: new for old, new in names.items() if old not in own}
    nodes = [_renamed(node, outer) for node in body.node]
    del body.node[:]
    body.node.extend(nodes)
    for value in body.output:
        value.name = outer.get(value.name, value.name)
