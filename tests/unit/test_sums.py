"""Sums of targets: words, values, and maps that add up."""

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import Net, onnx_model
from onnx.helper import make_node as node

import inspector
from inspector.embed import embed
from inspector.errors import MethodRefused, UnknownTarget, UsageError
from inspector.target import TargetSpec, parts_of, pieces_with_sums

LABELS = ("tabby, tabby cat", "dog", "crane (bird)", "sum(a; b)", "pig", "ox", "hen", "emu")[:5]
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("sums") / "net.onnx"
    net = Net(3)
    onnx.save(net.proto(), path)
    return inspector.load(path, device="cpu", unverified=True, preprocess="unit")


def image(model):
    height, width = model.size(*model.preprocessing.preprocess.size)
    return RNG.random((2, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("sum(1; 2)", ["sum(1; 2)"]),
        ("3, sum(1; -2),-sum(0; top1) , 4", ["3", "sum(1; -2)", "-sum(0; top1)", "4"]),
        ("sum(tabby, tabby cat; crane (bird))", ["sum(tabby, tabby cat; crane (bird))"]),
        ("sum(y[1,2]; y[0,1])", ["sum(y[1,2]; y[0,1])"]),
        ("sum(1; 2", ["sum(1; 2"]),
        ("assume, sum (1)", ["assume", "sum (1)"]),
    ],
)
def test_a_sum_is_one_target_of_a_list(text, pieces):
    assert (
        pieces_with_sums(text, lambda part: [p.strip() for p in part.split(",") if p.strip()])
        == pieces
    )


def test_parts_are_read():
    assert parts_of("sum(a; -b;)") == ["a", "-b"]
    assert parts_of("sums(a)") is None


@pytest.mark.parametrize("method", ["cam", "hires-cam:", "gradient", "input-x-gradient"])
def test_maps_of_linear_methods_add_up(model, method):
    """Without its ReLU a map is linear in the score; hires-cam is compared where both are."""
    method = method.rstrip(":")
    x = image(model)
    one, two, both, apart, opposite = (
        model.attribute(x, method, target=text)
        for text in ("0", "1", "sum(0; 1)", "sum(0; -1)", "-sum(0; -1)")
    )
    if method == "hires-cam":
        minus = [model.attribute(x, method, target=text) for text in ("-0", "-1")]
        one, two = one - minus[0], two - minus[1]
        both = both - model.attribute(x, method, target="-sum(0; 1)")
        apart, opposite = apart - opposite, opposite - apart
    scale = max(np.abs(one).max(), np.abs(two).max())
    np.testing.assert_allclose(both, one + two, atol=1e-5 * scale)
    np.testing.assert_allclose(apart, one - two, atol=1e-5 * scale)
    np.testing.assert_allclose(opposite, two - one, atol=1e-5 * scale)


@pytest.mark.parametrize(
    "method", ["grad-cam", "occlusion:window=4", "rise:masks=8", "ablation-cam", "score-cam"]
)
def test_every_method_takes_a_sum_of_one_and_of_equal_parts(model, method):
    x = image(model)
    alone = model.attribute(x, method.replace("occlusion:", "occlusion:measure=score,"), target="1")
    double = model.attribute(x, method, target="sum(1; 1)")
    times = 1 if method == "ablation-cam" else 2  # its weights are shares of the score
    np.testing.assert_allclose(double, times * alone, atol=2e-5 * np.abs(alone).max())


def test_a_sum_is_reported_with_its_score_and_name(model):
    pixels = (image(model)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    found = model.explain(pixels, ["grad-cam", "cam"], target="sum(top1; -2), 2")
    first, second = found.explanations[0].attribution, found.explanations[1].attribution
    values = model.explain(pixels, "cam", target="0,1,2").explanations
    scores = [one.attribution.score for one in values]
    assert first.score == pytest.approx(max(scores) - scores[2], rel=1e-5)
    assert first.label.endswith("- " + second.label)
    assert first.index is None


def test_a_class_that_is_called_like_a_sum_is_found_first(model):
    scores = model.scores
    labels = ("tabby, tabby cat", "sum(a; b)", "crane (bird)")[: scores.classes or 3]
    named = TargetSpec.parse("sum(a; b)", scores=scores, labels=labels).resolve()
    assert [one.class_index for one in named] == [1]
    inside = TargetSpec.parse("sum(tabby, tabby cat; -crane (bird))", scores=scores, labels=labels)
    (both,) = inside.resolve()
    assert both.terms == ((0, 1), (2, -1))
    assert both.label == "tabby, tabby cat - crane (bird)"


def two_heads():
    """A trunk with two heads: ``y`` straight behind it, ``z`` behind a layer of its own.

    ``yy`` is computed from ``y``: an output on the way to another one.
    """
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], pads=[1] * 4),
        node("Relu", ["c0"], ["trunk"]),
        node("GlobalAveragePool", ["trunk"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "m0"], ["y"]),
        node("Mul", ["y", "y"], ["yy"]),
        node("Conv", ["trunk", "w1"], ["c1"], strides=[2, 2]),
        node("Relu", ["c1"], ["own"]),
        node("GlobalAveragePool", ["own"], ["h"]),
        node("Flatten", ["h"], ["k"]),
        node("Gemm", ["k", "m1"], ["z"]),
    ]
    draw = np.random.default_rng(11).standard_normal
    shapes = {"w0": (5, 3, 3, 3), "w1": (4, 5, 3, 3), "m0": (5, 3), "m1": (4, 6)}
    constants = {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}
    outputs = {"y": ["n", 3], "z": ["n", 6], "yy": ["n", 3]}
    return onnx_model(nodes, {"x": ["n", 3, 12, 12]}, outputs, constants)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    path = tmp_path_factory.mktemp("sums") / "two.onnx"
    onnx.save(two_heads(), path)
    return path


@pytest.fixture(scope="module", params=["twin", "onnx"])
def headed(heads, request):
    return inspector.load(
        heads, device="cpu", preprocess="unit", engine=request.param, unverified=True
    )


def heads_input():
    return np.random.default_rng(2).random((2, 3, 12, 12)).astype(np.float32)


def test_the_gradient_of_a_sum_of_outputs_is_the_sum_of_their_gradients(headed, heads):
    x = heads_input()
    runs = {
        text: headed.attribute(x, "gradient", target=text)
        for text in ("y[0]", "z[1]", "yy[0]", "sum(y[0]; -z[1])", "-sum(y[0]; z[1]; yy[0])")
    }
    one, two, square, apart, all_ = runs.values()
    np.testing.assert_allclose(apart, one - two, atol=1e-6)
    np.testing.assert_allclose(all_, -(one + two + square), atol=1e-5)
    session = onnxruntime.InferenceSession(str(heads))

    def number(images):
        y, z = session.run(["y", "z"], {"x": images})
        return (y[:, 0] - z[:, 1]).astype(np.float64)

    step = RNG.standard_normal(x.shape).astype(np.float32) * 1e-3
    slope = (number(x + step) - number(x - step)) / 2
    np.testing.assert_allclose((apart * step).sum((1, 2, 3)), slope, rtol=0.02, atol=1e-5)


@pytest.mark.parametrize(
    "method", ["hires-cam", "grad-cam", "occlusion:window=4", "rise:masks=8", "input-x-gradient"]
)
def test_methods_take_a_sum_of_outputs_at_the_layer_that_all_share(headed, method):
    x = heads_input()
    layer = {} if method.startswith(("occlusion", "rise", "input")) else {"layer": "trunk"}
    own = {
        text: headed.attribute(x, method, target=text, **layer)
        for text in ("y[0]", "-y[0]", "z[1]", "-z[1]")
    }
    both = headed.attribute(x, method, target="sum(y[0]; z[1])")
    if layer:  # without its ReLU a map is linear in the score
        other = headed.attribute(x, method, target="-sum(y[0]; z[1])")
        expected = own["y[0]"] - own["-y[0]"] + own["z[1]"] - own["-z[1]"]
        both = both - other
    else:
        expected = own["y[0]"] + own["z[1]"]
    assert both.shape == expected.shape
    np.testing.assert_allclose(both, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "method", ["ablation-cam", "score-cam", "lrp-epsilon-plus", "guided-grad-cam"]
)
def test_other_methods_take_a_sum_of_outputs(heads, method):
    model = inspector.load(heads, device="cpu", preprocess="unit", unverified=True)
    pixels = (heads_input()[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    both = model.explain(pixels, method, target="sum(y[0]; z[1])").explanations[0]
    scores = [
        model.explain(pixels, "occlusion:window=12", target=text).explanations[0].attribution.score
        for text in ("y[0]", "z[1]")
    ]
    assert both.attribution.score == pytest.approx(sum(scores), rel=1e-5)
    assert both.attribution.tensor == "y + z"
    assert both.attribution.layer in ("trunk", None)
    assert not any("twin's score differs" in note for note in both.attribution.notes)


def test_what_passes_a_named_layer_by_is_said(headed):
    pixels = (heads_input()[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    found = headed.explain(pixels, "grad-cam", target="sum(y[0]; z[1])", layer="own")
    notes = found.explanations[0].attribution.notes
    assert any("does not pass through this layer: it takes 'y'" in note for note in notes)
    with pytest.raises(MethodRefused, match="does not depend on the layer"):
        headed.explain(pixels, "grad-cam", target="sum(y[0]; yy[1])", layer="own")


def test_a_sum_of_outputs_is_not_written_into_a_file(headed, tmp_path):
    with pytest.raises(UsageError, match="read from several tensors"):
        embed(headed, tmp_path / "out.onnx", target="sum(y[0]; z[1])")


def test_a_sum_of_nothing_is_refused(headed):
    with pytest.raises(UnknownTarget, match="a sum of 0 parts"):
        headed.explain(np.zeros((12, 12, 3), np.uint8), "gradient", target="sum()")
