"""Models that take whole pixel values and normalise inside the graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import inspector
from inspector.network.inputs.image import ImageInput

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def written(path, kind=TensorProto.UINT8, middle=0.0):
    """ResNet-20 behind Cast, an addition of ``middle``, Transpose and its own normalisation."""
    model = onnx.load_model(SAMPLES / "resnet20.onnx")
    graph = model.graph
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32).reshape(1, 3, 1, 1) * 255
    std = np.array([0.2470, 0.2435, 0.2616], np.float32).reshape(1, 3, 1, 1) * 255
    graph.initializer.extend(
        [
            numpy_helper.from_array(mean, "pixel_mean"),
            numpy_helper.from_array(std, "pixel_std"),
            numpy_helper.from_array(np.float32(middle), "middle"),
        ]
    )
    front = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["cast", "middle"], ["as_float"]),
        helper.make_node("Transpose", ["as_float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "pixel_mean"], ["centred"]),
        helper.make_node("Div", ["centred", "pixel_std"], ["input"]),
    ]
    nodes = [*front, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    shape = ["batch", 32, 32, 3]
    graph.input.append(helper.make_tensor_value_info("pixels", kind, shape))
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """ResNet-20 as it is, and with pixels of uint8."""
    path = written(tmp_path_factory.mktemp("uint8") / "resnet20_uint8.onnx")
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


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """The network of `pair` with pixels of int8, which are 128 less."""
    folder = tmp_path_factory.mktemp("int8")
    return inspector.load(written(folder / "int8.onnx", TensorProto.INT8, 128.0))


def test_signed_bytes_are_guessed_to_be_pixels_minus_128(signed):
    assert signed.input.bounds == (-128, 127)
    assert signed.preprocessing.preprocess.mean == (128.0,) * 3
    assert signed.preprocessing.preprocess.scale == 1.0
    assert signed.preprocessing.guessed
    assert "int8: pixels minus 128" in signed.preprocessing.warnings[0]


@pytest.mark.parametrize("method", ["cam", "grad-cam", "gradient", "occlusion"])
def test_signed_and_unsigned_bytes_give_the_same_map(pair, signed, method):
    _, unsigned = pair
    wanted = unsigned.explain(photo(), method, target="7")
    found = signed.explain(photo(), method, target="7")
    np.testing.assert_array_equal(found.attribution, wanted.attribution)
    assert found.images[0].predictions == wanted.images[0].predictions


def test_bright_pixels_of_signed_bytes_do_not_wrap(pair, signed):
    bright = np.full((32, 32, 3), 200, np.uint8)
    bright[8:20, 4:22] = (255, 30, 128)
    scores = [m.explain(bright, "cam", target="7").explanation for m in (pair[1], signed)]
    assert scores[0].attribution.score == scores[1].attribution.score


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [
        (TensorProto.UINT8, (0, 255)),
        (TensorProto.INT8, (-128, 127)),
        (TensorProto.UINT16, (0, 65535)),
        (TensorProto.INT16, (-32768, 32767)),
        (TensorProto.INT32, (-(2**31), 2**31 - 1)),
    ],
)
def test_whole_values_are_clipped_to_their_own_type(tmp_path, kind, bounds):
    model = inspector.load(written(tmp_path / "typed.onnx", kind), preprocess="raw")
    assert model.input.bounds == bounds
    images = np.zeros((1, 3, 32, 32), np.float64)
    images[0, :, 0, :4] = (-1e6, -100.4, 100.6, 1e6)
    wanted = [max(-1e6, bounds[0]), max(-100, bounds[0]), min(101, bounds[1]), min(1e6, bounds[1])]
    assert model.input.arrange(images)[0, 0, :4, 0].tolist() == wanted
    fed = model.forward(images.astype(np.float32), ["cast"])["cast"]
    np.testing.assert_array_equal(fed[0, 0, :4, 0], np.float32(wanted))


def test_an_input_of_unknown_integers_takes_bytes():
    known = ImageInput("x", "NCHW", None, 3, 8, 8, integer=True)
    assert known.arrange(np.full((1, 3, 1, 1), 300.0)).max() == 255


def test_a_recipe_that_leaves_the_inputs_type_is_said(tmp_path, signed):
    cut = inspector.load(signed.path, preprocess="raw").preprocessing.warnings
    assert "-128 .. 127" in cut[0]
    assert "cut off" in cut[0]
    flat = inspector.load(signed.path, preprocess="unit").preprocessing.warnings
    assert "whole numbers" in flat[0]
    assert not inspector.load(written(tmp_path / "u.onnx"), preprocess="raw").preprocessing.warnings
