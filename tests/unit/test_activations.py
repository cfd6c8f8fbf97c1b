import math
import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from converters.graph import Graph
from converters.graph.activation_curves import GRID, name_curve
from converters.graph.activations import find_activations, unknown_nonlinearities

SQRT2, SQRT2_PI = math.sqrt(2), math.sqrt(2 / math.pi)


def graph(body, *, inputs="float[1,2,4,4] x", opset=18, domains="", **constants):
    """Graph of statements in onnx's own text form; constants are initialisers by name."""
    text = f"""
        <ir_version: 8, opset_import: ["" : {opset}{domains}]>
        g ({inputs}) => (float y) {{ {body} }}
    """
    model = parser.parse_model(text)
    for name, value in constants.items():
        array = np.asarray(value, np.float32 if not isinstance(value, np.ndarray) else None)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return Graph(model)


def only(g):
    (found,) = find_activations(g)
    return found


SPELLINGS = {
    "silu": ("s = Sigmoid(x) y = Mul(x, s)", "Silu", {}),
    "silu, factors swapped": ("s = Sigmoid(x) y = Mul(s, x)", "Silu", {}),
    "silu by exp": ("n = Neg(x) e = Exp(n) a = Add(e, one) y = Div(x, a)", "Silu", {"one": 1}),
    "quick gelu": ("k = Mul(x, c) s = Sigmoid(k) y = Mul(x, s)", "Gelu", {"c": 1.702}),
    "hard swish node": ("s = HardSigmoid<alpha=0.16666667>(x) y = Mul(x, s)", "HardSwish", {}),
    "hard swish torch": (
        "a = Add(x, c) b = Clip(a, z, h) m = Mul(x, b) y = Div(m, h)",
        "HardSwish",
        {"c": 3, "z": 0, "h": 6},
    ),
    "hard swish by a sixth first": (
        "a = Add(c, x) b = Clip(a, z, h) d = Mul(b, i) y = Mul(d, x)",
        "HardSwish",
        {"c": 3, "z": 0, "h": 6, "i": 1 / 6},
    ),
    "hard swish in halves of float16": (
        "a = Add(c, x) b = Clip(a, z, h) d = Mul(b, i) y = Mul(d, x)",
        "HardSwish",
        {"c": 3, "z": 0, "h": 6, "i": float(np.float16(1 / 6))},
    ),
    "hard swish by relu": (
        "a = Add(x, c) r = Relu(a) b = Min(r, h) d = Div(b, h) y = Mul(x, d)",
        "HardSwish",
        {"c": 3, "h": 6},
    ),
    "hard sigmoid": (
        "a = Add(x, c) b = Clip(a, z, h) y = Div(b, h)",
        "HardSigmoid",
        {"c": 3, "z": 0, "h": 6},
    ),
    "hard sigmoid keras": (
        "a = Mul(x, c) b = Add(a, d) y = Clip(b, z, h)",
        "HardSigmoid",
        {"c": 0.2, "d": 0.5, "z": 0, "h": 1},
    ),
    "gelu": (
        "a = Div(x, r) e = Erf(a) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
        "Gelu",
        {"r": SQRT2, "one": 1, "half": 0.5},
    ),
    "gelu, half first": (
        "h = Mul(x, half) a = Mul(x, r) e = Erf(a) p = Add(one, e) y = Mul(h, p)",
        "Gelu",
        {"r": 1 / SQRT2, "one": 1, "half": 0.5},
    ),
    "gelu tanh": (
        (
            "c = Pow(x, three) k = Mul(c, g) s = Add(x, k) a = Mul(s, r) t = Tanh(a)"
            " p = Add(t, one) m = Mul(x, p) y = Mul(m, half)"
        ),
        "Gelu",
        {"three": 3, "g": 0.044715, "r": SQRT2_PI, "one": 1, "half": 0.5},
    ),
    "mish": ("s = Softplus(x) t = Tanh(s) y = Mul(x, t)", "Mish", {}),
    "mish written out": (
        "e = Exp(x) a = Add(e, one) s = Log(a) t = Tanh(s) y = Mul(x, t)",
        "Mish",
        {"one": 1},
    ),
    "softplus": ("e = Exp(x) a = Add(e, one) y = Log(a)", "Softplus", {"one": 1}),
    "relu by max": ("y = Max(x, z)", "Relu", {"z": 0}),
    "relu by where": ("c = Greater(x, z) y = Where(c, x, z)", "Relu", {"z": 0}),
    "leaky by where": (
        "c = Greater(x, z) a = Mul(x, s) y = Where(c, x, a)",
        "LeakyRelu",
        {"z": 0, "s": 0.1},
    ),
    "leaky by max": ("a = Mul(x, s) y = Max(x, a)", "LeakyRelu", {"s": 0.2}),
    "prelu of tf2onnx": (
        "r = Relu(x) n = Neg(x) q = Relu(n) a = Mul(s, q) y = Add(r, a)",
        "PRelu",
        {"s": np.array([[[-0.1]], [[-0.3]]], np.float32)},
    ),
    "relu6 by min and max": ("a = Min(x, h) y = Max(a, z)", "Clip", {"z": 0, "h": 6}),
    "relu6 by relu": ("a = Relu(x) y = Min(a, h)", "Clip", {"h": 6}),
    "softsign": ("a = Abs(x) b = Add(a, one) y = Div(x, b)", "Softsign", {"one": 1}),
    "swish with its own slope": ("k = Mul(x, c) s = Sigmoid(k) y = Mul(x, s)", "Silu", {"c": 1.2}),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_one_activation_of_x(spelling):
    body, kind, constants = SPELLINGS[spelling]
    g = graph(body, **constants)
    found = only(g)
    assert (found.kind, found.input, found.output) == (kind, "x", "y")
    assert found.nodes == g.nodes
    assert not found.gate
    assert not unknown_nonlinearities(g)


def test_bounds_of_a_clamp_in_all_its_forms():
    for g in (
        graph("y = Clip<min=0.0, max=6.0>(x)", opset=6),
        graph("y = Clip(x, z, h)", z=0, h=6),
        graph("a = Min(x, h) y = Max(a, z)", z=0, h=6),
    ):
        assert (only(g).kind, only(g).low, only(g).high) == ("Clip", 0.0, 6.0)


def test_a_clamp_at_zero_alone_is_a_relu():
    largest = float(np.finfo(np.float32).max)
    for g in (
        graph("y = Clip<min=0.0>(x)", opset=6),
        graph("y = Clip(x, z)", z=0),
        graph("y = Clip(x, z, h)", z=0, h=largest),
    ):
        assert (only(g).kind, only(g).high) == ("Relu", None)


def test_a_computed_bound_is_a_clamp_that_nobody_knows():
    g = graph("h = ReduceMax<keepdims=0>(x) y = Clip(x, z, h)", z=0)
    assert [(a.kind, a.low, a.high) for a in find_activations(g)] == [("Clip", 0.0, None)]


def test_squeeze_excite_is_a_gate_and_its_inner_relu_none():
    g = graph(
        "p = GlobalAveragePool(x) r = Relu(p) s = Sigmoid(r) m = Mul(x, s) y = Relu(m)",
    )
    assert [(a.kind, a.gate) for a in find_activations(g)] == [
        ("Relu", False),
        ("Sigmoid", True),
        ("Relu", False),
    ]


def test_a_hard_sigmoid_written_out_can_be_a_gate_behind_a_reshape():
    g = graph(
        "p = ReduceMean<keepdims=0>(x, axes) a = Add(p, c) b = Clip(a, z, h) d = Div(b, h)"
        " u = Unsqueeze(d, back) y = Mul(x, u)",
        axes=np.array([2, 3]),
        back=np.array([2, 3]),
        c=3,
        z=0,
        h=6,
    )
    found = only(g)
    assert (found.kind, found.gate, len(found.nodes)) == ("HardSigmoid", True, 3)
    assert [node.op_type for node in found.products] == ["Mul"]


def test_attention_weights_are_a_gate_and_a_final_softmax_is_none():
    g = graph(
        "t = Transpose<perm=[0,1,3,2]>(x) q = MatMul(x, t) a = Softmax(q) v = MatMul(a, x)"
        " y = Softmax(v)"
    )
    assert [a.gate for a in find_activations(g)] == [True, False]


def test_an_inner_tensor_that_is_used_elsewhere_splits_a_composite():
    g = graph("s = Sigmoid(x) m = Mul(x, s) n = ReduceMean(s) y = Add(m, n)")
    assert [(a.kind, a.gate) for a in find_activations(g)] == [("Sigmoid", True)]


def test_two_activations_in_a_row_stay_two():
    g = graph("a = Relu(x) b = Relu(a) s = Sigmoid(b) y = Mul(b, s)")
    assert [a.kind for a in find_activations(g)] == ["Relu", "Relu", "Silu"]


def test_scaling_behind_an_activation_is_not_part_of_it():
    g = graph("r = Relu(x) y = Mul(r, one)", one=1)
    assert len(only(g).nodes) == 1


def test_quantised_composites_are_read_through_the_rounding():
    g = graph(
        "a = Sigmoid(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = Mul(x, d)",
        s=0.004,
        z=np.array(0, np.uint8),
    )
    assert (only(g).kind, only(g).input) == ("Silu", "x")


def test_arithmetic_on_shapes_and_weights_is_no_activation():
    g = graph(
        "n = Shape(x) f = Cast<to=1>(n) c = Relu(f) i = Cast<to=7>(c) w0 = Relu(w)"
        " m = Mul(x, w0) y = Reshape(m, i)",
        w=1.0,
    )
    assert find_activations(g) == ()


def test_what_is_not_known_is_named_but_not_the_inside_of_a_normalisation():
    g = graph("a = Abs(x) b = Max(a, x) e = Exp(b) y = Reciprocal(e)")
    assert [n.op_type for n in unknown_nonlinearities(g)] == ["Abs", "Max", "Exp", "Reciprocal"]
    norm = graph(
        "m = ReduceMean(x) d = Sub(x, m) p = Pow(d, two) v = ReduceMean(p) e = Add(v, eps)"
        " s = Sqrt(e) y = Div(d, s)",
        two=2,
        eps=1e-5,
    )
    assert not unknown_nonlinearities(norm)
    assert not find_activations(norm)


def test_contrib_operators_and_an_activation_inside_a_convolution():
    domains = ', "com.microsoft" : 1'
    g = graph(
        'c = com.microsoft.FusedConv<activation="Relu">(x, w) y = com.microsoft.QuickGelu(c)',
        domains=domains,
        w=np.ones((2, 2, 1, 1), np.float32),
    )
    fused, quick = find_activations(g)
    assert (fused.kind, fused.fused, fused.output, fused.low) == ("Relu", True, "c", 0.0)
    assert (quick.kind, quick.fused) == ("Gelu", False)


def test_no_node_is_in_two_activations():
    one = "a@ = Add(t@, c) b@ = Clip(a@, z, h) m@ = Mul(t@, b@) t# = Div(m@, h) "
    body = "".join(one.replace("@", str(i)).replace("#", str(i + 1)) for i in range(4))
    body = body.replace("t0", "x")
    g = graph(body + " y = Identity(t4)", c=3, z=0, h=6)
    nodes = [n.index for a in find_activations(g) for n in a.nodes]
    assert len(nodes) == len(set(nodes)) == 16


@pytest.mark.parametrize(
    "line", [GRID, 2 * GRID + 1, np.zeros_like(GRID), -GRID, np.abs(GRID), GRID**2]
)
def test_lines_and_other_curves_have_no_name(line):
    assert name_curve(np.asarray(line)) is None


def test_torch_exports_of_known_functions(tmp_path):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    kinds = {
        nn.SiLU: "Silu",
        nn.GELU: "Gelu",
        nn.Hardswish: "HardSwish",
        nn.Mish: "Mish",
        nn.ReLU6: "Clip",
        nn.Softsign: "Softsign",
        nn.ELU: "Elu",
        nn.CELU: "Celu",
        nn.Hardsigmoid: "HardSigmoid",
        nn.Softplus: "Softplus",
    }
    for layer, kind in kinds.items():
        model = nn.Sequential(nn.Conv2d(1, 2, 1), layer(), nn.Conv2d(2, 1, 1))
        path = tmp_path / f"{kind}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter is deprecated, its files are around
            torch.onnx.export(model, torch.zeros(1, 1, 2, 2), str(path), dynamo=False)
        g = Graph(onnx.load(str(path)))  # noqa: TID251 - a file this test wrote
        assert only(g).kind == kind


def test_the_real_mobile_network_has_its_hard_swishes(shared):
    g = Graph(onnx.load(str(shared / "zoo" / "paddle_ocr_cls.onnx")))  # noqa: TID251 - as above
    kinds = [(a.kind, a.gate) for a in find_activations(g)]
    assert kinds.count(("HardSwish", False)) == 18
    assert kinds.count(("HardSigmoid", True)) == 9
    assert kinds.count(("Relu", False)) == 15
    assert not unknown_nonlinearities(g)


@pytest.mark.parametrize(
    "body",
    [
        "v = ReduceMean(x) m = Max(v, z) e = Add(m, t) s = Sqrt(e) y = Div(x, s)",
        "v = ReduceMean(x) m = Max(v, z) s = Sqrt(m) r = Reciprocal(s) y = Mul(x, r)",
        "v = ReduceMean(x) m = Relu(v) s = Pow(m, r) y = Div(x, s)",
        "n = ReduceL2(x) m = Clip(n, t) k = Identity(m) y = Div(x, k)",
    ],
)
def test_a_clamp_that_guards_a_divisor_is_part_of_a_normalisation(body):
    assert find_activations(graph(body, z=0, t=1e-6, r=0.5)) == ()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("m = Max(x, z) y = Div(m, t)", "Relu"),  # divided, not a divisor
        ("m = Max(x, z) s = Sqrt(m) y = Add(s, m)", "Relu"),  # read besides
        ("m = Clip(x, t) p = Pow(m, c) g = GlobalAveragePool(p) y = Pow(g, i)", "Clip"),  # GeM
        ("y = Max(x, z)", "Relu"),
        ("m = Max(x, z) y = Sqrt(m)", "Relu"),  # a feature: nothing is divided by the root
        ("m = Relu(x) s = Sqrt(m) y = GlobalAveragePool(s)", "Relu"),
    ],
)
def test_other_clamps_stay_activations(body, kind):
    assert kind in [a.kind for a in find_activations(graph(body, z=0, t=1e-6, c=3, i=1 / 3))]


def test_bounds_that_take_the_type_of_the_data_are_bounds():
    """torch's exporter writes ReLU6 as Clip between CastLike(0, x) and CastLike(6, x)."""
    found = only(graph("l = CastLike(z, x) u = CastLike(h, x) y = Clip(x, l, u)", z=0, h=6))
    assert (found.kind, found.low, found.high) == ("Clip", 0, 6)
