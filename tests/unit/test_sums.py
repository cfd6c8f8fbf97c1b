"""Sums of targets: words, values, and maps that add up."""

import numpy as np
import onnx
import pytest
from networks import Net, onnx_model
from onnx.helper import make_node as node

import inspector
from inspector.errors import UnknownTarget
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


def test_parts_of_several_tensors_are_refused(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("GlobalAveragePool", ["c"], ["g"]),
        node("Flatten", ["g"], ["y"]),
        node("Mul", ["y", "y"], ["z"]),
    ]
    constants = {"w": RNG.standard_normal((3, 3, 3, 3)).astype(np.float32)}
    outputs = {"y": [1, 3], "z": [1, 3]}
    onnx.save(onnx_model(nodes, {"x": [1, 3, 8, 8]}, outputs, constants), tmp_path / "two.onnx")
    found = inspector.load(tmp_path / "two.onnx", device="cpu", preprocess="unit")
    with pytest.raises(UnknownTarget, match="several tensors: y, z"):
        found.explain(np.zeros((8, 8, 3), np.uint8), "gradient", target="sum(y[0]; z[1])")
    with pytest.raises(UnknownTarget, match="a sum of 0 parts"):
        found.explain(np.zeros((8, 8, 3), np.uint8), "gradient", target="sum()")
