"""The sample ResNet-20, read from its ONNX file for frameworks that build it again.

Known are Conv, Gemm, Relu, Add, ReduceMean and nodes that hand their input on.  Imported in the
frameworks' own environments: nothing but NumPy and onnx is there.
"""

import onnx
from onnx import numpy_helper


def weighted(graph):
    """Each Conv and Gemm: its output, kernel, bias, strides, and padding ((top, bottom), ...)."""
    weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type in {"Conv", "Gemm"}:
            known = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            kernel, bias = (weights[name] for name in node.input[1:3])
            top, left, bottom, right = known.get("pads", [0] * 4)
            strides = tuple(known.get("strides", (1, 1)))
            yield node.output[0], kernel, bias, strides, ((top, bottom), (left, right))


def forward(graph, image, layers, relu, mean):
    """The network's output, of layers by the names of their outputs."""
    values = {graph.input[0].name: image}
    for node in graph.node:
        x = values.get(node.input[0])
        if node.output[0] in layers:
            y = layers[node.output[0]](x)
        elif node.op_type == "Relu":
            y = relu(x)
        elif node.op_type == "Add":
            y = x + values[node.input[1]]
        elif node.op_type == "ReduceMean":
            y = mean(x)
        elif node.op_type in {"Identity", "Reshape", "Squeeze", "Flatten"}:
            y = x
        else:
            raise SystemExit(f"no layer for {node.op_type}")
        values[node.output[0]] = y
    return values[graph.output[0].name]
