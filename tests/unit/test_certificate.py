"""The certificate: what is right passes, what is wrong fails and is named; the cache."""

import functools
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import onnx_model
from onnx import TensorProto, helper, numpy_helper

from converters.to_torch.optable import OPS, OpTable
from inspector.cache_folder import cache_folder
from inspector.engines.twin import TwinEngine
from inspector.errors import InspectorWarning, MethodRefused
from inspector.explain import load
from inspector.render import json as render_json
from inspector.target import Target
from inspector.verify import Check, Verdict, cache, checks, verdict_for
from inspector.verify.certificate import finite
from inspector.verify.checks import certify, quick
from inspector.verify.forward import compare_forward
from inspector.verify.nodes import compare_nodes
from inspector.verify.slopes import (
    Direction,
    GradientRecord,
    certify_gradient,
    wrong_nodes,
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


def network(kind="float32"):
    """conv - batch norm - leaky - pool - conv - relu - residual add - mean - linear."""
    rng = np.random.default_rng(3)
    constants = {
        "w1": rng.standard_normal((6, 3, 3, 3)) / 4,
        "w2": rng.standard_normal((6, 6, 3, 3)) / 6,
        "scale": rng.uniform(0.5, 1.5, 6),
        "shift": rng.standard_normal(6),
        "mean": rng.standard_normal(6),
        "var": rng.uniform(0.01, 0.2, 6),
        "head": rng.standard_normal((6, 5)),
        "bias": rng.standard_normal(5),
    }
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", **same),
        helper.make_node(
            "BatchNormalization",
            ["c1", "scale", "shift", "mean", "var"],
            ["b1"],
            "norm",
            epsilon=1e-3,
        ),
        helper.make_node("LeakyRelu", ["b1"], ["a1"], "leaky", alpha=0.1),
        helper.make_node("MaxPool", ["a1"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], "conv2", **same),
        helper.make_node("Relu", ["c2"], ["a2"], "relu"),
        helper.make_node("Add", ["a2", "p1"], ["r"], "residual"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "head", "bias"], ["y"], "linear"),
    ]
    if kind == "uint8":
        nodes.insert(0, helper.make_node("Cast", ["image"], ["x"], "cast", to=TensorProto.FLOAT))
    dtype = np.float16 if kind == "float16" else np.float32
    types = {"uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16}
    name = "image" if kind == "uint8" else "x"
    return onnx_model(
        nodes,
        [helper.make_tensor_value_info(name, types.get(kind, TensorProto.FLOAT), ["n", 3, 16, 16])],
        [
            helper.make_tensor_value_info(
                "y", types["float16"] if kind == "float16" else TensorProto.FLOAT, ["n", 5]
            )
        ],
        {k: v.astype(dtype) for k, v in constants.items()},
        opset=17,
    )


@pytest.fixture
def opened(tmp_path):
    def open_(proto=None, name="model.onnx", **options):
        path = tmp_path / name
        onnx.save(proto or network(), path)
        return load(path, device="cpu", preprocess="imagenet", **options).model

    return open_


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    place = tmp_path / "cache"
    monkeypatch.setenv("INSPECTOR_CACHE", str(place))
    return place


def recipe(model):
    return load(model.path, device="cpu", preprocess="imagenet").preprocessing.preprocess


def full(model, photos=()):
    return certify(model, photos, preprocess=recipe(model))


def spoilt(model, op_type, wrap):
    """The model with a twin in which one operator is another function."""
    table = OpTable(OPS)
    for domain, known, since, op in OPS:
        if known == op_type and domain == "":
            table.register(op_type, since=since)(functools.wraps(op.function)(wrap(op.function)))
    model.twin_engine = TwinEngine(model.graph, table=table)
    return model


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
    from inspector.target import Target

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


def slope(function):
    return lambda X, *, alpha=0.01: function(X, alpha=alpha + 0.01)


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


# -- the cache -------------------------------------------------------------------------------------


def counted(monkeypatch):
    """Forward passes of ONNX Runtime from here on."""
    from inspector.engines.runtime import Runtime

    calls = []
    original = Runtime.run
    monkeypatch.setattr(Runtime, "run", lambda *a: calls.append(1) or original(*a))
    return calls


def test_a_verdict_is_found_again_without_a_forward_pass(opened, monkeypatch):
    first = verdict_for(opened())
    assert first.passed
    assert first.source == "now"
    calls = counted(monkeypatch)
    assert verdict_for(opened()) == Verdict(True, first.text, "cached")
    assert not calls


def test_a_failing_verdict_is_remembered_as_such(opened):
    assert not verdict_for(spoilt(opened(), "LeakyRelu", slope)).passed
    found = verdict_for(opened())
    assert (found.passed, found.source) == (False, "cached")
    assert "leaky" in found.text


def test_an_undecided_verdict_is_neither_passed_nor_failed(opened, monkeypatch):
    check = Check("gradient", "undecided", "cannot be told")
    monkeypatch.setattr(checks, "quick_gradient_check", lambda *_: check)
    found = verdict_for(opened())
    assert (found.passed, found.source) == (None, "now")
    assert verdict_for(opened()) == Verdict(None, found.text, "cached")


def test_another_target_or_recipe_is_another_verdict(opened):
    model = opened()
    first = verdict_for(model, recipe(model))
    assert verdict_for(model, recipe(model)).source == "cached"
    assert verdict_for(model, recipe(model), "y") == Verdict(True, first.text, "cached")
    assert verdict_for(model, recipe(model), "f").source == "now"
    assert verdict_for(model, replace(recipe(model), scale=1.0)).source == "now"


def test_occlusion_that_fails_is_kept_and_refused(opened, monkeypatch):
    from inspector.verify import invariants

    original = invariants.occlusion
    with monkeypatch.context() as patch:
        patch.setattr(invariants, "occlusion", lambda *a, **k: original(*a, **k) + 1)
        found = full(opened())
    assert found.check("occlusion by hand").status == "fail"
    assert found.kept.passed is True
    model = load(opened().path, device="cpu", preprocess="imagenet")
    photo = np.random.default_rng(5).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    assert model.explain(photo, "occlusion").explanations
    place = cache.remember(model.model, found, model.preprocessing.preprocess)
    with pytest.raises(MethodRefused, match="occlusion by hand") as caught:
        model.explain(photo, "occlusion")
    assert str(place) in caught.value.hint
    assert model.explain(photo, "grad-cam").explanations
    model.unverified = True
    assert model.explain(photo, "occlusion").explanations


def at_a_kink():
    """relu(x - 0.5) of an input that holds 0.5: the gate of every pixel is shut exactly at x."""
    proto = network()
    proto.graph.node.insert(0, helper.make_node("Relu", ["shifted"], ["gated"], "gate"))
    proto.graph.node.insert(0, helper.make_node("Sub", ["x", "half"], ["shifted"], "shift"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    proto.graph.node[2].input[0] = "gated"
    return proto


def test_a_gate_shut_exactly_at_x_decides_nothing_and_is_named(opened):
    model = opened(at_a_kink())
    photo = Probe("flat.png", np.full((1, 3, 16, 16), 0.5, np.float32))
    found = full(model, [photo])
    check = found.check("gradient, flat.png")
    assert check.status == "undecided"
    assert "Relu node 'gate'" in check.text
    assert found.verdict == "limited"
    assert found.kept.passed is True


def test_a_gate_within_the_step_is_stepped_around(opened):
    """Pixels whose gates lie within the usual step of x: a shorter step misses them."""
    model = opened(at_a_kink())
    rng = np.random.default_rng(0)
    near = 0.5 + 3e-8 * rng.choice([-1, 1], (1, 3, 16, 16)) + rng.normal(size=(1, 3, 16, 16))
    near[..., :8] = 0.5 + 6e-8 * rng.choice([-1, 1], (1, 3, 16, 8))
    found = full(model, [Probe("near.png", near.astype(np.float32))])
    assert found.check("gradient, near.png").status == "pass"


@pytest.mark.parametrize(
    "module",
    [
        "converters.graph.activations",
        "converters.to_torch.compile",
        "converters.to_torch.ops.activation",
        "inspector.engines.overlays",
        "inspector.engines.rules",
        "inspector.engines.twin",
        "inspector.evidence",
        "inspector.network.fused_activations",
        "inspector.network.tail",
        "inspector.verify.slopes",
    ],
)
def test_a_verdict_depends_on_the_code_that_makes_the_gradient(module):
    source = Path(importlib.import_module(module).__file__).resolve()
    assert source in {path.resolve() for path in cache.source_files()}


def test_another_file_or_version_is_another_verdict(opened, monkeypatch):
    verdict_for(opened())
    proto = network()
    proto.doc_string = "another"
    assert verdict_for(opened(proto, "other.onnx")).source == "now"
    monkeypatch.setattr(cache, "versions", lambda: {"torch": "0"})
    assert verdict_for(opened()).source == "now"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"passed": true, "text": "trust me"}',
        b"\xff\xfe",
        b"[" * 5000,
        b'{"key": {}, "passed": true, "text": "t"}',
        b'{"key": {}, "text": "t"}',
        b" " * (2**20 + 1),
    ],
)
def test_a_broken_or_foreign_cache_file_is_ignored_and_rewritten(opened, folder, content):
    model = opened()
    text = verdict_for(model).text
    (place,) = folder.glob("certificate-*")
    place.write_bytes(content)
    with pytest.warns(InspectorWarning, match="is ignored .* computed anew"):
        assert verdict_for(model) == Verdict(True, text, "now")
    assert verdict_for(model).source == "cached"


def test_nothing_is_kept_where_nothing_can_be_written(opened, folder, tmp_path, monkeypatch):
    folder.write_text("a file, where the folder should be")
    assert [verdict_for(opened()).source for _ in range(2)] == ["now", "now"]
    monkeypatch.setenv("INSPECTOR_CACHE", "off")
    assert cache_folder() is None
    assert verdict_for(opened()).source == "now"


def test_the_folder_follows_the_platform(tmp_path, monkeypatch):
    monkeypatch.delenv("INSPECTOR_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "onnx-inspector"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "onnx-inspector"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "onnx-inspector"


def test_a_model_that_the_twin_cannot_run_has_no_verdict(opened):
    proto = network()
    proto.graph.node[-1].output[0] = "z"
    proto.graph.node.append(
        helper.make_node("Inverse", ["z"], ["y"], "odd", domain="com.microsoft")
    )
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = verdict_for(opened(proto))
    assert found.passed is None
    assert "Inverse" in found.text


def test_values_that_nearly_tie_under_a_maximum_are_no_wrong_gradient(opened, monkeypatch):
    """Among many windows some hold two values that pass each other within the first step."""
    model = opened(
        onnx_model(
            [
                helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2]),
                helper.make_node("Flatten", ["p"], ["y"]),
            ],
            {"x": [1, 3, 8, 8]},
            {"y": [1, 147]},
        )
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    x[0, 0, 0, :2] = 10, np.nextafter(np.float32(10), np.float32(11))  # a gap of 1e-6
    moves = np.zeros_like(x)
    moves[0, 0, 0, 0] = 300
    drawn = iter(
        [
            np.ones((1, 3, 7, 7)),
            0 * x,
            moves,
            np.ones((1, 147)),
            *rng.standard_normal((2, 1, 3, 7, 7)),
        ]
    )
    monkeypatch.setattr(
        "inspector.verify.slopes._random",
        lambda _, like: torch.tensor(next(drawn), dtype=like.dtype),
    )
    assert wrong_nodes(Subject(model), Probe("x", x), Target("y", (0,), "0")) == ()
