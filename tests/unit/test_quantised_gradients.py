"""Gradients through quantised operators: what passes, and what stops."""

import numpy as np
import pytest
import torch
from one_node import assert_same
from quantised_networks import network

from converters.to_torch.optable import OpTable
from converters.to_torch.program import Program

QDQ = "q = QuantizeLinear(X, s, z) c = Cast<to = 2>(q) Y = DequantizeLinear(c, s, u)"


def test_a_cast_between_quantised_types_passes_the_gradient_and_wraps():
    proto = network(QDQ, s=np.float32(0.5), z=np.int8(0), u=np.uint8(0))
    leaf = torch.tensor([-1.0, -0.2, 0.6, 100.0], requires_grad=True)
    got = Program(proto).run({"X": leaf}, ["Y"])["Y"]
    assert got.tolist() == [127.0, 0.0, 0.5, 63.5]  # level -2 of int8 is 254 of uint8
    (gradient,) = torch.autograd.grad(got.sum(), leaf)
    assert gradient.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_cast_of_numbers_that_are_not_whole_stops_the_gradient():
    proto = network("c = Cast<to = 2>(X) Y = Cast<to = 1>(c)")
    leaf = torch.tensor([0.5, 1.0, 2.7, 3.0], requires_grad=True)
    got = Program(proto).run({"X": leaf}, ["Y"])["Y"]
    assert got.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert not got.requires_grad


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("outputs", [1, 2])
def test_maxima_of_large_quantised_maps(dtype, outputs):
    limits = np.iinfo(dtype)
    levels = np.random.default_rng(0).integers(limits.min, limits.max, (1, 2, 40, 30), dtype)
    options = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    assert_same("MaxPool", [levels], tolerance=0, outputs=outputs, **options)


# -- straight-through: the gradient of a quantised operator is that of what it approximates -----

M = np.random.default_rng(5).integers(-9, 9, (4, 3)).astype(np.int8)
LEVELS = {
    "s": np.float32(0.02),
    "z": np.uint8(128),
    "t": np.float32(0.05),
    "ys": np.float32(0.3),
    "M": M,
    "n": np.int8(0),
}
IN = "q = QuantizeLinear(X, s, z)"
OUT = " Y = DequantizeLinear(p, ys, z)"
FLOAT_M = M.astype(np.float64) * 0.05
SAME = {
    "QLinearMatMul": (f"{IN} p = QLinearMatMul(q, s, z, M, t, n, ys, z){OUT}", FLOAT_M),
    "QGemm": (f"{IN} p = com.microsoft.QGemm(q, s, z, M, t, n, , ys, z){OUT}", FLOAT_M),
    "QGemm to floats": (f"{IN} Y = com.microsoft.QGemm(q, s, z, M, t, n)", FLOAT_M),
    "MatMulInteger": (
        f"{IN} i = MatMulInteger(q, M, z, n) f = Cast<to=1>(i) g = Mul(f, s) Y = Mul(g, t)",
        FLOAT_M,
    ),
    "dynamic": (
        (
            "q, ds, dz = DynamicQuantizeLinear(X) i = MatMulInteger(q, M, dz, n) f = Cast<to=1>(i)"
            " g = Mul(f, ds) Y = Mul(g, t)"
        ),
        FLOAT_M,
    ),
    "QLinearAdd": (
        f"{IN} p = com.microsoft.QLinearAdd(q, s, z, q, s, z, ys, z){OUT}",
        2 * np.eye(4),
    ),
    "QLinearConcat": (
        f"{IN} p = com.microsoft.QLinearConcat<axis=1>(ys, z, q, s, z, q, s, z){OUT}",
        np.concatenate([np.eye(4), np.eye(4)], axis=1),
    ),
    "moved about": (
        (
            f"{IN} a = Reshape(q, shape) b = Transpose<perm=[0,2,1]>(a) c = Flatten(b)"
            " Y = DequantizeLinear(c, s, z)"
        ),
        np.eye(4)[:, [0, 2, 1, 3]],
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_gradient_is_that_of_the_float_operator(name):
    text, matrix = SAME[name]
    proto = network(text, domain="com.microsoft", shape=np.array([-1, 2, 2]), **LEVELS)
    X = np.random.default_rng(6).normal(size=(5, 4)).astype(np.float32)
    leaf = torch.tensor(X, requires_grad=True)
    value = Program(proto).run({"X": leaf}, ["Y"])["Y"]
    # One step of the output, and what rounding the input to 0.02 makes of a sum.
    assert (
        np.abs(value.detach().numpy() - X @ matrix).max()
        < 0.15 + 0.04 * np.abs(matrix).sum(0).max()
    )
    R = np.random.default_rng(7).normal(size=value.shape).astype(np.float32)
    (gradient,) = torch.autograd.grad(value, leaf, torch.from_numpy(R))
    np.testing.assert_allclose(gradient.numpy(), R @ matrix.T, atol=1e-5)


@pytest.mark.parametrize("by_channel", [False, True])
def test_integer_convolutions_pass_the_gradient_of_a_convolution(by_channel):
    k = np.random.default_rng(8).integers(-9, 9, (2, 3, 3, 3)).astype(np.int8)
    scale = np.array([0.1, 0.2] if by_channel else [0.1, 0.1], np.float32)
    text = (
        "q, s, z = DynamicQuantizeLinear(X) c = ConvInteger<pads=[1,1,1,1]>(q, k, z, n)"
        " f = Cast<to=1>(c) g = Mul(f, s) Y = Mul(g, t)"
    )
    proto = network(
        text,
        x="float[N,3,6,6] X",
        y="float[N,2,6,6] Y",
        k=k,
        n=np.int8(0),
        t=scale.reshape(2, 1, 1),
    )
    X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    R = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(Program(proto).run({"X": X}, ["Y"])["Y"], X, R)
    weight = torch.from_numpy(k.astype(np.float32) * scale.reshape(2, 1, 1, 1))
    (wanted,) = torch.autograd.grad(torch.conv2d(X, weight, padding=1), X, R)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


# -- what a rule does behind single tensors -----------


def test_an_overlay_acts_on_the_tensors_that_it_names_and_on_no_others():
    proto = network("a, b = Split<axis=1>(X) c = Neg(a) Y = Concat<axis=1>(c, b)", opset=11)
    program = Program(proto)
    x = torch.arange(8.0).reshape(2, 4)
    plain = program.run({"X": x}, ["Y"])["Y"]
    table = OpTable(behind={"b": lambda value: value + 100, "c": lambda value: value * 10})
    found = program.run({"X": x}, ["Y"], table)["Y"]
    torch.testing.assert_close(found, torch.cat([plain[:, :2] * 10, plain[:, 2:] + 100], dim=1))
    torch.testing.assert_close(program.run({"X": x}, ["Y"])["Y"], plain)
    fed = program.run({"X": x, "b": plain[:, 2:]}, ["Y"], table)["Y"]
    torch.testing.assert_close(fed[:, 2:], plain[:, 2:])  # what is fed is not computed
