"""Small quantised networks, written in ONNX's own text form."""

import numpy as np
import onnx
from onnx import numpy_helper, parser


def network(text, *, x="float[N,4] X", y="float[N,4] Y", opset=13, domain="", **constants):
    """A model of these nodes; keyword arguments are initialisers."""
    imports = f'"" : {opset}' + (f', "{domain}" : 1' if domain else "")
    ir_version = 10 if opset >= 21 else 8
    proto = parser.parse_model(
        f"<ir_version: {ir_version}, opset_import: [{imports}]> main ({x}) => ({y}) {{ {text} }}"
    )
    proto.graph.initializer.extend(
        value
        if isinstance(value, onnx.TensorProto)
        else numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    )
    return proto
