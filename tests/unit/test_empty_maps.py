"""Why a map is zero everywhere, said on the picture and in the report: each kind in other words."""

import numpy as np
import pytest
from field_cases import Writer
from field_checks import is_said, open_case, painted

from inspector.errors import MethodRefused
from inspector.methods import methods
from inspector.verdicts import method_verdicts

THROUGH_A_LAYER = ["cam", "ablation-cam", "grad-cam++", "layer-cam"]


def dead():
    """A layer that is 0 for every photo, because of its bias."""
    g = Writer()
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[0] = 1 / 27
    x = g.add("Conv", "image", g.constant(weight), g.constant([-5, -5]), pads=[1] * 4)
    g.mean_and_linear(g.add("Relu", x), "logits")
    return g.model(logits=(1, 2))


def against():
    """Class 1 falls with what is red, and grows a little with the rest."""
    g = Writer()
    weight = np.array([[0.01, -20.0], [-0.02, 1e-4]])
    g.mean_and_linear(g.red("image"), "logits", weight)
    return g.model(logits=(1, 2))


@pytest.mark.parametrize("method", THROUGH_A_LAYER)
def test_a_layer_that_is_zero_is_called_silent(tmp_path, method):
    report = open_case(tmp_path, dead()).explain(painted(), method, target="1")
    assert is_said(report, "^silent layer: it is 0 everywhere")
    assert not is_said(report, "positive evidence")
    assert report.explanation.attribution.why_empty.startswith("silent layer")


@pytest.mark.parametrize("method", ["occlusion", "rise:masks=20"])
def test_a_score_that_nothing_changes_is_said(tmp_path, method):
    report = open_case(tmp_path, dead()).explain(painted(), method, target="1")
    assert is_said(report, "^unchanged score")
    assert not is_said(report, "positive evidence")


@pytest.mark.parametrize("method", ["occlusion", "rise:masks=20"])
def test_a_map_of_rounding_is_said(tmp_path, method):
    g = Writer()
    far = g.add("Add", g.mean_and_linear(g.red("image")), g.constant([0, 3e6]), name="logits")
    assert far == "logits"
    report = open_case(tmp_path, g.model(logits=(1, 2))).explain(painted(), method, target="1")
    assert is_said(report, "^unchanged score")


def test_a_signal_that_ends_on_the_way_is_said(tmp_path):
    report = open_case(tmp_path, dead()).explain(painted(), "guided-backprop", target="1")
    assert is_said(report, "^no signal")


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam", "x-grad-cam"])
def test_a_map_of_next_to_nothing_is_said(tmp_path, method):
    explainer = open_case(tmp_path, against())
    report = explainer.explain(painted(), method, target="1")
    assert not report.explanation.attribution.empty
    assert is_said(report, "^hardly any positive evidence: .* times that of what speaks against")
    other = explainer.explain(painted(), method, target="-1")
    assert not is_said(other, "positive evidence")


def test_only_negative_evidence_keeps_its_name(tmp_path):
    g = Writer()
    weight = np.array([[0.01, -20.0], [-0.02, -0.001]])
    g.mean_and_linear(g.red("image"), "logits", weight)
    report = open_case(tmp_path, g.model(logits=(1, 2))).explain(painted(), "grad-cam", target="1")
    assert is_said(report, "^no positive evidence at this layer")


def test_check_draws_with_squares_that_leave_some_of_the_image(tmp_path):
    """A network that divides by the image's own spread overflows where all of it is hidden."""
    g = Writer()
    mean = g.add("ReduceMean", "image", axes=[1, 2, 3], keepdims=1)
    away = g.add("Sub", "image", mean)
    square = g.add("ReduceMean", g.add("Mul", away, away), axes=[1, 2, 3], keepdims=1)
    x = g.add("Div", away, g.add("Sqrt", square))
    g.mean_and_linear(g.red(x), "logits")
    verdicts = method_verdicts(open_case(tmp_path, g.model(logits=(1, 2))))
    assert verdicts["occlusion"] == "works"
    assert set(verdicts) == set(methods())


def test_a_sequence_is_addressed_as_its_hint_says(tmp_path):
    """(T, N, K) with a free axis of steps that is not the batch."""
    g = Writer(("n", 3, 64, 64))
    x = g.add("ReduceMean", g.red("image"), axes=[2], keepdims=0)
    x = g.add("Transpose", x, perm=[2, 0, 1])
    x = g.add("MatMul", x, g.constant(np.array([[0.01, 20.0], [-0.02, 0.03]])))
    g.add("LogSoftmax", x, axis=2, name="steps")
    explainer = open_case(tmp_path, g.model(steps=("t", "n", 2)))
    found = explainer.explain(painted(), "grad-cam", target="steps[40,0,1]").explanation
    assert not found.attribution.empty
    found = explainer.explain(painted(), "occlusion", target="steps[40,0,1]").explanation
    heat = found.heatmap.values
    assert 36 <= np.unravel_index(int(heat.argmax()), heat.shape)[1] <= 44


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam", "gradient"])
def test_a_product_of_probabilities_that_is_one_is_called_saturated(tmp_path, method):
    """As behind a suppression of boxes: class times objectness, both certain."""
    g = Writer()
    weight = np.array([[0.01, 5e4], [-0.02, 1e4]])
    logits = g.mean_and_linear(g.red("image"), weight=weight)
    sure = g.add("ReduceMax", g.add("Abs", logits), axes=[1], keepdims=1)
    parts = [g.add("Sigmoid", one) for one in (logits, sure)]
    g.add("Mul", *parts, name="scores")
    explainer = open_case(tmp_path, g.model(scores=(1, 2)))
    with pytest.raises(MethodRefused, match="is saturated: it is 1, where this sigmoid") as refused:
        explainer.explain(painted(), method, target="scores[1]")
    assert refused.value.where.startswith("Sigmoid node")
    assert "--target" in refused.value.hint
