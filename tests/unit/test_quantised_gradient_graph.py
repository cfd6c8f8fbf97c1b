"""Gradients through quantised operators, written as ONNX, against the twin's."""

import numpy as np
import pytest
from quantised_networks import network

from converters.onnx_file import from_proto
from inspector.engines.gradient_graph import GradientGraph
from inspector.engines.twin import TwinEngine
from tests.unit.gradient_cases import Weighted

_RNG = np.random.default_rng(0)

MATRIX = _RNG.integers(-9, 9, (4, 3)).astype(np.int8)
LEVELS = {
    "s": np.float32(0.02),
    "z": np.uint8(128),
    "t": np.float32(0.05),
    "ts": np.float32([0.05, 0.02, 0.07]),
    "ys": np.float32(0.3),
    "M": MATRIX,
    "MT": np.ascontiguousarray(MATRIX.T),
    "n": np.int8(0),
    "ns": np.int8([0, 0, 0]),
    "q0": _RNG.integers(90, 160, (1, 4)).astype(np.uint8),
    "third": np.float32(0.01),
    "z0": np.uint8(0),
}
IN = "q = QuantizeLinear(X, s, z)"
OUT = " Y = DequantizeLinear(p, ys, z)"

ROWS = {
    "QGemm": f"{IN} p = com.microsoft.QGemm(q, s, z, M, t, n, , ys, z){OUT}",
    "QGemm, transposed": f"{IN} p = com.microsoft.QGemm<transB=1>(q, s, z, MT, t, n, , ys, z){OUT}",
    "QGemm by column": f"{IN} p = com.microsoft.QGemm(q, s, z, M, ts, ns, , ys, z){OUT}",
    "QGemm to floats": f"{IN} Y = com.microsoft.QGemm<alpha=0.5>(q, s, z, M, t, n)",
    "QLinearAdd": f"{IN} p = com.microsoft.QLinearAdd(q, s, z, q, s, z, ys, z){OUT}",
    "QLinearAdd, broadcast": f"{IN} p = com.microsoft.QLinearAdd(q, s, z, q0, t, z, ys, z){OUT}",
    "QLinearMul": f"{IN} p = com.microsoft.QLinearMul(q, s, z, q0, t, z, ys, z){OUT}",
    "QLinearMul, itself": f"{IN} p = com.microsoft.QLinearMul(q, s, z, q, s, z, ys, z){OUT}",
    "QLinearSigmoid": (
        f"{IN} p = com.microsoft.QLinearSigmoid(q, s, z, third, z0)"
        " Y = DequantizeLinear(p, third, z0)"
    ),
    "QLinearLeakyRelu": (
        f"{IN} p = com.microsoft.QLinearLeakyRelu<alpha=0.1>(q, s, z, t, z)"
        " Y = DequantizeLinear(p, t, z)"
    ),
    "QLinearSoftmax": (
        f"{IN} p = com.microsoft.QLinearSoftmax<axis=-1, opset=13>(q, s, z, third, z0)"
        " Y = DequantizeLinear(p, third, z0)"
    ),
    "QLinearConcat": (
        f"{IN} p = com.microsoft.QLinearConcat<axis=1>(ys, z, q, s, z, q, s, z){OUT}"
    ),
}
KERNEL = _RNG.integers(-9, 9, (2, 3, 3, 3)).astype(np.int8)
MAPS = {
    "QLinearGlobalAveragePool": (
        f"{IN} p = com.microsoft.QLinearGlobalAveragePool(q, s, z, ys, z){OUT}"
    ),
    "QLinearGlobalAveragePool, last": (
        f"{IN} a = Transpose<perm=[0,2,3,1]>(q)"
        f" p = com.microsoft.QLinearGlobalAveragePool<channels_last=1>(a, s, z, ys, z){OUT}"
    ),
    "QLinearAveragePool": (
        f"{IN} p = com.microsoft.QLinearAveragePool"
        f"<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,0]>(q, s, z, ys, z){OUT}"
    ),
    "QLinearAveragePool, last": (
        f"{IN} a = Transpose<perm=[0,2,3,1]>(q) p = com.microsoft.QLinearAveragePool"
        f"<kernel_shape=[2,2], channels_last=1>(a, s, z, ys, z){OUT}"
    ),
    "NhwcMaxPool": (
        f"{IN} a = Transpose<perm=[0,2,3,1]>(q)"
        f" p = com.microsoft.NhwcMaxPool<kernel_shape=[3,3], strides=[2,2]>(a){OUT}"
    ),
    "QLinearConv, last": (
        f"{IN} a = Transpose<perm=[0,2,3,1]>(q) p = com.microsoft.QLinearConv"
        f"<channels_last=1, pads=[1,1,1,1]>(a, s, z, K, t, n, ys, z){OUT}"
    ),
    "QLinearConv": f"{IN} p = QLinearConv<pads=[1,1,1,1]>(q, s, z, K, t, n, ys, z){OUT}",
}


@pytest.mark.parametrize("name", [*ROWS, *MAPS])
def test_the_signal_is_the_twins(name):
    text, maps = (ROWS | MAPS)[name], name in MAPS
    shape = "float[N,3,6,6]" if maps else "float[N,4]"
    proto = network(text, x=f"{shape} X", y="float Y", domain="com.microsoft", **LEVELS, K=KERNEL)
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    file = from_proto(proto)
    x = _RNG.normal(size=(2, 3, 6, 6) if maps else (2, 4)).astype(np.float32)
    graph, twin = GradientGraph(file, optimise=False), TwinEngine(file.graph)
    value = graph._runtime(file.model).run({"X": x}, ["Y"])["Y"]
    targets = [Weighted(_RNG.normal(size=value.shape).astype(np.float32), ("Y",))] * 2
    found = graph.signals({"X": x}, {}, targets)["X"]
    expected = twin.signals({"X": x}, {}, targets)["X"]
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()
    assert np.abs(expected).max() > 0
