"""Activation functions against ONNX Runtime, their corners and their gradients."""

import numpy as np
import pytest
import torch
from one_node import assert_same, twin
from torch.autograd import gradcheck

from converters.to_torch.ops import activation

GRID = np.array([[-60, -3.5, -3, -1, -0.5, -0.1, 0], [0.1, 0.5, 1, 2.5, 3, 6, 60]], np.float32)

ELEMENTWISE = [
    ("Relu", 14, {}),
    ("LeakyRelu", 16, {"alpha": 0.2}),
    ("Elu", 6, {"alpha": 0.7}),
    ("Selu", 6, {}),
    ("Selu", 6, {"alpha": 1.2, "gamma": 0.8}),
    ("Celu", 12, {"alpha": 0.5}),
    ("ThresholdedRelu", 10, {"alpha": 0.5}),
    ("Shrink", 9, {"bias": 0.25, "lambd": 1.0}),
    ("Sigmoid", 13, {}),
    ("HardSigmoid", 6, {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", 14, {}),
    ("Mish", 18, {}),
    ("Gelu", 20, {}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("Softplus", 1, {}),
    ("Softsign", 1, {}),
    ("Tanh", 13, {}),
]


@pytest.mark.parametrize(("op", "opset", "attributes"), ELEMENTWISE)
def test_elementwise(op, opset, attributes):
    assert_same(op, [GRID], opset=max(opset, 7), **attributes)


@pytest.mark.parametrize(
    "function",
    [
        activation.relu,
        activation.elu,
        activation.selu,
        activation.celu,
        activation.sigmoid,
        activation.hard_sigmoid,
        activation.hard_swish,
        activation.mish,
        activation.gelu,
        activation.softplus,
        activation.softsign,
        activation.tanh,
        activation.leaky_relu,
        activation.thresholded_relu,
        activation.shrink,
        activation.softmax,
        activation.softmax_1,
        activation.log_softmax,
        lambda x: activation.clip(x, -1.0, 2.0),
        lambda x: activation.swish(x, alpha=1.5),
    ],
)
def test_gradients(function):
    x = torch.linspace(-4.03, 4.07, 12, dtype=torch.float64).reshape(2, 6).requires_grad_()
    assert gradcheck(function, x)


def test_swish_word_by_word():
    x = GRID.astype(np.float64)
    for alpha in (1.0, 1.5):
        (y,) = twin("Swish", [x], opset=24, alpha=alpha)
        np.testing.assert_allclose(y, x / (1 + np.exp(-alpha * x)), atol=1e-12)


@pytest.mark.parametrize(
    ("low", "high"), [(None, None), (-1.0, None), (None, 2.0), (0.0, 6.0), (3.0, -3.0)]
)
def test_clip_of_every_opset(low, high):
    bounds = [None if b is None else np.float32(b) for b in (low, high)]
    assert_same("Clip", [GRID, *bounds], opset=11)
    if (low or 0) <= (high or 9):
        attributes = {k: v for k, v in {"min": low, "max": high}.items() if v is not None}
        assert_same("Clip", [GRID], opset=6, **attributes)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
def test_clip_of_integers(dtype):
    x = np.arange(0, 120, 7).astype(dtype)
    assert_same("Clip", [x, dtype(10), dtype(100)], opset=12, tolerance=0)
    limits = np.iinfo(dtype)
    assert_same("Clip", [x, dtype(limits.min), dtype(limits.max)], opset=12, tolerance=0)


@pytest.mark.parametrize("shape", [(1,), (3, 1, 1), (1, 3, 1, 1), (5,), (4, 5), (3, 4, 5)])
def test_prelu_broadcasts_its_slope(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    slope = rng.normal(size=shape).astype(np.float32)
    assert_same("PRelu", [x, slope], opset=16)
    values = [torch.from_numpy(v).double().requires_grad_() for v in (x, slope)]
    assert gradcheck(activation.prelu, values)


def test_prelu_of_the_first_opsets_has_a_slope_a_channel():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 3)).astype(np.float32)
    slope = rng.normal(size=3).astype(np.float32)
    (y,) = twin("PRelu", [x, slope], opset=6)
    np.testing.assert_array_equal(y, np.where(x > 0, x, x * slope[:, None, None]))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_softmax_before_and_after_opset_13(op, axis):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    late, early = (assert_same(op, [x], opset=o, axis=axis)[0] for o in (13, 11))
    assert np.array_equal(late, early) == (axis in {-1, 2})


def test_hardmax_takes_the_first_of_equal_values():
    assert_same("Hardmax", [np.array([[1, 2, 2], [3, 3, 3]], np.float32)], opset=13)


def test_no_gradient_at_the_flat_side_of_a_corner():
    x = torch.tensor([0.0, 6.0, 3.0], requires_grad=True)
    activation.relu(x[:1]).sum().backward()
    assert x.grad[0] == 0
    x.grad = None
    activation.clip(x, 0.0, 6.0).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0]
