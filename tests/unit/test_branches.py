"""Branches that every image takes: their nodes stand in the place of the ``If``."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import inspector
from converters import onnx_file
from converters.errors import UnsupportedOperator
from inspector.embed import base_of, checks_of, embed
from inspector.engines.gradient_graph import GradientGraph
from inspector.engines.runtime import Runtime
from inspector.engines.twin import TwinEngine
from tests.networks import node, onnx_model
from tests.unit.gradient_cases import Weighted

_RNG = np.random.default_rng(0)
CONSTANTS = {
    "w1": (_RNG.normal(size=(6, 3, 3, 3)) / 3).astype(np.float32),
    "w2": (_RNG.normal(size=(6, 6, 3, 3)) / 3).astype(np.float32),
    "w3": _RNG.normal(size=(6, 5)).astype(np.float32),
    "yes": np.array(True),
    "no": np.array(False),
    "first": np.array(0),
    "second": np.array(1),
    "third": np.array(2),
    "six": np.array(6),
    "one": np.array(1),
    "many": np.array(300),
}


def _body(name, nodes, output, constants=None):
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    made = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, name, [], made, stored)


def _choice(condition, then=None, otherwise=None, output="e"):
    then = then or _body(
        "then", [node("Conv", "b w2", "c", pads=[1] * 4), node("Relu", "c", "d")], "d"
    )
    otherwise = otherwise or _body("else", [node("Exp", "b", "d")], "d")
    return helper.make_node(
        "If", [condition], [output], "choice", then_branch=then, else_branch=otherwise
    )


def _model(choice, before=(), shape=("N", 3, 12, 10), constants=None):
    """Conv - Relu - the choice, from b to e - mean - linear."""
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        *before,
        choice,
        node("GlobalAveragePool", "e", "p"),
        node("Flatten", "p", "q"),
        node("MatMul", "q w3", "y"),
    ]
    all_constants = CONSTANTS | (constants or {})
    return onnx_model(nodes, {"x": shape}, {"y": ("N", 5)}, all_constants)


def _opened(tmp_path, model):
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return inspector.load(path, preprocess="unit")


def _length(axis, of="b"):
    return [node("Shape", of, "s"), node("Gather", f"s {axis}", "n", axis=0)]


def _branches(opened):
    return [one.op_type for one in opened.graph.nodes].count("If")


def _agree(opened, whole, shape=(2, 3, 12, 10)):
    """Outputs are the file's own, and the gradient is that of the twin with the branch in it."""
    x = _RNG.random(shape).astype(np.float32)
    own = Runtime(whole, device="cpu", optimise=False).run({"x": x}, ["y"])["y"]
    found = Runtime(opened.file, device="cpu", optimise=False).run({"x": x}, ["y"])["y"]
    np.testing.assert_array_equal(found, own)
    target = [Weighted(_RNG.normal(size=own.shape).astype(np.float32))] * len(x)
    signal = GradientGraph(opened.file).signals({"x": x}, {}, target)["x"].astype(np.float64)
    expected = TwinEngine(whole.graph).signals({"x": x}, {}, target)["x"]
    np.testing.assert_allclose(signal, expected, atol=2e-6 * np.abs(expected).max())
    exact = TwinEngine(whole.graph, dtype=torch.float64)
    move = _RNG.normal(size=x.shape)
    ahead, behind = (exact.scores({"x": x + s * 1e-6 * move}, {}, target) for s in (1, -1))
    slope = (ahead - behind).sum() / 2e-6
    assert (signal * move).sum() == pytest.approx(slope, rel=1e-4, abs=1e-5)


NESTED = _body("then", [_choice("yes", output="inner")], "inner")
CONSTANT = _body("then", [node("Mul", "b k", "d")], "d", {"k": np.float32(3)})
TWICE = _body("then", [node("Relu", "b", "c"), node("Mul", "c c", "d")], "d")

KNOWN = {
    "constant": (_choice("yes"), []),
    "other": (_choice("no"), []),
    "computed": (_choice("t"), [node("Equal", "one second", "t")]),
    "channels": (_choice("t"), [*_length("second"), node("Equal", "n six", "t")]),
    "rows": (_choice("t"), [*_length("third"), node("Less", "n many", "t")]),
    "nested": (_choice("yes", NESTED), []),
    "stored": (_choice("yes", CONSTANT), []),
    "inside": (_choice("yes", TWICE), []),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_branch_that_every_image_takes_is_put_in_place(tmp_path, kind):
    choice, before = KNOWN[kind]
    opened = _opened(tmp_path, _model(choice, before))
    assert _branches(opened) == 0
    _agree(opened, onnx_file.read(tmp_path / "model.onnx"))


def test_what_was_inside_is_a_layer_and_takes_a_heatmap(tmp_path):
    opened = _opened(tmp_path, _model(_choice("yes")))
    assert [layer.tensor for layer in opened.layers][-1] == "e"
    out = tmp_path / "out.onnx"
    embed(opened, out, "guided-grad-cam")
    again = inspector.load(out, preprocess="unit")
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}


@pytest.mark.parametrize(
    ("axis", "bound", "shape"),
    [
        ("first", "one", ("N", 3, 12, 10)),
        ("third", "many", ("N", 3, "H", 10)),
        ("third", "many", ("N", 3, "H", "W")),
    ],
)
def test_a_condition_that_other_images_change_is_left_and_refused(tmp_path, axis, bound, shape):
    before = [*_length(axis), node("Less", f"n {bound}", "t")]
    opened = _opened(tmp_path, _model(_choice("t"), before, shape))
    assert _branches(opened) == 1
    with pytest.raises(UnsupportedOperator, match=r"ai.onnx::If.*which of its bodies runs"):
        embed(opened, tmp_path / "never.onnx", "gradient")
    assert not (tmp_path / "never.onnx").exists()


def test_a_length_that_the_image_decides_is_no_constant(tmp_path):
    before = [
        node("Greater", "x zero", "g"),
        node("NonZero", "g", "places"),
        *_length("second", "places"),
        node("Less", "n one", "t"),
    ]
    model = _model(_choice("t"), before, ("N", 3, 12, 10), {"zero": np.float32(0)})
    assert _branches(_opened(tmp_path, model)) == 1


def test_the_twin_has_the_gradient_of_a_choice_by_the_image(tmp_path):
    before = [
        node("ReduceMean", "b", "m", keepdims=0),
        node("Greater", "m zero", "t"),
    ]
    model = _model(_choice("t"), before, constants={"zero": np.float32(0)})
    opened = _opened(tmp_path, model)
    assert _branches(opened) == 1
    image = (_RNG.random((12, 10, 3)) * 255).astype(np.uint8)
    (found,) = opened.explain(image, methods=["gradient"]).images[0].maps().values()
    assert found.values.any()


def test_names_that_are_taken_are_others_inside(tmp_path):
    """Two bodies may use one name."""
    inner = _body("then", [node("Neg", "b", "n1"), node("Neg", "n1", "d")], "d")
    second = _body("then", [node("Neg", "e0", "n1"), node("Neg", "n1", "d")], "d")
    choice = _choice("yes", second, _body("else", [node("Exp", "e0", "d")], "d"))
    first = _choice("yes", inner, output="e0")
    first.name = "first"
    opened = _opened(tmp_path, _model(choice, [first]))
    names = [one for made in opened.graph.nodes for one in made.outputs]
    assert len(names) == len(set(names))
    assert {"n1", "n1_1"} <= set(names)


def test_a_result_that_is_given_out_twice_or_is_stored(tmp_path):
    def body(name, nodes, outputs, stored=()):
        made = [helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in outputs]
        return helper.make_graph(nodes, name, [], made, list(stored))

    scale = numpy_helper.from_array(np.float32([2]), "scale")
    then = body("then", [node("Relu", "b", "d")], ["d", "scale"], [scale])
    other = body("else", [node("Exp", "b", "d"), node("Neg", "d", "k")], ["d", "k"])
    choice = helper.make_node(
        "If", ["yes"], ["e1", "e2"], "choice", then_branch=then, else_branch=other
    )
    model = _model(node("Mul", "e1 e2", "e"), [choice])
    opened = _opened(tmp_path, model)
    assert _branches(opened) == 0
    onnx.checker.check_model(opened.file.model)
    x = _RNG.random((1, 3, 12, 10)).astype(np.float32)
    own = Runtime(opened.file, device="cpu").run({"x": x}, ["e1", "e"])
    np.testing.assert_array_equal(own["e"], 2 * own["e1"])
