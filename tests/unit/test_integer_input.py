"""A model that takes uint8 NHWC pixels and normalises inside the graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import inspector

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """ResNet-20 as it is, and behind Cast, Transpose and its own normalisation."""
    model = onnx.load_model(SAMPLES / "resnet20.onnx")
    graph = model.graph
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32).reshape(1, 3, 1, 1) * 255
    std = np.array([0.2470, 0.2435, 0.2616], np.float32).reshape(1, 3, 1, 1) * 255
    graph.initializer.extend(
        [
            numpy_helper.from_array(mean, "pixel_mean"),
            numpy_helper.from_array(std, "pixel_std"),
        ]
    )
    front = [
        helper.make_node("Cast", ["pixels"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["as_float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "pixel_mean"], ["centred"]),
        helper.make_node("Div", ["centred", "pixel_std"], ["input"]),
    ]
    nodes = [*front, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    shape = ["batch", 32, 32, 3]
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape))
    del model.metadata_props[:]
    path = tmp_path_factory.mktemp("uint8") / "resnet20_uint8.onnx"
    path.write_bytes(model.SerializeToString())
    return inspector.load(SAMPLES / "resnet20.onnx"), inspector.load(path)


def photo():
    return np.asarray(Image.open(SAMPLES / "images" / "horse_1.png"))


def test_whole_pixels_are_recognised(pair):
    _, raw = pair
    assert raw.input.integer
    assert raw.input.layout == "NHWC"
    assert raw.preprocessing.preprocess.scale == 1.0
    assert raw.preprocessing.preprocess.mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("method", ["cam", "grad-cam", "grad-cam++", "occlusion:fill=0"])
def test_maps_are_those_of_the_float_model(pair, method):
    plain, raw = pair
    wanted = plain.explain(photo(), method, target="7").heatmap
    found = raw.explain(photo(), method, target="7").heatmap
    assert np.abs(wanted - found).max() <= 1e-4 * np.abs(wanted).max()


def test_gradients_are_per_pixel_value(pair):
    """The same slope in units of pixels: the float model's over its standard deviation."""
    plain, raw = pair
    std = np.array([0.2470, 0.2435, 0.2616]).reshape(3, 1, 1) * 255
    for method in ("gradient", "guided-backprop"):
        wanted = plain.explain(photo(), method, target="7").attribution / std
        found = raw.explain(photo(), method, target="7").attribution
        assert found.shape == (3, 32, 32)
        assert np.abs(wanted - found).max() <= 1e-4 * np.abs(wanted).max()
