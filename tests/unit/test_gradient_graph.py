"""Gradients written as ONNX operators: every rule of the table against the twin.

One small network per operator and form of its attributes.  Where a function has corners the two
must agree on the side, so inputs lie off them unless the case is about them.
"""

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from converters.errors import UnsupportedOperator
from converters.onnx_file import from_proto
from converters.to_torch.optable import OPS
from inspector.engines.gradient_graph import GradientGraph
from inspector.engines.rules import Rule
from inspector.engines.runtime import Runtime
from inspector.engines.twin import TwinEngine
from inspector.surgery.gradient import RULES, gradient_program
from inspector.surgery.gradient.gaps import WITHOUT_RULE
from tests.unit.gradient_cases import Case, Weighted, differences, slope_by_differences
from tests.unit.gradient_fused_cases import FUSED_CASES

TOLERANCE = 2e-6

_RNG = np.random.default_rng(0)


def _w(*shape):
    return _RNG.normal(size=shape).astype(np.float32)


def _ints(*values):
    return np.array(values, np.int64)


def _convolutions():
    yield Case("Conv", constants=(_w(4, 3, 3, 3), _w(4)), attributes={"pads": [1, 1, 1, 1]})
    yield Case("Conv", constants=(_w(4, 3, 3, 2),), attributes={"strides": [2, 3]})
    yield Case("Conv", constants=(_w(4, 3, 3, 3),), attributes={"pads": [2, 0, 1, 3]}, opset=7)
    yield Case("Conv", constants=(_w(4, 3, 2, 3),), attributes={"dilations": [2, 2]})
    yield Case("Conv", constants=(_w(4, 3, 1, 1),), attributes={"strides": [2, 2]})
    yield Case(
        "Conv", constants=(_w(5, 3, 3, 3),), attributes={"strides": [3, 2], "dilations": [2, 1]}
    )
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield Case("Conv", constants=(_w(4, 3, 3, 3),), attributes={"auto_pad": mode})
        strided = {"auto_pad": mode, "strides": [2, 2]}
        yield Case("Conv", constants=(_w(4, 3, 3, 3),), attributes=strided)
    depthwise = {"group": 3, "pads": [1, 1, 1, 1]}
    yield Case("Conv", constants=(_w(3, 1, 3, 3),), attributes=depthwise)
    yield Case("Conv", constants=(_w(6, 1, 3, 3),), attributes=depthwise | {"strides": [2, 2]})
    yield Case("Conv", (1, 4, 6, 7), (_w(6, 2, 3, 3),), {"group": 2})
    yield Case("Conv", (1, 4, 6, 7), (_w(6, 2, 3, 3),), {"group": 2, "strides": [2, 2]})
    yield Case("Conv", (2, 3, 9), (_w(4, 3, 3),), {"strides": [2]}, opset=11)
    yield Case("Conv", (1, 2, 5, 4, 6), (_w(3, 2, 3, 2, 2),), {"pads": [1, 0, 1, 1, 0, 1]})
    yield Case("ConvTranspose", constants=(_w(3, 4, 3, 3),), attributes={"strides": [2, 2]})
    yield Case(
        "ConvTranspose",
        constants=(_w(3, 2, 3, 3), _w(2)),
        attributes={"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]},
    )
    yield Case("ConvTranspose", (1, 4, 5, 5), (_w(4, 1, 3, 3),), {"group": 4, "dilations": [2, 1]})
    same = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    yield Case("ConvTranspose", constants=(_w(3, 2, 3, 3),), attributes=same)


def _pools():
    for opset in (7, 11, 16):
        yield Case("MaxPool", attributes={"kernel_shape": [2, 2], "strides": [2, 2]}, opset=opset)
        wide = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        yield Case("MaxPool", attributes=wide, opset=opset)
        yield Case("MaxPool", attributes={"kernel_shape": [3, 2]}, opset=opset)
    for opset in (10, 16):
        open_ended = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}
        yield Case("MaxPool", attributes=open_ended, opset=opset)
        yield Case("MaxPool", attributes={"kernel_shape": [2, 2], "dilations": [2, 2]}, opset=opset)
    yield Case("MaxPool", (2, 3, 9), (), {"kernel_shape": [3], "auto_pad": "SAME_UPPER"})
    yield Case("MaxPool", (1, 2, 4, 5, 6), (), {"kernel_shape": [2, 2, 2]})
    yield Case("AveragePool", attributes={"kernel_shape": [2, 2], "strides": [2, 2]})
    yield Case("AveragePool", (2, 3, 6, 6), (), {"kernel_shape": [3, 3], "strides": [3, 3]})
    for include in (0, 1):
        padded = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": include}
        yield Case("AveragePool", attributes=padded)
        yield Case("AveragePool", attributes=padded | {"strides": [2, 2]}, opset=7)
    yield Case("AveragePool", attributes={"kernel_shape": [3, 2], "strides": [2, 1]}, opset=9)
    yield Case("AveragePool", (2, 3, 9), (), {"kernel_shape": [4], "auto_pad": "SAME_LOWER"})
    yield Case("GlobalAveragePool")
    yield Case("GlobalAveragePool", opset=7)
    yield Case("GlobalMaxPool")
    yield Case("GlobalLpPool", attributes={"p": 3})


def _elementwise():
    for kind in ("Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "HardSigmoid"):
        yield Case(kind)
        yield Case(kind, opset=7)
    for kind in ("Celu", "ThresholdedRelu", "Shrink", "HardSwish", "Mish", "Gelu", "Softplus"):
        yield Case(kind)
    yield Case("Gelu", attributes={"approximate": "tanh"})
    yield Case("Gelu", domain="com.microsoft")
    for kind in ("Softsign", "Exp", "Neg", "Abs", "Erf", "Sin", "Cos", "Tan", "Atan"):
        yield Case(kind, low=-1.2, high=1.2)
    for kind in ("Log", "Sqrt", "Reciprocal"):
        yield Case(kind, low=0.5, high=3.0)
    for kind in ("Asin", "Acos", "Sinh", "Cosh", "Asinh", "Atanh"):
        yield Case(kind, low=-0.8, high=0.8)
    yield Case("Acosh", low=1.5, high=3.0)
    yield Case("Swish", attributes={"alpha": 1.5}, opset=24)
    yield Case("PRelu", constants=(_w(3, 1, 1),))
    yield Case("PRelu", constants=(_w(1),), opset=9)
    yield Case("Clip", attributes={"min": 0.0, "max": 1.0}, opset=7)
    yield Case("Clip", constants=(np.float32(-0.5), np.float32(0.7)))
    yield Case("Clip", constants=(None, np.float32(0.7)))
    for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
        for place in (0, 1):
            yield Case(kind, constants=(_w(3, 1, 7) + 3,), place=place, low=0.5)
            yield Case(kind, (2, 3, 1, 1), (_w(1, 3, 4, 5) + 3,), place=place, low=0.5, opset=8)
    yield Case("Sum", constants=(_w(3, 1, 7), _w(1)))
    yield Case("Mean", constants=(_w(3, 1, 7), _w(1)))
    yield Case("Max", constants=(_w(3, 1, 7), _w(1)), place=1)
    yield Case("Pow", constants=(np.float32(2),))
    yield Case("Pow", constants=(np.float32([3, 0.5, 0, 1, 2, -1, 2]),), low=0.5)
    yield Case("Pow", constants=(np.float32(1.7),), place=1)
    for place in (1, 2):
        yield Case("Where", constants=(_w(3, 6, 7) > 0, _w(7)), place=place)
    yield Case("Mod", constants=(np.float32(0.7),), attributes={"fmod": 1})
    for kind in ("Softmax", "LogSoftmax"):
        yield Case(kind, attributes={"axis": 1})
        yield Case(kind, attributes={"axis": 1}, opset=11)
        yield Case(kind, (3, 5), opset=9)
    yield Case("ImageScaler", attributes={"scale": 0.5, "bias": [1.0, 2.0, 3.0]}, opset=7)


def _matrices():
    yield Case("Gemm", (2, 5), (_w(5, 4), _w(4)))
    yield Case("Gemm", (2, 5), (_w(4, 5),), {"transB": 1, "alpha": 0.5}, opset=11)
    yield Case("Gemm", (2, 5), (_w(4, 5), _w(4)), {"transB": 1}, opset=7)
    yield Case("Gemm", (1, 4), (_w(3, 1), _w(4)), {}, place=1)
    yield Case("Gemm", (1, 4), (_w(3, 2), _w(2, 4)), {"beta": 0.3}, place=2, opset=9)
    yield Case("MatMul", (2, 5), (_w(5, 4),))
    yield Case("MatMul", (2, 3, 5), (_w(5, 4),), opset=9)
    yield Case("MatMul", (2, 3, 4, 5), (_w(3, 5, 2),))
    yield Case("MatMul", (2, 3, 4, 5), (_w(1, 3, 6, 4),), place=1)
    yield Case("MatMul", (2, 3, 5), (_w(5),))
    yield Case("Einsum", (2, 3, 4), (_w(4, 5),), {"equation": "bij,jk->bik"})
    yield Case("Einsum", (1, 3, 4), (_w(1, 6, 4),), {"equation": "bij,bkj->bik"}, place=1)
    yield Case("Einsum", (1, 3, 4), (_w(1, 5),), {"equation": "bij,bk->bik"})


def _reductions():
    for kind in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"):
        yield Case(kind, constants=(_ints(2, 3),), attributes={"keepdims": 0})
        yield Case(kind, attributes={"axes": [-1], "keepdims": 1}, opset=11)
    for kind in ("ReduceMin", "ReduceL1", "ReduceSumSquare", "ReduceProd"):
        yield Case(kind, constants=(_ints(1),))
    yield Case("ReduceLogSum", constants=(_ints(1),), low=0.5)


def _normalisations():
    v = (_w(3), _w(3), _w(3), np.abs(_w(3)) + 0.5)
    yield Case("BatchNormalization", constants=v)
    yield Case("BatchNormalization", (2, 3), v, opset=9)
    yield Case("InstanceNormalization", constants=(_w(3), _w(3)))
    yield Case("LayerNormalization", constants=(_w(7), _w(7)))
    yield Case("LayerNormalization", constants=(_w(3, 6, 7),), attributes={"axis": 1})
    yield Case("RMSNormalization", constants=(_w(7),), opset=23)
    yield Case("GroupNormalization", (2, 4, 3, 3), (_w(2), _w(2)), {"num_groups": 2}, opset=18)
    yield Case("GroupNormalization", (2, 4, 3, 3), (_w(4), _w(4)), {"num_groups": 2}, opset=21)
    yield Case("LRN", (2, 7, 3, 3), (), {"size": 3, "alpha": 0.5, "bias": 2.0})
    yield Case("LRN", (2, 7, 3, 3), (), {"size": 5, "alpha": 0.5, "beta": 0.6}, opset=9)
    yield Case("LpNormalization", attributes={"axis": 1})
    yield Case("LpNormalization", attributes={"axis": 1, "p": 1})
    yield Case("MeanVarianceNormalization", attributes={"axes": [2, 3]})


def _moves():
    yield Case("Reshape", constants=(_ints(0, -1),))
    yield Case("Flatten")
    yield Case("Squeeze", (2, 3, 1, 1), (_ints(2, 3),))
    yield Case("Unsqueeze", (2, 3), (_ints(2, 3),))
    yield Case("Transpose", attributes={"perm": [0, 2, 3, 1]})
    yield Case("Identity")
    yield Case("Dropout", opset=10)
    yield Case("Expand", (2, 3, 1, 1), (_ints(1, 3, 4, 5),))
    yield Case("Tile", constants=(_ints(1, 2, 1, 3),))
    yield Case("Concat", (1, 3, 6, 7), constants=(_w(1, 2, 6, 7),), attributes={"axis": 1})
    yield Case(
        "Concat",
        (1, 3, 6, 7),
        constants=(_w(1, 2, 6, 7),),
        attributes={"axis": -3},
        place=1,
        opset=9,
    )
    yield Case("Slice", constants=(_ints(1, -3), _ints(5, 100), _ints(2, 3)))
    yield Case("Slice", attributes={"starts": [1, 2], "ends": [3, 5], "axes": [1, 3]}, opset=9)
    yield Case("Slice", constants=(_ints(1, 0), _ints(9, 9), _ints(2, 3), _ints(2, 3)))
    yield Case("Slice", constants=(_ints(-1, 5), _ints(-9, 0), _ints(2, 3), _ints(-1, -2)))
    yield Case("Pad", constants=(_ints(0, 0, 1, 2, 0, 0, 3, 0),))
    yield Case("Pad", constants=(_ints(0, 0, -1, 2, 0, 0, 3, -2),))
    yield Case("Pad", attributes={"pads": [0, 0, 1, 2, 0, 0, 3, 0], "mode": "reflect"}, opset=10)
    yield Case("Pad", constants=(_ints(0, 1, 1, 2, 0, 0, 3, 0),), attributes={"mode": "edge"})
    yield Case("DepthToSpace", (2, 8, 3, 2), (), {"blocksize": 2})
    yield Case("DepthToSpace", (2, 8, 3, 2), (), {"blocksize": 2, "mode": "CRD"})
    yield Case("SpaceToDepth", (2, 3, 4, 6), (), {"blocksize": 2})
    yield Case("Gather", constants=(np.int64(2),), attributes={"axis": 2})
    yield Case("Gather", constants=(_ints(2, 0, 2),), attributes={"axis": 1})
    yield Case("Gather", constants=(_ints(1, 2),), attributes={"axis": 1}, opset=9)
    yield Case("Gather", constants=(_ints(1, 2, 0, -1).reshape(2, 2),), attributes={"axis": 3})
    rows = _ints(0, 1, 1).reshape(1, 3, 1, 1)
    yield Case("GatherElements", (1, 3, 1, 1), (rows,), {"axis": 1})
    yield Case("Trilu", (2, 4, 4), (np.int64(1),), {"upper": 0})


def _resamplings():
    empty, scales = np.zeros(0, np.float32), np.float32([1, 1, 2, 2])
    yield Case("Resize", constants=(empty, scales), attributes={"mode": "nearest"})
    yield Case("Resize", constants=(empty, scales), attributes={"mode": "linear"})
    yield Case("Resize", constants=(empty, np.float32([1, 1, 1.7, 0.6])), opset=13)
    corners = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    yield Case(
        "Resize", (1, 3, 6, 7), constants=(empty, empty, _ints(1, 3, 9, 4)), attributes=corners
    )
    yield Case("Resize", constants=(empty, scales), attributes={"mode": "cubic"}, opset=11)
    yield Case("Resize", constants=(scales,), attributes={"mode": "linear"}, opset=10)
    yield Case("Upsample", constants=(scales,), attributes={"mode": "nearest"}, opset=9)
    yield Case("Upsample", attributes={"mode": "linear", "scales": [1.0, 1.0, 2.0, 3.0]}, opset=7)


CASES = [
    *_convolutions(),
    *_pools(),
    *_elementwise(),
    *_matrices(),
    *_reductions(),
    *_normalisations(),
    *_moves(),
    *_resamplings(),
    *FUSED_CASES,
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_signal_is_the_twins(case):
    difference, _ = differences(case)
    assert difference <= TOLERANCE * (10 if "Norm" in case.op_type else 1)


SMOOTH = [
    Case("Conv", constants=(_w(4, 3, 3, 3),), attributes={"strides": [2, 2]}),
    Case("Mish"),
    Case("Gelu"),
    Case("Softmax", attributes={"axis": 1}),
    Case("LayerNormalization", constants=(_w(7), _w(7))),
    Case("InstanceNormalization", constants=(_w(3), _w(3))),
    Case("LRN", (2, 7, 3, 3), (), {"size": 3, "alpha": 0.5, "bias": 2.0}),
    Case("Pow", constants=(np.float32(3.0),), low=0.5),
    Case("Resize", constants=(np.zeros(0, np.float32), np.float32([1, 1, 1.7, 0.6]))),
]


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_the_slope_is_that_of_differences_in_float64(case):
    found, expected = slope_by_differences(case)
    assert found == pytest.approx(expected, rel=2e-5, abs=1e-5)


def _file(nodes, constants, shape, opset=20):
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", 1, ["N", *shape])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return from_proto(helper.make_model(graph, opset_imports=imports, ir_version=8))


def _network(opset=20):
    """Convolutions, a skip connection, ReLU, ReLU6, a SiLU and a gate, a pooling and a head."""
    n = helper.make_node
    constants = {
        "w1": _w(4, 3, 3, 3),
        "w2": _w(4, 4, 3, 3),
        "w3": _w(4, 4, 1, 1),
        "w4": _w(5, 4),
        "zero": np.float32(0),
        "six": np.float32(1),
    }
    bounds = ["zero", "six"] if opset >= 11 else []
    clipped = {} if bounds else {"min": 0.0, "max": 1.0}
    nodes = [
        n("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        n("Relu", ["a"], ["b"]),
        n("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1]),
        n("Clip", ["c", *bounds], ["d"], **clipped),
        n("Add", ["b", "d"], ["e"]),
        n("Sigmoid", ["e"], ["s"]),
        n("Mul", ["e", "s"], ["f"]),
        n("GlobalAveragePool", ["f"], ["p"]),
        n("Conv", ["p", "w3"], ["q"]),
        n("Sigmoid", ["q"], ["r"]),
        n("Mul", ["f", "r"], ["g"]),
        n("MaxPool", ["g"], ["h"], kernel_shape=[2, 2], strides=[2, 2]),
        n("GlobalAveragePool", ["h"], ["i"]),
        n("Flatten", ["i"], ["j"]),
        n("Gemm", ["j", "w4"], ["y"], transB=1) if opset >= 11 else n("MatMul", ["j", "w5"], ["y"]),
    ]
    if opset < 11:
        constants["w5"] = np.ascontiguousarray(constants["w4"].T)
    return _file(nodes, constants, (3, 8, 8), opset)


@pytest.mark.parametrize("opset", [7, 9, 13, 20])
@pytest.mark.parametrize("extension", ["signal-first", "gradient-first"])
@pytest.mark.parametrize("rule", ["gradient", "guided", "deconvnet"])
def test_a_rule_reaches_what_the_twins_overlay_reaches(rule, extension, opset):
    file = _network(opset)
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    targets = [Weighted(_w(2, 5))] * 2
    wanted = Rule(rule, extension)
    graph, twin = GradientGraph(file), TwinEngine(file.graph)
    found = graph.signals({"x": x}, {}, targets, wanted)
    expected = twin.signals({"x": x}, {}, targets, wanted)
    np.testing.assert_allclose(found["x"], expected["x"], atol=1e-5 * np.abs(expected["x"]).max())
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert graph.coverage("x", ["y"], wanted) == twin.coverage("x", ["y"], wanted)


def test_a_tail_is_differentiated_by_its_frontier_too():
    file = _network()
    rng = np.random.default_rng(2)
    start = {name: rng.normal(size=(2, 4, 8, 8)).astype(np.float32) for name in ("b", "d")}
    targets = [Weighted(_w(2, 5))] * 2
    found = GradientGraph(file).signals(start, {}, targets)
    expected = TwinEngine(file.graph).signals(start, {}, targets)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5 * np.abs(value).max())


def test_one_program_serves_any_number_of_samples():
    file, graph = (made := _network()), GradientGraph(made)
    x = np.random.default_rng(1).normal(size=(5, 3, 8, 8)).astype(np.float32)
    weights = np.repeat(_w(1, 5), 5, axis=0)
    together = graph.signals({"x": x}, {}, [Weighted(weights)] * 5)["x"]
    alone = graph.signals({"x": x[3:4]}, {}, [Weighted(weights[:1])])["x"]
    np.testing.assert_allclose(together[3:4], alone, atol=1e-6 * np.abs(alone).max())
    assert len(graph._loaded) == 1
    assert file.model.graph.node[0].name == ""


@pytest.fixture
def written(monkeypatch):
    """The programs that engines write; they do not keep them."""
    found = []

    def write(*args, **options):
        found.append(gradient_program(*args, **options))
        return found[-1]

    monkeypatch.setattr("inspector.engines.gradient_graph.gradient_program", write)
    return found


def test_weights_are_read_where_the_file_has_them(written):
    file = _network()
    graph, x = GradientGraph(file), np.zeros((1, 3, 8, 8), np.float32)
    graph.signals({"x": x}, {}, [Weighted(_w(1, 5))])
    (program,) = written
    own = {tensor.name for tensor in file.model.graph.initializer}
    added = [t for t in program.model.graph.initializer if t.name not in own]
    assert sum(numpy_helper.to_array(t).size for t in added) < 40


@pytest.mark.parametrize("rule", ["gradient", "guided", "deconvnet"])
def test_what_a_forward_pass_has_kept_is_not_computed_again(rule, written):
    file, wanted = _network(), Rule(rule, "signal-first")
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    targets, graph = [Weighted(_w(2, 5))] * 2, GradientGraph(file)
    names = graph.reads({"x": x[:1]}, ["y"])
    known = Runtime(file, device="cpu").run({"x": x}, names)
    found = graph.signals({"x": x}, {}, targets, wanted, known=known)
    (program,) = written
    forward = {node.output[0] for node in file.model.graph.node if node.op_type == "Conv"}
    assert not forward & {node.output[0] for node in program.model.graph.node}
    expected = graph.signals({"x": x}, {}, targets, wanted)
    peak = np.abs(expected["x"]).max()
    np.testing.assert_allclose(found["x"], expected["x"], atol=1e-6 * peak)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_switches_of_a_pooling_are_found_from_what_was_kept():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Flatten", ["b"], ["y"]),
    ]
    file = _file(nodes, {"w": _w(4, 3, 1, 1)}, (3, 7, 7))
    x = np.random.default_rng(1).normal(size=(1, 3, 7, 7)).astype(np.float32)
    graph = GradientGraph(file)
    names = graph.reads({"x": x}, ["y"])
    assert {"a", "y"} <= set(names)
    known, target = Runtime(file, device="cpu").run({"x": x}, names), [Weighted(_w(1, 36))]
    found, expected = (graph.signals({"x": x}, {}, target, known=k)["x"] for k in (known, None))
    np.testing.assert_array_equal(found, expected)


def test_an_operator_whose_first_result_is_kept_still_gives_its_indices():
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("TopK", ["a", "k"], ["t", "places"], axis=-1),
        helper.make_node("Mul", ["t", "t"], ["y"]),
    ]
    file = _file(nodes, {"w": _w(9), "k": _ints(4)}, (3, 9))
    x = np.random.default_rng(1).normal(size=(1, 3, 9)).astype(np.float32)
    graph, target = GradientGraph(file), [Weighted(_w(1, 3, 4))]
    known = Runtime(file, device="cpu").run({"x": x}, graph.reads({"x": x}, ["y"]))
    assert "t" in known
    found, expected = (graph.signals({"x": x}, {}, target, known=k)["x"] for k in (known, None))
    np.testing.assert_array_equal(found, expected)


def test_a_bound_is_told_from_its_neighbours():
    bounds = (0.0, 6.0), (-0.1, 0.3), (1e-3, 1e5)
    for low, high in bounds:
        ends = np.float32([low, high, 0.5 * (low + high), np.finfo(np.float32).tiny])
        x = np.unique([np.nextafter(ends, np.float32(s)) for s in (-np.inf, np.inf)] + [ends])[None]
        nodes = [helper.make_node("Clip", ["x", "low", "high"], ["y"])]
        file = _file(nodes, {"low": np.float32(low), "high": np.float32(high)}, x.shape[1:])
        target = [Weighted(np.ones(x.shape, np.float32))]
        found = GradientGraph(file).signals({"x": x}, {}, target)["x"]
        inside = (x > np.float32(low)) & (x < np.float32(high))
        normal = (x == 0) | (np.abs(x) >= np.finfo(np.float32).tiny)
        np.testing.assert_array_equal(found[normal], inside.astype(np.float32)[normal])


def test_an_index_that_the_image_decides_is_not_taken_for_a_constant():
    nodes = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0, name="best"),
        helper.make_node("Gather", ["x", "best"], ["taken"], axis=1, name="taking"),
        helper.make_node("Flatten", ["taken"], ["y"]),
    ]
    file = _file(nodes, {}, (5,))
    x = np.float32([[0, 3, 1, 2, 0]])
    with pytest.raises(UnsupportedOperator, match="depend on the image"):
        GradientGraph(file).signals({"x": x}, {}, [Weighted(np.ones((1, 1), np.float32))])


def _agrees(file, x):
    """The signal of all outputs' sum, and of differences in float64, are the twin's."""
    twin, exact = TwinEngine(file.graph), TwinEngine(file.graph, dtype=torch.float64)
    known = GradientGraph(file)._runtime(file.model).run({"x": x}, ["y"])["y"]
    target = [Weighted(_w(*known.shape))] * len(x)
    found = GradientGraph(file).signals({"x": x}, {}, target)["x"].astype(np.float64)
    expected = twin.signals({"x": x}, {}, target)["x"]
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    move, step = _RNG.normal(size=x.shape), 1e-6
    ahead, behind = (exact.scores({"x": x + s * step * move}, {}, target) for s in (1, -1))
    slope = (ahead - behind).sum() / (2 * step)
    assert (found * move).sum() == pytest.approx(slope, rel=1e-4, abs=1e-4)


CONVOLUTIONS = [
    ((6, 4, 3, 3), (2, 4, 6, 7), {"pads": [1, 1, 1, 1]}),
    ((6, 2, 3, 2), (2, 4, 6, 7), {"group": 2, "strides": [2, 1], "pads": [1, 0, 0, 1]}),
    ((4, 1, 3, 3), (1, 4, 9, 8), {"group": 4, "dilations": [2, 1], "strides": [3, 2]}),
    ((3, 2, 4), (3, 2, 9), {"strides": [2]}),
    ((3, 2, 2, 1, 2), (1, 2, 4, 3, 5), {"auto_pad": "SAME_UPPER"}),
]


@pytest.mark.parametrize(("weights", "shape", "options"), CONVOLUTIONS)
@pytest.mark.parametrize("opset", [7, 13, 22])
def test_weights_that_the_image_decides_have_a_signal(weights, shape, options, opset):
    """Of a dynamic convolution or a hypernetwork; its bias too."""
    count = int(np.prod(weights))
    nodes = [
        helper.make_node("MatMul", ["x", "m"], ["flat"]),
        helper.make_node("Reshape", ["flat", "form"], ["w"]),
        helper.make_node("MatMul", ["x", "n"], ["line"]),
        helper.make_node("Reshape", ["line", "bias"], ["b"]),
        helper.make_node("Conv", ["image", "w", "b"], ["c"], **options),
        helper.make_node("Reshape", ["c", "row"], ["y"]),
    ]
    constants = {"m": _w(5, count), "form": _ints(*weights), "image": _w(*shape)}
    constants |= {"n": _w(5, weights[0]), "bias": _ints(-1), "row": _ints(1, -1)}
    _agrees(_file(nodes, constants, (5,), opset), _w(1, 5))


ELLIPSES = [
    (("...ij,...jk->...ik"), (2, 3, 4, 5), (2, 3, 5, 6)),
    (("...ij,jk->...ik"), (2, 3, 4, 5), (5, 6)),
    (("b...d,...d->b..."), (2, 3, 4), (3, 4)),
    (("i...->..."), (2, 3, 4), None),
]


@pytest.mark.parametrize(("equation", "first", "second"), ELLIPSES)
def test_an_ellipsis_stands_for_axes_without_a_letter(equation, first, second):
    nodes = [
        helper.make_node("Reshape", ["x", "form"], ["a"]),
        helper.make_node("Einsum", ["a", "b"] if second else ["a"], ["e"], equation=equation),
        helper.make_node("Reshape", ["e", "row"], ["y"]),
    ]
    constants = {"form": _ints(*first), "row": _ints(1, -1)}
    constants |= {"b": _w(*second)} if second else {}
    count = int(np.prod(first))
    _agrees(_file(nodes, constants, (count,)), _w(1, count))


def test_an_ellipsis_along_which_a_constant_is_repeated_is_refused():
    case = Case("Einsum", (2, 3, 4), (_w(1, 3, 4),), {"equation": "...i,...i->..."})
    with pytest.raises(UnsupportedOperator, match="repeated along axes"):
        differences(case)


def test_a_body_that_reads_past_its_nodes_inputs_is_refused():
    """Its path would be missing from the signal, without a word."""
    value = helper.make_tensor_value_info
    bodies = {
        f"{kind}_branch": helper.make_graph(
            [helper.make_node(op_type, ["x"], [kind])], kind, [], [value(kind, 1, None)]
        )
        for kind, op_type in (("then", "Relu"), ("else", "Sigmoid"))
    }
    nodes = [
        helper.make_node("If", ["yes"], ["a"], name="choice", **bodies),
        helper.make_node("Add", ["a", "x"], ["y"]),
    ]
    file = _file(nodes, {"yes": np.array(True)}, (3,))
    with pytest.raises(UnsupportedOperator, match="its body reads 'x'"):
        GradientGraph(file).signals({"x": _w(1, 3)}, {}, [Weighted(np.ones((1, 3), np.float32))])


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("opset", [11, 16, 20])
@pytest.mark.parametrize("options", [{}, {"spatial_scale": 0.5}])
def test_regions_send_their_signals_to_the_images_that_they_lie_on(opset, ratio, options):
    # Inside, across the edge, outside, one pixel, and upside down.
    corners = [[0.3, 0.6, 5.2, 4.9], [-2.5, 1.0, 3.1, 8.3], [7.9, 6.1, 9.0, 9.0]]
    rois = np.float32([*corners, [2.2, 2.4, 2.3, 2.5], [4.1, 3.9, 1.2, 1.1]])
    size = {"output_height": 2, "output_width": 3, "sampling_ratio": ratio, **options}
    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Concat", ["x", "n"], ["two"], axis=0),
        helper.make_node("RoiAlign", ["two", "rois", "which"], ["r"], **size),
        helper.make_node("Mul", ["r", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "flat"], ["y"]),
    ]
    constants = {"rois": rois, "which": _ints(0, 1, 1, 0, 1), "w": _w(5, 3, 2, 3)}
    file = _file(nodes, constants | {"flat": _ints(1, -1)}, (3, 6, 7), opset)
    x = _w(1, 3, 6, 7)
    target = [Weighted(np.ones((1, 90), np.float32))]
    found = GradientGraph(file).signals({"x": x}, {}, target)["x"]
    expected = TwinEngine(file.graph).signals({"x": x}, {}, target)["x"]
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_an_operator_without_a_rule_is_named_with_its_node():
    nodes = [
        helper.make_node("MaxRoiPool", ["x", "rois"], ["a"], name="regions", pooled_shape=[3, 3]),
        helper.make_node("Det", ["a"], ["y"], name="determinant"),
    ]
    file = _file(nodes, {"rois": np.float32([[0, 0, 0, 2, 2]])}, (1, 3, 3))
    with pytest.raises(UnsupportedOperator, match=r"no gradient.*MaxRoiPool") as refused:
        GradientGraph(file).signals(
            {"x": np.ones((1, 1, 3, 3), np.float32)}, {}, [Weighted(np.ones((1, 1), np.float32))]
        )
    assert [node.name for node in refused.value.nodes] == ["determinant", "regions"]


def test_an_opset_that_lacks_what_a_backward_pass_needs_is_named():
    with pytest.raises(UnsupportedOperator, match="needs Erf, which opset 8 does not have"):
        differences(Case("Gelu", domain="com.microsoft", opset=8))


def test_the_gaps_of_the_table_are_those_that_are_written_down():
    ruled = {op_type for _, op_type, _ in RULES}
    known = {op_type for _, op_type, _, _ in OPS}
    gaps = [name for names in WITHOUT_RULE.values() for name in names]
    assert sorted(gaps) == sorted(known - ruled)
    tried = {case.op_type for case in CASES} | _TRIED_ELSEWHERE | _FLAT
    assert {op_type for _, op_type, _ in RULES} <= tried


_FLAT = {
    *("Floor", "Ceil", "Round", "Sign", "ArgMax", "ArgMin", "Shape", "Size", "Not", "Greater"),
    *("Less", "Equal", "And", "Or", "Xor", "GreaterOrEqual", "LessOrEqual", "IsNaN", "IsInf"),
    *("NonZero", "Hardmax", "ConstantOfShape", "OneHot", "Range"),
}
_TRIED_ELSEWHERE = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
    *("ConvInteger", "MatMulInteger", "QLinearMatMul", "Cast", "Split", "Crop", "Affine"),
    *("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"),
    *("QLinearConcat", "QLinearGlobalAveragePool", "QLinearAveragePool", "NhwcMaxPool", "QGemm"),
    *("RNN", "GRU", "LSTM", "RoiAlign"),
}
"""Operators that one node between floats does not show."""
