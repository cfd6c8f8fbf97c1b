"""Metadata of a file with a heatmap: what the heatmap was made with."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from converters.plain_values import parse_json

__all__ = ["METADATA_KEY", "NETWORK", "digest_of", "facts_of"]

Array = np.ndarray[Any, Any]

METADATA_KEY = "onnx-inspector.heatmap"
"""Key in ``metadata_props`` of the JSON object that ``inspector embed`` writes."""

NETWORK = "network"
"""Key of the hash of the network's own nodes and weights."""

_LONGEST = 1 << 16  # characters; what is written are some hundreds


def facts_of(metadata: Mapping[str, str]) -> Mapping[str, Any] | None:
    """What the metadata of a file with a heatmap says of it; None for any other file."""
    text = metadata.get(METADATA_KEY, "")
    if not text or len(text) > _LONGEST:
        return None
    try:
        found = parse_json(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def digest_of(
    nodes: Iterable[onnx.NodeProto],
    tensors: Iterable[onnx.TensorProto],
    outputs: Iterable[str],
    array: Callable[[onnx.TensorProto], Array],
) -> str:
    """SHA-256 of a network: its nodes but for their names, its weights, and what it gives out.

    In which order and form a file stores them, and what it says of shapes, is no part of it.

    Args:
        nodes: In any order.
        tensors: The constants.
        outputs: Names of the outputs.
        array: Values of a constant, wherever they are stored.
    """
    found = hashlib.sha256()
    for number in sorted(_node_digest(node) for node in nodes):
        found.update(number)
    for tensor in sorted(tensors, key=lambda one: one.name):
        value = array(tensor)
        found.update(f"{tensor.name} {tensor.data_type} {value.shape}".encode())
        found.update(_content(value))
    found.update("\n".join(outputs).encode())
    return found.hexdigest()


def _node_digest(node: onnx.NodeProto) -> bytes:
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    for name in ("name", "doc_string", "metadata_props", "attribute"):
        plain.ClearField(name)
    found = hashlib.sha256(plain.SerializeToString(deterministic=True))
    for attribute in sorted(node.attribute, key=lambda one: one.name):
        single = onnx.AttributeProto()
        single.CopyFrom(attribute)
        single.ClearField("doc_string")
        if single.type == onnx.AttributeProto.TENSOR and not single.t.external_data:
            value = numpy_helper.to_array(single.t)
            kind, shape = single.t.data_type, value.shape
            single.ClearField("t")
            found.update(f"{kind} {shape}".encode())
            found.update(_content(value))
        found.update(single.SerializeToString(deterministic=True))
    return found.digest()


def _content(value: Array) -> bytes:
    return str(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
