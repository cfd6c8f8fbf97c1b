"""Element-wise nodes on maps of features, moved to the side on which channels come first.

Exporters from frameworks that keep channels last (jax2onnx, others from TensorFlow) write

    Conv ─ Transpose ─ Add ─ Relu ─┬─ Transpose ─ Conv
                  other branch ─┘   └─ Add

in which what the convolution becomes exists as (N, h, w, C) alone.  What works element by element
gives the same numbers on either side, so it is moved in front of the ``Transpose``:

    Conv ─ Add ─ Relu ─ Transpose ─┬─ Transpose ─ Conv
    other ─┘                       └─ Add

Every tensor that is read keeps its name and its values, bit for bit; the map (N, C, h, w) is called
``NAME_channels_first``.  ONNX Runtime cancels the pairs of ``Transpose`` when it loads the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx
from onnx import helper

from converters.graph.operators import facts_of
from converters.onnx_file.scopes import Scope, scopes

__all__ = ["move_channels_first"]

_TO_LAST = [0, 2, 3, 1]
_DEFAULT = ("", "ai.onnx")
_LEGACY = frozenset({"axis", "broadcast", "consumed_inputs"})  # broadcasting before opset 7


def move_channels_first(model: onnx.ModelProto) -> None:
    """Move element-wise nodes in front of the ``Transpose`` before them, in place.

    Args:
        model: A model that was examined already, its nodes in order; its main graph is changed.
    """
    graph = model.graph
    if not any(_turns_last(node) for node in graph.node):
        return
    mover = _Mover(graph)
    nodes = [part for node in graph.node for part in mover.moved(node)]
    if len(nodes) == len(graph.node):
        return
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(mover.turned.values())
    # A node that nobody reads would look like a second way from the tensor that it reads.
    read = {name for scope in scopes(graph) for name in _read(scope)}
    for index in reversed(range(len(nodes))):
        if _turns_last(nodes[index]) and nodes[index].output[0] not in read:
            del graph.node[index]


def _turns_last(node: onnx.NodeProto) -> bool:
    return (
        node.op_type == "Transpose"
        and node.domain in _DEFAULT
        and any(a.name == "perm" and list(a.ints) == _TO_LAST for a in node.attribute)
    )


def _read(scope: Scope) -> Iterator[str]:
    """Names that a node or an output takes."""
    yield from scope.outputs
    for node in scope.proto.node:
        yield from node.input


@dataclass
class _Mover:
    """State of one walk over a graph.

    Attributes:
        graph: The graph; constants are looked up in it.
        first: By the name of a tensor (N, h, w, C), the name of the same map with channels first.
        turned: By the name of a constant (C,), the same with axes for places.
    """

    graph: onnx.GraphProto
    first: dict[str, str] = field(default_factory=dict)
    turned: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.constants = dict(_constants(self.graph))
        names = (n for node in self.graph.node for n in (*node.input, *node.output))
        self.taken = {*names, *self.constants, *(value.name for value in self.graph.input)}

    def moved(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The node, or its like with channels first and a ``Transpose`` to what it gave."""
        if _turns_last(node):
            self.first[node.output[0]] = node.input[0]
        inputs = self._inputs(node)
        if inputs is None:
            yield node
            return
        name = node.output[0]
        made = self.first[name] = self._fresh(f"{name}_channels_first")
        moved = onnx.NodeProto()
        moved.CopyFrom(node)
        del moved.input[:], moved.output[:]
        moved.input.extend(inputs)
        moved.output.append(made)
        yield moved
        yield helper.make_node(
            "Transpose",
            [made],
            [name],
            name=node.name and f"{node.name}_channels_last",
            perm=_TO_LAST,
        )

    def _inputs(self, node: onnx.NodeProto) -> list[str] | None:
        """Inputs of the node with channels first; None where it has to stay."""
        if node.domain not in _DEFAULT or len(node.output) != 1:
            return None
        known = facts_of(node.domain, node.op_type)
        if known.logical:
            return None
        if known.elementwise == "first" or known.copies:
            made = self.first.get(node.input[0])
            return None if made is None else [made, *node.input[1:]]
        legacy = any(attribute.name in _LEGACY for attribute in node.attribute)
        if known.elementwise != "all" or legacy or not any(n in self.first for n in node.input):
            return None
        found = [self.first.get(name) or self._constant(name) for name in node.input]
        return None if None in found else [name for name in found if name]

    def _constant(self, name: str) -> str | None:
        """A constant that broadcasts over channels first as it did over channels last."""
        stored = self.constants.get(name)
        if stored is None or len(stored.dims) > 4:
            return None
        sizes = list(stored.dims)
        if all(size == 1 for size in sizes):
            return name
        if any(size != 1 for size in sizes[:-1]):
            return None  # it differs between places
        if name not in self.turned:
            turned = self.turned[name] = onnx.TensorProto()
            turned.CopyFrom(stored)
            turned.name = self._fresh(f"{name}_channels_first")
            turned.dims[:] = [sizes[-1], 1, 1]
        return self.turned[name].name

    def _fresh(self, name: str) -> str:
        """The name itself, or one like it that no tensor has."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Stored tensors by name; one that is an input as well can be replaced by a caller."""
    inputs = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name not in inputs:
            yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in _DEFAULT:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.HasField("t"):
                    yield node.output[0], attribute.t
