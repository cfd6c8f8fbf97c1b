"""Tokens as maps: against the torch module itself, whose grid is known by construction."""

import itertools

import numpy as np
import onnx
import pytest
import torch
from vision_transformers import (
    GRID,
    SIZE,
    TokensFirst,
    ViT,
    Windows,
    exported,
    native,
    score_with,
)

import inspector
from inspector.errors import ExplainedError, UnknownLayer
from inspector.network.form import Form
from inspector.network.tokens.attention import attended_tensors
from inspector.network.tokens.grid import Tokens
from inspector.overview import overview

CLOSE = 1e-4
TARGET = 2
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
X = PIXELS.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)

FORMULAS = {
    "grad-cam": lambda A, g: np.einsum("chw,c->hw", A, g.mean(axis=(1, 2))),
    "hires-cam": lambda A, g: (A * g).sum(axis=0),
    "layer-cam": lambda A, g: (A * np.maximum(g, 0)).sum(axis=0),
}


def made(kind, *args, **kwargs):
    torch.manual_seed(3)
    return kind(*args, **kwargs).eval()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    def open_(module, **how):
        path = tmp_path_factory.mktemp("models") / "net.onnx"
        path.write_bytes(exported(module, **how))
        return inspector.load(
            path, device="cpu", preprocess="unit", overrides=("resize=squash",), unverified=True
        )

    return open_


@pytest.fixture(scope="module")
def plain(opened):
    """A network with a class token, and the module that it was exported from."""
    module = made(ViT)
    return opened(module), module


def equals_native(model, module, **asked):
    A, g, score = native(module, X, TARGET)
    report = model.explain(PIXELS, list(FORMULAS), target=str(TARGET), **asked)
    for found, formula in zip(report.explanations, FORMULAS.values(), strict=True):
        wanted = np.maximum(formula(A, g), 0)
        assert wanted.max() > 0
        assert found.attribution.values.shape == wanted.shape
        assert found.attribution.score == pytest.approx(score, rel=1e-4)
        difference = np.abs(found.attribution.values - wanted).max()
        assert difference <= CLOSE * wanted.max(), found.attribution.method
    return report


@pytest.mark.parametrize("extra", [0, 1, 2, 5])
def test_extra_tokens_are_left_out_and_the_map_is_the_module_s(opened, extra):
    module = made(ViT, extra)
    model = opened(module)
    report = equals_native(model, module)
    layer = report.images[0].context["layer"]
    assert layer["tensor"] == "/blocks.1/norm1/LayerNormalization_output_0"
    assert f"grid of {GRID[0]}x{GRID[1]}" in layer["reason"]
    assert (f"{extra} extra" in layer["reason"]) == bool(extra)
    assert report.explanations[0].attribution.placement is None  # the usual stretch is right


@pytest.mark.conformance
@pytest.mark.parametrize("kind", [ViT, Windows])
def test_the_exporter_of_torch_export_gives_the_same(opened, kind):
    pytest.importorskip("onnxscript")
    module = made(kind)
    model = opened(module, dynamo=True, opset=18)
    equals_native(model, module)
    equals_native(model, module, layer=f"blocks.{len(module.blocks) - 1}.norm1")


def test_fused_attention_gives_the_same(opened):
    pytest.importorskip("onnxscript")
    module = made(ViT, fused=True)
    model = opened(module, dynamo=True, opset=23)
    assert any(node.is_op("Attention") for node in model.graph.nodes)
    equals_native(model, module)


@pytest.mark.parametrize(("extra", "how"), [(1, {}), (0, {"opset": 14})])
def test_tokens_that_are_laid_first(opened, extra, how):
    """(T, N, C): torch's attention without batch_first, and so older CLIP exports."""
    module = made(TokensFirst, extra)
    model = opened(module, **how)
    report = equals_native(model, module)
    reason = report.images[0].context["layer"]["reason"]
    assert f"16 channels of tokens on a grid of {GRID[0]}x{GRID[1]}" in reason
    assert any(
        row.tensor == report.images[0].context["layer"]["tensor"] and row.shape[:1] == (16,)
        for row in overview(model).rows
    )
    usual = made(TokensFirst, extra, first=False)
    usual.load_state_dict(module.state_dict())
    photos = [np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8) for i in range(2)]
    methods = ["grad-cam", "ablation-cam", "recipro-cam", "attention-gradient", "attn-lrp"]
    together = model.explain(photos, methods, target="1")
    beside = opened(usual, **how).explain(photos, methods, target="1")
    for one, other in zip(together.explanations, beside.explanations, strict=True):
        values = other.attribution.values
        assert np.abs(values).max() > 0
        difference = np.abs(one.attribution.values - values).max()
        assert difference <= CLOSE * np.abs(values).max(), one.attribution.method


def test_a_normalisation_that_is_spelled_out(opened):
    """Before opset 17 a layer's norm1 is nine nodes."""
    module = made(ViT)
    equals_native(opened(module, opset=14), module)


def test_patches_numbered_down_the_columns_come_out_upright(opened):
    module = made(ViT, across=True)
    equals_native(opened(module), module)


def test_windows_that_are_shifted_and_merged_are_read_with_channels_last(opened):
    module = made(Windows)
    report = equals_native(opened(module), module)
    assert "channels last" in report.images[0].context["layer"]["reason"]


def test_a_layer_is_named_by_tensor_or_number(plain):
    model, module = plain
    rows = overview(model).rows
    assert [row.shape for row in rows] == [(16, *GRID)] * 3
    assert [row.default for row in rows] == [False, False, True]
    assert rows[1].note == "tokens, 1 extra"
    for name in (rows[2].tensor, 2, "2", -1, "last"):
        equals_native(model, module, layer=name)


def test_methods_that_change_the_tokens_keep_the_class_token(plain):
    """Ablation-CAM and Recipro-CAM against the module, whose layer a hook changes."""
    model, module = plain
    A, _, score = native(module, X, TARGET)
    report = model.explain(PIXELS, ["ablation-cam", "recipro-cam:window=no"], target=str(TARGET))
    ablated, shown = (e.attribution.values for e in report.explanations)
    total = np.zeros(GRID)
    for k in range(len(A)):
        without = A.copy()
        without[k] = 0
        total += (score - score_with(module, X, TARGET, without)) / abs(score) * A[k]
    wanted = np.maximum(total, 0)
    np.testing.assert_allclose(ablated, wanted, atol=CLOSE * wanted.max())
    empty = score_with(module, X, TARGET, A * 0)
    wanted = np.zeros(GRID)
    for i, j in np.ndindex(*GRID):
        alone = np.zeros_like(A)
        alone[:, i, j] = A[:, i, j]
        wanted[i, j] = score_with(module, X, TARGET, alone) - empty
    np.testing.assert_allclose(shown, wanted, atol=CLOSE * np.abs(wanted).max())


def test_several_photos_together_equal_one_at_a_time(plain):
    model, _ = plain
    photos = [PIXELS, PIXELS[::-1].copy(), PIXELS // 2]
    together = model.explain(photos, "hires-cam", target="1")
    for photo, found in zip(photos, together.images, strict=True):
        alone = model.explain(photo, "hires-cam", target="1").attribution
        np.testing.assert_allclose(
            found.explanations[0].attribution.values, alone, atol=CLOSE * alone.max()
        )


def test_tokens_that_form_no_grid_are_refused_with_the_tensor(opened):
    """Patches were dropped: 18 tokens, which could be read as 6 x 3 of something else."""
    kept = [0, *(i for i in range(1, 1 + GRID[0] * GRID[1]) if i not in {3, 4, 9, 14, 15, 20})]
    model = opened(made(ViT, keep=kept))
    name = next(n.outputs[0] for n in model.graph.nodes if n.is_op("LayerNormalization"))
    with pytest.raises(UnknownLayer, match="not one grid") as caught:
        model.explain(PIXELS, "grad-cam", layer=name)
    assert name in str(caught.value)
    layer = model.explain(PIXELS, "grad-cam").explanation.attribution.layer
    assert layer == "/patch/Conv_output_0"


def test_tensors_that_are_not_tokens_are_refused(plain):
    model, _ = plain
    names = [
        name
        for node in model.graph.nodes
        if node.is_op("Softmax", "MatMul", "Gather")
        for name in node.outputs
    ]
    refused = 0
    for name in names:
        try:
            shape = model.explain(PIXELS, "grad-cam", layer=name).attribution.shape
        except ExplainedError:
            refused += 1
        else:
            assert shape == GRID, name
    assert refused > 0


def test_attention_between_different_tensors_is_not_self_attention():
    """Object queries (constants) that attend to a map: their tokens are not places."""
    from networks import node, onnx_model

    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "x w", "c", kernel_shape=[4, 4], strides=[4, 4]),
        node("Reshape", "c flat", "f"),
        node("Transpose", "f", "t", perm=[0, 2, 1]),
        node("MatMul", "t wk", "k"),
        node("MatMul", "t wv", "v"),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "queries kt", "s"),
        node("Softmax", "s", "a", axis=-1),
        node("MatMul", "a v", "y"),
    ]
    constants = {
        "w": rng.standard_normal((8, 3, 4, 4)).astype(np.float32),
        "flat": np.array([0, 8, -1]),
        "wk": rng.standard_normal((8, 8)).astype(np.float32),
        "wv": rng.standard_normal((8, 8)).astype(np.float32),
        "queries": rng.standard_normal((1, 5, 8)).astype(np.float32),
    }
    proto = onnx_model(nodes, {"x": ["n", 3, 16, 16]}, {"y": ["n", 5, 8]}, constants, opset=17)
    from converters.graph import Graph

    assert attended_tensors(Graph(proto)) == ()
    nodes[6] = node("MatMul", "t kt", "s")
    proto = onnx_model(nodes, {"x": ["n", 3, 16, 16]}, {"y": ["n", 16, 8]}, constants, opset=17)
    onnx.checker.check_model(proto)
    assert attended_tensors(Graph(proto)) == ()  # queries that no layer projects


@pytest.mark.parametrize(("axis", "extra"), list(itertools.product((0, 1, 2), (0, 3))))
def test_writing_tokens_is_the_inverse_of_reading(axis, extra):
    rng = np.random.default_rng(axis)
    index = rng.permutation(6 + extra)[:6].reshape(2, 3)
    tokens = Tokens(index, 6 + extra, axis)
    value = rng.standard_normal((2, 4, 6 + extra) if axis == 2 else (2, 6 + extra, 4))
    held = value[:, :, None] if axis == 0 else value  # image by image, (T, 1, C) each
    form = Form(tokens=tokens)
    read = form.read(held)
    assert read.shape == (2, 4, 2, 3)
    for i, j in np.ndindex(2, 3):
        own = value[:, :, index[i, j]] if axis == 2 else value[:, index[i, j]]
        np.testing.assert_array_equal(read[:, :, i, j], own)
    np.testing.assert_array_equal(form.write(read, held), held)
    changed = form.write(read * 0, held).reshape(value.shape)
    left, axis = np.setdiff1d(np.arange(6 + extra), index), max(axis, 1)
    np.testing.assert_array_equal(changed.take(left, axis), value.take(left, axis))
    assert not changed.take(index.ravel(), axis).any()
