"""The error that a sound quantiser leaves at a layer, against what rounding really does."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from converters.graph import Graph
from inspector.compare.alignment import Point
from inspector.compare.parting import LayerError, Sums, verdict
from inspector.compare.rounding import Spread, expected_rounding

RNG = np.random.default_rng(0)
STEP = ("Conv", "QuantizeLinear", "DequantizeLinear")


def quantised(weights, scale, ends, groups=1, axis=0):
    """A convolution on real numbers with int8 weights, whose result goes through uint8 levels."""
    low, high = ends
    step = np.float32((high - low) / 255)
    zero = np.uint8(np.rint(-low / step))
    levels = np.clip(np.rint(weights / scale.reshape(-1, 1, 1, 1)), -127, 127).astype(np.int8)
    constants = {
        "w": levels,
        "ws": scale.astype(np.float32) if scale.size > 1 else np.float32(scale.item()),
        "wz": np.zeros(scale.size, np.int8) if scale.size > 1 else np.int8(0),
        "s": step,
        "z": zero,
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=axis),
        helper.make_node("Conv", ["x", "wd"], ["y"], group=groups, pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["yd"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "one",
        [info("x", TensorProto.FLOAT, ["n", weights.shape[1] * groups, 16, 16])],
        [info("yd", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def float_result(weights, images, groups):
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=groups, pads=[1, 1, 1, 1])],
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(images.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return InferenceSession(model.SerializeToString()).run(None, {"x": images})[0]


def measured(per_channel=True, groups=1, wide=1.0, scaled=1.0, narrow=1.0):
    """Own error of one quantised convolution, and what is expected of it."""
    weights = RNG.normal(0, 1, (8, 8 // groups, 3, 3)).astype(np.float32)
    weights *= RNG.uniform(0.2, 2, (8, 1, 1, 1)).astype(np.float32)
    images = RNG.gamma(1, 1, (4, 8, 16, 16)).astype(np.float32)
    images *= RNG.uniform(0.1, 3, (1, 8, 1, 1)).astype(np.float32)
    truth = float_result(weights, images, groups)
    most = np.abs(weights).reshape(8, -1).max(1) if per_channel else np.abs(weights).max()
    scale = np.asarray(most / 127)
    ends = truth.min() * wide / narrow, truth.max() * wide / narrow
    model = quantised(weights, scale, ends, groups)
    if scaled != 1:
        put = next(t for t in model.graph.initializer if t.name == "ws")
        put.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(put) * np.float32(scaled), "ws"))
    graph = Graph(model)
    node = next(node for node in graph.nodes if node.op_type == "Conv")
    points = [
        Point("x", "x", "x", ("x",)),
        Point("y", "y", "yd", ("y", "yd"), sources=(0,), operators=STEP, learned_nodes=(node,)),
    ]
    spreads = [Spread.at(graph, point.b) for point in points]
    for one, other in zip(images, truth, strict=True):
        spreads[0].add(one[None])
        spreads[1].add(other[None])
    made = InferenceSession(model.SerializeToString()).run(None, {"x": images})[0]
    own = float(np.sqrt(np.square(made - truth).mean() / np.square(truth).mean()))
    first, second = expected_rounding(graph, points, spreads)
    assert first is None
    return own / second


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_rounding_is_what_is_expected_of_it(per_channel, groups):
    assert 0.75 < measured(per_channel, groups) < 1.35


@pytest.mark.parametrize("wide", [0.8, 1.4])
def test_a_range_from_other_photos_is_sound(wide):
    assert measured(wide=wide) < 1.4


@pytest.mark.parametrize("slip", [{"wide": 16}, {"narrow": 4}, {"scaled": 1.33}])
def test_a_slip_is_not_explained_by_itself(slip):
    assert measured(**slip) > 4


def test_a_tensor_that_is_not_quantised_has_no_rounding():
    graph = Graph(
        helper.make_model(
            helper.make_graph(
                [helper.make_node("Relu", ["x"], ["y"])],
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
            )
        )
    )
    spread = Spread()
    spread.add(np.ones((1, 2, 4, 4), np.float32))
    assert expected_rounding(graph, [Point("y", "y", "y", ("y",))], [spread]) == [None]
    assert expected_rounding(graph, [Point("y", "y", "y", ("y",))], [Spread()]) == [None]


def layer(own, expected):
    sums = Sums(difference=own**2, reference=1.0, other=1.0, product=1.0, count=1)
    return LayerError(Point("t", "t", "t", ("t",)), (1,), sums, sums, expected=expected)


def test_a_coarse_layer_is_sound_where_its_rounding_is_coarse():
    """The same own errors: with the expected ones, the last does not stand out."""
    own = [0.01] * 8 + [0.1]
    plain = verdict(None, [layer(one, None) for one in own], 1)
    assert [one.stands_out for one in plain.layers] == [False] * 8 + [True]
    known = verdict(None, [layer(one, one) for one in own], 1)
    assert known.first is None
    assert known.of_expected
    spoilt = verdict(None, [layer(0.01, 0.01)] * 8 + [layer(0.1, 0.02)], 1)
    assert [one.stands_out for one in spoilt.layers] == [False] * 8 + [True]
    assert "5 times the 0.02 that rounding leaves there" in spoilt.sentence


def test_weights_with_scales_of_blocks_are_of_another_kind():
    weights = RNG.integers(-127, 128, (8, 6)).astype(np.int8)
    constants = {"w": weights, "ws": np.full((2, 6), 0.01, np.float32), "s": np.float32(0.05)}
    constants["z"] = np.uint8(0)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=0, block_size=4),
        helper.make_node("MatMul", ["x", "wd"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["yd"]),
    ]
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "blocks",
        [info("x", TensorProto.FLOAT, ["n", 8])],
        [info("yd", TensorProto.FLOAT, ["n", 6])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    graph = Graph(model)
    product = next(node for node in graph.nodes if node.op_type == "MatMul")
    step = {"sources": (0,), "learned_nodes": (product,)}
    step["operators"] = ("MatMul", *STEP[1:])
    points = [Point("x", "x", "x", ("x",)), Point("y", "y", "yd", ("y", "yd"), **step)]
    spreads = [Spread.at(graph, point.b) for point in points]
    for spread, width in zip(spreads, (8, 6), strict=True):
        spread.add(RNG.uniform(0, 1, (1, width)).astype(np.float32))
    assert expected_rounding(graph, points, spreads)[1] is None
