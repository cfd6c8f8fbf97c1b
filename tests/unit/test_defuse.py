"""Files that ONNX Runtime saved after optimising: every activation is a node again."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import inspector
from converters import onnx_file

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.fixture(scope="module")
def optimised(tmp_path_factory):
    """ResNet-20 as ONNX Runtime saves it: residual additions and ReLUs inside FusedConv."""
    path = tmp_path_factory.mktemp("optimised") / "resnet20.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        SAMPLES / "resnet20.onnx", options, providers=["CPUExecutionProvider"]
    )
    return path


def test_the_saved_file_does_hide_activations(optimised):
    assert b"FusedConv" in optimised.read_bytes()


@pytest.mark.parametrize("method", ["grad-cam", "gradient", "guided-backprop", "deconvnet"])
def test_maps_of_the_optimised_file_are_those_of_the_original(optimised, method):
    plain = inspector.load(SAMPLES / "resnet20.onnx", device="cpu")
    fused = inspector.load(optimised, device="cpu")
    pixels = np.load(SAMPLES / "cifar10_sample.npz")["x"][:2]
    images = np.stack(
        [plain.preprocessing.preprocess.apply(inspector.Photo.of(p))[0] for p in pixels]
    )
    wanted, found = (m.attribute(images, method, target="3") for m in (plain, fused))
    assert np.abs(wanted - found).max() <= 1e-4 * np.abs(wanted).max()


def conv_model(activation, parameters, *, addend):
    rng = np.random.default_rng(0)
    inputs = ["x", "w", "b", "z"] if addend else ["x", "w", "b"]
    extra = {"activation_params": parameters} if parameters else {}
    node = helper.make_node(
        "FusedConv",
        inputs,
        ["y"],
        name="fused",
        domain="com.microsoft",
        activation=activation,
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
        **extra,
    )
    values = {"w": (4, 3, 3, 3), "b": (4,), "z": (1, 4, 5, 5)}
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in values.items()
    ]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 5, 5])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("addend", [True, False])
@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", []),
        ("Sigmoid", []),
        ("Tanh", []),
        ("LeakyRelu", [0.3]),
        ("HardSigmoid", [0.1, 0.4]),
        ("Clip", [-0.5, 0.5]),
    ],
)
def test_each_activation_computes_the_same_split_as_fused(activation, parameters, addend):
    model = conv_model(activation, parameters, addend=addend)
    x = np.random.default_rng(1).normal(size=(1, 3, 5, 5)).astype(np.float32)

    def run(proto):
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return session.run(["y"], {"x": x})[0]

    split = onnx_file.from_proto(model)
    kinds = [node.op_type for node in split.graph.nodes]
    assert kinds == ["Conv", *(["Add"] if addend else []), activation]
    assert "FusedConv" in {node.op_type for node in model.graph.node}, "the caller's is untouched"
    np.testing.assert_allclose(run(split.model), run(model), rtol=1e-6, atol=1e-6)


def test_an_activation_nobody_knows_is_left_fused():
    model = conv_model("Loop", [], addend=False)
    assert [n.op_type for n in onnx_file.from_proto(model).graph.nodes] == ["FusedConv"]
