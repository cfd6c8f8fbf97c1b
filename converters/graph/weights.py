"""Large weights of a model that are held once, beside the message that is parsed.

protobuf copies them when it parses, and once more for each reader; ONNX Runtime copies what it is
handed serialised.  So the message holds a reference in their place, written as external data are,
and readers get a view of them (``onnx_file.weights_apart`` writes it).  Whoever changes such a
tensor writes a new one, with values of its own: what a reference says cannot be out of date.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

__all__ = ["TYPES", "Weights"]

TYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype("<f4"),
    TensorProto.DOUBLE: np.dtype("<f8"),
    TensorProto.FLOAT16: np.dtype("<f2"),
    TensorProto.INT8: np.dtype("i1"),
    TensorProto.UINT8: np.dtype("u1"),
}
"""Element types of tensors that are set apart: those of weights.

Whole numbers of 32 and 64 bits may be shapes, which ONNX Runtime wants to see as it loads a model.
"""

Array = np.ndarray[Any, Any]


class Weights:
    """Values of tensors whose message holds a reference.

    Args:
        files: Bytes of whole files, by what references call them.
    """

    def __init__(self, files: Mapping[str, bytes | memoryview]) -> None:
        self._files = files

    def size(self, location: str) -> int | None:
        """Bytes of a file; None of one that is not here."""
        return len(self._files[location]) if location in self._files else None

    def refers(self, tensor: TensorProto) -> bool:
        """Whether a tensor's message refers to one of the files."""
        return _reference(tensor).get("location") in self._files

    def holds(self, tensor: TensorProto) -> bool:
        """Whether ``array`` has a tensor's values: one of ``TYPES`` that refers to a file."""
        return tensor.data_type in TYPES and self.refers(tensor)

    def array(self, tensor: TensorProto) -> Array:
        """Values of a tensor; read-only, and without a copy where possible.

        Args:
            tensor: One of which ``holds`` is true.
        """
        found = _reference(tensor)
        kind, count = TYPES[tensor.data_type], math.prod(tensor.dims)
        values: Array = np.frombuffer(
            self._files[found["location"]], kind, count, int(found.get("offset") or 0)
        )
        values = values.reshape(tuple(tensor.dims))
        return values if values.flags.aligned else values.copy()

    def of(self, graph: onnx.GraphProto) -> dict[str, Array]:
        """Values of a graph's initialisers that lie here, by name."""
        return {t.name: self.array(t) for t in graph.initializer if self.holds(t)}

    def missing(self, model: onnx.ModelProto) -> int:
        """Bytes that a model grows by when it is completed."""
        return sum(
            math.prod(t.dims) * TYPES[t.data_type].itemsize
            for t in model.graph.initializer
            if self.holds(t)
        )

    def completed(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of a model with these values inside."""
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        for tensor in whole.graph.initializer:
            if self.holds(tensor):
                values = self.array(tensor).tobytes()
                tensor.ClearField("data_location")
                tensor.ClearField("external_data")
                tensor.raw_data = values
        return whole


def _reference(tensor: TensorProto) -> dict[str, str]:
    if tensor.data_location != TensorProto.EXTERNAL:
        return {}
    return {entry.key: entry.value for entry in tensor.external_data}
