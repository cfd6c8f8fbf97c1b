"""The table of facts per operator, and the questions that used to be answered by many lists."""

import numpy as np
import pytest
from onnx import helper as oh
from quantised_networks import network

import converters.to_torch.ops  # noqa: F401 - fills the table of the twin
from converters.graph import Graph
from converters.graph.activations import find_activations
from converters.graph.operators import OPERATORS, facts, facts_of, mixes_samples
from converters.onnx_file.channels_first import move_channels_first
from converters.to_torch.optable import OPS
from converters.to_torch.program import Program
from inspector.engines.overlays import overlay_of
from inspector.engines.rules import Rule
from inspector.network.classifier.head import NoHead, find_head
from inspector.network.classifier.linear_nodes import last_linear
from inspector.network.classifier.scores import find_scores
from inspector.network.layers import channel_axes
from inspector.network.quantisation.fused_activations import find_marks
from inspector.network.quantisation.lost_activations import lost_activations
from inspector.network.receptive_fields.receptive_field import receptive_field
from inspector.network.shapes import Shapes

W = np.ones((2, 2, 3, 3), np.float32)
MAPS = {"x": "float[1,2,8,8] X", "y": "float[1,2,8,8] Y"}


def graph(text, **options):
    return Graph(network(text, **{**MAPS, "opset": 20, **options}))


# -- the table ------------------------------------------------------------------------------------


def test_every_operator_of_the_twin_has_its_row():
    operators = {(domain, op_type) for domain, op_type, _, _ in OPS}
    assert operators <= set(OPERATORS), f"no row: {sorted(operators - set(OPERATORS))}"


def test_facts_agree_with_one_another():
    for (domain, op_type), known in OPERATORS.items():
        assert not (known.copies and known.moves), op_type
        assert not known.reshapes or known.moves, op_type
        assert not known.convolves or known.weighted, op_type
        assert known.quantised is None or known.levels, op_type
        assert known == facts_of(domain, op_type)


def test_operators_are_told_apart_by_their_domain():
    assert facts_of("ai.onnx", "Relu").activation == "Relu"
    assert facts_of("com.microsoft.nchwc", "QLinearAdd").sums
    assert facts_of("", "QLinearAdd") == facts_of("of.somebody", "Relu") == facts_of("", "Nothing")
    assert not facts_of("of.somebody", "Relu").activation


# -- where the lists disagreed --------------------------------------------------------------------


@pytest.mark.parametrize(
    "op_type",
    ["Celu", "Gelu", "HardSwish", "Mish", "Selu", "Softsign", "Swish", "ThresholdedRelu"],
)
def test_shapes_are_known_behind_every_activation_function(op_type):
    node = oh.make_node(op_type, ["p"], ["a"])
    proto = network("p = Abs(X) Y = Neg(p)", **MAPS, opset=22)
    proto.graph.node.insert(1, node)
    assert Shapes(Graph(proto)).of("a") == (1, 2, 8, 8)


def test_shapes_broadcast_over_all_inputs():
    found = Shapes(
        graph(
            "a = Max(X, v) b = Where(mask, a, one) Y = Neg(b)",
            v=np.zeros((3, 1, 1, 1, 1), np.float32),
            mask=np.ones(8, bool),
            one=np.float32(1),
        )
    )
    assert found.of("b") == (3, 1, 2, 8, 8)


MOVES = {
    "DepthToSpace": "m = DepthToSpace<blocksize=1>(d)",
    "Expand": "m = Expand(d, size)",
    "Gather": "m = Gather<axis=1>(d, both)",
    "Slice": "m = Slice(d, zeros, size)",
    "SpaceToDepth": "m = SpaceToDepth<blocksize=1>(d)",
    "Split": "m = Split<axis=1, num_outputs=1>(d)",
    "Tile": "m = Tile(d, ones)",
    "Unsqueeze": "u = Unsqueeze(d, zero) m = Squeeze(u, zero)",
}
INTEGERS = {
    "size": np.array([1, 2, 8, 8]),
    "both": np.array([0, 1]),
    "zeros": np.zeros(4, np.int64),
    "ones": np.ones(4, np.int64),
    "zero": np.array([0]),
}


@pytest.mark.parametrize("op_type", MOVES)
def test_a_lost_activation_is_seen_through_what_only_moves_values(op_type):
    found = lost_activations(
        graph(
            "c = Conv<pads=[1,1,1,1]>(X, w) q = QuantizeLinear(c, s, z)"
            f" d = DequantizeLinear(q, s, z) {MOVES[op_type]} e = Conv<pads=[1,1,1,1]>(m, w)"
            " r = QuantizeLinear(e, s, z) f = DequantizeLinear(r, s, z)"
            " Y = Conv<pads=[1,1,1,1]>(f, w)",
            w=W,
            s=np.float32(0.1),
            z=np.int8(0),
            **INTEGERS,
        )
    )
    assert [suspicion.tensor for suspicion in found] == ["q", "r"]


def test_a_quantiser_of_rearranged_pixels_is_not_an_activation_function():
    """The first layer of some detectors folds pixels into channels."""
    found = find_marks(
        graph(
            "f = SpaceToDepth<blocksize=2>(X) q = QuantizeLinear(f, s, z)"
            " d = DequantizeLinear(q, s, z) c = Conv(d, w) r = QuantizeLinear(c, s, z)"
            " Y = DequantizeLinear(r, s, z)",
            w=np.ones((2, 8, 1, 1), np.float32),
            s=np.float32(0.1),
            z=np.uint8(0),
            y="float[1,2,4,4] Y",
        )
    )
    assert [mark.tensor for mark in found] == ["r"]


@pytest.mark.parametrize("op_type", ["Sinh", "Acosh", "Atan"])
def test_the_receptive_field_of_every_elementwise_operator_is_a_place(op_type):
    field = receptive_field(graph(f"c = Conv(X, w) Y = {op_type}(c)", w=W), "Y")
    assert (field.size, field.global_) == ((3, 3), False)


@pytest.mark.parametrize(
    "middle",
    ["m = com.microsoft.NhwcMaxPool<kernel_shape=[1, 1]>(t)", "m = Reciprocal(t)"],
)
def test_a_map_with_channels_last_stays_one(middle):
    found = graph(
        f"c = Conv(X, w) t = Transpose<perm=[0, 2, 3, 1]>(c) {middle} Y = Identity(m)",
        w=W,
        domain="com.microsoft",
    )
    assert channel_axes(found)["m"] == 3


def test_a_gate_is_seen_through_what_only_moves_values():
    found = find_activations(
        graph(
            "g = GlobalAveragePool(X) s = Sigmoid(g) t = Gather<axis=1>(s, both) Y = Mul(X, t)",
            both=INTEGERS["both"],
        )
    )
    assert [(a.kind, a.gate) for a in found] == [("Sigmoid", True)]


def test_the_head_names_every_non_linearity():
    model = graph(
        "p = GlobalAveragePool(X) f = Flatten(p) t = ThresholdedRelu(f) Y = Gemm(t, w)",
        w=np.ones((2, 5), np.float32),
        y="float[1,5] Y",
    )
    found = find_head(model, find_scores(model))
    assert isinstance(found, NoHead)
    assert "is a non-linearity between the feature maps and the scores" in found.reason


def test_scores_are_followed_through_every_copy():
    model = graph(
        "p = GlobalAveragePool(X) f = Flatten(p) z = Gemm(f, w) l = CastLike(z, w) Y = Softmax(l)",
        w=np.ones((2, 5), np.float32),
        y="float[1,5] Y",
    )
    found = find_scores(model)
    assert (found.tensor, found.activation, found.classes) == ("l", "softmax", 5)
    linear = last_linear(model, found)
    assert linear is not None
    assert linear[1] == "f"


def test_every_elementwise_operator_is_moved_in_front_of_a_transposition():
    proto = network(
        "c = Conv(X, w) t = Transpose<perm=[0, 2, 3, 1]>(c) l = Log(t) i = IsNaN(l)"
        " Y = Where(i, t, l)",
        x="float[1,2,8,8] X",
        y="float[1,6,6,2] Y",
        w=W,
    )
    move_channels_first(proto)
    made = {name: node for node in proto.graph.node for name in node.output}
    assert made["l"].op_type == "Transpose"
    assert made[made["l"].input[0]].op_type == "Log"
    assert made["i"].op_type == "IsNaN"


def test_every_activation_function_has_a_backward_rule():
    """Shrink counted as ruled by an extension, and passed the gradient."""
    program = Program(network("Y = Shrink(X)", **MAPS, opset=20))
    table = overlay_of(program, Rule("guided", "signal-first"))
    assert table is not None
    ruled = {op_type for domain, op_type, _, _ in table if not domain}
    assert "Shrink" in ruled
    elementwise = {
        op_type
        for (domain, op_type), known in OPERATORS.items()
        if not domain and known.activation and not known.softmax
    }
    assert ruled == elementwise


# -- what attributes decide -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Y = ReduceMean(X, zero)", True),
        ("Y = ReduceMean(X)", True),
        ("Y = ReduceMean<noop_with_empty_axes=1>(X)", False),
        ("Y = ReduceMean(X, both)", True),
        ("Y = ReduceMean(X, last)", False),
        ("Y = ReduceMean(X, all)", True),
        ("s = Shape(X) Y = ReduceMean(X, s)", True),
        ("Y = Softmax<axis=0>(X)", True),
        ("Y = Softmax(X)", False),
        ("Y = Softmax<axis=-4>(X)", True),
        ("Y = ArgMax(X)", True),
        ("Y = ArgMax<axis=1>(X)", False),
        ("Y, i = TopK<axis=0>(X, last)", True),
        ("Y, i = TopK(X, last)", False),
        ("Y = CumSum(X, zero)", True),
        ("Y = CumSum(X, last)", False),
        ("Y = LayerNormalization<axis=1>(X, w)", False),
        ("Y = LayerNormalization<axis=0>(X, w)", True),
        ("Y = MeanVarianceNormalization(X)", True),
        ("Y = MeanVarianceNormalization<axes=[2, 3]>(X)", False),
        ("Y, m, v = BatchNormalization<training_mode=1>(X, v0, v0, v0, v0)", True),
        ("Y = BatchNormalization(X, v0, v0, v0, v0)", False),
        ("Y, s, z = DynamicQuantizeLinear(X)", True),
        ("Y = Relu(X)", False),
        ("Y = InstanceNormalization(X, v0, v0)", False),
    ],
)
def test_nodes_that_mix_samples(text, expected):
    found = graph(
        text,
        w=W,
        v0=np.ones(2, np.float32),
        zero=INTEGERS["zero"],
        both=INTEGERS["both"],
        last=np.array([3]),
        all=np.array([-4]),
    )
    assert mixes_samples(found, found.nodes[-1], rank=4) is expected


def test_facts_of_a_node_are_those_of_its_operator():
    (node,) = graph("Y = Relu(X)").nodes
    assert facts(node) is OPERATORS["", "Relu"]
