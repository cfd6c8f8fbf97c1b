"""What is said of a photo's values and of how much of it the network sees, with the result."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import inspector
from inspector.cli.terminal import show_report
from inspector.errors import InspectorWarning
from inspector.heatmap import Heatmap

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.fixture(scope="module")
def model():
    return inspector.load(SAMPLES / "resnet20.onnx")


@pytest.fixture(scope="module")
def horse():
    return np.asarray(Image.open(SAMPLES / "images" / "horse_1.png"))


def test_a_photo_in_0_to_1_is_judged_like_its_pixels(model, horse):
    wanted = model.explain(horse, "cam").images[0]
    found = model.explain(horse / 255, "cam").images[0]
    assert found.predictions[0]["label"] == wanted.predictions[0]["label"] == "horse"
    assert any("0..1" in text for text in found.warnings)
    assert any("0..1" in text for text in found.document()["warnings"])
    assert not any("0..1" in text for text in wanted.warnings)


def test_the_share_of_the_photo_that_is_seen_is_a_fact_and_below_half_a_warning(model, horse):
    whole = model.explain(horse, "cam").images[0]
    assert whole.document()["image"]["seen share"] == 1
    assert whole.warnings == ()
    wide = np.concatenate([horse] * 3, axis=1)
    third = model.explain(wide, "cam").images[0]
    assert third.document()["image"]["seen share"] == pytest.approx(1 / 3)
    assert any("sees 33% of the photo" in text for text in third.warnings)
    most = model.explain(wide[:, :50], "cam").images[0]
    assert most.seen_share == pytest.approx(0.64)
    assert most.warnings == ()


@pytest.mark.parametrize("scale", [255.0, 1 / 255])
def test_images_that_the_preprocessing_cannot_have_made_are_said(model, horse, scale):
    tensor, _ = model.preprocessing.preprocess.apply(inspector.Photo.of(horse))
    assert model.attribute(tensor[None], "cam").shape == (1, 8, 8)  # no warning
    assert model.attribute(np.zeros_like(tensor)[None], "cam").shape == (1, 8, 8)
    with pytest.warns(InspectorWarning, match="preprocess them first"):
        model.attribute(tensor[None] * np.float32(scale), "cam")


def test_the_figure_carries_the_warnings_of_the_photo(model, horse):
    plain = model.explain(horse, "cam").images[0]
    warned = model.explain(horse / 255, "cam").images[0]
    for draw in (lambda image: image.figure(image.explanations[0]), lambda image: image.sheet()):
        assert draw(warned).height > draw(plain).height


def pointwise(path):
    """A network that judges each pixel by itself and takes the mean."""
    weights = {"w": np.ones((2, 3, 1, 1), np.float32), "m": np.eye(2, dtype=np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pointwise",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return inspector.load(path, preprocess="unit")


def test_a_map_of_one_value_is_said(tmp_path):
    model = pointwise(tmp_path / "pointwise.onnx")
    flat = np.full((8, 8, 3), 200, np.uint8)
    spot = flat.copy()
    spot[2, 3] = 0
    for photo, same in ((flat, True), (spot, False)):
        found = model.explain(photo, "cam", target="0").explanation
        assert any("same value everywhere" in text for text in found.warnings) is same


def test_the_table_tells_saturated_from_no_evidence(model, horse, capsys):
    image = model.explain(horse, "cam", target="horse").images[0]
    (one,) = image.explanations
    for note, said in (("saturated: 1 all over", "saturated"), ("", "no positive evidence")):
        zero = np.zeros_like(one.attribution.values)
        empty = replace(one.attribution, values=zero, notes=(note,) if note else ())
        found = replace(one, heatmap=Heatmap.of(empty, one.heatmap.geometry))
        show_report(replace(image, explanations=(found,)), [SAMPLES])
        shown = capsys.readouterr().out
        assert said in shown
        assert "the network sees 100% of the photo" in shown
        assert ("saturated" in shown) is bool(note)
