"""A loop over the steps of a sequence, as one ``Scan`` node or written out step by step.

``Scan`` keeps a file small, and takes sequences of any length; where the opset or a runtime has it
not, the body is written once per step.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import onnx
from onnx import helper

from inspector.surgery.gradient.builder import ADDED, Builder
from inspector.surgery.gradient.table import CannotDifferentiate

__all__ = ["Body", "Writer", "over_steps"]

_OLDEST_SCAN = 9
"""Opset from which ``Scan`` runs along the first axis of its inputs."""

_MOST_STEPS = 512
"""Steps that are written out; each is a dozen nodes."""


class Writer(Protocol):
    """Where the nodes of one step are written: a body, or the graph itself."""

    def op(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node with one output, and return its name."""
        ...


Body = Callable[[Writer, Sequence[str], Sequence[str]], tuple[Sequence[str], Sequence[str]]]
"""From the states and one step of each sequence to the next states and one step of each result."""


class _Inside:
    """The body of a ``Scan``; it may read tensors of the graph around it."""

    def __init__(self, b: Builder) -> None:
        self.stem = b.name(f"{ADDED}step{len(b.nodes)}")
        self.nodes: list[onnx.NodeProto] = []

    def name(self, what: object) -> str:
        return f"{self.stem}.{what}"

    def op(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = self.name(len(self.nodes))
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], **attributes))
        return output


def over_steps(
    b: Builder,
    body: Body,
    states: Sequence[str],
    sequences: Sequence[str],
    steps: int,
    *,
    backwards: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Run a body over the first axis of some sequences.

    Args:
        b: Where it is written.
        body: What one step does.
        states: What a step hands to the next one, before the first.
        sequences: Tensors (T, ...), of which a step reads one element each.
        steps: Their length T, for one sample.
        backwards: Whether to begin at the last step.

    Returns:
        The states behind the last step, and the results (T, ...), in the order of the sequences.

    Raises:
        CannotDifferentiate: There is no ``Scan``, and the sequence is long.
    """
    if b.opset < _OLDEST_SCAN or "Scan" in b.avoid:
        return _written_out(b, body, states, sequences, steps, backwards=backwards)
    inside = _Inside(b)
    own = [inside.name(f"s{i}") for i in range(len(states))]
    read = [inside.name(f"x{i}") for i in range(len(sequences))]
    after, results = body(inside, own, read)
    # Each output of a body has a name of its own.
    results = [inside.op("Identity", [name]) if name in after else name for name in results]
    graph = helper.make_graph(
        inside.nodes,
        "step",
        [helper.make_tensor_value_info(name, _FLOAT, None) for name in (*own, *read)],
        [helper.make_tensor_value_info(name, _FLOAT, None) for name in (*after, *results)],
    )
    found = b.ops(
        "Scan",
        [*states, *sequences],
        len(states) + len(results),
        body=graph,
        num_scan_inputs=len(sequences),
        scan_input_directions=[int(backwards)] * len(sequences),
        scan_output_directions=[int(backwards)] * len(results),
    )
    return found[: len(states)], found[len(states) :]


_FLOAT = onnx.TensorProto.FLOAT


def _written_out(
    b: Builder,
    body: Body,
    states: Sequence[str],
    sequences: Sequence[str],
    steps: int,
    *,
    backwards: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if steps > _MOST_STEPS:
        raise CannotDifferentiate(f"its gradient needs Scan for {steps} steps")
    kept: list[Sequence[str]] = []
    for step in range(steps - 1, -1, -1) if backwards else range(steps):
        at = b.constant(step, "int64")
        read = [b.op("Gather", [name, at], axis=0) for name in sequences]
        states, results = body(b, states, read)
        kept.append([b.unsqueeze(name, [0]) for name in results])
    if backwards:
        kept.reverse()
    joined = [b.op("Concat", list(parts), axis=0) for parts in zip(*kept, strict=True)]
    return tuple(states), tuple(joined)
