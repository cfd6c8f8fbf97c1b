"""Attention against ONNX Runtime and against torch; rotary embedding against complex numbers."""

import numpy as np
import pytest
import torch
from one_node import assert_same, twin
from torch.autograd import gradcheck
from torch.nn import functional as F  # noqa: N812

from converters.errors import ConverterError
from converters.to_torch.ops import attention as ops


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": 1}, {"scale": 0.3}, {"softcap": 1.5}, {"is_causal": 1, "scale": 2.0}],
)
@pytest.mark.parametrize("heads", [2, 4])
def test_attention(options, heads):
    inputs = [draw(2, 4, 5, 8), draw(2, heads, 6, 8, seed=1), draw(2, heads, 6, 3, seed=2)]
    assert_same("Attention", inputs, opset=23, **options)


def test_masks():
    Q, K, V = draw(2, 2, 4, 8), draw(2, 2, 6, 8, seed=1), draw(2, 2, 6, 8, seed=2)
    assert_same("Attention", [Q, K, V, draw(4, 6)], opset=23)
    allowed = draw(2, 2, 4, 6, seed=3) > -0.5
    allowed[..., 0] = True
    assert_same("Attention", [Q, K, V, allowed], opset=23)


def test_cache_and_outputs():
    Q, K, V = draw(1, 2, 3, 4), draw(1, 2, 3, 4, seed=1), draw(1, 2, 3, 4, seed=2)
    past = [draw(1, 2, 5, 4, seed=3), draw(1, 2, 5, 4, seed=4)]
    Y, keys, values = twin("Attention", [Q, K, V, None, *past], opset=23, outputs=3, is_causal=1)
    np.testing.assert_array_equal(keys, np.concatenate([past[0], K], axis=2))
    # Query i sees the five keys before the block and those up to its own place in it.
    allowed = torch.arange(8) <= torch.arange(3)[:, None] + 5
    expected = F.scaled_dot_product_attention(
        *map(torch.from_numpy, (Q, keys, values)), attn_mask=allowed
    )
    np.testing.assert_allclose(Y, expected.numpy(), atol=1e-6)


def test_flat_inputs_need_their_numbers_of_heads():
    inputs = [draw(2, 4, 12), draw(2, 5, 6, seed=1), draw(2, 5, 8, seed=2)]
    assert_same("Attention", inputs, opset=23, q_num_heads=4, kv_num_heads=2)
    with pytest.raises(ConverterError, match="numbers of heads"):
        twin("Attention", inputs, opset=23)


def test_a_query_that_sees_nothing_gives_zero():
    mask = np.zeros((4, 4), bool)
    mask[1:] = True
    (Y,) = twin("Attention", [draw(1, 1, 4, 2)] * 3 + [mask], opset=23)
    assert np.all(Y[0, 0, 0] == 0)
    assert np.all(np.isfinite(Y))


def test_gradients():
    values = [torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = torch.tensor([[False] * 3, [True] * 3, [True, False, True]])
    for options in ({}, {"is_causal": 1, "softcap": 2.0}):
        assert gradcheck(lambda *v, o=options: ops.attention(*v, mask, **o)[0], values)
    angles = torch.randn(3, 2, dtype=torch.float64)
    assert gradcheck(
        lambda x: ops.rotary_embedding(x, angles.cos(), angles.sin(), torch.tensor([[2, 0, 1]])),
        values[0],
    )


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotation_is_a_product_of_complex_numbers(interleaved):
    X, angles = draw(2, 3, 5, 8).astype(np.float64), draw(9, 3).astype(np.float64)
    positions = np.random.default_rng(0).integers(0, 9, (2, 5))
    pairs = (
        X[..., :6].reshape(2, 3, 5, 3, 2)
        if interleaved
        else np.stack([X[..., :3], X[..., 3:6]], axis=-1)
    )
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles[positions])[:, None]
    (Y,) = twin(
        "RotaryEmbedding",
        [X, np.cos(angles), np.sin(angles), positions],
        opset=23,
        interleaved=interleaved,
        rotary_embedding_dim=6,
    )
    real, imaginary = (Y[..., 0:6:2], Y[..., 1:6:2]) if interleaved else (Y[..., :3], Y[..., 3:6])
    np.testing.assert_allclose(real + 1j * imaginary, turned, atol=1e-12)
    np.testing.assert_array_equal(Y[..., 6:], X[..., 6:])
    (cached,) = twin(
        "RotaryEmbedding",
        [X, np.cos(angles[positions]), np.sin(angles[positions])],
        opset=23,
        interleaved=interleaved,
        rotary_embedding_dim=6,
    )
    np.testing.assert_array_equal(cached, Y)
