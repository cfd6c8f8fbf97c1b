"""The certificate: what is right passes, what is wrong fails and is named."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from certified_networks import full, network, opener, recipe, slope, spoilt
from onnx import helper, numpy_helper

from inspector.render import json as render_json
from inspector.target import Target
from inspector.verify import cache, verdict_for
from inspector.verify.certificate import finite
from inspector.verify.checks import certify, quick
from inspector.verify.forward import compare_forward
from inspector.verify.nodes import compare_nodes
from inspector.verify.slopes import (
    Direction,
    GradientRecord,
    certify_gradient,
)
from inspector.verify.subject import Probe, Subject, blank, noise
from inspector.verify.walk import walk

ALL = {
    "forward",
    "top-1",
    "optimised session",
    "batch",
    "gradient",
    "float32 gradient",
    "gate flips",
    "rule deconvnet",
    "rule guided",
    "cam residual",
    "occluder of size 0",
    "occlusion by hand",
    "another target",
    "mirrored image",
}


@pytest.fixture
def opened(tmp_path):
    return opener(tmp_path)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    place = tmp_path / "cache"
    monkeypatch.setenv("INSPECTOR_CACHE", str(place))
    return place


# -- what is right ---------------------------------------------------------------------------------


def test_a_right_twin_passes_every_check(opened):
    found = full(opened())
    assert found.verdict == "pass", found.text
    assert {check.name for check in found.checks} >= ALL | {"cam = Z grad-cam"}
    assert {c.status for c in found.checks} <= {"pass", "report"}, found.reasons
    assert found.reasons == ()
    assert found.check("forward").figures["worst"]["difference"] < 1e-5
    assert found.check("forward").figures["tensors"] == 10
    assert found.kind == "float32"


def test_the_document_is_json_and_the_same_every_time(opened):
    model = opened()
    first, second = (render_json.dumps(full(model).to_dict()) for _ in range(2))
    assert first == second
    document = json.loads(first)
    assert document["model"]["sha256"] == model.file.sha256
    assert {"torch", "onnx", "python", "onnx-inspector"} <= set(document["versions"])
    assert document["tolerances"]["tensor"] == 1e-4
    assert [item["name"] for item in document["inputs"]] == ["noise", "blank"]


def test_photos_are_inputs_and_get_a_gradient(opened):
    image = np.random.default_rng(5).standard_normal((1, 3, 16, 16)).astype(np.float32)
    found = full(opened(), [Probe("cat.png", image, {"sha256": "0"})])
    assert found.check("gradient, cat.png").status == "pass"
    assert found.check("top-1").figures["inputs"] == 2
    assert found.check("top-1, photos").figures["inputs"] == 1


def test_what_a_photo_shows_is_not_kept_for_the_model(opened, monkeypatch):
    """A photo that overflows, say: the certificate fails, the model's verdict does not."""
    image = np.random.default_rng(5).standard_normal((1, 3, 16, 16)).astype(np.float32)
    found = full(opened(), [Probe("cat.png", image)])
    failed = tuple(
        replace(c, status="fail", text="by the photo") if c.name == "gradient, cat.png" else c
        for c in found.checks
    )
    certificate = replace(found, checks=failed)
    assert certificate.verdict == "fail"
    assert certificate.kept.passed is True
    cache.remember(opened(), certificate)
    assert verdict_for(opened()).passed is True


def test_a_target_of_ones_own(opened):

    model = opened()
    found = certify(model, target=lambda _: Target("y", (3,), "three", 3))
    assert found.target.startswith("three")
    assert found.check("gradient").figures["target"] == "three"


def test_quick_does_less_and_agrees(opened):
    found = quick(opened())
    assert (found.verdict, found.scope) == ("pass", "quick")
    assert [i["name"] for i in found.inputs] == ["noise"]


def test_float16_is_judged_by_its_own_tolerance_and_says_so(opened):
    found = full(opened(network("float16")))
    assert found.verdict == "pass", found.text
    assert found.kind == "float16"
    assert "float16" in found.check("forward").text
    assert found.tolerances["tensor"] == 2e-2


def test_whole_numbered_images_have_no_slope_in_onnx_runtime(opened):
    found = full(opened(network("uint8")))
    assert found.verdict == "pass", found.text
    check = found.check("gradient")
    assert check.status == "not applicable"
    assert "whole pixel values" in check.text
    assert max(d["error"] for d in check.figures["through the float64 twin"]) < 1e-6


def saturated():
    """Behind min(y, -1e6) nothing moves: the gradient is zero, and so is the slope."""
    proto = network()
    proto.graph.node[-1].output[0] = "z"
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(-1e6), "low"))
    proto.graph.node.append(helper.make_node("Min", ["z", "low"], ["y"], "clip"))
    return proto


def constant():
    """Convolutions of zeros: no tensor of the network moves."""
    proto = network()
    for tensor in proto.graph.initializer:
        if tensor.name == "w1":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((6, 3, 3, 3), np.float32), "w1"))
    return proto


def test_a_saturated_target_is_checked_at_the_tensor_before_it(opened):
    for judge in (full, quick):
        found = judge(opened(saturated()))
        check = found.check("gradient")
        assert check.status == "pass"
        assert "y[" in check.figures["zero"]
        assert "z[" in check.figures["target"]
        assert "is zero at 4 inputs" in found.kept.text
    assert quick(opened(saturated())).passed


def test_a_passing_twin_of_an_empty_map_is_no_pass(opened):
    found = full(opened(saturated()))
    assert found.verdict == "limited"
    assert found.kept.passed is True
    assert "maps are empty" in "; ".join(found.reasons)


def test_a_constant_network_is_judged_node_by_node(opened):
    found = full(opened(constant()))
    assert found.check("gradient").status == "pass"
    assert "each of" in found.check("gradient").text
    assert found.verdict == "limited"
    assert "maps are empty" in found.text


# -- what is wrong ---------------------------------------------------------------------------------


def averaged(function):
    def call(X, *rest, kernel_shape, strides, **rest_of_them):
        return torch.nn.functional.avg_pool2d(X, kernel_shape, strides)

    return call


def epsilon(function):
    def call(X, scale, B, mean, var, **attributes):
        return function(X, scale, B, mean, var, **{**attributes, "epsilon": 2e-3})

    return call


WRONG = [
    ("MaxPool", averaged, "pool"),
    ("LeakyRelu", slope, "leaky"),
    ("BatchNormalization", epsilon, "norm"),
]


@pytest.mark.parametrize(("op_type", "wrap", "name"), WRONG)
@pytest.mark.parametrize("judge", [full, quick], ids=["full", "quick"])
def test_a_wrong_operator_is_caught_and_its_node_named(opened, op_type, wrap, name, judge):
    found = judge(spoilt(opened(), op_type, wrap))
    assert found.verdict == "fail"
    check = found.check("forward")
    assert f"{op_type} node '{name}'" in check.text
    # No other node is accused, though all behind it differ.
    assert len({text.partition(" differs")[0] for text in check.figures["wrong nodes"]}) == 1
    assert check.figures["first"]["node"] == f"{op_type} node '{name}'"


def detached(function):
    return lambda A, *rest, **kw: function(A.detach(), *rest, **kw)


def louder(function):
    """The right value with one and a half times the gradient."""
    return lambda X, *rest, **kw: (y := function(X, *rest, **kw)) + (y - y.detach()) / 2


BLIND = [
    ("Add", detached, "residual"),
    ("Gemm", detached, "linear"),
    ("Relu", louder, "relu"),
    ("MaxPool", louder, "pool"),
    ("BatchNormalization", louder, "norm"),
]


@pytest.mark.parametrize(("op_type", "wrap", "name"), BLIND)
@pytest.mark.parametrize("judge", [full, quick], ids=["full", "quick"])
def test_a_wrong_gradient_behind_right_values_is_caught_and_named(
    opened, op_type, wrap, name, judge
):
    found = judge(spoilt(opened(), op_type, wrap))
    assert found.verdict == "fail"
    assert found.check("forward").status == "pass"
    check = found.check("gradient")
    assert check.figures["wrong nodes"] == [f"{op_type} node '{name}'"]
    assert name in check.text
    assert "gradient" in found.text


def test_onnx_runtimes_differences_alone_find_a_wrong_gradient(opened):
    """Without the float64 twin's: no autodiff of ours vouches for itself."""
    model = spoilt(opened(), "Conv", louder)
    subject = Subject(model)
    probe = noise(model)
    target, _ = subject.default_target(probe)
    record = certify_gradient(subject, probe, target)
    direct = [d for d in record.runtime if d.name != "noise"]
    assert direct
    assert all(d.error > 0.2 for d in direct)
    right = certify_gradient(Subject(opened(name="right.onnx")), probe, target)
    assert all(d.error < 0.05 for d in right.runtime if d.name != "noise")


def test_equal_inputs_tell_the_wrong_node_from_those_behind_it(opened):
    model = opened()
    probe = noise(model)
    spoilt(model, "LeakyRelu", slope)
    wrong = compare_nodes(Subject(model), probe, ["a1", "p1"], tolerance=1e-4)
    assert [r.ruling for r in wrong] == ["runtime", "equal"]
    assert wrong[0].twin_error > 1e-4 > wrong[0].runtime_error


def far_below_zero():
    """Scores behind a sigmoid of values near -40, where ONNX Runtime's approximation ends."""
    proto = network()
    proto.graph.node[-1].output[0] = "z"
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(-40), "low"))
    proto.graph.node.append(helper.make_node("Add", ["z", "low"], ["s"], "shift"))
    proto.graph.node.append(helper.make_node("Sigmoid", ["s"], ["y"], "sigmoid"))
    return proto


def test_where_onnx_runtime_rounds_the_reference_evaluator_says_so(opened):
    model = opened(far_below_zero())
    (record,) = compare_nodes(Subject(model), noise(model), ["y"], tolerance=1e-4)
    assert record.ruling == "twin"
    assert record.runtime_error > 1e-4 > record.twin_error
    found = full(model)
    assert found.check("forward").status == "pass", found.text
    assert found.verdict != "fail", found.text
    assert "ONNX Runtime rounds in" in found.check("forward").text
    # The same rounding does not excuse a twin that is wrong there.
    spoilt(model, "Sigmoid", lambda function: lambda X: function(X) * 1.01)
    assert full(model).check("forward").status == "fail"


# -- parts -----------------------------------------------------------------------------------------


def test_groups_of_tensors_give_the_same_as_one(opened, monkeypatch):
    from inspector.verify import forward

    subject = Subject(opened())
    probes = [noise(subject.model), blank(subject.model)]
    once = compare_forward(subject, probes)
    monkeypatch.setattr(forward, "GROUP_BYTES", 5000)
    assert len(list(forward.groups(subject, probes[0], subject.names))) > 3
    assert compare_forward(subject, probes) == once


def test_walk_forgets_what_has_been_read(opened):
    subject = Subject(opened())
    feeds = subject.tensors(subject.twin, subject.feeds(noise(subject.model)))
    alive = {
        step.outputs[0]: {n for n in subject.names if n in environment}
        for step, environment in walk(subject.twin, feeds, subject.names)
    }
    assert alive["a2"] == {"c2", "a2", "p1"}  # p1 waits for the residual addition
    assert alive["y"] == {"f", "y"}
    assert torch.is_grad_enabled()


def test_kinks_and_noise_decide_nothing():
    record = GradientRecord.judged
    assert record([Direction("noise", 9.0, 0.0, 0.1, kinked=True)], 0.03) == "undecided"
    assert record([Direction("noise", 9.0, 1.0, 0.1)], 0.03) == "undecided"
    assert record([Direction("noise", 0.2, 0.0, 0.1)], 0.03) == "fail"
    assert record([Direction("noise", 0.2, 0.0, 0.1, same_step=0.001)], 0.03) == "pass"
    assert record([Direction("noise", 0.01, 0.0, 0.1), Direction("n", 1.0, 0.0, 0.1)], 0.03) == (
        "fail"
    )


def test_noise_looks_like_a_photo_and_is_the_same_every_time(opened):
    model = opened()
    images = [noise(model, recipe(model)).image for _ in range(2)]
    np.testing.assert_array_equal(*images)
    pixels = recipe(model).decode(images[0][0])
    assert pixels.min() < 60
    assert pixels.max() > 200


def test_json_has_words_for_what_it_cannot_hold():
    assert finite({"a": [np.inf, float("nan"), 1.0]}) == {"a": ["infinite", "undefined", 1.0]}


def test_the_twin_runs_on_one_thread_and_gives_the_others_back(opened):
    model, seen = opened(), []
    original = model.twin_engine.signals
    model.twin_engine.signals = lambda *a: seen.append(torch.get_num_threads()) or original(*a)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        quick(model)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
