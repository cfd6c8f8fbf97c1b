"""What the library accepts as photos, methods, targets and preprocessing, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import inspector
from inspector.compare import compare
from inspector.errors import ImageRefused, UsageError
from inspector.methods import parse_request, parse_requests
from inspector.photos.bands import input_batch
from inspector.photos.photo import Photo, image_sources, load_photo
from inspector.target import target_text

SAMPLES = Path(__file__).parents[2] / "sample_models"
PHOTO = min((SAMPLES / "images").glob("*.png"))


@pytest.fixture(scope="module")
def model():
    return inspector.load(SAMPLES / "all_cnn_c.onnx")


# -- photos --------------------------------------------------------------------------------


def test_a_photo_is_opened_from_whatever_holds_it():
    photo = load_photo(PHOTO)
    for source in (PHOTO, str(PHOTO), photo, photo.rgb8, Image.open(PHOTO)):
        assert np.array_equal(Photo.open(source).pixels, photo.pixels)


@pytest.mark.parametrize("source", [None, {}, object(), [[1, 2], [3]], 7 + 2j])
def test_what_is_not_an_image_is_refused_by_name(source):
    with pytest.raises(ImageRefused, match=r"not an|pass a path"):
        Photo.open(source)


def test_one_image_is_told_from_several():
    pixels = np.zeros((4, 4, 3), np.uint8)
    for one in ("cat.jpg", PHOTO, load_photo(PHOTO), pixels, Image.fromarray(pixels)):
        assert list(image_sources(one)) == [one]
    several = [pixels, "cat.jpg"]
    assert list(image_sources(iter(several))) == several


@pytest.mark.parametrize("images", [None, 3, {"cat": 1}])
def test_images_that_are_none_are_a_usage_error(model, images):
    for call in (model.explain, lambda i: compare(model, model, i)):
        with pytest.raises(UsageError, match=r"images: a value of type .* pass a path"):
            call(images)


@pytest.mark.parametrize(
    "images", [np.zeros((0, 3, 32, 32)), np.zeros((3, 32, 32)), np.zeros((1, 3, 0, 32)), None, "x"]
)
def test_a_batch_without_images_is_a_usage_error(model, images):
    with pytest.raises(UsageError, match=r"^images: .*\(N, C, H, W\)"):
        model.attribute(images, "gradient")


def test_a_batch_may_be_lists():
    assert input_batch([[[[1.0, 2.0]]]]).shape == (1, 1, 1, 2)


# -- methods -------------------------------------------------------------------------------


def test_a_method_that_is_named_twice_is_computed_once(model):
    report = model.explain(PHOTO, ["cam", "cam", "gradient"])
    assert [e.label for e in report.explanations] == ["cam", "gradient"]
    same = parse_requests(["occlusion", "occlusion:window=0", "occlusion:window=5"])
    assert [r.label for r in same] == ["occlusion", "occlusion_window-5"]


@pytest.mark.parametrize("methods", [None, [], [None], 3])
def test_methods_that_are_none_are_a_usage_error(methods):
    with pytest.raises(UsageError, match="method"):
        parse_requests(methods)


@pytest.mark.parametrize("text", ["occlusion:window", "occlusion:window=", "occlusion:window= "])
def test_an_option_without_a_value_says_so(text):
    with pytest.raises(UsageError, match="option 'window' has no value; write occlusion:window="):
        parse_request(text)


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(UsageError, match="has no option 'windows'; its options: window"):
        parse_request("occlusion:windows=3")


# -- target and preprocessing --------------------------------------------------------------


@pytest.mark.parametrize("index", [3, np.int64(3), np.uint8(3)])
def test_a_target_may_be_a_class_index(model, index):
    found = model.explain(PHOTO, "cam", target=index).explanation
    assert found.attribution.index == 3
    x, _ = model.preprocessing.preprocess.apply(load_photo(PHOTO))
    maps = model.attribute(x[None], "cam", target=index)
    assert np.array_equal(maps, model.attribute(x[None], "cam", target="3"))


def test_compare_takes_a_class_index_too(model):
    found = compare(model, model, PHOTO, ["cam", "cam"], target=3, worst=0, layer_images=0)
    (pair,) = found.images[0].maps
    assert pair.label == model.class_labels.names[3]


@pytest.mark.parametrize("target", [None, True, 3.0, ["top1"]])
def test_a_target_of_another_type_is_a_usage_error(target):
    with pytest.raises(UsageError, match=r"target: a value of type .* top1"):
        target_text(target)


def test_preprocessing_may_be_a_mapping(model):
    settings = {"mean": (0.5, 0.5, 0.5), "scale": 255.0}
    path = SAMPLES / "all_cnn_c.onnx"
    found = inspector.load(path, preprocess=settings).preprocessing
    assert found.preprocess.mean == (0.5, 0.5, 0.5)
    assert found.preprocess.std == (1.0, 1.0, 1.0)
    assert found.evidence["mean"] == "given by the caller"
    preset = inspector.load(path, preprocess={"preset": "imagenet", "crop_pct": 1.0}).preprocessing
    assert preset.preprocess.mean == (0.485, 0.456, 0.406)
    assert preset.preprocess.crop_pct == 1.0
    again = inspector.load(path, preprocess=model.preprocessing.preprocess.to_dict())
    assert again.preprocessing.preprocess == model.preprocessing.preprocess


@pytest.mark.parametrize("preprocess", [{"men": 1}, {"preset": "none"}, {1: 2}, 3, ["imagenet"]])
def test_preprocessing_of_another_kind_is_a_usage_error(preprocess):
    with pytest.raises(UsageError):
        inspector.load(SAMPLES / "all_cnn_c.onnx", preprocess=preprocess)


# -- results -------------------------------------------------------------------------------


def test_a_report_is_saved_into_a_folder_that_is_named_by_a_text(model, tmp_path):
    report = model.explain(PHOTO, "cam")
    written = report.images[0].save(str(tmp_path / "new" / "out"))
    assert [path.suffix for path in written] == [".png", ".npz", ".json"]
    assert all(path.is_file() for path in written)
