"""Quantised operators against ONNX Runtime, to the last unit; their straight-through gradient."""

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from one_node import assert_same, model_of, twin

from converters.to_torch.ops import quantisation as q
from converters.to_torch.program import Program


def draw(*shape, scale=1.0):
    return (np.random.default_rng(list(shape)).normal(size=shape) * scale).astype(np.float32)


def seven_bits(*shape):
    """Weights whose products with uint8 ONNX Runtime adds exactly on every processor."""
    return integers(np.int8, *shape) >> 1


def integers(dtype, *shape):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(list(shape))
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def exactly(op, inputs, **options):
    found = assert_same(op, inputs, tolerance=0, **options)
    for want, got in zip(found, twin(op, inputs, **options), strict=True):
        assert got.dtype == want.dtype
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_by_tensor(dtype):
    X, scale = draw(3, 4, 5, scale=3), np.float32(0.02)
    zero = np.array(np.iinfo(dtype).max // 3, dtype)
    opset = 21 if np.dtype(dtype).itemsize == 2 else 13
    (levels,) = exactly("QuantizeLinear", [X, scale, zero], opset=opset)
    exactly("DequantizeLinear", [levels, scale, zero], opset=opset)


def test_rounding_is_to_even_and_ends_saturate():
    X = np.array([-1e9, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 1e9], np.float32)
    exactly("QuantizeLinear", [X, np.float32(1), np.int8(0)], opset=13)
    exactly("QuantizeLinear", [X, np.float32(1)], opset=13)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_by_axis(axis):
    X = draw(3, 4, 5, scale=5)
    size = X.shape[axis]
    scale, zero = np.abs(draw(size)) * 0.05 + 0.01, integers(np.uint8, size)
    (levels,) = exactly("QuantizeLinear", [X, scale, zero], opset=13, axis=axis)
    exactly("DequantizeLinear", [levels, scale, zero], opset=13, axis=axis)
    accumulators = integers(np.int32, 3, 4, 5) >> 8
    exactly("DequantizeLinear", [accumulators, scale], opset=13, axis=axis)


def test_by_block():
    X, scale = draw(4, 6, scale=5), np.abs(draw(4, 2)) * 0.05 + 0.01
    zero = integers(np.int8, 4, 2)
    options = {"opset": 21, "axis": 1, "block_size": 3}
    (levels,) = exactly("QuantizeLinear", [X, scale, zero], **options)
    exactly("DequantizeLinear", [levels, scale, zero], **options)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
def test_float8(name):
    X = torch.from_numpy(draw(50, scale=200))
    dtype = getattr(torch, name)
    levels = q.quantize_linear(X, torch.tensor(0.5), torch.zeros((), dtype=dtype))
    assert levels.dtype == dtype
    top = float(ml_dtypes.finfo(name).max)
    expected = np.clip(X.numpy() / 0.5, -top, top).astype(getattr(ml_dtypes, name))
    np.testing.assert_array_equal(levels.float().numpy(), expected.astype(np.float32))


@pytest.mark.parametrize(("name", "low", "high"), [("INT4", -8, 7), ("UINT4", 0, 15)])
def test_four_bits(name, low, high):
    X = torch.linspace(-30, 30, 61)
    levels = q.quantize_linear(X, torch.tensor(1.0), output_dtype=getattr(onnx.TensorProto, name))
    assert torch.equal(levels.float(), X.clamp(low, high))


@pytest.mark.parametrize("X", [draw(4, 5), np.abs(draw(4, 5)) + 1, -np.abs(draw(4, 5))])
def test_dynamic(X):
    exactly("DynamicQuantizeLinear", [X], opset=11, outputs=3)


def test_dynamic_of_zeros():
    (levels, _, _) = twin("DynamicQuantizeLinear", [np.zeros((2, 3), np.float32)], outputs=3)
    assert np.all(levels == 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_qlinear_conv(dtype, by_channel, bias):
    x, w = integers(dtype, 2, 4, 7, 6), seven_bits(6, 2, 3, 2)
    w_scale = np.abs(draw(6)) * 0.01 + 0.001 if by_channel else np.float32(0.004)
    w_zero = np.zeros(6, np.int8) if by_channel else np.int8(0)
    zero = dtype(np.iinfo(dtype).max // 2)
    inputs = [x, np.float32(0.03), zero, w, w_scale, w_zero, np.float32(0.11), dtype(3)]
    inputs += [integers(np.int32, 6) >> 18] if bias else []
    exactly("QLinearConv", inputs, opset=10, group=2, pads=[1, 0, 0, 2], strides=[2, 1])


def test_integer_convolution_and_product():
    x, w = integers(np.uint8, 1, 2, 6, 5), integers(np.uint8, 3, 2, 3, 3)
    exactly("ConvInteger", [x, w, np.uint8(7), np.uint8(99)], opset=10, pads=[1, 1, 0, 0])
    A, B = integers(np.uint8, 3, 700), seven_bits(700, 4)
    exactly("MatMulInteger", [A, B, np.uint8(128), np.int8(-3)], opset=10)
    exactly("MatMulInteger", [A, B], opset=10)
    exactly("MatMulInteger", [A, B, np.uint8(9), integers(np.int8, 4)], opset=10)
    rows = np.array([1, 2, 250], np.uint8)
    (Y,) = twin("MatMulInteger", [A, B, rows], opset=10)
    np.testing.assert_array_equal(Y, (A.astype(int) - rows[:, None]) @ B.astype(int))


@pytest.mark.parametrize("by_column", [False, True])
def test_qlinear_matmul(by_column):
    A, B = integers(np.uint8, 2, 3, 8), seven_bits(8, 4)
    b_scale = np.abs(draw(4)) * 0.01 + 0.001 if by_column else np.float32(0.01)
    b_zero = integers(np.int8, 4) if by_column else np.int8(4)
    inputs = [A, np.float32(0.02), np.uint8(110), B, b_scale, b_zero, np.float32(0.3), np.uint8(90)]
    exactly("QLinearMatMul", inputs, opset=10)


def test_the_gradient_passes_straight_through():
    X = torch.randn(2, 3, 4, 4, requires_grad=True)
    scale, zero = torch.tensor(0.05), torch.tensor(10, dtype=torch.uint8)
    levels = q.quantize_linear(X, scale, zero)
    assert levels.dtype == torch.float32
    back = q.dequantize_linear(levels, scale, zero)
    (gradient,) = torch.autograd.grad(back.sum(), X)
    torch.testing.assert_close(gradient, torch.ones_like(X))
    with torch.no_grad():
        assert torch.equal(q.quantize_linear(X, scale, zero).float(), levels)
        assert torch.equal(q.quantize_linear(X, scale, zero), levels.to(torch.uint8))


def test_quantised_convolution_has_the_gradient_of_the_convolution():
    X = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    s, zero = torch.tensor(0.05, dtype=torch.float64), torch.tensor(100, dtype=torch.uint8)
    w = torch.randint(-128, 128, (3, 2, 3, 3), dtype=torch.int8)
    levels = q.quantize_linear(X, s, zero)
    none = torch.tensor(0, dtype=torch.int8)
    Y = q.qlinear_conv(levels, s, zero, w, s * 0.1, none, s * 7, none)
    back = q.dequantize_linear(Y, s * 7, none)
    plain = torch.conv2d(X, w * (s * 0.1))
    seed = torch.randn_like(plain)
    torch.testing.assert_close(*(torch.autograd.grad(y, X, seed)[0] for y in (back, plain)))
    total = q.matmul_integer(q.quantize_linear(X, s, zero), w[:, :, 0].reshape(6, 3)[:5])
    assert torch.autograd.grad(total.sum(), X)[0].abs().sum() > 0


def test_a_quantised_chain_keeps_the_gradient_through_the_program():
    model = model_of("DynamicQuantizeLinear", [draw(2, 3)], opset=11, outputs=3)
    model.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["y0", "y1", "y2"], ["z"]))
    x = torch.from_numpy(draw(2, 3)).requires_grad_()
    z = Program(model).run({"x0": x}, ["z"])["z"]
    np.testing.assert_allclose(z.detach(), x.detach(), atol=0.02)
    torch.testing.assert_close(torch.autograd.grad(z.sum(), x)[0], torch.ones_like(x))
