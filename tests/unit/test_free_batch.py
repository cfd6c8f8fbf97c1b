"""Free batch axis: free where the graph proves it, fixed at one with the node elsewhere."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.free_batch import free_batch

GENERATOR = np.random.default_rng(0)


def network(nodes, output, constants=None, shape=(1, 4, 4, 2)):
    """A network of one image (1, h, w, C) with constants by name."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model, x):
    """The output for a batch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def floats(*shape):
    return GENERATOR.normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


FREE = {
    "a head behind a pool": (
        [
            ("Transpose", ["x"], ["t"], {"perm": [0, 3, 1, 2]}),
            ("Conv", ["t", "w"], ["c"]),
            ("GlobalAveragePool", ["c"], ["p"]),
            ("Reshape", ["p", "flat"], ["f"]),
            ("Gemm", ["f", "m", "b"], ["y"]),
        ],
        (1, 5),
        {"w": floats(3, 2, 3, 3), "flat": ints(1, 3), "m": floats(3, 5), "b": floats(5)},
    ),
    "a grid that is added": (
        [("Reshape", ["x", "rows"], ["r"]), ("Add", ["r", "grid"], ["y"])],
        (1, 16, 2),
        {"rows": ints(1, 16, 2), "grid": floats(1, 16, 2)},
    ),
    "axes before the samples": (
        [
            ("Transpose", ["x"], ["t"], {"perm": [3, 0, 1, 2]}),
            ("ReduceMean", ["t"], ["m"], {"axes": [0], "keepdims": 0}),
            ("Unsqueeze", ["m", "one"], ["u"]),
            ("Squeeze", ["u", "one"], ["y"]),
        ],
        (1, 4, 4),
        {"one": ints(1)},
    ),
    "parts that come together": (
        [
            ("Slice", ["x", "zero", "one", "last"], ["a"]),
            ("Gather", ["x", "second"], ["b"], {"axis": 3}),
            ("Concat", ["a", "b"], ["c"], {"axis": 3}),
            ("Softmax", ["c"], ["y"], {"axis": -1}),
        ],
        (1, 4, 4, 2),
        {"zero": ints(0), "one": ints(1), "last": ints(3), "second": ints(1)},
    ),
    "a slice to the end, and larger maps": (
        [
            ("Slice", ["x", "zeros", "ends", "axes"], ["s"]),
            ("Resize", ["s", "", "scales"], ["y"], {"mode": "nearest"}),
        ],
        (1, 8, 8, 1),
        {
            "zeros": ints(0, 1),
            "ends": ints(2**31 - 1, 2),
            "axes": ints(0, 3),
            "scales": np.array([1, 2, 2, 1], np.float32),
        },
    ),
    "rows of a product": (
        [("Reshape", ["x", "flat"], ["f"]), ("MatMul", ["f", "m"], ["y"])],
        (1, 3),
        {"flat": ints(1, -1), "m": floats(32, 3)},
    ),
}

FIXED = {
    "one sample is taken out": (
        [
            ("Gather", ["x", "first"], ["g"], {"axis": 0}),
            ("Reshape", ["g", "rows"], ["y"]),
        ],
        (1, 32),
        {"first": np.array(0, np.int64), "rows": ints(1, 32)},
        "Gather",
    ),
    "the first sample is sliced out": (
        [("Slice", ["x", "zero", "one", "zero"], ["y"])],
        (1, 4, 4, 2),
        {"zero": ints(0), "one": ints(1)},
        "Slice",
    ),
    "all axes of one are taken away": (
        [("Squeeze", ["x"], ["s"]), ("Reshape", ["s", "rows"], ["y"])],
        (1, 32),
        {"rows": ints(1, 32)},
        "Squeeze",
    ),
    "a constant of one sample beside it": (
        [("Concat", ["x", "c"], ["y"], {"axis": 3})],
        (1, 4, 4, 3),
        {"c": floats(1, 4, 4, 1)},
        "Concat",
    ),
    "a mean over all": ([("ReduceMean", ["x"], ["y"])], (1, 1, 1, 1), {}, "ReduceMean"),
    "one row of all": (
        [("Reshape", ["x", "one"], ["r"]), ("Softmax", ["r"], ["y"], {"axis": 0})],
        (1, 32),
        {"one": ints(1, 32)},
        "Softmax",
    ),
    "the samples come last": (
        [("Transpose", ["x"], ["y"], {"perm": [1, 2, 3, 0]})],
        (4, 4, 2, 1),
        {},
        "output y",
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_a_proved_batch_is_free_and_samples_do_not_touch(name):
    nodes, output, constants = FREE[name]
    model = network(nodes, output, constants)
    x = floats(3, 4, 4, 2)
    one_by_one = np.concatenate([run(model, sample[None]) for sample in x])
    assert free_batch(model) == ""
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, x), one_by_one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FIXED)
def test_a_batch_that_is_not_proved_stays_one_and_the_node_is_named(name):
    nodes, output, constants, where = FIXED[name]
    model = network(nodes, output, constants)
    before = model.SerializeToString()
    assert where in free_batch(model)
    assert model.SerializeToString() == before
