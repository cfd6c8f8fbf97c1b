"""Whether projections depend on the image: what the graph proves, and what is measured."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inspector
from inspector.projection.conditioning import (
    TOLERANCE,
    blank_image,
    conditioning,
    largest_difference,
)
from inspector.projection.projector import Projector

RNG = np.random.default_rng(8)


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs, outputs, name=f"n_{outputs[0]}", **attributes)


def network(folder, middle, constants=None, domain=13):
    """Conv, Relu, what is to be tested (from r to m), Conv, Relu on an RGB image of 12x12."""
    weights = {"w1": RNG.normal(size=(4, 3, 3, 3)), "w2": RNG.normal(size=(5, 4, 3, 3))}
    nodes = [
        node("Conv", ["x", "w1"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        *middle,
        node("Conv", ["m", "w2"], ["d"], pads=[1, 1, 1, 1]),
        node("Relu", ["d"], ["e"]),
        node("GlobalAveragePool", ["e"], ["g"]),
        node("Flatten", ["g"], ["y"]),
    ]
    stored = [numpy_helper.from_array(np.float32(w), name) for name, w in weights.items()]
    stored += [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        stored,
    )
    opset = [helper.make_opsetid("", domain)]
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return inspector.load(path, preprocess="unit")


def per_channel(size=4):
    return np.float32(RNG.normal(size=(size, 1, 1)))


FREE = {
    "nothing": [node("Identity", ["r"], ["m"])],
    "stride": [node("Conv", ["r", "k"], ["m"], strides=[2, 2], pads=[1, 1, 1, 1])],
    "mean": [node("AveragePool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2])],
    "a max over one": [node("MaxPool", ["r"], ["m"], kernel_shape=[1, 1], strides=[2, 2])],
    "batch norm": [node("BatchNormalization", ["r", "s", "s", "s", "v"], ["m"])],
    "residual": [
        node("Conv", ["r", "k"], ["q"], pads=[1, 1, 1, 1]),
        node("Add", ["q", "r"], ["m"]),
    ],
    "scaled": [
        node("Mul", ["r", "p"], ["q"]),
        node("Div", ["q", "p"], ["t"]),
        node("Sub", ["p", "t"], ["m"]),
    ],
    "centred": [node("ReduceMean", ["r"], ["q"], axes=[2, 3]), node("Sub", ["r", "q"], ["m"])],
    "resized": [node("Resize", ["r", "", "up"], ["m"], mode="linear")],
    "a ReLU of two nodes": [node("Max", ["r", "zero"], ["m"])],
    "leaky": [node("LeakyRelu", ["r"], ["m"], alpha=0.1)],
    "reshaped by its own shape": [
        node("Shape", ["r"], ["q"]),
        node("Reshape", ["r", "q"], ["m"]),
    ],
}

TIED = {
    "MaxPool": [node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2])],
    "LRN": [node("LRN", ["r"], ["m"], size=3, alpha=1.0)],
    "InstanceNormalization": [node("InstanceNormalization", ["r", "s", "s"], ["m"])],
    "Mul": [node("Mul", ["r", "r"], ["m"])],
    "Div": [node("Add", ["r", "one"], ["q"]), node("Div", ["p", "q"], ["m"])],
    "ReduceMax": [node("ReduceMax", ["r"], ["q"], axes=[2, 3]), node("Sub", ["r", "q"], ["m"])],
    "Sigmoid": [
        node("GlobalAveragePool", ["r"], ["q"]),
        node("Sigmoid", ["q"], ["t"]),
        node("Mul", ["r", "t"], ["m"]),
    ],
}


def constants():
    return {
        "k": np.float32(RNG.normal(size=(4, 4, 3, 3))),
        "p": per_channel() + 3,
        "s": np.float32(RNG.normal(size=4)),
        "v": np.float32(RNG.random(4) + 0.5),
        "up": np.float32([1, 1, 2, 2]),
        "zero": np.float32(0),
        "one": np.float32(1),
    }


def used(nodes):
    names = {name for one in nodes for name in one.input}
    return {name: value for name, value in constants().items() if name in names}


def lit(projector, shape):
    """Largest difference over all units: one alone may have no way down."""
    return max(
        largest_difference(projector, (unit, shape[2] // 2, shape[3] // 2))
        for unit in range(shape[1])
    )


@pytest.mark.parametrize("name", FREE)
def test_no_image_is_needed(tmp_path, name):
    model = network(tmp_path, FREE[name], used(FREE[name]))
    proof = conditioning(model, "e")
    assert proof.free, str(proof)
    assert "does not depend on the image" in str(proof)
    projector = Projector(model, "e")
    assert lit(projector, model.shape_of("e")) <= TOLERANCE
    signal = projector(blank_image(model), [(0, 2, 2)])
    assert np.isfinite(signal).all()


@pytest.mark.parametrize("name", TIED)
def test_the_node_that_forbids_it_is_named(tmp_path, name):
    model = network(tmp_path, TIED[name], used(TIED[name]))
    proof = conditioning(model, "e")
    assert not proof.free
    assert proof.op_type == name
    assert proof.node in str(proof)
    assert proof.why in str(proof)
    assert lit(Projector(model, "e"), model.shape_of("e")) > 100 * TOLERANCE
    assert conditioning(model, "r").free  # before that node nothing depends on it


def test_smooth_activations_only_under_an_extension(tmp_path):
    silu = [node("Sigmoid", ["r"], ["q"]), node("Mul", ["r", "q"], ["m"])]
    model = network(tmp_path, silu)
    assert conditioning(model, "e").op_type == "Silu"
    assert conditioning(model, "e", "signal-first").free
    projector = Projector(model, "e", "deconvnet", "signal-first")
    assert lit(projector, model.shape_of("e")) <= TOLERANCE


def test_guided_backpropagation_does_depend(tmp_path):
    """Else the measured difference would prove nothing."""
    model = network(tmp_path, FREE["nothing"])
    for method in ("guided-backprop", "gradient"):
        assert lit(Projector(model, "e", method), model.shape_of("e")) > 0.1


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "layer", "blocked"),
    [
        ("tf2onnx_traffic_sign_nhwc", -1, ""),
        ("ultraface_rfb320_detector", 20, ""),
        ("tf2onnx_resnet50thin_nhwc", 3, "MaxPool"),
    ],
)
def test_third_party_models(shared, name, layer, blocked):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    tensor = model.layers[layer].tensor
    assert conditioning(model, tensor).op_type == blocked
    _, channels, height, width = model.shape_of(tensor)
    unit = channels // 2, height // 2, width // 2
    assert (largest_difference(Projector(model, tensor), unit) <= TOLERANCE) == (not blocked)
