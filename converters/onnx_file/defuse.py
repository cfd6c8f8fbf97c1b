"""Activations that ONNX Runtime's optimiser hid inside another node, as nodes of their own.

A file that ONNX Runtime saved after optimising holds ``FusedConv`` (convolution, residual addition
and activation in one) and ``FusedGemm``.  An activation that is an attribute can neither be seen as
a layer's nor put under a backward rule, so such nodes are split again.  The result computes the
same, and ONNX Runtime fuses it again when it loads it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper

__all__ = ["split_fused_activations"]

DOMAIN = "com.microsoft"

_PLAIN = {"FusedConv": "Conv", "FusedGemm": "Gemm"}

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""What ONNX Runtime fuses, and the names of ``activation_params`` in order."""


def split_fused_activations(model: onnx.ModelProto) -> None:
    """Split every ``FusedConv`` and ``FusedGemm`` of the main graph, in place.

    The last node of a split keeps the fused node's output; what lies before it is called
    ``NAME_before_add`` and ``NAME_before_activation``.

    Args:
        model: A model that was examined already.
    """
    graph = model.graph
    if not any(node.domain == DOMAIN and node.op_type in _PLAIN for node in graph.node):
        return
    opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 1)
    nodes = [part for node in graph.node for part in _split(node, opset, graph)]
    del graph.node[:]
    graph.node.extend(nodes)


def _split(node: onnx.NodeProto, opset: int, graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    name = attributes.pop("activation", b"")
    kind = name.decode("utf-8", "replace") if isinstance(name, bytes) else "?"
    fused = node.domain == DOMAIN and node.op_type in _PLAIN
    if not fused or (kind and kind not in _PARAMETERS):
        yield node
        return
    values = list(attributes.pop("activation_params", []))
    values += [
        attributes.pop(f"activation_{name}")
        for name in ("alpha", "beta", "gamma")
        if f"activation_{name}" in attributes
    ]
    inputs = list(node.input[:3])
    if inputs and not inputs[-1]:  # no bias, though an addend follows
        inputs.pop()
    added = node.input[3] if len(node.input) > 3 else ""
    out = node.output[0]
    before_activation = f"{out}_before_activation" if kind else out
    before_add = f"{out}_before_add" if added else before_activation
    yield helper.make_node(_PLAIN[node.op_type], inputs, [before_add], name=node.name, **attributes)
    if added:
        yield helper.make_node("Add", [before_add, added], [before_activation])
    if kind:
        yield _activation(kind, values, (before_activation, out), opset, graph)


def _activation(
    kind: str, values: list[float], ends: tuple[str, str], opset: int, graph: onnx.GraphProto
) -> onnx.NodeProto:
    source, out = ends
    named: dict[str, Any] = dict(zip(_PARAMETERS.get(kind, ()), values, strict=False))
    if kind != "Clip" or opset < 11:
        return helper.make_node(kind, [source], [out], **named)
    bounds = []
    for name, value in named.items():
        scalar = np.asarray(value, dtype=np.float32)
        bound = onnx.numpy_helper.from_array(scalar, f"{out}_{name}")
        graph.initializer.append(bound)
        bounds.append(bound.name)
    return helper.make_node("Clip", [source, *bounds], [out])
