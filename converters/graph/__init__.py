"""Read-only view of one ONNX graph: nodes in order, who makes and who uses each tensor.

Everything that reasons about a network (the twin, the choice of layers, the head, receptive
fields, surgery) reads it through this view, so that protobuf's shape is known here alone.
No torch, no onnxruntime.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from converters.graph.weights import Weights

__all__ = ["DEFAULT_DOMAINS", "Graph", "Node", "Value"]

DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Value:
    """Declared type of a graph input or output.

    Attributes:
        name: The tensor's name.
        shape: One entry per axis: an int, the name of a symbolic dimension, or None;
            None as a whole when the rank is not declared.
        elem_type: ``onnx.TensorProto.DataType``; 0 when the value is not a dense tensor.
    """

    name: str
    shape: tuple[int | str | None, ...] | None
    elem_type: int


@dataclass(frozen=True, eq=False)
class Node:
    """One operator call.

    Attributes:
        name: Unique within the graph (made up from the first output when the file has none).
        domain: Empty for the default domain.
        inputs: Tensor names; an empty string stands for an omitted optional input.
        attributes: Python values: int, float, str, list, ``onnx.TensorProto``, or
            ``onnx.GraphProto`` for bodies.
        module: Path of the innermost module that the exporter says the node comes from, such as
            ``layer4.1``; empty where it says nothing.
    """

    index: int
    name: str
    domain: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(repr=False)
    module: str = field(default="", repr=False)

    def is_op(self, *op_types: str) -> bool:
        """Whether this is one of these operators of the default domain."""
        return self.domain == "" and self.op_type in op_types


def _attribute(proto: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if proto.type == onnx.AttributeProto.STRINGS:
        return [item.decode("utf-8", "replace") for item in value]
    return list(value) if proto.type in _LIST_TYPES else value


def _module(proto: onnx.NodeProto) -> str:
    """The module's path in PyTorch's metadata, ``['', 'layer4', 'layer4.1', 'relu']``."""
    for entry in proto.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = _QUOTED.findall(entry.value[:_MAX_SCOPES])
            return next((scope for scope in reversed(scopes[:-1]) if scope), "")
    return ""


_QUOTED = re.compile(r"'([^']{0,200})'")
_MAX_SCOPES = 4096

_LIST_TYPES = {
    onnx.AttributeProto.INTS,
    onnx.AttributeProto.FLOATS,
    onnx.AttributeProto.TENSORS,
    onnx.AttributeProto.GRAPHS,
}


def _value(proto: onnx.ValueInfoProto) -> Value:
    if proto.type.WhichOneof("value") != "tensor_type":
        return Value(proto.name, None, 0)
    tensor = proto.type.tensor_type
    if not tensor.HasField("shape"):
        return Value(proto.name, None, tensor.elem_type)
    shape: list[int | str | None] = []
    for dim in tensor.shape.dim:
        kind = dim.WhichOneof("value")
        # Exporters write 0 and -1 for "free" where they should write a name.
        free = dim.dim_param or None
        shape.append(dim.dim_value if kind == "dim_value" and dim.dim_value > 0 else free)
    return Value(proto.name, tuple(shape), tensor.elem_type)


class Graph:
    """The main graph of a model, with nodes in execution order.

    Args:
        model: A model whose local functions are already inlined.
        folder: Where external data lies; None when all data is inside the file.
        graph: A body (of If, Loop, Scan) to view instead of ``model.graph``.
        unchanged: Raises where external data changed; asked after a tensor of it was read.
        weights: Values that the model refers to.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        folder: Path | None = None,
        graph: onnx.GraphProto | None = None,
        unchanged: Callable[[], None] | None = None,
        weights: Weights | None = None,
    ) -> None:
        """Index the protobuf once."""
        self.proto = model.graph if graph is None else graph
        self.model, self.folder, self.unchanged = model, folder, unchanged
        self.weights = weights
        self.opsets = {
            ("" if o.domain in DEFAULT_DOMAINS else o.domain): o.version for o in model.opset_import
        }
        self._initialisers = {t.name: t for t in self.proto.initializer}
        self.inputs = {
            v.name: _value(v) for v in self.proto.input if v.name not in self._initialisers
        }
        self.outputs = {v.name: _value(v) for v in self.proto.output}
        self.nodes = tuple(self._nodes())
        self._arrays: dict[str, np.ndarray] = {}
        self._repeated: dict[str, str] = {}

    def _nodes(self) -> Iterator[Node]:
        taken: set[str] = set()
        for index, proto in enumerate(self.proto.node):
            outputs = tuple(proto.output)
            name = proto.name
            if not name:
                first = next((output for output in outputs if output), str(index))
                name = f"{proto.op_type}:{first}"
            if name in taken:
                name = f"{name}#{index}"
            taken.add(name)
            yield Node(
                index=index,
                name=name,
                domain="" if proto.domain in DEFAULT_DOMAINS else proto.domain,
                op_type=proto.op_type,
                inputs=tuple(proto.input),
                outputs=outputs,
                attributes={a.name: _attribute(a) for a in proto.attribute},
                module=_module(proto),
            )

    @cached_property
    def _producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def _consumers(self) -> dict[str, list[Node]]:
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(self.reads(node)):
                if name:
                    users.setdefault(name, []).append(node)
        return users

    @classmethod
    def reads(cls, node: Node) -> tuple[str, ...]:
        """Names that a node reads: its inputs, and whatever its bodies mention."""
        # Few nodes have attributes that are bodies, and this is asked of all of them.
        return (*node.inputs, *cls._captured(node)) if node.attributes else node.inputs

    @staticmethod
    def _captured(node: Node) -> Iterator[str]:
        """Yield names that the bodies of a node mention (a superset of what they capture)."""
        bodies = [v for v in node.attributes.values() if isinstance(v, onnx.GraphProto)]
        while bodies:
            body = bodies.pop()
            for inner in body.node:
                yield from inner.input
                bodies += [a.g for a in inner.attribute if a.HasField("g")]
            yield from (out.name for out in body.output)

    def opset(self, domain: str = "") -> int:
        """Version of a domain that the model imports (1 when it imports none)."""
        version: int = self.opsets.get("" if domain in DEFAULT_DOMAINS else domain, 1)
        return version

    def producer(self, tensor: str) -> Node | None:
        """Node that makes a tensor; None for inputs, initialisers and unknown names."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """Nodes that read a tensor, in order, each once."""
        return tuple(self._consumers.get(tensor, ()))

    def nodes_before(self, tensors: Iterable[str], *, cut: Collection[str] = ()) -> Iterator[Node]:
        """Yield the nodes that some tensors depend on, each once, by one walk.

        Args:
            tensors: Names of the tensors.
            cut: Tensors behind which the walk does not look.
        """
        pending, seen = list(tensors), set[int]()
        while pending:
            name = pending.pop()
            node = None if name in cut else self.producer(name)
            if node is not None and node.index not in seen:
                seen.add(node.index)
                yield node
                pending += self.reads(node)

    def initialiser(self, tensor: str) -> onnx.TensorProto | None:
        """The raw initialiser of this name."""
        return self._initialisers.get(tensor)

    @property
    def initialisers(self) -> tuple[str, ...]:
        """Names of all initialisers."""
        return tuple(self._initialisers)

    def elem_type(self, tensor: str) -> int:
        """Declared element type of an initialiser, a constant or a graph input; 0 if unknown."""
        if tensor in self._initialisers:
            return int(self._initialisers[tensor].data_type)
        if tensor in self.inputs:
            return self.inputs[tensor].elem_type
        node = self._producers.get(tensor)
        value = node.attributes.get("value") if node and node.is_op("Constant") else None
        return int(value.data_type) if isinstance(value, onnx.TensorProto) else 0

    def constant(self, tensor: str) -> np.ndarray | None:
        """Value of an initialiser, of a ``Constant`` node, or of an ``Identity`` of either.

        None when the tensor is computed from an input.  Arrays are read-only and cached.
        """
        source = self._behind_identities(tensor)
        if source not in self._arrays:
            value = self._read(source)
            if value is None:
                return None
            value.setflags(write=False)
            self._arrays[source] = value
        return self._arrays[source]

    def _behind_identities(self, tensor: str) -> str:
        """The tensor that a chain of ``Identity`` nodes repeats."""
        passed: list[str] = []
        while tensor not in self._repeated and len(passed) <= len(self.nodes):
            node = self._producers.get(tensor)
            if node is None or not node.is_op("Identity"):
                break
            passed.append(tensor)
            tensor = node.inputs[0]
        if not passed:
            return self._repeated.get(tensor, tensor)
        source = self._repeated.get(tensor, tensor)
        # Kept for all of them: a long chain is walked once, not once per tensor in it.
        self._repeated.update(dict.fromkeys(passed, source))
        return source

    def _read(self, tensor: str) -> np.ndarray | None:
        if tensor in self._initialisers:
            return self.array(self._initialisers[tensor])
        node = self._producers.get(tensor)
        if node is None or not node.is_op("Constant"):
            return None
        kind, value = next(iter(node.attributes.items()))
        if isinstance(value, onnx.TensorProto):
            return self.array(value)
        if kind in {"value_int", "value_ints"}:
            return np.asarray(value, dtype=np.int64)
        if kind in {"value_float", "value_floats"}:
            return np.asarray(value, dtype=np.float32)
        return None

    def beside(
        self, *, model: onnx.ModelProto | None = None, graph: onnx.GraphProto | None = None
    ) -> "Graph":
        """Graph of a model made from this one, or of a body in it, with the same external data."""
        own = self.model if model is None else model
        return Graph(
            own,
            folder=self.folder,
            graph=graph,
            unchanged=self.unchanged,
            weights=self.weights,
        )

    def array(self, tensor: onnx.TensorProto) -> np.ndarray:
        """Decode a ``TensorProto``, external data included."""
        if self.weights is not None and self.weights.holds(tensor):
            return self.weights.array(tensor)
        value = numpy_helper.to_array(tensor, base_dir=str(self.folder or ""))
        if self.unchanged is not None and tensor.data_location == onnx.TensorProto.EXTERNAL:
            self.unchanged()
        return value

    @cached_property
    def tensors(self) -> AbstractSet[str]:
        """Names of all tensors that nodes produce, in execution order."""
        # The keys of a dictionary: in order, and found without a search.
        return dict.fromkeys(n for node in self.nodes for n in node.outputs if n).keys()
