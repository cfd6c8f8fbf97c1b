"""Which engine runs a network backwards: ``auto``, ``onnx`` or ``twin``."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import inspector
from inspector.errors import BrokenInstallation, MethodRefused, UsageError
from inspector.verify.checks import certify
from inspector.verify.graph_gradient import graph_verdict_for, remember_graph
from inspector.verify.subject import Subject, noise
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


def test_the_command_draws_where_there_is_no_torch(tmp_path):
    stand_in = tmp_path / "torch"
    stand_in.mkdir()
    (stand_in / "__init__.py").write_text("raise ImportError('there is no torch')\n")
    paths = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    out = tmp_path / "out"
    asked = ["explain", MODEL, PHOTO, "-m", "grad-cam", "-m", "gradient"]
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "inspector", *asked, "-v", "-o", str(out)],
        env=os.environ | {"PYTHONPATH": paths, "INSPECTOR_CACHE": "off"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "gradients by: the gradient graph" in done.stdout + done.stderr
    assert len(list(out.glob("*.png"))) >= 2


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
    auto, twin = (inspector.load(path, engine=name, preprocess="unit") for name in ("auto", "twin"))
    found, known = (
        one.explain(PHOTO, "gradient").images[0].explanations[0] for one in (auto, twin)
    )
    np.testing.assert_array_equal(found.attribution.values, known.attribution.values)
    assert auto.model.engine == "twin"


@pytest.mark.parametrize("unverified", [False, True])
def test_a_twin_that_is_needed_where_there_is_no_torch_is_named(monkeypatch, tmp_path, unverified):
    monkeypatch.setenv("INSPECTOR_CACHE", "off")
    path = _saved(tmp_path, _uncovered())
    opened = inspector.load(path, preprocess="unit", unverified=unverified)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BrokenInstallation, match="PyTorch does not start") as refused:
        opened.explain(PHOTO, "gradient")
    assert "--engine onnx" in refused.value.hint


def test_a_doubt_about_one_output_has_the_others_judged_with_the_twin_too(tmp_path):
    model = _uncovered()
    model.graph.node.extend([node("GlobalMaxPool", "b", "m"), node("Flatten", "m", "sure")])
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("sure", onnx.TensorProto.FLOAT, [1, 4])
    )
    opened = inspector.load(_saved(tmp_path, model), preprocess="unit")
    assert "gradient graph agrees" in opened.certificate_of("sure").text
    found = opened.explain(PHOTO, "gradient", target=["sure[0]", "y[1]"]).images[0]
    assert opened.model.engine == "twin"
    assert all("twin_difference" in one.facts for one in found.explanations)
    for tensor in ("sure", "y"):
        assert "gradient graph" not in opened.certificate_of(tensor).text


def _halved(b, found):
    return {i: b.scaled(s, 0.5) if i else s for i, s in found.items()}


def _dropped(_b, found):
    return {i: s for i, s in found.items() if len(found) < 2 or i}


def _selected():
    """Boxes that the graph itself suppresses: which of them are read depends on the image."""
    nodes = [
        node("Conv", "x w", "a", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "a", "flat"),
        node("Reshape", "flat as_boxes", "boxes"),
        node("Conv", "x v", "b", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", "b as_scores", "scores"),
        node("NonMaxSuppression", "boxes scores most", "kept"),
        node("Gather", "kept one", "place", axis=1, name="place"),
        node("Gather", "scores place", "y", axis=2, name="taking"),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(4, 3, 2, 2)).astype(np.float32),
        "v": rng.normal(size=(1, 3, 2, 2)).astype(np.float32),
        "as_boxes": np.array([1, 16, 4]),
        "as_scores": np.array([1, 1, 16]),
        "most": np.int64(3),
        "one": np.int64(2),
    }
    return onnx_model(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 1, 3)}, constants)


def _too_old():
    """A classifier of opset 6."""
    nodes = [
        node("Conv", "x w", "a"),
        node("GlobalAveragePool", "a", "d"),
        node("Flatten", "d", "y"),
    ]
    weights = np.ones((4, 3, 1, 1), np.float32)
    return onnx_model(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 4)}, {"w": weights}, opset=6)


@pytest.mark.parametrize(
    ("make", "said"),
    [(_uncovered, "Gather"), (_selected, "Gather"), (_too_old, "from opset 7 on")],
)
def test_what_the_gradient_graph_does_not_cover_is_named(tmp_path, make, said):
    model = inspector.load(_saved(tmp_path, make()), engine="onnx", preprocess="unit")
    target = "y[0,0]" if make is _selected else "top1"
    with pytest.raises(MethodRefused, match=said) as refused:
        model.explain(PHOTO, "gradient", target=target)
    assert "--engine twin" in str(refused.value)
    assert refused.value.exit_status == 3


def test_a_layer_beside_the_targets_path_is_refused(tmp_path):
    model = _two_paths()
    model.graph.node.append(node("Conv", "x w", "aside"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("aside", 1, None))
    opened = inspector.load(_saved(tmp_path, model), engine="onnx", preprocess="unit")
    with pytest.raises(MethodRefused, match="does not depend on the layer"):
        opened.explain(PHOTO, "grad-cam", layer="aside", target="y[1]")


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


@pytest.mark.parametrize("method", ["gradient", "grad-cam"])
def test_a_wrong_gradient_graph_draws_no_unverified_map_either(monkeypatch, tmp_path, method):
    from inspector.surgery.gradient.table import RULES

    right = RULES.lookup("", "Add", 20)
    monkeypatch.setenv("INSPECTOR_CACHE", "off")
    monkeypatch.setitem(RULES._entries["", "Add"], 1, lambda b, s: _dropped(b, right(b, s)))
    path = _saved(tmp_path, _two_paths())
    auto, twin = (
        inspector.load(path, engine=name, preprocess="unit", unverified=name == "auto")
        for name in ("auto", "twin")
    )
    asked = {"target": "y[1]"} | ({"layer": "a"} if method == "grad-cam" else {})
    found, known = (one.explain(PHOTO, method, **asked).explanations[0] for one in (auto, twin))
    np.testing.assert_array_equal(found.attribution.values, known.attribution.values)
    assert not any(text.startswith("unverified") for text in found.warnings)


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


@pytest.mark.parametrize(("apart", "status"), [(0.4, "pass"), (1.0, "report")])
def test_no_gate_that_flips_excuses_a_gradient_of_zeros(monkeypatch, tmp_path, apart, status):
    """The twin's own gradients in float32 and float64 are 0.3 of the peak apart."""
    from inspector.verify import graph_gradient

    subject = Subject(inspector.load(_saved(tmp_path, _two_paths()), preprocess="unit").model)
    probe = noise(subject.model)
    target, _ = subject.default_target(probe)
    found = {subject.engine: 0.7, subject.exact_engine: 1.0}
    monkeypatch.setattr(
        graph_gradient, "gradient_of", lambda engine, *_: np.array([found.get(engine, 1 - apart)])
    )
    monkeypatch.setattr(graph_gradient, "slopes_without_twin", lambda *_: ())
    assert graph_gradient.graph_check(subject, probe, target).status == status


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
    twin = inspector.load(MODEL, engine="twin")
    known = twin.explain(PHOTO, "lrp-epsilon-plus").images[0].explanations[0]
    np.testing.assert_array_equal(found[0].attribution.values, known.attribution.values)
    assert auto.model.engine == "auto"


def test_auto_asks_for_a_second_opinion_on_operators_that_nothing_here_computes(tmp_path):
    """Their number is a constant, so that the gradient itself needs no rule for them."""
    model = _uncovered()
    del model.graph.node[2:6]
    model.graph.node.extend(
        [
            node("MurmurHash3", "seed", "hash", domain="com.microsoft"),
            node("Cast", "hash", "number", to=onnx.TensorProto.FLOAT),
            node("Mul", "number nothing", "zero"),
            node("Add", "b zero", "c"),
        ]
    )
    order = [*model.graph.node[:2], *model.graph.node[4:], *model.graph.node[2:4]]
    model.graph.ClearField("node")
    model.graph.node.extend(order)
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array([7], np.int32), "seed"),
            onnx.numpy_helper.from_array(np.array([0], np.float32), "nothing"),
        ]
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    path = _saved(tmp_path, model)
    with pytest.raises(MethodRefused, match="MurmurHash3"):
        inspector.load(path, preprocess="unit").explain(PHOTO, "gradient")
    found = inspector.load(path, preprocess="unit", engine="onnx").explain(PHOTO, "gradient")
    assert found.images[0].explanations[0].attribution.values.any()


def test_a_rule_that_one_engine_refuses_does_not_keep_it_from_another():
    from converters.errors import UnsupportedNode, UnsupportedOperator
    from inspector.engines.either import EitherEngine
    from inspector.engines.rules import Rule

    class First:
        def signals(self, start, frontier, targets, rule=None, *, known=None):
            if rule is not None:
                raise UnsupportedOperator([UnsupportedNode("n", "Op", "", 20, "none")])
            return "first"

    class Second:
        def signals(self, *_):
            return "second"

    either = EitherEngine(First(), Second)
    given = ({"x": np.zeros(1)}, {}, [])
    assert either.signals(*given, Rule("guided")) == "second"
    assert either.signals(*given) == "first"
    assert either.signals(*given, Rule("guided")) == "second"
