"""Sums of products of 8-bit integers come out exactly on every processor.

By default ONNX Runtime lets sums of uint8 x int8 saturate on x86 processors without VNNI.
"""

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as oh
from onnx import numpy_helper

from converters.onnx_file import read
from inspector.engines.runtime import Runtime

TYPES = {np.uint8: T.UINT8, np.int8: T.INT8}
LEVELS = 255


def scalar(name, value, dtype):
    return numpy_helper.from_array(np.array(value, dtype), name)


def draw(rng, dtype, shape):
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.8, limits.max, values).astype(dtype)


def saved(tmp_path, nodes, inputs, outputs, constants):
    graph = oh.make_graph(nodes, "products", inputs, outputs, constants)
    path = tmp_path / "products.onnx"
    opsets = [oh.make_opsetid("", 13), oh.make_opsetid("com.microsoft", 1)]
    path.write_bytes(oh.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return read(path)


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("weights_type", TYPES)
@pytest.mark.parametrize("data_type", TYPES)
def test_matmul_integer(tmp_path, data_type, weights_type, optimise):
    rng = np.random.default_rng(0)
    x, w = draw(rng, data_type, (3, 256)), draw(rng, weights_type, (256, 5))
    file = saved(
        tmp_path,
        [
            oh.make_node("MatMulInteger", ["x", "w"], ["i"]),
            oh.make_node("Cast", ["i"], ["y"], to=1),
        ],
        [oh.make_tensor_value_info("x", TYPES[data_type], [3, 256])],
        [oh.make_tensor_value_info("y", T.FLOAT, [3, 5])],
        [numpy_helper.from_array(w, "w")],
    )
    found = Runtime(file, device="cpu", optimise=optimise).run({"x": x}, ["y"])["y"]
    np.testing.assert_array_equal(found, x.astype(int) @ w.astype(int))


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("data_type", TYPES)
def test_qlinear_matmul(tmp_path, data_type, optimise):
    """ONNX Runtime has no exact kernel for int8 x int8, and needs none."""
    rng = np.random.default_rng(1)
    x, w = draw(rng, data_type, (3, 256)), draw(rng, np.int8, (256, 5))
    total = x.astype(float) @ w.astype(float)
    step = np.abs(total).max() / 120
    middle = 128 if data_type is np.uint8 else 0
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    file = saved(
        tmp_path,
        [oh.make_node("QLinearMatMul", names, ["y"])],
        [oh.make_tensor_value_info("x", TYPES[data_type], [3, 256])],
        [oh.make_tensor_value_info("y", TYPES[data_type], [3, 5])],
        [
            numpy_helper.from_array(w, "w"),
            scalar("xs", 1, np.float32),
            scalar("ws", 1, np.float32),
            scalar("ys", step, np.float32),
            scalar("xz", 0, data_type),
            scalar("wz", 0, np.int8),
            scalar("yz", middle, data_type),
        ],
    )
    found = Runtime(file, device="cpu", optimise=optimise).run({"x": x}, ["y"])["y"]
    np.testing.assert_allclose(found, np.round(total / step) + middle, atol=1)


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("form", ["operator", "pairs"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_convolution(tmp_path, form, per_channel, optimise):
    rng = np.random.default_rng(2)
    x, w = draw(rng, np.uint8, (1, 16, 6, 6)), draw(rng, np.int8, (4, 16, 3, 3))
    windows = np.lib.stride_tricks.sliding_window_view(x[0].astype(float), (3, 3), (1, 2))
    total = np.einsum("cyxij,kcij->kyx", windows, w.astype(float))[None]
    step = np.abs(total).max() / 120
    shape = (4,) if per_channel else ()
    constants = [
        numpy_helper.from_array(w, "w"),
        scalar("xs", 1, np.float32),
        scalar("ys", step, np.float32),
        scalar("xz", 0, np.uint8),
        scalar("yz", 128, np.uint8),
        numpy_helper.from_array(np.ones(shape, np.float32), "ws"),
        numpy_helper.from_array(np.zeros(shape, np.int8), "wz"),
    ]
    if form == "operator":
        names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
        nodes = [oh.make_node("QLinearConv", names, ["y"])]
    else:
        nodes = [
            oh.make_node("DequantizeLinear", ["x", "xs", "xz"], ["xf"]),
            oh.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=0),
            oh.make_node("Conv", ["xf", "wf"], ["c"]),
            oh.make_node("QuantizeLinear", ["c", "ys", "yz"], ["y"]),
        ]
    file = saved(
        tmp_path,
        nodes,
        [oh.make_tensor_value_info("x", T.UINT8, list(x.shape))],
        [oh.make_tensor_value_info("y", T.UINT8, list(total.shape))],
        constants,
    )
    found = Runtime(file, device="cpu", optimise=optimise).run({"x": x}, ["y"])["y"]
    np.testing.assert_allclose(found, np.clip(np.round(total / step) + 128, 0, LEVELS), atol=1)
