"""Which engine runs a network backwards: ``auto``, ``onnx`` or ``twin``."""

import subprocess
import sys

import numpy as np
import pytest

import inspector
from inspector.errors import MethodRefused, UsageError
from inspector.verify.graph_gradient import graph_verdict_for
from tests.networks import node, onnx_model

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


def test_a_wrong_rule_is_found_without_the_twin(monkeypatch):
    from inspector.surgery.gradient.table import RULES

    right = RULES.lookup("", "Add", 20)

    def halved(b, step):
        found = right(b, step)
        return {i: b.scaled(s, 0.5) if i else s for i, s in found.items()}

    monkeypatch.setitem(RULES._entries["", "Add"], 1, halved)
    model = inspector.load(MODEL, engine="onnx").model
    monkeypatch.setattr("inspector.verify.graph_gradient.kept_verdict", lambda *_, **__: None)
    monkeypatch.setattr("inspector.verify.graph_gradient.keep_verdict", lambda *_, **__: None)
    assert graph_verdict_for(model).passed is False


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
