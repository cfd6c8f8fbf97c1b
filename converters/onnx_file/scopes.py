"""Graphs inside graphs, flattened: the main graph, every body and every function as scopes.

Names are lexical: a body sees what its surroundings made.  Everything here is a loop over a
list, never recursion, so that no file can be nested deeper than Python can follow.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import onnx

__all__ = [
    "Scope",
    "label",
    "name_findings",
    "order",
    "quote",
    "scopes",
    "sparse_tensors",
    "tensors",
]

_SHOWN = 80


def quote(name: object) -> str:
    """A name out of the file, printable and short."""
    text = ascii(name)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...'"


def label(node: onnx.NodeProto) -> str:
    """Operator and name of a node (its first output when it has no name)."""
    first = next((output for output in node.output if output), "")
    return f"{ascii(node.op_type)[1:-1][:_SHOWN]} {quote(node.name or first)}"


@dataclass(eq=False)
class Scope:
    """One list of nodes with its own names.

    Attributes:
        proto: The main graph, a body or a function.
        parent: The scope around a body; None for the main graph and for functions.
        holder: Index, in the parent, of the node that has this body.
        depth: Bodies around this one.
        reads: For each node, the names that it needs from this scope or from outside: its own
            inputs and what its bodies do not make themselves.  Name -> the node that reads it,
            None for the output of a body.
    """

    proto: onnx.GraphProto | onnx.FunctionProto
    parent: "Scope | None" = None
    holder: int = 0
    depth: int = 0
    reads: list[dict[str, onnx.NodeProto | None]] = field(default_factory=list)

    @cached_property
    def attributes(self) -> tuple[tuple[onnx.NodeProto, onnx.AttributeProto], ...]:
        """Every attribute with its node; most nodes of a long file have none."""
        return tuple((node, attribute) for node in self.proto.node for attribute in node.attribute)

    @property
    def made_outside(self) -> list[str]:
        """Names that exist before the first node runs: inputs and initialisers."""
        if isinstance(self.proto, onnx.FunctionProto):
            return list(self.proto.input)
        given = {t.name for t in self.proto.initializer}
        given |= {t.values.name for t in self.proto.sparse_initializer}
        # Old files list initialisers among the inputs too.
        return [*given, *(v.name for v in self.proto.input if v.name not in given)]

    @property
    def outputs(self) -> list[str]:
        """Names that this scope must have made."""
        if isinstance(self.proto, onnx.FunctionProto):
            return list(self.proto.output)
        return [v.name for v in self.proto.output]


def scopes(root: onnx.GraphProto | onnx.FunctionProto) -> list[Scope]:
    """All scopes below ``root``, each behind the one that it lies in."""
    found = [Scope(root)]
    for scope in found:  # grows while it is walked
        for index, node in enumerate(scope.proto.node):
            for attribute in node.attribute:
                bodies = [attribute.g] if attribute.HasField("g") else []
                found += [
                    Scope(body, scope, index, scope.depth + 1)
                    for body in (*bodies, *attribute.graphs)
                ]
    return found


def tensors(found: Iterable[Scope]) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield every dense tensor of some scopes, parts of sparse ones too, and what to call it."""
    found = list(found)
    for scope in found:
        if isinstance(scope.proto, onnx.GraphProto):
            for tensor in scope.proto.initializer:
                yield f"initialiser {quote(tensor.name)}", tensor
        for node, attribute in scope.attributes:
            dense = [attribute.t] if attribute.HasField("t") else []
            for tensor in (*dense, *attribute.tensors):
                yield f"attribute {quote(attribute.name)} of {label(node)}", tensor
    for where, sparse in sparse_tensors(found):
        yield where, sparse.values
        yield f"indices of {where}", sparse.indices


def sparse_tensors(found: Iterable[Scope]) -> Iterator[tuple[str, onnx.SparseTensorProto]]:
    """Yield every sparse tensor of some scopes and what to call it."""
    for scope in found:
        if isinstance(scope.proto, onnx.GraphProto):
            for sparse in scope.proto.sparse_initializer:
                yield f"initialiser {quote(sparse.values.name)}", sparse
        for node, attribute in scope.attributes:
            one = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*one, *attribute.sparse_tensors):
                yield f"attribute {quote(attribute.name)} of {label(node)}", sparse


def name_findings(found: list[Scope]) -> Iterator[str]:
    """Find names made twice, and names read that nobody makes; fill ``Scope.reads``.

    Args:
        found: What :func:`scopes` gave.
    """
    for scope in found:
        scope.reads = [{name: node for name in node.input if name} for node in scope.proto.node]
    for scope in reversed(found):  # bodies before their surroundings
        made, twice = _made(scope)
        yield from twice
        missing: dict[str, onnx.NodeProto | None] = {}
        for reads in scope.reads:
            if not reads.keys() <= made:
                missing |= {name: who for name, who in reads.items() if name not in made}
        missing |= {name: None for name in scope.outputs if name not in made}
        if scope.parent is not None:
            holder = scope.parent.proto.node[scope.holder]
            outer = scope.parent.reads[scope.holder]
            outer |= {name: who or holder for name, who in missing.items()}
            continue
        for name, who in missing.items():
            if who is not None:
                yield f"{label(who)} reads {quote(name)}, which nobody makes"
            else:
                yield f"output {quote(name)} is made by no node"


def _made(scope: Scope) -> tuple[set[str], list[str]]:
    """Names that a scope makes, and complaints about those that it makes twice."""
    given = scope.made_outside
    findings = [f"input {quote(name)} stands twice" for name in _repeated(given)]
    if isinstance(scope.proto, onnx.GraphProto):
        stored = [t.name for t in scope.proto.initializer]
        stored += [t.values.name for t in scope.proto.sparse_initializer]
        findings += [f"initialiser {quote(name)} stands twice" for name in _repeated(stored)]
        findings += ["an initialiser has no name"] * ("" in stored)
    if scope.parent is None:
        twice = _repeated(scope.outputs)
        findings += [f"output {quote(name)} stands twice" for name in twice]
    made = set(given)
    for node in scope.proto.node:
        for name in node.output:
            if name in made:
                findings.append(f"{label(node)} makes {quote(name)}, which exists already")
            elif name:
                made.add(name)
    return made, findings


def _repeated(names: list[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def order(scope: Scope) -> tuple[list[int], list[int]]:
    """Sort the nodes of a scope so that each stands behind what it reads.

    Args:
        scope: With ``reads`` filled by :func:`name_findings`.

    Returns:
        The nodes' indices in an order of execution as near to the file's as there is, and the
        indices of nodes that lie on a cycle or behind one.
    """
    makers = {n: i for i, node in enumerate(scope.proto.node) for n in node.output if n}
    waits = [{makers[name] for name in reads if name in makers} for reads in scope.reads]
    if all(max(needed, default=-1) < index for index, needed in enumerate(waits)):
        return list(range(len(waits))), []
    followers: list[list[int]] = [[] for _ in waits]
    for index, needed in enumerate(waits):
        for maker in needed:
            followers[maker].append(index)
    open_ends = [len(needed) for needed in waits]
    ready = [index for index, count in enumerate(open_ends) if not count]
    done: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        done.append(index)
        for follower in followers[index]:
            open_ends[follower] -= 1
            if not open_ends[follower]:
                heapq.heappush(ready, follower)
    return done, sorted(set(range(len(waits))) - set(done))
