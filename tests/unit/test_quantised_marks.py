"""Which quantisers do the work of a ReLU, which do not, and what a backward rule does there."""

import numpy as np
import pytest
import torch
from quantised_networks import network

from converters.graph import Graph
from converters.to_torch.program import Program
from inspector.engines.overlays import overlay_of
from inspector.engines.rules import RULES, Rule, coverage
from inspector.network.quantisation.fused_activations import find_marks
from inspector.network.quantisation.lost_activations import lost_activations, lost_note

W = np.eye(4, dtype=np.float32)
QDQ = "q = QuantizeLinear({0}, s, z) Y = DequantizeLinear(q, s, z)"
U8 = {"s": np.float32(0.1), "z": np.uint8(0)}


def marks(text, **constants):
    proto = network(text, **{"w": W, **U8, **constants})
    return [(mark.tensor, mark.kind) for mark in find_marks(Graph(proto))]


def of_linear(**constants):
    return marks("c = MatMul(X, w) " + QDQ.format("c"), **constants)


# -- what is marked ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_a_least_level_of_zero_is_a_relu(dtype):
    assert of_linear(z=dtype(np.iinfo(dtype).min)) == [("q", "fused Relu")]
    assert of_linear(z=dtype(np.iinfo(dtype).min + 1)) == []
    assert of_linear(z=dtype(np.iinfo(dtype).max // 2)) == []


@pytest.mark.parametrize(
    ("scale", "kind"),
    [
        (6 / 255, "fused Clip[0,6]"),
        (6.005 / 255, "fused Clip[0,6]"),
        (6.01 / 255, "fused Relu"),
        (5.9 / 255, "fused Relu"),
    ],
)
def test_a_greatest_level_of_six_is_a_relu6(scale, kind):
    assert of_linear(s=np.float32(scale)) == [("q", kind)]


def test_zero_points_by_channel_are_all_at_the_floor():
    scales = np.full(4, 0.1, np.float32)
    assert of_linear(s=scales, z=np.zeros(4, np.uint8)) == [("q", "fused Relu")]
    assert of_linear(s=scales, z=np.array([0, 0, 1, 0], np.uint8)) == []


def test_the_zero_point_may_be_left_out_or_hide_behind_identities():
    assert marks("c = MatMul(X, w) q = QuantizeLinear(c, s) Y = Cast<to=1>(q)") == [
        ("q", "fused Relu")
    ]
    text = "i = Identity(z) j = Identity(i) c = MatMul(X, w) q = QuantizeLinear(c, s, j)"
    assert marks(text + "Y = Cast<to=1>(q)") == [("q", "fused Relu")]


@pytest.mark.parametrize(
    "pixels",
    [
        "",
        "x = Identity(X)",
        "x = Mul(X, s)",
        "a = Sub(X, s) x = Div(a, s)",
        "x = Transpose<perm=[1,0]>(X)",
    ],
)
def test_pixels_carry_no_activation(pixels):
    assert marks(pixels + QDQ.format("x" if pixels else "X")) == []


@pytest.mark.parametrize(
    "text",
    [
        "b = Relu(c)",
        "b = Sigmoid(c)",
        "b = Softmax(c)",
        "b = Abs(c)",
        "b = Mul(c, c)",
        "b = Clip(c, zero, six)",
        "b = Max(c, zero)",
        "r = Relu(c) b = Transpose<perm=[1,0]>(r)",
        "r = Relu(c) b = Concat<axis=0>(r, r)",
        "r = Relu(c) t = Sigmoid(c) b = Add(r, t)",
        "r = Relu(c) b = Mul(r, six)",
        "r = Relu(c) b = ReduceMean<axes=[1]>(r)",
        "r = Relu(c) b = Reshape(r, shape)",
        "n = Neg(c) r = Max(c, n, zero) b = Sqrt(r)",
    ],
)
def test_what_cannot_be_negative_needs_no_relu(text):
    extra = {"zero": np.float32(0), "six": np.float32(6), "shape": np.array([-1, 4])}
    assert marks("c = MatMul(X, w)" + text + " " + QDQ.format("b"), **extra) == []


@pytest.mark.parametrize(
    "text",
    [
        "b = LeakyRelu(c)",
        "b = Clip(c, minus, six)",
        "r = Relu(c) b = Add(r, c)",
        "r = Relu(c) b = Mul(r, minus)",
        "r = Relu(c) b = Concat<axis=0>(r, c)",
        "b = Tanh(c)",
        "r = Relu(c) b = Sub(r, six)",
        "r = Relu(c) b = Min(r, c)",
    ],
)
def test_what_can_be_negative_is_cut_off(text):
    extra = {"minus": np.float32(-1), "six": np.float32(6)}
    found = marks("c = MatMul(X, w)" + text + " " + QDQ.format("b"), **extra)
    assert found == [("q", "fused Relu")]


def test_a_mark_makes_all_behind_it_non_negative():
    text = (
        "c = MatMul(X, w) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z)"
        " r = ReduceMax<axes=[1]>(d) p = QuantizeLinear(r, s, z) e = DequantizeLinear(p, s, z)"
        " m = MatMul(d, w) o = QuantizeLinear(m, s, z) Y = DequantizeLinear(o, s, z)"
    )
    assert marks(text) == [("q", "fused Relu"), ("o", "fused Relu")]


def test_operators_on_levels_are_marked_by_the_zero_point_of_their_output():
    constants = {
        "k": np.ones((2, 2, 1, 1), np.int8),
        "ks": np.float32(0.5),
        "kz": np.int8(0),
        "m": np.uint8(100),
        "s": np.float32(0.1),
        "z": np.uint8(0),
    }
    text = (
        "x = QuantizeLinear(X, s, m)"
        "a = QLinearConv(x, s, m, k, ks, kz, s, z)"
        "b = QLinearConv(x, s, m, k, ks, kz, s, m)"
        "c = com.microsoft.QLinearAdd(a, s, z, b, s, m, s, z)"
        "d = com.microsoft.QLinearAdd(a, s, z, c, s, z, s, z)"
        "e = com.microsoft.QLinearSigmoid(b, s, m, s, z)"
        "f = com.microsoft.QLinearMul(b, s, m, a, s, z, s, z)"
        "Y = DequantizeLinear(f, s, z)"
    )
    proto = network(
        text, x="float[N,2,5,5] X", y="float[N,2,5,5] Y", domain="com.microsoft", **constants
    )
    assert [mark.tensor for mark in find_marks(Graph(proto))] == ["a", "c", "f"]


# -- what a rule does there ----------------------------------------------------------------------


def literal(rule, signal, *, inside):
    """The table of the papers, for one element."""
    if rule == "deconvnet":
        return max(signal, 0.0)
    passed = signal if rule == "gradient" else max(signal, 0.0)
    return passed if inside else 0.0


def signal_at(proto, x, arriving, rule, *, start="X"):
    program = Program(proto, dtype=torch.float64)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    value = program.run({start: leaf}, ["Y"], overlay_of(program, Rule(rule)))["Y"]
    weights = torch.tensor(arriving, dtype=torch.float64)
    (signal,) = torch.autograd.grad(value, leaf, weights)
    return signal.numpy()


X = np.array([[-1.0, 0.04, 0.06, 2.0], [-0.01, 0.0, 7.0, 99.0]])
R = np.array([[1.0, -2.0, 3.0, -4.0], [-5.0, 6.0, -7.0, 8.0]])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("scale", "bound"), [(np.float32(0.1), np.inf), (np.float32(6 / 255), 6 * (1 - 0.5 / 255))]
)
def test_rules_at_a_fused_activation(rule, scale, bound):
    proto = network("c = MatMul(X, w) " + QDQ.format("c"), w=W, s=scale, z=np.uint8(0))
    found = signal_at(proto, X, R, rule)
    # A value within half a step of 0 is quantised to 0, where the ReLU cuts off.
    inside = [[float(scale) / 2 < x < bound for x in row] for row in X]
    wanted = [
        [literal(rule, r, inside=i) for r, i in zip(*row, strict=True)]
        for row in zip(R, inside, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_acts_on_a_quantiser_that_is_no_activation(rule):
    text = "c = MatMul(X, w) " + QDQ.format("c")
    proto = network(text, w=W, s=np.float32(0.01), z=np.uint8(128))  # -1.28 to 1.27
    np.testing.assert_allclose(signal_at(proto, X, R, rule), R, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_quantisers_of_single_readers_act_on_the_sum_of_their_signals(rule):
    """A ReLU with two readers gets one signal; so it must be if each has a quantiser."""
    text = (
        "c = MatMul(X, w) p = QuantizeLinear(c, s, z) d = DequantizeLinear(p, s, z)"
        " q = QuantizeLinear(c, s, z) e = DequantizeLinear(q, s, z)"
        " f = Mul(e, three) Y = Sub(d, f)"
    )
    proto = network(text, w=W, three=np.float32(3), **U8)
    found = signal_at(proto, X, R, rule)  # each element gets R - 3 R
    wanted = [
        [literal(rule, -2 * r, inside=x > 0.05) for x, r in zip(*row, strict=True)]
        for row in zip(X, R, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert [mark.tensor for mark in find_marks(Graph(proto))] == ["c"]


def test_networks_without_fused_activations_need_no_overlay_for_the_gradient():
    assert overlay_of(Program(network("Y = Relu(X)")), Rule()) is None
    marked = network("c = MatMul(X, w) " + QDQ.format("c"), w=W, **U8)
    assert overlay_of(Program(marked), Rule()) is not None


def test_fused_activations_count_in_the_coverage():
    text = (
        "c = MatMul(X, w) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z)"
        " m = MatMul(d, w) p = QuantizeLinear(m, t, z) e = DequantizeLinear(p, t, z)"
        " n = MatMul(e, w) Y = Relu(n)"
    )
    program = Program(network(text, w=W, t=np.float32(6 / 255), **U8))
    found = coverage(program.graph, program.graph.nodes, Rule("guided"))
    assert found.ruled == {"Relu": 1, "fused Relu": 1, "fused Clip[0,6]": 1}
    assert "3 of 3 activations under the guided rule" in str(found)


# -- activation functions that got lost ------------------------------------------------------------


def chain(zero_points, *, kernel=3, relu=False):
    """Convolutions with a quantiser behind each."""
    body, last = "", "X"
    constants = {"s": np.float32(0.1), "w": np.ones((2, 2, kernel, kernel), np.float32)}
    for i, zero in enumerate(zero_points):
        constants[f"z{i}"] = np.int8(zero)
        body += f" c{i} = Conv({last}, w)"
        body += f" r{i} = Relu(c{i})" if relu else f" r{i} = Identity(c{i})"
        body += f" q{i} = QuantizeLinear(r{i}, s, z{i}) d{i} = DequantizeLinear(q{i}, s, z{i})"
        last = f"d{i}"
    body += f" Y = Conv({last}, w)"
    shape = "float[N,2,32,32]"
    return Graph(network(body, x=f"{shape} X", y=f"{shape} Y", **constants))


def lost(*args, **options):
    return [s.tensor for s in lost_activations(chain(*args, **options))]


def test_a_network_whose_relus_are_fused_or_there_has_lost_none():
    assert lost([-128, -128, -128]) == []
    assert lost([0, 0, 0], relu=True) == []
    assert lost([-100, 20, 5, -128]) == []  # linear layers, by the look of them


def test_no_activation_function_at_all_is_suspicious():
    assert lost([0, 0, 3]) == ["q0", "q1", "q2"]
    assert lost([0]) == []  # one linear stretch alone is not a network that lost its ReLUs


def test_centred_quantisers_among_clamping_ones_are_suspicious():
    assert lost([-128, 0, -128, 0]) == ["q1", "q3"]
    assert lost([-128, 0, -128, 0], kernel=1) == []  # linear bottlenecks look like this
    assert lost([-128, 0, 7, -9, 11, 13, -5]) == []  # one of six: chance


def test_a_zero_point_just_above_the_floor_is_suspicious():
    found = lost_activations(chain([-128, -125, -128]))
    assert [s.tensor for s in found] == ["q1"]
    assert "keeps 3 levels below zero" in str(found[0])
    assert lost([-128, -110, -128]) == []


def test_the_note_counts_and_shows_the_layer_itself():
    graph = chain([-128, 0, -128, 0])
    found = lost_activations(graph)
    activation = np.array([-1.0, 1.0, 2.0, 3.0])
    assert lost_note(graph, ()) == ""
    assert "at 2 places" in lost_note(graph, found)
    note = lost_note(graph, found, "d1", activation)
    assert found[0].node.name in note
    assert "25% of its values are negative" in note
    assert "negative" not in lost_note(graph, found, "d0", activation)
    assert "negative" not in lost_note(graph, found, "d1", np.abs(activation))
