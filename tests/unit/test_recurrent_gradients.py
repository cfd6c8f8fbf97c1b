"""Signals of RNN, GRU and LSTM against the twin's, as one loop and written out step by step."""

import numpy as np
import onnx
import pytest
import torch

from converters.errors import UnsupportedOperator
from converters.onnx_file import from_proto
from inspector.engines.gradient_graph import GradientGraph
from inspector.engines.twin import TwinEngine
from tests.networks import node, onnx_model
from tests.unit.gradient_cases import Weighted

STEPS, SIZE, HIDDEN = 6, 5, 4
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
TOLERANCE = 5e-6


def _w(seed, *shape):
    return (np.random.default_rng(seed).normal(size=shape) * 0.6).astype(np.float32)


def _file(op, outputs="y", *, initial=False, bias=True, opset=14, **attributes):
    """x (N, T, I) through one recurrent node to (N, ...)."""
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[op] * HIDDEN
    constants = {"W": _w(1, count, rows, SIZE), "R": _w(2, count, rows, HIDDEN)}
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2])]
    inputs = ["t", "W", "R"]
    if bias or initial:
        constants["B"] = _w(3, count, 2 * rows)
        inputs.append("B")
    if initial:  # one state per sample, that depends on the image as well
        constants["V"] = _w(4, count, SIZE, HIDDEN)
        nodes += [
            node("Slice", "x", "first", axes=[1], starts=[0], ends=[1])
            if opset < 10
            else node("Slice", "x from to axis", "first"),
            node("Transpose", "first", "turned", perm=[1, 0, 2]),
            node("MatMul", "turned V", "h"),
        ]
        inputs += ["", "h", *(["h"] if op == "LSTM" else [])]
        if opset >= 10:
            constants |= {"from": np.array([0]), "to": np.array([1]), "axis": np.array([1])}
    made = {"y": ["Y"], "last": ["", "Y"], "cell": ["", "", "Y"]}[outputs]
    nodes.append(
        onnx.helper.make_node(op, inputs, made, "reader", hidden_size=HIDDEN, **attributes)
    )
    order = [2, 0, 1, 3] if outputs == "y" else [1, 0, 2]
    nodes.append(node("Transpose", "Y", "y", perm=order))
    model = onnx_model(nodes, {"x": ("N", STEPS, SIZE)}, {"y": None}, constants, opset=opset)
    return from_proto(model)


def _difference(file, samples=2, *, avoid=()):
    """Largest difference from the float64 twin's signal, relative to its peak."""
    x = _w(5, samples, STEPS, SIZE) * 2
    graph = GradientGraph(file)
    known = graph._runtime(file.model).run({"x": x}, ["y"])["y"]
    targets = [Weighted(_w(6, *known.shape))] * samples
    found = graph.signals({"x": x}, {}, targets)["x"]
    twin = TwinEngine(file.graph, dtype=torch.float64)
    expected = twin.signals({"x": x}, {}, targets)["x"]
    return np.abs(found - expected).max() / np.abs(expected).max()


FORMS = [
    {},
    {"bias": False},
    {"initial": True},
    {"outputs": "last"},
    {"direction": "reverse"},
    {"direction": "reverse", "initial": True, "outputs": "last"},
    {"direction": "bidirectional"},
    {"direction": "bidirectional", "initial": True},
    {"direction": "bidirectional", "outputs": "last"},
    {"opset": 9},
    {"opset": 8},  # without Scan along the first axis: written out
    {"opset": 7, "direction": "bidirectional", "initial": True},
]


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_signal_is_the_twins(op, form):
    assert _difference(_file(op, **form)) <= TOLERANCE


@pytest.mark.parametrize("form", [{}, {"direction": "bidirectional"}], ids=str)
def test_a_reset_after_the_product(form):
    assert _difference(_file("GRU", linear_before_reset=1, **form)) <= TOLERANCE


@pytest.mark.parametrize("form", [{"outputs": "cell"}, {"outputs": "cell", "initial": True}])
def test_the_cell_of_an_lstm(form):
    assert _difference(_file("LSTM", **form)) <= TOLERANCE


@pytest.mark.parametrize(
    ("op", "names"),
    [
        ("RNN", ["Relu"]),
        ("RNN", ["Sigmoid"]),
        ("GRU", ["Sigmoid", "Relu"]),
        ("LSTM", ["Sigmoid", "Relu", "Tanh"]),
    ],
)
def test_other_activations(op, names):
    assert _difference(_file(op, activations=names)) <= TOLERANCE


def test_one_step():
    for op in GATES:
        model = _file(op).model
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
        file = from_proto(model)
        x = _w(5, 2, 1, SIZE)
        targets = [Weighted(_w(6, 2, 1, 1, HIDDEN))] * 2
        found = GradientGraph(file).signals({"x": x}, {}, targets)["x"]
        expected = TwinEngine(file.graph).signals({"x": x}, {}, targets)["x"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "more", "match"),
    [
        ("LSTM", {"clip": 1.0}, "clip of a recurrent node"),
        ("LSTM", {"input_forget": 1}, "input_forget"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, "activations HardSigmoid, Tanh"),
    ],
)
def test_forms_without_a_rule_are_named_with_their_node(op, more, match):
    with pytest.raises(UnsupportedOperator, match=match) as refused:
        _difference(_file(op, **more))
    assert [one.name for one in refused.value.nodes] == ["reader"]
