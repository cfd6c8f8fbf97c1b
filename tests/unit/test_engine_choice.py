"""Which engine runs a network backwards: ``auto``, ``onnx`` or ``twin``."""

import subprocess
import sys

import numpy as np
import pytest

import inspector
from inspector.errors import MethodRefused, UsageError
from inspector.verify.checks import certify
from inspector.verify.graph_gradient import graph_verdict_for, remember_graph
from tests.networks import node, onnx_model
from tests.unit.quantised_networks import network

PHOTO = "sample_models/images/horse_1.png"
MODEL = "sample_models/resnet20.onnx"
METHODS = ("grad-cam", "grad-cam++", "hires-cam", "gradient", "guided-backprop", "deconvnet")


def test_both_engines_give_the_same_maps():
    twin, graph = (inspector.load(MODEL, engine=name) for name in ("twin", "onnx"))
    ours, theirs = (one.explain(PHOTO, METHODS).images[0].explanations for one in (graph, twin))
    for mine, known in zip(ours, theirs, strict=True):
        a, b = mine.attribution.values, known.attribution.values
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
    assert "gradient graph agrees" in graph.certificate.text
    assert graph.certificate.passed


def test_the_engine_without_torch_imports_no_torch():
    program = (
        "import sys, inspector;"
        f"inspector.load({MODEL!r}, engine='auto').explain({PHOTO!r}, ['grad-cam', 'gradient']);"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)  # noqa: S603


def _uncovered():
    """A classifier with an operator that has no gradient as ONNX: the image decides the index."""
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("ReduceSum", "b axes", "total", keepdims=0),
        node("ArgMax", "total", "best", axis=1, keepdims=0),
        node("Gather", "b best", "taken", axis=1),
        node("Add", "b taken", "c"),
        node("GlobalAveragePool", "c", "d"),
        node("Flatten", "d", "y"),
    ]
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    constants = {"w": weights, "axes": np.array([2, 3])}
    return onnx_model(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 4)}, constants)


def _saved(tmp_path, model):
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_auto_takes_the_twin_where_an_operator_has_no_rule(tmp_path):
    path = _saved(tmp_path, _uncovered())
    auto = inspector.load(path, engine="auto", preprocess="unit")
    found = auto.explain(PHOTO, "gradient").images[0].explanations[0]
    known = (
        inspector.load(path, preprocess="unit").explain(PHOTO, "gradient").images[0].explanations[0]
    )
    np.testing.assert_array_equal(found.attribution.values, known.attribution.values)
    assert auto.model.engine == "twin"


def test_onnx_refuses_an_operator_without_a_rule_and_names_it(tmp_path):
    strict = inspector.load(_saved(tmp_path, _uncovered()), engine="onnx", preprocess="unit")
    with pytest.raises(MethodRefused, match="Gather") as refused:
        strict.explain(PHOTO, "gradient")
    assert "--engine twin" in str(refused.value)


def _halved(b, found):
    return {i: b.scaled(s, 0.5) if i else s for i, s in found.items()}


def _dropped(_b, found):
    return {i: s for i, s in found.items() if len(found) < 2 or i}


@pytest.mark.parametrize("fault", [_halved, _dropped])
def test_a_wrong_rule_is_found_without_the_twin(monkeypatch, fault):
    from inspector.surgery.gradient.table import RULES

    right = RULES.lookup("", "Add", 20)

    def wrong(b, step):
        return fault(b, right(b, step))

    monkeypatch.setitem(RULES._entries["", "Add"], 1, wrong)
    model = inspector.load(MODEL, engine="onnx").model
    monkeypatch.setattr("inspector.verify.graph_gradient.kept_verdict", lambda *_, **__: None)
    monkeypatch.setattr("inspector.verify.graph_gradient.keep_verdict", lambda *_, **__: None)
    assert graph_verdict_for(model).passed is not True


def _two_paths():
    """A classifier whose two paths read different channels of the input."""
    nodes = [
        node("Conv", "x v", "a"),
        node("Conv", "x w", "b"),
        node("Add", "a b", "c"),
        node("GlobalAveragePool", "c", "d"),
        node("Flatten", "d", "y"),
    ]
    v, w = np.random.default_rng(0).normal(size=(2, 4, 3, 1, 1)).astype(np.float32)
    v[:, 1:], w[:, 0] = 0, 0
    return onnx_model(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 4)}, {"v": v, "w": w})


def test_a_path_that_is_missing_is_found_where_the_gradient_moves_the_score_as_it_says(
    monkeypatch, tmp_path
):
    from inspector.surgery.gradient.table import RULES

    right = RULES.lookup("", "Add", 20)
    monkeypatch.setenv("INSPECTOR_CACHE", "off")
    path = _saved(tmp_path, _two_paths())
    assert graph_verdict_for(inspector.load(path, engine="onnx").model).passed
    monkeypatch.setitem(RULES._entries["", "Add"], 1, lambda b, s: _dropped(b, right(b, s)))
    found = graph_verdict_for(inspector.load(path, engine="onnx").model)
    assert found.passed is False
    assert "along the input" in found.text


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("INSPECTOR_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_verify_judges_the_gradient_graph_beside_the_twin(monkeypatch, tmp_path):
    from inspector.surgery.gradient.table import RULES

    path, right = _saved(tmp_path, _two_paths()), RULES.lookup("", "Add", 20)
    found = certify(inspector.load(path).model)
    assert found.check("gradient graph").status == "pass"
    assert len(found.check("gradient graph").figures["slopes"]) == 2
    monkeypatch.setitem(RULES._entries["", "Add"], 1, lambda b, s: _dropped(b, right(b, s)))
    model = inspector.load(path, engine="onnx").model
    spoilt = certify(model)
    assert spoilt.verdict == spoilt.check("gradient graph").status == "fail"
    assert spoilt.kept.passed is True  # that of the twin
    remember_graph(model, spoilt)
    assert graph_verdict_for(model).passed is False


@pytest.mark.usefixtures("own_cache")
def test_verify_certifies_the_gradient_graph_where_no_slope_can(tmp_path):
    text = (
        "q = QuantizeLinear(X, s, z) d = DequantizeLinear(q, s, z) c = Conv(d, w) "
        "r = Relu(c) p = GlobalAveragePool(r) Y = Flatten(p)"
    )
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    constants = {"s": np.float32(0.02), "z": np.uint8(128), "w": weights}
    model = network(text, x="float[1,3,8,8] X", y="float[1,4] Y", **constants)
    opened = inspector.load(_saved(tmp_path, model), engine="onnx", preprocess="unit")
    assert graph_verdict_for(opened.model).passed is None
    with pytest.raises(MethodRefused, match="inspector verify"):
        opened.explain(PHOTO, "gradient")
    remember_graph(opened.model, certify(opened.model))
    kept = graph_verdict_for(opened.model)
    assert (kept.passed, kept.source) == (True, "cached")
    assert "agrees with the certified twin" in kept.text


def test_an_operator_without_a_rule_is_named_by_verify(tmp_path):
    found = certify(inspector.load(_saved(tmp_path, _uncovered())).model)
    check = found.check("gradient graph")
    assert check.status == "not applicable"
    assert "Gather" in check.text
    assert found.verdict == "pass"


def test_a_report_names_the_engine_and_no_twin_that_did_not_run():
    twin, graph = (
        inspector.load(MODEL, engine=name).explain(PHOTO, "grad-cam").images[0].document()
        for name in ("twin", "onnx")
    )
    assert (twin.get("engine"), graph["engine"]) == (None, "onnx")
    assert twin["results"][0]["facts"].keys() == {"twin_difference"}
    assert graph["results"][0]["facts"].keys() == {"score_difference"}


def test_an_unknown_engine_is_refused():
    with pytest.raises(UsageError, match="no such engine"):
        inspector.load(MODEL, engine="tensor")


@pytest.mark.conformance
def test_relevance_asks_the_twin_whichever_engine_was_chosen():
    auto = inspector.load(MODEL, engine="auto")
    found = auto.explain(PHOTO, ["lrp-epsilon-plus", "grad-cam"]).images[0].explanations
    known = inspector.load(MODEL).explain(PHOTO, "lrp-epsilon-plus").images[0].explanations[0]
    np.testing.assert_array_equal(found[0].attribution.values, known.attribution.values)
    assert auto.model.engine == "auto"
