"""Normalisations against ONNX Runtime and the standard's formulas."""

import numpy as np
import pytest
import torch
from one_node import assert_same, twin
from torch.autograd import gradcheck

from converters.errors import ConverterError
from converters.to_torch.ops import normalisation


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def statistics(*shape):
    return [draw(*shape), draw(*shape) + 1, draw(*shape), draw(*shape) ** 2 + 0.1]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 4, 5), (1, 3, 2, 3, 4)])
@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalization(shape, opset):
    assert_same("BatchNormalization", [draw(*shape), *statistics(3)], opset=opset, epsilon=1e-3)


def test_batch_normalization_of_the_first_opsets():
    X, parameters = draw(2, 3, 4, 5), statistics(3)
    (new,) = twin("BatchNormalization", [X, *parameters], opset=15)
    (old,) = twin("BatchNormalization", [X, *parameters], opset=6, is_test=1)
    np.testing.assert_array_equal(new, old)
    scale, B, mean, var = each = statistics(3, 4, 5)
    (Y,) = twin("BatchNormalization", [X, *each], opset=7, spatial=0)
    expected = scale * (X - mean) / np.sqrt(var + 1e-5) + B
    np.testing.assert_allclose(Y, expected, atol=1e-4)


def test_training_mode():
    X, (scale, B, mean, var) = draw(4, 3, 5), statistics(3)
    inputs = [X, scale, B, mean, var]
    Y, new_mean, new_var = twin(
        "BatchNormalization", inputs, opset=15, outputs=3, training_mode=1, momentum=0.8
    )
    m, v = X.mean((0, 2)), X.var((0, 2))
    expected = (X - m[:, None]) / np.sqrt(v + 1e-5)[:, None] * scale[:, None] + B[:, None]
    np.testing.assert_allclose(Y, expected, atol=1e-5)
    np.testing.assert_allclose(new_mean, 0.8 * mean + 0.2 * m, atol=1e-6)
    np.testing.assert_allclose(new_var, 0.8 * var + 0.2 * v, atol=1e-6)
    with pytest.raises(ConverterError, match="training mode"):
        twin("BatchNormalization", inputs, opset=9, outputs=5)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 1, 1)])
def test_instance_normalization(shape):
    assert_same("InstanceNormalization", [draw(*shape), draw(3), draw(3)], opset=6, tolerance=1e-4)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("outputs", [1, 3])
def test_layer_normalization(axis, outputs):
    X = draw(2, 3, 4)
    scale, B = draw(*X.shape[axis:]), draw(*X.shape[axis:])
    assert_same("LayerNormalization", [X, scale, B], opset=17, axis=axis, outputs=outputs)
    assert_same("LayerNormalization", [X, scale], opset=17, axis=axis, outputs=outputs)


def test_layer_normalization_broadcasts_its_scale():
    X, scale = draw(2, 3, 4), draw(4)
    (Y,) = twin("LayerNormalization", [X, scale], opset=17, axis=1)
    centred = X - X.mean((1, 2), keepdims=True)
    expected = centred / np.sqrt(X.var((1, 2), keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(Y, expected, atol=1e-5)


@pytest.mark.parametrize("axis", [1, -1])
def test_rms_normalization(axis):
    X = draw(2, 3, 4)
    scale = draw(*X.shape[axis:])
    assert_same("RMSNormalization", [X, scale], opset=23, axis=axis)


@pytest.mark.parametrize("opset", [18, 21])
def test_group_normalization(opset):
    X, size = draw(2, 6, 3, 4), 6 if opset == 21 else 3
    scale, bias = draw(size), draw(size) + 2
    (Y,) = twin("GroupNormalization", [X, scale, bias], opset=opset, num_groups=3)
    groups = X.reshape(2, 3, -1)
    normal = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    scale, bias = (p if opset == 21 else np.repeat(p, 2) for p in (scale, bias))
    expected = normal.reshape(X.shape) * scale[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(Y, expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_lrn_word_by_word(size):
    X = draw(2, 7, 3, 2).astype(np.float64)
    squares = np.zeros_like(X)
    for c in range(7):
        first, last = max(0, c - (size - 1) // 2), min(6, c + -(-(size - 1) // 2))
        squares[:, c] = (X[:, first : last + 1] ** 2).sum(1)
    expected = X / (1.5 + 0.3 / size * squares) ** 0.6
    (Y,) = twin("LRN", [X], size=size, alpha=0.3, beta=0.6, bias=1.5)
    np.testing.assert_allclose(Y, expected, rtol=1e-6)
    if size % 2:
        assert_same("LRN", [X.astype(np.float32)], size=size, alpha=0.3, beta=0.6, bias=1.5)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(p):
    X = draw(3, 4)
    X[1] = 0
    assert_same("LpNormalization", [X], p=p, axis=1)


def test_mean_variance_normalization():
    assert_same("MeanVarianceNormalization", [draw(2, 3, 4, 5)], opset=13)
    assert_same("MeanVarianceNormalization", [draw(2, 3, 4, 5)], opset=13, axes=[0, 1, 2, 3])


def test_gradients():
    X = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    scale, B, mean = (torch.randn(4, dtype=torch.float64) for _ in range(3))
    var = torch.rand(4, dtype=torch.float64) + 0.1
    n = normalisation
    assert gradcheck(lambda x: n.batch_normalization(x, scale, B, mean, var), X)
    assert gradcheck(lambda x: n.instance_normalization(x, scale, B), X)
    assert gradcheck(lambda x: n.layer_normalization(x, scale[:3], B[:3]), X)
    assert gradcheck(lambda x: n.group_normalization(x, scale, B, num_groups=2), X)
    assert gradcheck(lambda x: n.rms_normalization(x, scale[:3]), X)
    assert gradcheck(lambda x: n.lrn(x, size=4, alpha=0.5), X)
    assert gradcheck(n.lp_normalization, X)
    assert gradcheck(lambda x: n.mean_variance_normalization(x, axes=(0, 2)), X)


def test_training_mode_is_differentiated_through_the_batchs_own_statistics():
    X, (scale, B, mean, var) = draw(4, 3, 5), statistics(3)
    inputs = [torch.from_numpy(v).double() for v in (X, scale, B, mean, var)]

    def training(x):
        return normalisation.batch_normalization(x, *inputs[1:], training_mode=1)[0]

    assert gradcheck(training, (inputs[0].requires_grad_(),))
