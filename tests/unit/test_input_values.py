"""What is said of a photo's values and of how much of it the network sees, with the result."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import inspector
from inspector.errors import InspectorWarning

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
