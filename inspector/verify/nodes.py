"""One node at a time, on ONNX Runtime's own inputs to it.

Two sides that are both right may part along a deep network: rounding is amplified, or rounded to
another level.  A node that computes something else, however, shows it on equal inputs.  Where a
node's results differ even then, a third implementation decides who is right: onnx's own
reference evaluator, in float64.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from converters.errors import ConverterError
from converters.graph import Node
from converters.parity import compare
from inspector.verify.forward import groups
from inspector.verify.subject import Probe, Subject

__all__ = ["NodeRecord", "compare_nodes"]

Array = np.ndarray[Any, Any]

MAX_REFEREED = 2**27
"""Elements of a node's inputs beyond which the reference evaluator is not asked."""

MAX_SHARE_OFF = 0.02
"""Share of a node's whole-numbered results that may fall on the neighbouring level."""


@dataclass(frozen=True)
class NodeRecord:
    """One node on the same inputs on both sides.

    Attributes:
        node: The node.
        probe: Name of the input.
        worst: Largest difference of its outputs, relative to their peak.
        levels: Largest difference in whole numbers; None when an output is a float.
        share: Share of whole-numbered elements that differ.
        ruling: ``equal``; ``twin`` or ``runtime``: who is right by the reference evaluator;
            ``open`` when that cannot tell.
        runtime_error: ONNX Runtime against the reference evaluator, relative to the peak.
        twin_error: The twin against the reference evaluator, relative to the peak.
        why: What keeps the reference evaluator from telling.
    """

    node: Node
    probe: str
    worst: float
    levels: float | None
    share: float
    ruling: str
    runtime_error: float | None = None
    twin_error: float | None = None
    why: str = ""

    @property
    def right(self) -> bool:
        """Whether the twin's node computes what it should."""
        return self.ruling in {"equal", "twin"}

    def __str__(self) -> str:
        """Say it in one clause."""
        text = f"{self.node.op_type} node {self.node.name!r}"
        if self.levels is not None:
            text += f" differs by {self.levels:g} levels ({self.share:.1%} of its elements)"
        else:
            text += f" differs by {self.worst:.1e} of its peak on equal inputs"
        if self.runtime_error is not None and self.twin_error is not None:
            text += (
                f"; from the reference evaluator ONNX Runtime is {self.runtime_error:.1e} away, "
                f"the twin {self.twin_error:.1e}"
            )
        return text


def compare_nodes(
    subject: Subject, probe: Probe, names: Sequence[str], *, tolerance: float
) -> tuple[NodeRecord, ...]:
    """Compare the nodes that make some tensors, each on ONNX Runtime's inputs to it.

    Args:
        subject: The model under test.
        probe: The input.
        names: Tensors whose nodes are in question.
        tolerance: Largest difference, relative to an output's peak, that counts as equal.

    Returns:
        One record a node, in graph order.
    """
    graph, feeds = subject.model.graph, subject.feeds(probe)
    nodes = {subject.producers[name].index: subject.producers[name] for name in names}
    records: list[NodeRecord] = []
    for group in _node_groups(subject, probe, [nodes[i] for i in sorted(nodes)]):
        wanted = {n for node in group for n in (*graph.reads(node), *node.outputs) if n}
        known = set(subject.names)
        values = subject.values(feeds, [n for n in subject.names if n in wanted & known]) | feeds
        records += [_compare(subject, node, values, probe, tolerance) for node in group]
    return tuple(records)


def _node_groups(
    subject: Subject, probe: Probe, nodes: Sequence[Node]
) -> Iterator[tuple[Node, ...]]:
    """Nodes whose tensors fit into memory together."""
    outputs = [name for node in nodes for name in node.outputs if name in set(subject.names)]
    for group in groups(subject, probe, outputs):
        found = {subject.producers[name].index: subject.producers[name] for name in group}
        yield tuple(found[index] for index in sorted(found))


def _compare(
    subject: Subject, node: Node, values: Mapping[str, Array], probe: Probe, tolerance: float
) -> NodeRecord:
    outputs = [name for name in node.outputs if name in values]
    try:
        ours = _rerun(subject, node, values, outputs)
    except ConverterError as error:
        return NodeRecord(node, probe.name, np.inf, None, 1.0, "open", why=str(error))
    worst, levels, share = 0.0, 0.0, 0.0
    whole = all(values[name].dtype.kind in "iu" for name in outputs)
    for name in outputs:
        (parity,) = compare(values, ours, [name]).tensors
        worst = max(worst, parity.worst)
        if whole and not parity.why:
            apart = np.abs(values[name].astype(np.float64) - ours[name].astype(np.float64))
            levels = max(levels, float(apart.max(initial=0.0)))
            share = max(share, float(np.mean(apart > 0)) if apart.size else 0.0)
    equal = worst <= tolerance
    if whole and np.isfinite(worst):  # a tie that one side rounds up and the other down
        few = share <= MAX_SHARE_OFF or share * max(values[n].size for n in outputs) <= 1
        equal = equal or (levels <= 1 and few)
    record = NodeRecord(
        node, probe.name, worst, levels if whole else None, share, "equal" if equal else "open"
    )
    return record if equal else _refereed(subject, record, values, ours, tolerance=tolerance)


def _rerun(
    subject: Subject, node: Node, values: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """The twin's node alone."""
    import torch

    from converters.to_torch.values import as_array

    twin = subject.twin
    read = [n for n in dict.fromkeys(subject.model.graph.reads(node)) if n in values]
    given = subject.tensors(twin, {name: values[name] for name in read})
    with torch.no_grad():
        found = twin.run(given, outputs)
    return {name: as_array(value) for name, value in found.items()}


def _refereed(
    subject: Subject,
    record: NodeRecord,
    values: Mapping[str, Array],
    ours: Mapping[str, Array],
    *,
    tolerance: float,
) -> NodeRecord:
    """Ask the reference evaluator who is right."""
    outputs = list(ours)

    def ruled(ruling: str, *errors: float, why: str = "") -> NodeRecord:
        theirs, own = errors or (None, None)
        return NodeRecord(
            record.node,
            record.probe,
            record.worst,
            record.levels,
            record.share,
            ruling,
            theirs,
            own,
            why,
        )

    try:
        exact = _reference(subject, record.node, values, outputs)
    except Exception as error:  # noqa: BLE001 - any of numpy's and of onnx's, which has no root
        return ruled("open", why=f"the reference evaluator cannot run it ({error})"[:200])
    theirs = max(_distance(exact[name], values[name]) for name in outputs)
    own = max(_distance(exact[name], ours[name]) for name in outputs)
    if own <= tolerance and own < theirs:
        return ruled("twin", theirs, own)
    return ruled("runtime" if theirs <= tolerance else "open", theirs, own)


def _distance(exact: Array, side: Array) -> float:
    (parity,) = compare({"y": exact}, {"y": side}, ["y"]).tensors
    return parity.worst


def _reference(
    subject: Subject, node: Node, values: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """Outputs of a node by onnx's reference evaluator, floats in float64."""
    from onnx.reference import ReferenceEvaluator

    graph = subject.model.graph
    given: dict[str, Array] = {}
    for name in dict.fromkeys(n for n in graph.reads(node) if n):
        value = values[name] if name in values else graph.constant(name)
        if value is None:
            continue
        given[name] = value.astype(np.float64) if value.dtype.kind == "f" else value
    if sum(value.size for value in given.values()) > MAX_REFEREED:
        raise MemoryError("too large")
    alone = onnx.helper.make_graph(
        [graph.proto.node[node.index]],
        "node",
        [onnx.ValueInfoProto(name=name) for name in given],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = onnx.helper.make_model(alone, opset_imports=graph.model.opset_import)
    found = ReferenceEvaluator(model).run(list(outputs), given)
    return dict(zip(outputs, map(np.asarray, found), strict=True))
