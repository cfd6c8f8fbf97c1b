"""Any inner tensor as an output of the model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx

__all__ = ["exposed"]


@contextmanager
def exposed(model: onnx.ModelProto, tensors: Sequence[str]) -> Iterator[bytes]:
    """Serialised model that also returns inner tensors, in addition to its own outputs.

    Nothing else changes, so results stay the same up to the fusions that ONNX Runtime gives up
    in order to keep an exposed tensor.  The added outputs carry no type: ONNX Runtime infers it,
    and a wrong declaration in the file cannot contradict it.  The protobuf is edited in place
    and restored, because a copy would double the memory of a large model.

    Args:
        model: The model; the graph's own outputs and inputs may be named too.
        tensors: Names of tensors to expose.

    Yields:
        The serialised model, without external data (ONNX Runtime reads it from the folder).
    """
    graph = model.graph
    known = {value.name for value in (*graph.output, *graph.input)}
    before = len(graph.output)
    graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors) if name not in known
    )
    try:
        yield model.SerializeToString()
    finally:
        del graph.output[before:]
