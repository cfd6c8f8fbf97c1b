"""Attention rollout and attention times gradient, against torch and literal loops."""

import numpy as np
import pytest
import torch
from vision_transformers import GRID, SIZE, Block, ViT, Windows, exported

import inspector
from inspector.errors import MethodRefused
from inspector.measures.attention_flow import flow, read_rows
from inspector.network.tokens.attention import attention_weights

TIGHT = 1e-5
PIXELS = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
X = torch.from_numpy(PIXELS.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))


class Kept(Block):
    """A block that keeps its attention weights, spelled out or as batched products of heads."""

    rows = False

    def attend(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        if self.rows:  # as torch's MultiheadAttention: heads are rows of the batch
            q, k, v = (one.reshape(n * 2, t, c // 2) for one in (q, k, v))
        self.weights = ((q @ k.transpose(-1, -2)) * (c // 2) ** -0.5).softmax(-1)
        mixed = (self.weights @ v).reshape(n, 2, t, c // 2)
        return self.proj(mixed.transpose(1, 2).reshape(n, t, c))


def made(extra=1, *, rows=False, **how):
    torch.manual_seed(4)
    module = ViT(extra, **how).eval()
    module.blocks = torch.nn.ModuleList(Kept(16) for _ in range(3)).eval()
    for block in module.blocks:
        block.rows = rows
    return module


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    def open_(module, **how):
        path = tmp_path_factory.mktemp("models") / "net.onnx"
        path.write_bytes(exported(module, **how))
        return inspector.load(
            path, device="cpu", preprocess="unit", overrides=("resize=squash",), unverified=True
        )

    return open_


def attention_of(module, target):
    """Weights and gradients of every block, (heads, T, T) each, in float64."""
    score = module(X)[0, target]
    weights = [block.weights for block in module.blocks]
    gradients = torch.autograd.grad(score, weights)
    return [
        tuple(one.detach().double().numpy().reshape(2, *one.shape[-2:]) for one in pair)
        for pair in zip(weights, gradients, strict=True)
    ]


def laid(module, row):
    """Relevance (T,) of all tokens on the grid."""
    return module.as_map(torch.from_numpy(row)[None, :, None])[0].numpy()


def literal_rollout(module, target):
    total = None
    for weights, _ in attention_of(module, target):
        T = weights.shape[-1]
        mixing = np.zeros((T, T))
        for i, j in np.ndindex(T, T):
            mixing[i, j] = 0.5 * (weights[0, i, j] + weights[1, i, j]) / 2 + 0.5 * (i == j)
        total = mixing if total is None else mixing @ total
    return laid(module, total[0] if module.extra else total.mean(axis=0))


def literal_gradient(module, target):
    """R <- R + A R, block by block, as equation 6 is written."""
    R = None
    for weights, gradient in attention_of(module, target):
        T = weights.shape[-1]
        R = np.eye(T) if R is None else R
        A = np.zeros((T, T))
        for h, i, j in np.ndindex(2, T, T):
            A[i, j] += max(gradient[h, i, j] * weights[h, i, j], 0.0) / 2
        R = R + A @ R
    R = R - np.eye(len(R))
    return laid(module, R[0] if module.extra else R.mean(axis=0))


LITERAL = {"attention-rollout": literal_rollout, "attention-gradient": literal_gradient}


def equals_native(model, module, target=2):
    report = model.explain(PIXELS, list(LITERAL), target=str(target))
    assert not report.images[0].refused
    for found in report.explanations:
        wanted = LITERAL[found.attribution.method](module, target)
        assert found.attribution.values.shape == GRID == wanted.shape
        assert wanted.std() > 0
        difference = np.abs(found.attribution.values - wanted).max()
        assert difference <= TIGHT * wanted.max(), found.attribution.method
        assert np.corrcoef(found.attribution.values.ravel(), wanted.ravel())[0, 1] > 1 - TIGHT


@pytest.mark.parametrize("extra", [0, 1, 5])
def test_the_class_token_s_row_or_the_mean_of_what_is_pooled(opened, extra):
    module = made(extra)
    equals_native(opened(module), module)


@pytest.mark.parametrize("how", [{"opset": 14}, {"opset": 18, "dynamo": True}])
def test_other_exports_give_the_same(opened, how):
    if how.get("dynamo"):
        pytest.importorskip("onnxscript")
    module = made()
    equals_native(opened(module, **how), module)


def test_heads_as_rows_of_the_batch(opened):
    module = made(rows=True)
    equals_native(opened(module), module)


def test_patches_numbered_down_the_columns(opened):
    module = made(across=True)
    equals_native(opened(module), module)


def test_classes_differ_in_the_one_and_not_in_the_other(opened):
    model = opened(made())
    first, second = (
        {
            e.attribution.method: e.attribution
            for e in model.explain(PIXELS, list(LITERAL), target=str(target)).explanations
        }
        for target in (0, 1)
    )
    rollout, gradient = (np.abs(first[name].values - second[name].values).max() for name in LITERAL)
    assert rollout == 0
    assert gradient > 0
    assert any("not class-specific" in note for note in first["attention-rollout"].notes)


def test_several_photos_together_equal_one_at_a_time(opened):
    model = opened(made(rows=True))
    photos = [PIXELS, PIXELS[::-1].copy()]
    together = model.explain(photos, list(LITERAL), target="1")
    for photo, found in zip(photos, together.images, strict=True):
        alone = model.explain(photo, list(LITERAL), target="1")
        for a, b in zip(found.explanations, alone.explanations, strict=True):
            np.testing.assert_allclose(
                a.attribution.values, b.attribution.values, rtol=1e-4, atol=1e-7
            )


def refusal(model, method):
    report = model.explain(PIXELS, [method, "gradient"], target="1")
    assert [e.attribution.method for e in report.explanations] == ["gradient"]
    return str(report.images[0].refused[0].error)


@pytest.mark.parametrize("method", LITERAL)
def test_what_has_no_attention_is_refused(tmp_path, method):
    model = inspector.load("sample_models/resnet20.onnx", device="cpu", unverified=True)
    with pytest.raises(MethodRefused, match="depends on no self-attention"):
        model.explain(np.zeros((32, 32, 3), np.uint8), method)


@pytest.mark.parametrize("method", LITERAL)
def test_windows_are_refused_with_the_tensor(opened, method):
    torch.manual_seed(3)
    said = refusal(opened(Windows().eval()), method)
    assert "Softmax" in said
    assert "windows" in said


@pytest.mark.parametrize("method", LITERAL)
def test_attention_in_one_operator_is_refused_with_the_node(opened, method):
    pytest.importorskip("onnxscript")
    torch.manual_seed(3)
    model = opened(ViT(fused=True).eval(), dynamo=True, opset=23)
    said = refusal(model, method)
    assert "keeps them to itself" in said
    assert any(name in said for name in attention_weights(model.graph)[1])


def test_a_flow_is_the_product_with_the_first_block_on_the_right():
    rng = np.random.default_rng(0)
    blocks = [rng.random((2, 4, 4)) for _ in range(3)]
    np.testing.assert_allclose(flow(blocks), blocks[2] @ blocks[1] @ blocks[0])
    signal = np.zeros((2, 3, 4, 4))
    signal[0, 1, 2, 3] = 1
    signal[1, :, :2, 0] = -1
    rows = read_rows(flow(blocks), signal)
    np.testing.assert_allclose(rows[0], flow(blocks)[0, 2])
    np.testing.assert_allclose(rows[1], flow(blocks)[1, :2].mean(axis=0))
    with pytest.raises(ValueError, match="no block"):
        flow([])
