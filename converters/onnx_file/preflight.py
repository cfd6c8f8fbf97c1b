"""What is wrong with a parsed model, found before native code sees it.

Every problem of a file is collected, so that one run tells all of them.  Nothing here is
native except the look-up of an operator's schema by name, and nothing is recursive.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from math import prod

import onnx
from onnx import defs

from converters.graph import DEFAULT_DOMAINS
from converters.onnx_file import scopes as scoping
from converters.onnx_file.attributes import senseless_attributes
from converters.onnx_file.scopes import Scope, label, quote
from converters.onnx_file.tensor_data import RANK, Folder, tensor_findings

__all__ = ["KNOWN_DOMAINS", "Limits", "Survey", "survey"]

KNOWN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "com.microsoft",
        "com.microsoft.nchwc",
    }
)
_ATTRIBUTE_TYPES = frozenset(onnx.AttributeProto.AttributeType.values()) - {0}
_SATURATED = 1 << 62
_Key = tuple[str, str, str]


@dataclass(frozen=True)
class Limits:
    """How much a model may ask for.

    Attributes:
        file_bytes: Size of the file itself (external data apart); protobuf ends at 2 GiB.
        fields: Protobuf fields in the file: what parsing costs is counted before parsing.
        nodes: Nodes, in all bodies, after every call of a local function is expanded.
        nesting: Bodies of If, Loop and Scan inside one another.
        calls: Local functions that call one another in a chain.
        expansion_bytes: What expanding all calls adds to the file.
        initialisers: Stored tensors.
        outputs: Outputs of the graph; each is a number to look for scores in.
        data_bytes: Bytes that all tensors declare together, external data included.
        name_bytes: Length of one name.
    """

    file_bytes: int = (2 << 30) - 1
    fields: int = 2_000_000
    nodes: int = 100_000
    nesting: int = 16
    calls: int = 64
    expansion_bytes: int = 256 << 20
    initialisers: int = 100_000
    outputs: int = 1024
    data_bytes: int = 16 << 30
    name_bytes: int = 4096


@dataclass
class _Size:
    """What a graph or function grows to when its calls are expanded."""

    nodes: int = 0
    proto_bytes: int = 0
    references: int = 0
    nesting: int = 0
    calls: int = 0


@dataclass
class Survey:
    """What the preflight saw.

    Attributes:
        findings: Problems, one clause each; empty when the model may be opened.
        folder: External files that are allowed.
        main: Scopes of the main graph.
        nodes: Nodes after expansion.
        nesting: Deepest body after expansion.
        unsorted: Scopes whose nodes stand before what they read, with the right order.
    """

    folder: Folder
    findings: list[str] = field(default_factory=list)
    main: list[Scope] = field(default_factory=list)
    functions: list[list[Scope]] = field(default_factory=list)
    nodes: int = 0
    nesting: int = 0
    unsorted: list[tuple[Scope, list[int]]] = field(default_factory=list)

    @property
    def scopes(self) -> list[Scope]:
        """All scopes, of the main graph and of functions."""
        return [scope for group in (self.main, *self.functions) for scope in group]


def survey(model: onnx.ModelProto, folder: Folder, limits: Limits) -> Survey:
    """Collect everything that is wrong with a model.

    Args:
        model: Parsed, external data not loaded, functions not inlined.
        folder: Where external data may lie.
        limits: How much it may ask for.

    Returns:
        Findings and what they were found in.
    """
    result = Survey(folder)
    result.main = scoping.scopes(model.graph)
    result.functions = [scoping.scopes(function) for function in model.functions]
    result.findings += _versions(model)
    result.findings += _expansion(model, result, limits)
    result.findings += _domains(model, result)
    result.findings += _nodes(model, result)
    for group in (result.main, *result.functions):
        result.findings += scoping.name_findings(group)
        result.findings += _order(group, result)
    if not model.graph.output:
        result.findings.append("the graph has no outputs")
    if len(model.graph.output) > limits.outputs:
        result.findings.append(f"{len(model.graph.output):,} outputs (limit {limits.outputs:,})")
    result.findings += _tensors(result, limits)
    result.findings += _inputs(model, limits)
    return result


def _versions(model: onnx.ModelProto) -> Iterator[str]:
    if model.ir_version > onnx.IR_VERSION:
        yield (
            f"IR version {model.ir_version} is newer than {onnx.IR_VERSION}, the newest that "
            f"the installed onnx {onnx.__version__} knows"
        )
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = _domain(entry.domain)
        if versions.setdefault(domain, entry.version) != entry.version:
            yield f"imports two opsets of domain {quote(domain)}"
    newest = defs.onnx_opset_version()
    if versions.get("", 1) > newest:
        yield (
            f"opset {versions['']} is newer than {newest}, the newest that the installed "
            f"onnx {onnx.__version__} knows"
        )
    if versions.get("", 1) < 1:
        yield f"opset {versions['']} does not exist"
    if (
        "" not in versions
        and model.ir_version >= 3
        and any(n.domain == "" for n in model.graph.node)
    ):
        yield "imports no opset of the standard operators"


def _domain(domain: str) -> str:
    return "" if domain in DEFAULT_DOMAINS else domain


def _key(proto: onnx.NodeProto | onnx.FunctionProto) -> _Key:
    name = proto.name if isinstance(proto, onnx.FunctionProto) else proto.op_type
    return _domain(proto.domain), name, proto.overload


def _expansion(model: onnx.ModelProto, result: Survey, limits: Limits) -> Iterator[str]:
    """Count what the model grows to; functions are measured callees first."""
    bodies = {
        _key(function): group
        for function, group in zip(model.functions, result.functions, strict=True)
    }
    yield from _functions(model, bodies)
    calls = {
        key: {_key(n) for scope in group for n in scope.proto.node} & bodies.keys()
        for key, group in bodies.items()
    }
    sizes: dict[_Key, _Size] = {}
    try:
        for key in TopologicalSorter(calls).static_order():
            sizes[key] = _measure(bodies[key], sizes)
    except CycleError as error:
        names = ", ".join(quote(key[1]) for key in error.args[1][:4])
        yield f"local functions call themselves: {names}"
        return
    total = _measure(result.main, sizes)
    result.nodes, result.nesting = total.nodes, total.nesting
    if total.nodes > limits.nodes:
        yield f"{_count(total.nodes)} nodes with functions expanded (limit {limits.nodes:,})"
    if total.nesting > limits.nesting:
        yield f"bodies nested {total.nesting} deep (limit {limits.nesting})"
    if max([total.calls, *(size.calls for size in sizes.values())]) > limits.calls:
        yield f"local functions call one another in a chain longer than {limits.calls}"
    # A referenced attribute is copied to each place that refers to it.
    largest = max((a.ByteSize() for a in _given(model, result, bodies)), default=0)
    grown = total.proto_bytes + total.references * largest
    if grown > limits.expansion_bytes:
        yield f"functions expand to {_count(grown)} bytes (limit {limits.expansion_bytes:,})"


def _functions(model: onnx.ModelProto, bodies: Collection[_Key]) -> Iterator[str]:
    """Find functions that two readers could take differently."""
    if len(bodies) < len(model.functions):
        yield "a local function is defined twice"
    versions = {_domain(o.domain): o.version for o in model.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            mine = versions.get(_domain(entry.domain), entry.version)
            if mine != entry.version:
                yield (
                    f"function {quote(function.name)} needs opset {entry.version} of domain "
                    f"{quote(entry.domain)}, the model imports {mine}"
                )


def _count(number: int) -> str:
    return f"{number:,}" if number < _SATURATED else "countless"


def _given(
    model: onnx.ModelProto, result: Survey, bodies: dict[_Key, list[Scope]]
) -> Iterator[onnx.AttributeProto]:
    """Yield every attribute that a call may hand to a function."""
    for function in model.functions:
        yield from function.attribute_proto
    if bodies:
        for scope in result.scopes:
            for node in scope.proto.node:
                if _key(node) in bodies:
                    yield from node.attribute


def _measure(group: list[Scope], sizes: dict[_Key, _Size]) -> _Size:
    total = _Size()
    for scope in group:
        total.nesting = max(total.nesting, scope.depth)
        if not sizes:
            total.nodes += len(scope.proto.node)
            continue
        for node in scope.proto.node:
            callee = sizes.get(_key(node))
            if callee is None:
                total.nodes += 1
                continue
            total.nodes += callee.nodes
            total.proto_bytes += callee.proto_bytes
            total.references += callee.references
            total.nesting = max(total.nesting, scope.depth + callee.nesting)
            total.calls = max(total.calls, callee.calls + 1)
    root = group[0].proto
    if isinstance(root, onnx.FunctionProto):
        total.proto_bytes += root.ByteSize()
        total.references += sum(
            bool(a.ref_attr_name) for s in group for n in s.proto.node for a in n.attribute
        )
    total.nodes = min(total.nodes, _SATURATED)
    total.proto_bytes = min(total.proto_bytes, _SATURATED)
    total.references = min(total.references, _SATURATED)
    return total


def _domains(model: onnx.ModelProto, result: Survey) -> Iterator[str]:
    """List operators that nobody here implements, and those that run a vendor's code."""
    local = {_key(function) for function in model.functions}
    strange: dict[str, list[str]] = {}
    for scope in result.scopes:
        for node in scope.proto.node:
            if local and _key(node) in local:
                continue
            if node.op_type == "EPContext":
                yield f"{label(node)} holds compiled code of a vendor (EPContext)"
            elif node.domain not in KNOWN_DOMAINS:
                strange.setdefault(f"{node.domain}::{node.op_type}", []).append(label(node))
    if strange:
        parts = [
            f"{quote(op)[1:-1]} ({len(users)} nodes, first {users[0]})"
            for op, users in strange.items()
        ]
        yield "operators of unknown domains: " + ", ".join(parts)


@dataclass(frozen=True)
class _Schema:
    """What an operator's schema says of any node: arities, and each attribute's type."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    attributes: Mapping[str, tuple[int, bool]]


# The binding builds a schema's dictionary anew at each access.
@lru_cache(maxsize=1024)
def _schema(op_type: str, domain: str, version: int) -> _Schema | None:
    try:
        schema = defs.get_schema(op_type, version, domain)
    except (defs.SchemaError, TypeError):  # unknown, or a version that is no 32-bit number
        return None
    return _Schema(
        inputs=(schema.min_input, schema.max_input),
        outputs=(schema.min_output, schema.max_output),
        attributes={
            # The stub of onnx.defs omits that this is an enum.
            name: (int(attribute.type.value), attribute.required)  # type: ignore[attr-defined]
            for name, attribute in schema.attributes.items()
        },
    )


def _nodes(model: onnx.ModelProto, result: Survey) -> Iterator[str]:
    """Hold each node of a standard operator against the operator's schema."""
    versions = {_domain(o.domain): o.version for o in model.opset_import}
    local = {_key(function) for function in model.functions}
    for group in (result.main, *result.functions):
        for node in (node for scope in group for node in scope.proto.node):
            domain, op_type, _ = key = _key(node)
            yield from _attributes(node, domain, in_function=group is not result.main)
            if key not in local:
                schema = _schema(op_type, domain, versions.get(domain, 1))
                if schema is not None:
                    yield from _against_schema(node, schema)
                    yield from senseless_attributes(node)


def _attributes(node: onnx.NodeProto, domain: str, *, in_function: bool) -> Iterator[str]:
    if not node.op_type:
        yield f"node {quote(node.name)} has no operator"
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) != len(names):
        yield f"{label(node)} has an attribute twice"
    for attribute in node.attribute:
        if attribute.type not in _ATTRIBUTE_TYPES:
            yield f"{label(node)} has attribute {quote(attribute.name)} without a type"
        if attribute.ref_attr_name and not in_function:
            yield f"{label(node)} refers to an attribute of a function that it is not in"
    if node.op_type == "Constant" and not domain and len(names) != 1:
        yield f"{label(node)} has {len(names)} values instead of one"


def _against_schema(node: onnx.NodeProto, schema: _Schema) -> Iterator[str]:
    for what, names, (least, most) in (
        ("inputs", node.input, schema.inputs),
        ("outputs", node.output, schema.outputs),
    ):
        if not least <= len(names) <= most:
            yield f"{label(node)} has {len(names)} {what} (its operator has {least} to {most})"
    given = {attribute.name: attribute.type for attribute in node.attribute}
    for name, (kind, required) in schema.attributes.items():
        if name not in given and required:
            yield f"{label(node)} lacks attribute {quote(name)}"
        if given.get(name, kind) != kind:
            yield f"{label(node)} has attribute {quote(name)} of the wrong type"


def _order(group: list[Scope], result: Survey) -> Iterator[str]:
    for scope in group:
        done, stuck = scoping.order(scope)
        if stuck:
            yield f"the graph runs in a circle through {label(scope.proto.node[stuck[0]])}"
        elif done != sorted(done):
            result.unsorted.append((scope, done))


def _tensors(result: Survey, limits: Limits) -> Iterator[str]:
    stored = 0
    for where, tensor in scoping.tensors(result.scopes):
        stored += 1
        yield from (f"{where} {problem}" for problem in tensor_findings(tensor, result.folder))
    for where, sparse in scoping.sparse_tensors(result.scopes):
        if len(sparse.dims) > RANK:
            yield f"{where} is sparse and has {len(sparse.dims):,} dimensions (limit {RANK})"
        elif any(dim < 0 for dim in sparse.dims) or prod(sparse.dims) > limits.data_bytes:
            yield f"{where} is sparse and unfolds to more than {limits.data_bytes:,} bytes"
    if stored > limits.initialisers:
        yield f"{stored:,} stored tensors (limit {limits.initialisers:,})"
    for location, problem in result.folder.problems.items():
        yield f"external data {quote(location)} {problem}"


def _inputs(model: onnx.ModelProto, limits: Limits) -> Iterator[str]:
    """Refuse inputs of a fixed size that nobody could feed."""
    for value in model.graph.input:
        count = 1
        for dim in value.type.tensor_type.shape.dim:
            count = min(count * max(dim.dim_value, 1), _SATURATED)
        if count > limits.data_bytes:
            yield f"input {quote(value.name)} wants {_count(count)} elements"
