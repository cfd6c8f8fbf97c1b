"""Backward rules against the table of the papers, written as slow literal loops."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import node, onnx_model

from converters.to_torch.program import Program
from inspector.engines.overlays import overlay_of
from inspector.engines.rules import EXTENSIONS, Rule, coverage
from inspector.errors import MethodRefused

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
SMOOTH = {"Silu", "Gelu", "HardSwish", "Mish", "Elu", "Softplus", "Tanh"}
NAMES = ["one", "three", "six", "half", "sixth", "zero", "alpha", "root2"]
CONSTANTS = {
    "one": 1.0,
    "three": 3.0,
    "six": 6.0,
    "half": 0.5,
    "sixth": 1 / 6,
    "zero": 0.0,
    "alpha": 0.25,
    "root2": math.sqrt(2),
}


def network(nodes, shape, output="y", *, opset=20, extra=None):
    constants = {k: np.float32(v) for k, v in CONSTANTS.items()} | (extra or {})
    used = {name for n in nodes for name in n.input}
    return onnx_model(
        nodes,
        {"x": shape},
        [onnx.ValueInfoProto(name=output)],
        {k: np.asarray(v) for k, v in constants.items() if k in used},
        opset=opset,
        ir_version=9,
    )


def signal_through(proto, x, arriving, rule, extension="refuse"):
    """What comes out at x when ``arriving`` comes down at the output."""
    program = Program(proto, dtype=torch.float64)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    rules = overlay_of(program, Rule(rule, extension))
    value = program.run({"x": leaf}, ["y"], rules)["y"]
    (signal,) = torch.autograd.grad(value, leaf, torch.tensor(arriving, dtype=torch.float64))
    return signal.numpy()


def covered(proto, rule, extension="refuse"):
    program = Program(proto)
    return coverage(program.graph, program.graph.nodes, Rule(rule, extension))


# -- the table, kind by kind -----------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


KINDS = {
    # name: (nodes, f'(x), opset)
    "Relu": ([node("Relu", "x", "y")], lambda x: 1.0 if x > 0 else 0.0, 17),
    "Clip[0,6] attributes": (
        [node("Clip", "x", "y", min=0.0, max=6.0)],
        lambda x: 1.0 if 0 < x < 6 else 0.0,
        9,
    ),
    "Clip[0,6] inputs": (
        [node("Clip", "x zero six", "y")],
        lambda x: 1.0 if 0 < x < 6 else 0.0,
        17,
    ),
    "Clip[0,] is a ReLU": ([node("Clip", "x zero", "y")], lambda x: 1.0 if x > 0 else 0.0, 17),
    "LeakyRelu": ([node("LeakyRelu", "x", "y", alpha=0.1)], lambda x: 1.0 if x > 0 else 0.1, 17),
    "PRelu": ([node("PRelu", "x alpha", "y")], lambda x: 1.0 if x > 0 else 0.25, 17),
    "ThresholdedRelu": (
        [node("ThresholdedRelu", "x", "y", alpha=1.0)],
        lambda x: 1.0 if x > 1 else 0.0,
        17,
    ),
    "Max(x, 0)": ([node("Max", "x zero", "y")], lambda x: 1.0 if x > 0 else 0.0, 17),
    "Max(0, x)": ([node("Max", "zero x", "y")], lambda x: 1.0 if x > 0 else 0.0, 17),
    "Min(Max(x, 0), 6)": (
        [node("Max", "x zero", "a"), node("Min", "a six", "y")],
        lambda x: 1.0 if 0 < x < 6 else 0.0,
        17,
    ),
    "Min(Relu(x), 6)": (
        [node("Relu", "x", "a"), node("Min", "a six", "y")],
        lambda x: 1.0 if 0 < x < 6 else 0.0,
        17,
    ),
    "Where(x > 0, x, 0)": (
        [node("Greater", "x zero", "p"), node("Where", "p x zero", "y")],
        lambda x: 1.0 if x > 0 else 0.0,
        17,
    ),
    "x - Min(x, 0)": (
        [node("Min", "x zero", "m"), node("Sub", "x m", "y")],
        lambda x: 1.0 if x > 0 else 0.0,
        17,
    ),
    "Silu as Mul and Sigmoid": (
        [node("Sigmoid", "x", "s"), node("Mul", "x s", "y")],
        lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
        17,
    ),
    "HardSwish": (
        [node("HardSwish", "x", "y")],
        lambda x: 0.0 if x <= -3 else 1.0 if x >= 3 else (2 * x + 3) / 6,
        17,
    ),
    "HardSwish as x HardSigmoid(x)": (
        [node("HardSigmoid", "x", "s", alpha=1 / 6, beta=0.5), node("Mul", "x s", "y")],
        lambda x: 0.0 if x <= -3 else 1.0 if x >= 3 else (2 * x + 3) / 6,
        17,
    ),
    "HardSwish as x Clip(x+3) / 6": (
        [
            node("Add", "x three", "a"),
            node("Clip", "a zero six", "c"),
            node("Mul", "x c", "m"),
            node("Div", "m six", "y"),
        ],
        lambda x: 0.0 if x <= -3 else 1.0 if x >= 3 else (2 * x + 3) / 6,
        17,
    ),
    "Gelu": (
        [node("Gelu", "x", "y")],
        lambda x: (
            0.5 * (1 + math.erf(x / math.sqrt(2)))
            + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        ),
        20,
    ),
    "Gelu by Erf": (
        [
            node("Div", "x root2", "d"),
            node("Erf", "d", "e"),
            node("Add", "e one", "p"),
            node("Mul", "x p", "m"),
            node("Mul", "m half", "y"),
        ],
        lambda x: (
            0.5 * (1 + math.erf(x / math.sqrt(2)))
            + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        ),
        17,
    ),
    "Mish as x Tanh(Softplus(x))": (
        [node("Softplus", "x", "p"), node("Tanh", "p", "t"), node("Mul", "x t", "y")],
        lambda x: (
            math.tanh(math.log1p(math.exp(x)))
            + x * sigmoid(x) * (1 - math.tanh(math.log1p(math.exp(x))) ** 2)
        ),
        17,
    ),
    "Elu": ([node("Elu", "x", "y")], lambda x: 1.0 if x > 0 else math.exp(x), 17),
    "Softplus": ([node("Softplus", "x", "y")], sigmoid, 17),
    "Tanh": ([node("Tanh", "x", "y")], lambda x: 1 - math.tanh(x) ** 2, 17),
}
RECTIFIERS = [name for name in KINDS if not any(name.startswith(s) for s in SMOOTH)]
SMOOTH_KINDS = [name for name in KINDS if name not in RECTIFIERS]

XS = np.array([-7.5, -3.5, -2.0, -0.4, 0.3, 0.9, 1.7, 4.0, 5.9, 6.5, 9.0])
RS = np.array([1.5, -2.0, 0.75])


def grid():
    """Every x with every arriving signal: (2, 33, 1, 1) so that it may be an image too."""
    x, r = (a.ravel() for a in np.meshgrid(XS, RS, indexing="ij"))
    return x.reshape(1, -1, 1, 1), r.reshape(1, -1, 1, 1)


def by_the_table(rule, derivative, x, r, extension="refuse"):
    """One cell of the table of METHODS: x the node's input, r the incoming signal."""
    if rule == "gradient":
        return derivative(x) * r
    if rule == "deconvnet":
        return max(r, 0.0)
    if extension == "gradient-first":
        return max(derivative(x) * r, 0.0)
    return derivative(x) * max(r, 0.0)


def table_of(rule, derivative, x, r, extension="refuse"):
    result = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        result[index] = by_the_table(rule, derivative, x[index], r[index], extension)
    return result


@pytest.mark.parametrize("rule", ["gradient", "deconvnet", "guided"])
@pytest.mark.parametrize("kind", RECTIFIERS)
def test_rectifiers_follow_the_table(kind, rule):
    nodes, derivative, opset = KINDS[kind]
    x, r = grid()
    found = signal_through(network(nodes, list(x.shape), opset=opset), x, r, rule)
    np.testing.assert_allclose(found, table_of(rule, derivative, x, r), atol=1e-7)


@pytest.mark.parametrize("kind", SMOOTH_KINDS)
def test_smooth_activations_pass_the_plain_gradient(kind):
    nodes, derivative, opset = KINDS[kind]
    x, r = grid()
    found = signal_through(network(nodes, list(x.shape), opset=opset), x, r, "gradient")
    np.testing.assert_allclose(found, table_of("gradient", derivative, x, r), atol=1e-6)


@pytest.mark.parametrize("extension", ["signal-first", "gradient-first"])
@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize("kind", SMOOTH_KINDS)
def test_smooth_activations_follow_the_extension_asked_for(kind, rule, extension):
    nodes, derivative, opset = KINDS[kind]
    x, r = grid()
    proto = network(nodes, list(x.shape), opset=opset)
    found = signal_through(proto, x, r, rule, extension)
    np.testing.assert_allclose(found, table_of(rule, derivative, x, r, extension), atol=1e-6)
    figures = covered(proto, rule, extension)
    assert sum(figures.extended.values()) == 1
    assert figures.ruled == {}
    assert figures.unknown == ()


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize("kind", SMOOTH_KINDS)
def test_smooth_activations_are_refused_unless_an_extension_is_asked_for(kind, rule):
    nodes, _, opset = KINDS[kind]
    proto = network(nodes, [1, 2, 1, 1], opset=opset)
    with pytest.raises(MethodRefused, match="defined for rectifiers") as caught:
        covered(proto, rule)
    assert "signal-first" in caught.value.hint
    assert covered(proto, "gradient").extended


@pytest.mark.parametrize("kind", RECTIFIERS)
def test_every_rectifier_counts_in_the_coverage(kind):
    nodes, _, opset = KINDS[kind]
    figures = covered(network(nodes, [1, 2, 1, 1], opset=opset), "guided")
    assert sum(figures.ruled.values()) == 1
    assert figures.unknown == ()
    assert figures.extended == {}


def test_prelu_with_one_slope_a_channel():
    slopes = np.array([0.1, 0.5, 2.0], np.float32).reshape(3, 1, 1)
    nodes = [node("PRelu", "x s", "y")]
    proto = network(nodes, [1, 3, 2, 2], extra={"s": slopes})
    rng = np.random.default_rng(0)
    x, r = rng.standard_normal((2, 1, 3, 2, 2))
    for rule in ("gradient", "deconvnet", "guided"):
        wanted = np.zeros_like(x)
        for c in range(3):
            wanted[:, c] = table_of(
                rule, lambda v, c=c: 1.0 if v > 0 else float(slopes[c, 0, 0]), x[:, c], r[:, c]
            )
        np.testing.assert_allclose(signal_through(proto, x, r, rule), wanted, atol=1e-7)


def test_a_clip_that_passes_negative_values_is_no_rectifier():
    proto = network([node("Clip", "x m one", "y")], [1, 2, 1, 1], extra={"m": np.float32(-1)})
    with pytest.raises(MethodRefused, match="Clip"):
        covered(proto, "guided")


# -- gates -----------------------------------------------------------------------------------------

GATES = {
    "Sigmoid": [node("Sigmoid", "u", "g")],
    "HardSigmoid": [node("HardSigmoid", "u", "g", alpha=1 / 6, beta=0.5)],
    "Clip(u + 3, 0, 6) / 6": [
        node("Add", "u three", "u1"),
        node("Clip", "u1 zero six", "u2"),
        node("Div", "u2 six", "g"),
    ],
    "Clip(u + 3, 0, 6) * (1/6)": [
        node("Add", "u three", "u1"),
        node("Clip", "u1 zero six", "u2"),
        node("Mul", "u2 sixth", "g"),
    ],
    "Relu6 spelled out": [
        node("Add", "u three", "u1"),
        node("Relu", "u1", "u2"),
        node("Min", "u2 six", "u3"),
        node("Div", "u3 six", "g"),
    ],
}


def gated(gate):
    """Relu(x) times a squeeze-excite gate computed from its mean."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((4, 4, 1, 1)).astype(np.float32) * 2
    nodes = [
        node("Relu", "x", "a"),
        node("GlobalAveragePool", "a", "p"),
        node("Conv", "p w", "u"),
        *gate,
        node("Mul", "a g", "y"),
    ]
    return network(nodes, [1, 4, 3, 3], extra={"w": weights}), weights.astype(np.float64)[..., 0, 0]


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize("name", GATES)
def test_a_gate_passes_the_plain_gradient(name, rule):
    proto, weights = gated(GATES[name])
    rng = np.random.default_rng(1)
    x, r = rng.standard_normal((2, 1, 4, 3, 3))
    hard = name != "Sigmoid"

    a = np.maximum(x[0], 0)
    mean = a.mean(axis=(1, 2))
    u = weights @ mean
    gate = np.array([min(max(v / 6 + 0.5, 0), 1) if hard else sigmoid(v) for v in u])
    slope = np.array(
        [(1 / 6 if -3 < v < 3 else 0.0) if hard else sigmoid(v) * (1 - sigmoid(v)) for v in u]
    )
    # d/da of sum_kij R_kij a_kij g_k(a): the direct way, and the way through the gate.
    down = r[0] * gate[:, None, None]
    through = (r[0] * a).sum(axis=(1, 2)) * slope @ weights
    down = down + through[:, None, None] / 9
    wanted = np.zeros_like(down)
    for index in np.ndindex(*down.shape):
        wanted[index] = by_the_table(
            rule, lambda v: 1.0 if v > 0 else 0.0, x[0][index], down[index]
        )
    np.testing.assert_allclose(signal_through(proto, x, r, rule)[0], wanted, atol=1e-7)


@pytest.mark.parametrize("name", GATES)
def test_gates_are_counted_and_not_refused(name):
    proto, _ = gated(GATES[name])
    figures = covered(proto, "guided")
    assert figures.ruled == {"Relu": 1}
    assert figures.gates == 1
    assert "1 gates pass the gradient" in str(figures)


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_softmax_passes_the_plain_gradient(rule):
    proto = network([node("Relu", "x", "a"), node("Softmax", "a", "y", axis=1)], [1, 4])
    rng = np.random.default_rng(2)
    x, r = rng.standard_normal((2, 1, 4))
    a = np.maximum(x[0], 0)
    p = np.exp(a) / np.exp(a).sum()
    down = p * (r[0] - (p * r[0]).sum())
    wanted = [
        by_the_table(rule, lambda v: 1.0 if v > 0 else 0.0, x[0][i], down[i]) for i in range(4)
    ]
    np.testing.assert_allclose(signal_through(proto, x, r, rule)[0], wanted, atol=1e-9)


# -- pooling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_max_pooling_sends_signals_to_the_winners_and_adds_where_windows_overlap(stride):
    proto = network(
        [node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[stride, stride])], [1, 1, 9, 9]
    )
    rng = np.random.default_rng(3)
    x = np.round(rng.standard_normal((1, 1, 9, 9)), 1)  # with ties: the first index wins
    side = (9 - 3) // stride + 1
    r = rng.standard_normal((1, 1, side, side))
    wanted, wins = np.zeros((9, 9)), np.zeros((9, 9))
    for i in range(side):
        for j in range(side):
            best, where = -np.inf, None
            for di in range(3):
                for dj in range(3):
                    value = x[0, 0, i * stride + di, j * stride + dj]
                    if value > best:
                        best, where = value, (i * stride + di, j * stride + dj)
            wanted[where] += r[0, 0, i, j]
            wins[where] += 1
    assert (wins.max() > 1) == (stride < 3)  # overlapping windows share winners
    for rule in ("gradient", "deconvnet", "guided"):
        np.testing.assert_allclose(signal_through(proto, x, r, rule)[0, 0], wanted, atol=1e-12)


# -- networks --------------------------------------------------------------------------------------


def conv_net():
    """Conv, Relu, MaxPool, Conv, Relu, mean, linear: 2 -> 3 -> 4 channels, 6x6."""
    rng = np.random.default_rng(5)
    extra = {
        "w1": rng.standard_normal((3, 2, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "w3": rng.standard_normal((5, 4)).astype(np.float32),
    }
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p", kernel_shape=[2, 2], strides=[1, 1]),
        node("Conv", "p w2", "c2"),
        node("Relu", "c2", "r2"),
        node("GlobalAveragePool", "r2", "m"),
        node("Flatten", "m", "f"),
        node("Gemm", "f w3", "y", transB=1),
    ]
    return network(nodes, [1, 2, 6, 6], extra=extra), {
        k: v.astype(np.float64) for k, v in extra.items()
    }


def literal_backward(x, weights, index, rule):
    """The whole network forward and backward in loops."""
    gate = {
        "gradient": lambda v, s: s * (v > 0),
        "deconvnet": lambda v, s: np.maximum(s, 0),
        "guided": lambda v, s: np.maximum(s, 0) * (v > 0),
    }[rule]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    c1 = np.zeros((3, 6, 6))
    for o, i, j in np.ndindex(3, 6, 6):
        c1[o, i, j] = (weights["w1"][o] * padded[:, i : i + 3, j : j + 3]).sum()
    r1 = np.maximum(c1, 0)
    p = np.zeros((3, 5, 5))
    for o, i, j in np.ndindex(3, 5, 5):
        p[o, i, j] = r1[o, i : i + 2, j : j + 2].max()
    c2 = np.zeros((4, 3, 3))
    for o, i, j in np.ndindex(4, 3, 3):
        c2[o, i, j] = (weights["w2"][o] * p[:, i : i + 3, j : j + 3]).sum()
    signal = np.zeros((4, 3, 3)) + weights["w3"][index][:, None, None] / 9
    signal = gate(c2, signal)
    at_p = np.zeros_like(p)
    for o, i, j in np.ndindex(4, 3, 3):
        at_p[:, i : i + 3, j : j + 3] += weights["w2"][o] * signal[o, i, j]
    at_r1 = np.zeros_like(r1)
    for o, i, j in np.ndindex(3, 5, 5):
        di, dj = np.unravel_index(r1[o, i : i + 2, j : j + 2].argmax(), (2, 2))
        at_r1[o, i + di, j + dj] += at_p[o, i, j]
    at_c1 = gate(c1, at_r1)
    at_x = np.zeros_like(padded)
    for o, i, j in np.ndindex(3, 6, 6):
        at_x[:, i : i + 3, j : j + 3] += weights["w1"][o] * at_c1[o, i, j]
    return at_x[:, 1:-1, 1:-1]


@pytest.mark.parametrize("rule", ["gradient", "deconvnet", "guided"])
def test_a_whole_network_against_loops(rule):
    proto, weights = conv_net()
    x = np.random.default_rng(6).standard_normal((1, 2, 6, 6))
    for index in range(5):
        r = np.zeros((1, 5))
        r[0, index] = 1
        wanted = literal_backward(x[0], weights, index, rule)
        found = signal_through(proto, x, r, rule)[0]
        np.testing.assert_allclose(found, wanted, atol=1e-12 * np.abs(wanted).max())
        if rule == "guided":
            assert (wanted < 0).any()  # no rectifier stands between the filters and the image


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_an_activation_used_twice_is_ruled_twice(rule):
    """The same tensor through Relu, its negation through another one, and Relu upon Relu."""
    nodes = [
        node("Relu", "x", "a"),
        node("Neg", "x", "n"),
        node("Relu", "n", "b"),
        node("Sub", "a b", "s"),
        node("Relu", "s", "t"),
        node("Add", "t a", "y"),
    ]
    x, r = grid()
    proto = network(nodes, list(x.shape))
    wanted = np.zeros_like(x)

    def relu_rule(value, signal):
        return by_the_table(rule, lambda v: 1.0 if v > 0 else 0.0, value, signal)

    for at in np.ndindex(*x.shape):
        v, s = x[at], r[at]
        at_s = relu_rule(max(v, 0) - max(-v, 0), s)
        wanted[at] = relu_rule(v, at_s + s) - relu_rule(-v, -at_s)
    np.testing.assert_allclose(signal_through(proto, x, r, rule), wanted, atol=1e-12)
    assert covered(proto, rule).ruled == {"Relu": 3}


def test_a_rule_does_not_change_the_forward_pass():
    proto, _ = conv_net()
    program = Program(proto, dtype=torch.float64)
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    names = program.graph.tensors
    plain = program.run({"x": x}, names)
    for rule in ("deconvnet", "guided"):
        ruled = program.run({"x": x}, names, overlay_of(program, Rule(rule)))
        assert all(torch.equal(plain[n], ruled[n]) for n in names)
    again = program.run({"x": x.requires_grad_()}, ["y"])["y"]
    (gradient,) = torch.autograd.grad(again[0, 0], x)
    _, weights = conv_net()
    wanted = literal_backward(x.detach().numpy()[0], weights, 0, "gradient")
    np.testing.assert_allclose(gradient[0].numpy(), wanted, atol=1e-12)


def test_the_plain_gradient_needs_no_overlay():
    assert overlay_of(Program(conv_net()[0]), Rule()) is None


# -- what is said ----------------------------------------------------------------------------------


def test_the_coverage_counts_by_kind():
    nodes = [
        *(node("Clip", f"{a} zero six", b) for a, b in (("x", "a"), ("a", "b"), ("b", "c"))),
        node("Relu", "c", "d"),
        node("LeakyRelu", "d", "y"),
    ]
    figures = covered(network(nodes, [1, 2, 1, 1]), "guided")
    assert str(figures) == (
        "5 of 5 activations under the guided rule: 3 Clip[0,6], 1 Relu, 1 LeakyRelu; 0 unknown"
    )


def test_only_activations_on_the_way_count():
    nodes = [
        node("Relu", "x", "a"),
        node("Relu", "a", "y"),
        node("Sigmoid", "a", "s1"),
        node("Mul", "s1 a", "silu"),
    ]
    program = Program(network(nodes, [1, 2, 1, 1]))
    way = program.graph.nodes[:2]
    figures = coverage(program.graph, way, Rule("guided"))
    assert figures.ruled == {"Relu": 2}


def test_a_nonlinearity_nobody_knows_is_counted_as_unknown():
    nodes = [node("Relu", "x", "a"), node("Sin", "a", "y")]
    figures = covered(network(nodes, [1, 2, 1, 1]), "guided")
    assert figures.ruled == {"Relu": 1}
    assert len(figures.unknown) == 1
    assert str(figures) == "1 of 2 activations under the guided rule: 1 Relu; 1 unknown"


def test_the_extensions_are_named():
    assert EXTENSIONS == ("refuse", "signal-first", "gradient-first")


def test_the_coverage_needs_the_graph_alone():
    """What a rule reaches is known without torch, which takes seconds to import."""
    program = f"""
import sys
from converters import onnx_file
from inspector.engines.rules import Rule, coverage
from inspector.model import Model

model = Model(onnx_file.read({str(SAMPLES / "resnet20.onnx")!r}), device="cpu")
nodes = model.tail(model.input.name, model.scores.tensor).nodes
assert coverage(model.graph, nodes, Rule("guided")).ruled == {{"Relu": 19}}
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - ours
