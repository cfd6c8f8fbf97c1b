"""Whether ONNX Runtime multiplies 8-bit integers exactly on this processor.

On x86 without VNNI it adds pairs of products of uint8 and int8 in 16 bits, which saturate where
weights use all of their 8 bits. ONNX Runtime's own remedy are weights of 7 bits (``reduce_range``).
"""

from functools import cache

import numpy as np
from onnx import TensorProto, helper, numpy_helper


@cache
def saturates() -> bool:
    """Whether 255 * 127 + 255 * 127 comes out as something else."""
    import onnxruntime

    weights = np.full((8, 4), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [3, 8])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [3, 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.full((3, 8), 255, np.uint8)
    return not np.array_equal(session.run(None, {"x": x})[0], x.astype(int) @ weights.astype(int))
