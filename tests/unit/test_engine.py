"""The gradient engine: one backward pass for evidence, certificate and projector."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import onnx_model
from onnx import TensorProto, helper

import inspector
from converters.errors import UnsupportedOperator
from converters.graph import Graph
from inspector.engines import GradientEngine
from inspector.engines.rules import Rule
from inspector.engines.twin import TwinEngine
from inspector.errors import NoGradient
from inspector.projection.projector import Projector
from inspector.target import Target
from inspector.verify.checks import quick

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
WEIGHTS = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 1.0]], np.float32)


def engine(nodes, output="y", constants=None):
    return TwinEngine(
        Graph(
            onnx_model(
                nodes,
                {"x": ["n", 3]},
                [onnx.ValueInfoProto(name=output)],
                {"w": WEIGHTS, **(constants or {})},
                opset=17,
                ir_version=9,
            )
        )
    )


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs.split(), outputs.split(), name=outputs, **attributes)


@pytest.fixture
def skip():
    """y = w' relu(x) + x w: the second summand passes the layer r by."""
    return engine(
        [
            node("Relu", "x", "r"),
            node("MatMul", "r w", "a"),
            node("MatMul", "x w", "b"),
            node("Mul", "a b", "y"),
        ]
    )


def test_each_row_has_its_own_target(skip: GradientEngine):
    x = np.array([[1, 2, 3], [-1, 2, -3]], np.float32)
    targets = [Target("y", (0,), "0"), Target("y", (1,), "1")]
    found = skip.signals({"x": x}, {}, targets)
    rows, mask = np.arange(2), (x > 0).astype(np.float32)
    a, b, w = (x * mask @ WEIGHTS)[rows, rows], (x @ WEIGHTS)[rows, rows], WEIGHTS.T
    np.testing.assert_allclose(found.scores, a * b, rtol=1e-6)
    np.testing.assert_allclose(found["x"], a[:, None] * w + b[:, None] * w * mask, rtol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_scores_first_and_a_callers_mode_leave_gradients_alone(skip: GradientEngine, mode):
    x, target = np.array([[1, 2, 3]], np.float32), [Target("a", (1,), "1")]
    with mode():
        assert skip.scores({"x": x}, {}, target) == pytest.approx([-2 + 6 + 3])
        assert skip.signals({"x": x}, {}, target)["x"].tolist() == [WEIGHTS[:, 1].tolist()]
    assert skip.signals({"x": x}, {}, target)["x"].tolist() == [WEIGHTS[:, 1].tolist()]


def test_a_frontier_stands_for_what_passes_the_layer_by(skip: GradientEngine):
    x = np.array([[1, 2, 3]], np.float32)
    frontier = {"b": np.array([[10, 20]], np.float32)}
    found = skip.signals({"r": x}, frontier, [Target("y", (1,), "1")])
    assert set(found) == {"r"}
    np.testing.assert_allclose(found["r"], [20 * WEIGHTS[:, 1]], rtol=1e-6)


def test_a_rule_replaces_the_derivative(skip: GradientEngine):
    x = np.array([[1, -2, 3]], np.float32)
    frontier = {"b": np.array([[1, 1]], np.float32)}
    target = [Target("a", (1,), "1")]
    plain = skip.signals({"x": x}, frontier, target)["x"]
    assert plain.tolist() == [[-2, 0, 1]]
    assert skip.signals({"x": x}, frontier, target, Rule("guided"))["x"].tolist() == [[0, 0, 1]]
    assert skip.signals({"x": x}, frontier, target, Rule("deconvnet"))["x"].tolist() == [[0, 3, 1]]


def test_a_target_that_cannot_be_differentiated_has_no_gradient():
    found = engine(
        [node("Shape", "x", "s"), node("Cast", "s", "y", to=TensorProto.FLOAT)], constants={}
    )
    with pytest.raises(NoGradient, match="cannot be differentiated"):
        found.signals({"x": np.ones((1, 3), np.float32)}, {}, [Target("y", (), "y")])


def test_an_operator_that_the_engine_does_not_know_is_refused_without_a_run(skip):
    skip.require("x", "y")
    with pytest.raises(UnsupportedOperator, match="Odd"):
        engine([node("Odd", "x", "y", domain="test")]).require("x", "y")


def test_coverage_is_counted_once(skip):
    first = skip.coverage("x", ["y"], Rule("guided"))
    assert first.ruled == {"Relu": 1}
    assert skip.coverage("x", ["y"], Rule("guided")) is first
    assert skip.coverage("r", ["y"], Rule("guided")).ruled == {}


def test_every_gradient_is_the_engines(monkeypatch):
    """Evidence, certificate and projector ask one engine, each for its own rule."""
    monkeypatch.setenv("INSPECTOR_CACHE", "off")
    asked = []
    signals = TwinEngine.signals

    def recorded(self, start, frontier, targets, rule=None, **known):
        asked.append((tuple(start), rule))
        return signals(self, start, frontier, targets, rule, **known)

    monkeypatch.setattr(TwinEngine, "signals", recorded)
    opened = inspector.load(SAMPLES / "resnet20.onnx", device="cpu", engine="twin", unverified=True)
    photo = inspector.load_photo(SAMPLES / "images" / "cat_1.png")
    name = opened.input.name
    opened.explain(photo, ["grad-cam"], layer="relu_18")
    assert (("relu_18",), Rule()) in asked
    asked.clear()
    opened.explain(photo, ["gradient", "guided-backprop"])
    assert asked == [((name,), Rule()), ((name,), Rule("guided"))]
    asked.clear()
    quick(getattr(opened, "model", opened))
    assert asked == [((name,), None)]
    asked.clear()
    values, _ = opened.preprocessing.preprocess.apply(photo)
    Projector(opened, "relu_3")(values[None], [(5, 3, 3)])
    assert asked == [((name,), Rule("deconvnet"))]
