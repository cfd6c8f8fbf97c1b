"""Conv, ConvTranspose and DeformConv against ONNX Runtime, on odd windows."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from one_node import assert_same, twin
from torch.autograd import gradcheck

from converters.errors import ConverterError
from converters.to_torch.ops.convolution import conv, conv_transpose, deform_conv

AUTO = ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]


def draw(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    rank=st.integers(1, 3),
    group=st.integers(1, 2),
    auto=st.sampled_from(AUTO),
    bias=st.booleans(),
)
def test_conv(data, rank, group, auto, bias):
    def sizes(low, high):
        return data.draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    size, kernel, strides, dilations = sizes(3, 9), sizes(1, 3), sizes(1, 3), sizes(1, 2)
    pads = sizes(0, 3) + sizes(0, 3)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    assume(all(n >= s for n, s in zip(size, spans, strict=True)))
    # ONNX Runtime's SAME ignores dilations in old releases; that case has its own test below.
    assume(auto in {"NOTSET", "VALID"} or max(dilations) == 1)
    rng = np.random.default_rng(0)
    X, W = draw(rng, 2, 2 * group, *size), draw(rng, 3 * group, 2, *kernel)
    attributes = {"strides": strides, "dilations": dilations, "group": group}
    attributes |= {"pads": pads} if auto == "NOTSET" else {"auto_pad": auto}
    inputs = [X, W, draw(rng, 3 * group)] if bias else [X, W]
    assert_same("Conv", inputs, opset=data.draw(st.sampled_from([6, 11, 17])), **attributes)


@pytest.mark.parametrize("upper", [True, False])
def test_same_pads_are_counted_with_dilation(upper):
    rng = np.random.default_rng(0)
    X, W = draw(rng, 1, 1, 9, 8), draw(rng, 1, 1, 3, 2)
    (Y,) = twin(
        "Conv",
        [X, W],
        auto_pad="SAME_UPPER" if upper else "SAME_LOWER",
        dilations=[2, 3],
        strides=[2, 1],
    )
    # Rows: 5 windows of span 5 at stride 2 over 9 pixels miss 4; columns: span 4 misses 3.
    pads = [2, 1, 2, 2] if upper else [2, 2, 2, 1]
    (expected,) = twin("Conv", [X, W], pads=pads, dilations=[2, 3], strides=[2, 1])
    np.testing.assert_array_equal(Y, expected)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), rank=st.integers(1, 3), group=st.integers(1, 2), auto=st.sampled_from(AUTO))
def test_conv_transpose(data, rank, group, auto):
    def sizes(low, high):
        return data.draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    size, kernel, strides = sizes(2, 5), sizes(2, 4), sizes(1, 3)
    dilations = sizes(1, 2)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    begin, end = sizes(0, 1), sizes(0, 1)
    extra = [data.draw(st.integers(0, s - 1)) for s in strides]
    gaps = any(k < s for k, s in zip(spans, strides, strict=True))
    assume(not (gaps and auto.startswith("SAME")))  # refused: see below
    shaped = auto == "NOTSET" and data.draw(st.booleans())
    rng = np.random.default_rng(0)
    X, W = draw(rng, 2, 2 * group, *size), draw(rng, 2 * group, 3, *kernel)
    attributes = {"strides": strides, "dilations": dilations, "group": group}
    if shaped:
        natural = [(n - 1) * s + k for n, s, k in zip(size, strides, spans, strict=True)]
        attributes["output_shape"] = [
            n - data.draw(st.integers(-1 if stride > 1 else 0, 2))
            for n, stride in zip(natural, strides, strict=True)
        ]
        assume(min(attributes["output_shape"]) > 0)
    elif auto == "NOTSET":
        attributes |= {"pads": begin + end, "output_padding": extra}
    else:
        attributes["auto_pad"] = auto
    assert_same("ConvTranspose", [X, W, draw(rng, 3 * group)], opset=11, **attributes)


def test_deformable_convolution_without_offsets_is_a_convolution():
    rng = np.random.default_rng(0)
    X, W = draw(rng, 2, 4, 6, 7), draw(rng, 6, 2, 3, 2)
    attributes = {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2], "group": 2}
    (expected,) = twin("Conv", [X, W], **attributes)
    offset = np.zeros((2, 2 * 2 * 6, *expected.shape[2:]), np.float32)
    mask = np.full((2, 2 * 6, *expected.shape[2:]), 0.5, np.float32)
    (Y,) = twin("DeformConv", [X, W, offset, None, mask], opset=19, offset_group=2, **attributes)
    np.testing.assert_allclose(Y, expected / 2, atol=1e-5)


def test_deformable_convolution_against_a_literal_loop():
    rng = np.random.default_rng(3)
    X, W = draw(rng, 1, 2, 5, 5), draw(rng, 1, 2, 2, 2)
    offset = draw(rng, 1, 8, 4, 4) * 1.5

    def pixel(c, y, x):
        total = 0.0
        for i in (int(np.floor(y)), int(np.floor(y)) + 1):
            for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= i < 5 and 0 <= j < 5:
                    total += X[0, c, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
        return total

    expected = np.zeros((1, 1, 4, 4))
    for oy, ox, c, ky, kx in np.ndindex(4, 4, 2, 2, 2):
        dy, dx = offset[0, 2 * (ky * 2 + kx) : 2 * (ky * 2 + kx) + 2, oy, ox]
        expected[0, 0, oy, ox] += W[0, c, ky, kx] * pixel(c, oy + ky + dy, ox + kx + dx)
    (Y,) = twin("DeformConv", [X, W, offset], opset=19)
    np.testing.assert_allclose(Y, expected, atol=1e-5)


def test_gradients():
    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    X, W, B = random(1, 2, 5, 4), random(3, 2, 3, 2), random(3)
    assert gradcheck(lambda *v: conv(*v, pads=(1, 0, 2, 1), strides=(2, 1)), (X, W, B))
    back = random(2, 3, 3, 2)
    assert gradcheck(lambda *v: conv_transpose(*v, pads=(1, 0, 0, 1), strides=(2, 2)), (X, back, B))
    offset = random(1, 12, 3, 3)
    assert gradcheck(deform_conv, (X, random(3, 2, 3, 2), offset))


def test_a_disputed_output_size_is_refused():
    ones = np.ones((1, 1, 4), np.float32)
    with pytest.raises(ConverterError, match="shorter than its stride"):
        twin("ConvTranspose", [ones, ones[:, :, :2]], auto_pad="SAME_UPPER", strides=[3])


def test_four_spatial_axes_are_refused():
    ones = np.ones((1, 1, 2, 2, 2, 2), np.float32)
    with pytest.raises(ConverterError, match="4 spatial axes"):
        twin("Conv", [ones, ones])
