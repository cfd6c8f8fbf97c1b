"""Slopes through ONNX Runtime: a wrong gradient is accused, a network of dense kinks is not."""

import numpy as np
import onnx
import pytest
from networks import node, onnx_model

import inspector
from inspector.surgery.gradient.table import RULES
from inspector.surgery.half import half
from inspector.verify.graph_gradient import graph_verdict_for
from inspector.verify.slopes import Direction


@pytest.fixture(autouse=True)
def without_cache(monkeypatch):
    monkeypatch.setenv("INSPECTOR_CACHE", "off")


def _deep(seed, blocks):
    """Inverted bottlenecks of random weights, without shortcuts: kinks lie close to each other."""
    rng = np.random.default_rng(seed)
    nodes, weights, at, channels = [], {"zero": np.float32(0), "six": np.float32(6)}, "x", 3
    for i in range(blocks):
        kinds = [(24, channels, 1, 1), (24, 1, 3, 24), (4, 24, 1, 1)]
        for j, (outputs, inputs, k, groups) in enumerate(kinds):
            w = rng.standard_normal((outputs, inputs, k, k)) * np.sqrt(2 / (inputs * k * k))
            weights[f"w{i}{j}"] = w.astype(np.float32)
            stride = 2 if j == 1 and i in {3, 10} else 1
            sizes = {"kernel_shape": [k, k], "pads": [k // 2] * 4, "strides": [stride, stride]}
            nodes.append(node("Conv", f"{at} w{i}{j}", f"c{i}{j}", group=groups, **sizes))
            at = f"c{i}{j}"
            if j < 2:
                nodes.append(node("Clip", f"{at} zero six", f"r{i}{j}"))
                at = f"r{i}{j}"
        channels = 4
    weights["h"] = rng.standard_normal((10, 4)).astype(np.float32)
    nodes += [
        node("GlobalAveragePool", at, "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f h", "y", transB=1),
    ]
    return onnx_model(nodes, {"x": ("n", 3, 32, 32)}, {"y": ("n", 10)}, weights)


def _residual():
    """Two branches that are added, behind convolutions with ReLUs."""
    rng = np.random.default_rng(1)
    nodes = [
        node("Conv", "x a", "c", pads=[1] * 4),
        node("Relu", "c", "r"),
        node("Conv", "r b", "d", pads=[1] * 4),
        node("Relu", "d", "s"),
        node("Conv", "s b", "e", pads=[1] * 4),
        node("Add", "e r", "f"),
        node("Relu", "f", "t"),
        node("GlobalAveragePool", "t", "p"),
        node("Flatten", "p", "q"),
        node("Gemm", "q h", "y", transB=1),
    ]
    weights = {
        "a": rng.standard_normal((8, 3, 3, 3)) / 5,
        "b": rng.standard_normal((8, 8, 3, 3)) / 6,
        "h": rng.standard_normal((5, 8)),
    }
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    return onnx_model(nodes, {"x": ("n", 3, 16, 16)}, {"y": ("n", 5)}, weights)


def _verdict(tmp_path, proto):
    onnx.save(proto, tmp_path / "model.onnx")
    return graph_verdict_for(inspector.load(tmp_path / "model.onnx", engine="onnx").model)


@pytest.mark.parametrize("seed", [2, 5])
def test_a_deep_network_of_random_weights_is_not_accused(tmp_path, seed):
    assert _verdict(tmp_path, _deep(seed, 25)).passed is not False


def _unmasked(_, step):
    return {0: step.signal}


SPOILT = {
    "lost mask": ("Relu", lambda right: _unmasked),
    "5 % too large": (
        "GlobalAveragePool",
        lambda right: lambda b, s: {k: b.mul(v, b.constant(1.05)) for k, v in right(b, s).items()},
    ),
    "lost branch": ("Add", lambda right: lambda b, s: {0: right(b, s)[0]}),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_gradient_spoilt_on_purpose_is_accused(monkeypatch, tmp_path, fault):
    assert _verdict(tmp_path, _residual()).passed is True
    op_type, spoil = SPOILT[fault]
    right = RULES.lookup("", op_type, 13)
    entries = {since: spoil(right) for since in RULES._entries["", op_type]}
    monkeypatch.setitem(RULES._entries, ("", op_type), entries)
    found = _verdict(tmp_path, _residual())
    assert found.passed is False
    assert "along the gradient" in found.text


@pytest.mark.parametrize("fault", ["lost mask", "5 % too large"])
def test_a_spoilt_gradient_of_a_deep_network_does_not_pass(monkeypatch, tmp_path, fault):
    op_type, spoil = SPOILT[fault]
    op_type = {"Relu": "Clip"}.get(op_type, op_type)
    right = RULES.lookup("", op_type, 13)
    entries = {since: spoil(right) for since in RULES._entries["", op_type]}
    monkeypatch.setitem(RULES._entries, ("", op_type), entries)
    assert _verdict(tmp_path, _deep(2, 12)).passed is not True


def test_a_score_that_float16_holds_still_accuses_no_gradient(tmp_path):
    """A step of the input that moves no rounded score says nothing of the slope."""
    proto = half(_residual())
    assert _verdict(tmp_path, proto).passed is not False


def test_a_difference_as_small_as_the_kinks_within_the_step_is_undecided():
    error = {"name": "d", "error": 0.08, "uncertainty": 0.001, "step": 1e-3}
    assert Direction(**error).judged(0.03) == "fail"
    assert Direction(**error, bend=0.1).judged(0.03) == "undecided"
    assert Direction(**error, bend=0.01).judged(0.03) == "fail"
