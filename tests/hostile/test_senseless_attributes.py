"""An attribute that makes no sense is a refusal that names its node, never an internal error."""

import contextlib

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import inspector
from converters import onnx_file
from converters.errors import ConverterError, UnsafeModel
from converters.graph import Graph
from converters.to_torch import Program
from inspector.errors import ExplainedError
from inspector.network.receptive_fields.receptive_field import receptive_field
from inspector.overview import overview
from inspector.verdicts import method_verdicts


def stored(name, values, kind=np.float32):
    return numpy_helper.from_array(np.asarray(values, kind), name)


def network(node, extra=(), opset=17):
    """A classifier with one node between its convolution and its head, which makes ``z``."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        *(node if isinstance(node, list) else [node]),
        helper.make_node("GlobalAveragePool", ["z"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "head", "bias"], ["y"]),
    ]
    weights = [
        stored("w", rng.normal(size=(4, 3, 3, 3))),
        stored("head", rng.normal(size=(4, 5))),
        stored("bias", np.zeros(5)),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, 16, 16))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [*weights, *extra],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(op_type, inputs=("r",), **attributes):
    return helper.make_node(op_type, list(inputs), ["z"], **attributes)


_OPSETS = {"Attention": 23, "GroupNormalization": 21}
REFUSED = {
    "perm out of range": (node("Transpose", perm=[0, 1, 2, 9]), "is not a permutation"),
    "perm negative": (node("Transpose", perm=[0, 1, 2, -7]), "is not a permutation"),
    "perm repeated": (node("Transpose", perm=[0, 1, 1, 2]), "is not a permutation"),
    "norm of order 0": (node("LpPool", kernel_shape=[2, 2], p=0), "'p' [0] is not positive"),
    "stride 0": (node("MaxPool", kernel_shape=[2, 2], strides=[0, 0]), "'strides'"),
    "kernel 0": (node("MaxPool", kernel_shape=[0, 0]), "'kernel_shape'"),
    "block 0": (node("DepthToSpace", blocksize=0), "'blocksize'"),
    "axis 99": (node("Softmax", axis=99), "'axis' [99] is out of range"),
    "padding 2**60": (node("MaxPool", kernel_shape=[2, 2], pads=[2**60] * 4), "'pads'"),
    "where of one": (node("Where"), "1 inputs"),
    "group 0": (node("Conv", ["r", "w"], group=0), "'group' [0] is not positive"),
    "no heads": (
        node("Attention", ["r", "r", "r"], q_num_heads=0, kv_num_heads=0),
        "'q_num_heads' [0] is not positive",
    ),
    "heads that 32 bits take for none": (
        node("Attention", ["r", "r", "r"], q_num_heads=2**40, kv_num_heads=2**40),
        "'kv_num_heads' [1099511627776] is not positive",
    ),
    "no groups": (
        node("GroupNormalization", ["r", "bias", "bias"], num_groups=0),
        "'num_groups' [0] is not positive",
    ),
    "samples below 0": (
        node("RoiAlign", ["r", "rois", "which"], sampling_ratio=-3),
        "'sampling_ratio' [-3] is negative or too large",
    ),
    "size below 0": (node("LRN", size=-3), "'size' [-3] is not positive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_preflight_names_the_node(case):
    made, said = REFUSED[case]
    with pytest.raises(UnsafeModel) as caught:
        onnx_file.from_proto(network(made, opset=_OPSETS.get(made.op_type, 17)))
    assert said in str(caught.value)
    assert f"{made.op_type} 'z'" in str(caught.value)


float8 = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
TRIED = {
    "empty batch": (
        node("Slice", ["r", "s", "e", "a"]),
        [stored(n, [0], np.int64) for n in "sea"],
        17,
    ),
    "float8": (
        [
            helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["q"]),
            node("DequantizeLinear", ["q", "scale", "zero"]),
        ],
        [stored("scale", 0.1), float8],
        19,
    ),
    "a scale of 0": (
        [
            helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["q"]),
            node("DequantizeLinear", ["q", "scale", "zero"]),
        ],
        [stored("scale", 0.0), stored("zero", 0, np.uint8)],
        17,
    ),
    "bounds the wrong way round": (
        node("Clip", ["r", "low", "high"]),
        [stored("low", 5.0), stored("high", -5.0)],
        17,
    ),
    "equation": (node("Einsum", equation="ab->("), (), 17),
    "sizes below 0": (node("Tile", ["r", "n"]), [stored("n", [-1, 1, 1, 1], np.int64)], 17),
    "cropped to nothing": (
        node("Pad", ["r", "n"]),
        [stored("n", [0, 0, -99, 0, 0, 0, 0, 0], np.int64)],
        17,
    ),
    "a scale that is not a number": (
        node("Resize", ["r", "", "n"]),
        [stored("n", [1, 1, np.nan, np.inf])],
        17,
    ),
}


@pytest.mark.parametrize("case", TRIED)
def test_check_ends_with_verdicts_or_a_refusal(case, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made, extra, opset = TRIED[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(network(made, extra, opset).SerializeToString())
    try:
        opened = inspector.load(path)
        overview(opened)
        verdicts = method_verdicts(opened)
    except ExplainedError:
        return
    assert all(text.startswith(("works", "refused: ")) for text in verdicts.values())


@pytest.mark.parametrize("case", REFUSED)
def test_reasoning_about_the_graph_survives_without_the_preflight(case):
    """Bodies and functions of other domains are not held against schemas."""
    made = REFUSED[case][0]
    graph = Graph(network(made, opset=_OPSETS.get(made.op_type, 17)))
    field = receptive_field(graph, "z", "x")
    assert field.global_ or field.size
    with contextlib.suppress(ConverterError):
        Program(graph).run({"r": torch.zeros(1, 4, 16, 16)}, ["z"])


def test_constants_that_cannot_be_computed_are_named_where_they_are_needed():
    made = network(
        [
            helper.make_node("Reshape", ["bias", "sizes"], ["broken"], name="crooked"),
            helper.make_node("Add", ["r", "broken"], ["z"]),
        ],
        [stored("sizes", [7, 7], np.int64)],
    )
    program = Program(Graph(made))
    with pytest.raises(ConverterError, match="crooked"):
        program.run({"x": torch.zeros(1, 3, 16, 16)}, ["y"])
