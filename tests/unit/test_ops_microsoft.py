"""Operators of ONNX Runtime's own domain against ONNX Runtime."""

import numpy as np
import pytest
import torch
from one_node import ort, twin

from converters.errors import ConverterError
from converters.to_torch.ops import microsoft_quantised

DOMAIN = "com.microsoft"


def draw(*shape, scale=1.0):
    return (np.random.default_rng(list(shape)).normal(size=shape) * scale).astype(np.float32)


def integers(dtype, *shape):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(list(shape))
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def close(op, inputs, *, tolerance=1e-5, domain=DOMAIN, **options):
    for want, got in zip(
        ort(op, inputs, domain=domain, **options),
        twin(op, inputs, domain=domain, **options),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1, np.abs(want).max()))


def within_one_unit(op, inputs, **options):
    """Quantised results: the same type, hardly ever a unit apart, never more."""
    (want,), (got,) = (run(op, inputs, domain=DOMAIN, **options) for run in (ort, twin))
    assert want.dtype == got.dtype
    apart = np.abs(want.astype(int) - got.astype(int))
    assert apart.max() <= 1
    assert apart.mean() < 0.01
    assert len(np.unique(want)) > 3


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", []),
        ("LeakyRelu", [0.2]),
        ("Clip", [-0.5, 1.5]),
        ("Sigmoid", []),
        ("Tanh", []),
        ("HardSigmoid", [0.3, 0.4]),
    ],
)
def test_fused_conv(activation, parameters):
    options = {"activation": activation, "pads": [1, 1, 0, 0], "strides": [2, 1]}
    options |= {"activation_params": parameters} if parameters else {}
    X, W, B = draw(1, 3, 6, 5), draw(4, 3, 3, 2), draw(4)
    close("FusedConv", [X, W, B], **options)
    if not parameters:
        close("FusedConv", [X, W, B, draw(1, 4, 3, 5)], **options)


def test_fused_products():
    A, B = draw(2, 3, 4), draw(2, 5, 4)
    close("FusedMatMul", [A, B], alpha=0.5, transB=1)
    options = {"activation": "LeakyRelu", "activation_alpha": 0.3, "alpha": 0.7, "beta": 2.0}
    close("FusedGemm", [draw(4, 3), draw(5, 4), draw(5)], transA=1, transB=1, **options)
    with pytest.raises(ConverterError, match="transposed batch"):
        twin("FusedMatMul", [A, B], domain=DOMAIN, transBatchA=1)
    with pytest.raises(ConverterError, match="Sine"):
        twin("FusedConv", [draw(1, 1, 3), draw(1, 1, 1)], domain=DOMAIN, activation="Sine")


@pytest.mark.parametrize(
    ("op", "count"),
    [("Gelu", 1), ("BiasGelu", 2), ("FastGelu", 1), ("FastGelu", 2), ("QuickGelu", 1)],
)
def test_gelus(op, count):
    close(op, [draw(3, 8, scale=2), draw(8)][:count], tolerance=1e-4)


def test_layer_normalizations():
    X, skip, gamma, beta, bias = draw(2, 3, 8), draw(2, 3, 8) * 2, draw(8), draw(8) + 1, draw(8) * 3
    close("SkipLayerNormalization", [X, skip, gamma, beta, bias], epsilon=1e-5)
    close("SkipLayerNormalization", [X, skip, gamma], epsilon=1e-5)
    close("SkipSimplifiedLayerNormalization", [X, skip, gamma, bias], epsilon=1e-5)
    close("SimplifiedLayerNormalization", [X, gamma], domain="", opset=14, outputs=2)
    close("LayerNormalization", [X, gamma, beta], domain="", opset=14)
    total = twin("SkipLayerNormalization", [X, skip, gamma], domain=DOMAIN, outputs=4)[3]
    np.testing.assert_array_equal(total, X + skip)


# No simple ratios: a sum half-way between two levels is rounded by the order of operations.
SCALES = [np.float32(0.0313), np.float32(0.0217), np.float32(0.0529)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_binary(op, dtype):
    A, B = integers(dtype, 4, 3, 50), integers(dtype, 1, 50)
    close_to = [A, SCALES[0], dtype(20), B, SCALES[1], dtype(99), SCALES[2], dtype(60)]
    within_one_unit(op, close_to)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_unary(dtype):
    X = integers(dtype, 4, 60)
    inputs = [X, SCALES[0], dtype(20)]
    within_one_unit("QLinearSigmoid", [*inputs, np.float32(1 / 256), dtype(0)])
    within_one_unit("QLinearLeakyRelu", [*inputs, SCALES[0], dtype(40)], alpha=0.3)
    four = integers(dtype, 2, 3, 6, 5)
    pool = [four, SCALES[0], dtype(20), SCALES[1], dtype(30)]
    within_one_unit("QLinearGlobalAveragePool", pool)
    within_one_unit("QLinearGlobalAveragePool", pool, channels_last=1)
    within_one_unit("QLinearAveragePool", pool, kernel_shape=[3, 2], pads=[1, 0, 1, 0])
    within_one_unit("QLinearAveragePool", pool, kernel_shape=[2, 2], channels_last=1)
    within_one_unit("NhwcMaxPool", [four], kernel_shape=[2, 2], strides=[2, 1])


@pytest.mark.parametrize("axis", [1, 2])
def test_softmax_before_and_after_opset_13(axis):
    X, out = torch.from_numpy(integers(np.uint8, 2, 3, 4)), torch.tensor(1 / 256)
    scale, zero = torch.tensor(0.02), torch.tensor(0, dtype=torch.uint8)
    x = X.float() * 0.02
    for opset, y in ((13, x.softmax(axis)), (12, x.flatten(axis).softmax(axis).reshape(x.shape))):
        found = microsoft_quantised.qlinear_softmax(
            X, scale, zero, out, zero, axis=axis, opset=opset
        )
        torch.testing.assert_close(found.float() / 256, y, rtol=0, atol=0.51 / 256)


def test_concat():
    parts = [integers(np.uint8, 2, n, 5) for n in (1, 2, 3)]
    triples = [
        v for p, s, z in zip(parts, SCALES, (1, 2, 3), strict=True) for v in (p, s, np.uint8(z))
    ]
    within_one_unit("QLinearConcat", [SCALES[2], np.uint8(9), *triples], axis=1)


@pytest.mark.parametrize("float_output", [False, True])
@pytest.mark.parametrize("by_column", [False, True])
def test_qgemm(float_output, by_column):
    A, B = integers(np.uint8, 6, 3), integers(np.int8, 4, 6)
    scale = np.abs(draw(4)) * 0.01 + 0.001 if by_column else np.float32(0.004)
    zero = np.zeros(4, np.int8) if by_column else np.int8(3)
    inputs = [A, SCALES[0], np.uint8(7), B, scale, zero, integers(np.int32, 4) >> 18]
    if float_output:
        close("QGemm", inputs, transA=1, transB=1, alpha=0.5)
    else:
        inputs += [np.float32(0.1), np.uint8(90)]
        within_one_unit("QGemm", inputs, transA=1, transB=1)


def test_channels_last_convolution():
    x, w = integers(np.uint8, 1, 6, 5, 4), integers(np.int8, 3, 4, 3, 3) >> 1
    inputs = [
        x,
        SCALES[0],
        np.uint8(7),
        w,
        np.float32(0.004),
        np.int8(0),
        np.float32(0.2),
        np.uint8(9),
    ]
    within_one_unit("QLinearConv", inputs, channels_last=1, pads=[1, 1, 1, 1])


def test_16_bits_of_this_domain():
    X = draw(3, 40)
    inputs = [X, np.float32(0.001), np.uint16(30000)]
    within_one_unit("QuantizeLinear", inputs)
    (levels,) = twin("QuantizeLinear", inputs, domain=DOMAIN)
    close("DequantizeLinear", [levels, *inputs[1:]])


def test_the_gradient_passes_through():
    X = torch.randint(0, 255, (3, 4)).float().requires_grad_()
    scale, zero = torch.tensor(0.02), torch.tensor(3, dtype=torch.uint8)
    Y = microsoft_quantised.qlinear_add(X, scale, zero, X, scale, zero, scale * 2, zero)
    torch.testing.assert_close(torch.autograd.grad(Y.sum(), X)[0], torch.ones_like(X))
    joined = microsoft_quantised.qlinear_concat(scale, zero, X, scale, zero, X, scale, zero, axis=0)
    torch.testing.assert_close(torch.autograd.grad(joined.sum(), X)[0], 2 * torch.ones_like(X))
