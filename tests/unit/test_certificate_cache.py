"""Verdicts that are kept: found again for the same file, recipe and code, and for no other."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from certified_networks import full, network, opener, recipe, slope, spoilt
from networks import onnx_model
from onnx import helper, numpy_helper

from inspector.cache_folder import cache_folder
from inspector.errors import InspectorWarning, MethodRefused
from inspector.explain import load
from inspector.target import Target
from inspector.verify import Check, Verdict, cache, checks, verdict_for
from inspector.verify.slopes import (
    wrong_nodes,
)
from inspector.verify.subject import Probe, Subject


@pytest.fixture
def opened(tmp_path):
    return opener(tmp_path)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    place = tmp_path / "cache"
    monkeypatch.setenv("INSPECTOR_CACHE", str(place))
    return place


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
        "inspector.network.quantisation.fused_activations",
        "inspector.network.tail",
        "inspector.target.number",
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
