"""Grad-CAM at a layer that a skip connection passes by, against finite differences.

The tail behind such a layer reads a second tensor, its frontier, from the forward pass.  The
differences know nothing of that: the network gets one addition more, behind the layer, and ONNX
Runtime computes all of it.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import onnx_model
from onnx import TensorProto, helper

import inspector
from converters.graph import Graph
from inspector.network.tail import tail_of
from inspector.photos.preprocess import Preprocess

SAMPLES = Path(__file__).parents[2] / "sample_models"
SIZE, CLASSES = 8, 3


def moved(proto, layer):
    """The network with ``layer`` replaced by ``layer + delta``, ``delta`` a second input."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    nodes = list(result.graph.node)
    place = next(i for i, node in enumerate(nodes) if layer in node.output)
    for node in nodes:
        node.input[:] = ["moved" if name == layer else name for name in node.input]
    nodes.insert(place + 1, helper.make_node("Add", [layer, "delta"], ["moved"]))
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.graph.input.append(helper.make_tensor_value_info("delta", TensorProto.FLOAT, None))
    result.graph.output.append(onnx.ValueInfoProto(name=layer))
    return result.SerializeToString()


def differences(proto, layer, x, target, eps):
    """The layer's activation (C, h, w) and mean of dS/dA of each channel (C,)."""
    session = onnxruntime.InferenceSession(moved(proto, layer), providers=["CPUExecutionProvider"])

    def run(delta):
        return session.run(None, {proto.graph.input[0].name: x, "delta": delta})

    activation = run(np.zeros((1, 1, 1, 1), np.float32))[-1][0]
    weights = np.zeros(len(activation))
    for channel in range(len(activation)):
        step = np.zeros((1, *activation.shape), np.float32)
        step[0, channel] = eps
        above, below = run(step)[0][0], run(-step)[0][0]
        weights[channel] = (above[target] - below[target]) / (2 * eps)
    return activation, weights / activation[0].size


def literal_grad_cam(activation, weights):
    return np.maximum(np.einsum("c,chw->hw", weights, activation.astype(np.float64)), 0)


def tiny(smooth):
    """conv - relu r - [conv - act A - conv] + r - act - mean - linear, and a 1x1 skip."""
    rng = np.random.default_rng(5)
    constants = {
        "w1": rng.standard_normal((4, 3, 3, 3)),
        "w2": rng.standard_normal((4, 4, 3, 3)) / 3,
        "w3": rng.standard_normal((4, 4, 3, 3)) / 3,
        "w4": rng.standard_normal((4, 4, 1, 1)),
        "head": rng.standard_normal((CLASSES, 4)),
    }
    act = "Softplus" if smooth else "Relu"  # through Softplus a frontier of zeros changes g
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node(act, ["c2"], ["A"]),
        helper.make_node("Conv", ["A", "w3"], ["c3"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["r", "w4"], ["skip"]),
        helper.make_node("Add", ["c3", "skip"], ["sum"]),
        helper.make_node(act, ["sum"], ["last"]),
        helper.make_node("GlobalAveragePool", ["last"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "head"], ["logits"], transB=1),
    ]
    return onnx_model(
        nodes,
        {"x": ["n", 3, SIZE, SIZE]},
        {"logits": ["n", CLASSES]},
        {k: v.astype(np.float32) for k, v in constants.items()},
        opset=17,
    )


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("target", range(CLASSES))
def test_a_tiny_network(tmp_path, smooth, target):
    proto = tiny(smooth)
    path = tmp_path / "skip.onnx"
    onnx.save(proto, path)
    model = inspector.load(path, device="cpu", preprocess=Preprocess((SIZE, SIZE)))
    assert tail_of(Graph(proto), {"A"}, "logits").frontier
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    x = (pixels.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    found = model.explain(pixels, "grad-cam", target=str(target), layer="A").attribution
    wanted = literal_grad_cam(*differences(proto, "A", x, target, 1e-2))
    largest = max(
        literal_grad_cam(*differences(proto, "A", x, other, 1e-2)).max() for other in range(CLASSES)
    )
    np.testing.assert_allclose(found, wanted, atol=5e-3 * largest)
    assert largest > 0


@pytest.mark.parametrize("layer", ["relu_13", "relu_15"])
def test_a_trained_residual_network(layer):
    """Once past a downsampling skip, once past the identity."""
    path = SAMPLES / "resnet20.onnx"
    model = inspector.load(path, device="cpu")
    photo = SAMPLES / "images" / "cat_1.png"
    report = model.explain(photo, "grad-cam", layer=layer)
    target = report.explanation.attribution.index
    proto = onnx.load_model(path)
    assert tail_of(Graph(proto), {layer}, "logits").frontier
    x, _ = model.preprocessing.preprocess.apply(report.images[0].photo)
    wanted = literal_grad_cam(*differences(proto, layer, x[None], target, 1e-3))
    assert wanted.max() > 0
    np.testing.assert_allclose(report.attribution, wanted, atol=2e-2 * wanted.max())


@pytest.mark.parametrize("of_values", [False, True])
def test_what_is_made_of_the_image_s_size_carries_no_score(tmp_path, of_values):
    """A term that only the number of samples shapes, beside one that the pixels make."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["A"], pads=[1, 1, 1, 1]),
        helper.make_node("Shape", ["x"], ["size"], start=0, end=1),
        helper.make_node("Concat", ["size", "count"], ["shape"], axis=0),
        helper.make_node("Expand", ["b", "shape"], ["term"]),
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("GlobalAveragePool", ["A"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Add", ["f", "m" if of_values else "term"], ["y"]),
    ]
    proto = onnx_model(
        nodes,
        {"x": ["n", 3, SIZE, SIZE]},
        {"y": ["n", 3]},
        {
            "w": rng.standard_normal((3, 3, 3, 3)).astype(np.float32),
            "b": rng.standard_normal((1, 3)).astype(np.float32),
            "count": np.array([3]),
            "axes": np.array([2, 3]),
        },
        opset=18,
    )
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    model = inspector.load(
        path, device="cpu", preprocess=Preprocess(size=(SIZE, SIZE)), unverified=True
    )
    pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    found = model.explain(pixels, "grad-cam", layer="A").explanation
    assert any("does not pass through" in text for text in found.warnings) == of_values
