"""Which preprocessing is chosen: by what evidence, what is a guess, what is doubted."""

import json

import numpy as np
import pytest

from inspector.errors import UsageError
from inspector.photos.photo import Photo
from inspector.photos.preprocess_choice import PRESETS, Preprocess, resolve
from inspector.surgery.embedded_facts import METADATA_KEY


def photo(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Photo.of(pixels)


def test_a_colour_model_that_says_nothing_gets_a_labelled_guess():
    found = resolve(input_size=(224, 224))
    assert found.preprocess == PRESETS["imagenet"]
    assert found.guessed
    assert "guess" in found.warnings[0]
    assert "--preprocess" in found.warnings[0]
    assert found.evidence["mean"].startswith("guess")
    assert found.evidence["size"] == "declared input of the model"


def test_guesses_reason_from_the_input():
    assert resolve(input_channels=1, input_size=(28, 28)).preprocess == Preprocess(
        (28, 28), channels="GRAY", mean=(0.0,), std=(1.0,)
    )
    small = resolve(input_size=(32, 32)).preprocess
    assert (small.size, small.crop_pct) == ((32, 32), 1.0)
    assert resolve(integer=True).preprocess.scale == 1.0
    assert resolve(first_operators=["Sub"]).preprocess.scale == 1.0
    channels_last = resolve(layout="NHWC", input_size=(100, 120)).preprocess
    assert (channels_last.layout, channels_last.size) == ("NHWC", (100, 120))
    assert channels_last.mean == (0.5, 0.5, 0.5)


def test_a_free_size_is_the_preprocessings_or_224():
    assert resolve(input_size=(None, None)).preprocess.size == (224, 224)
    assert resolve("inception", input_size=(None, None)).preprocess.size == (299, 299)
    assert resolve("inception", input_size=(64, None)).preprocess.size == (64, 299)
    found = resolve("imagenet", ["size=[96, 128]"], input_size=(None, None))
    assert found.preprocess.size == (96, 128)


def test_the_flag_is_no_guess_and_the_models_size_wins():
    found = resolve("imagenet", input_size=(299, 299))
    assert not found.guessed
    assert found.warnings == ()
    assert found.preprocess.size == (299, 299)
    assert found.evidence["mean"] == "option imagenet"


def test_overrides_win_and_say_so():
    found = resolve("imagenet", ["mean=0.5,0.5,0.5", "channels=BGR", "crop_pct=1"])
    assert found.preprocess.mean == (0.5, 0.5, 0.5)
    assert found.preprocess.channels == "BGR"
    assert found.evidence["mean"] == "option mean=0.5,0.5,0.5"
    assert found.preprocess.std == (0.225, 0.224, 0.229)  # turned round with the channels
    assert "BGR" in found.evidence["std"]


@pytest.mark.parametrize("text", ["mena=1", "mean", "mean=", "mean=abc", "=3"])
def test_bad_overrides(text):
    with pytest.raises(UsageError):
        resolve("imagenet", [text])


def test_contradicting_the_model_is_a_usage_error():
    with pytest.raises(UsageError, match="the model takes 32 x 32"):
        resolve("imagenet", ["size=64"], input_size=(32, 32))
    with pytest.raises(UsageError, match="channels"):
        resolve("imagenet", ["channels=RGB"], input_channels=1)
    with pytest.raises(UsageError, match="imagenet"):
        resolve("imgnet")


@pytest.mark.parametrize(("channels", "space"), [(1, 1), (2, 2), (4, 2), (13, 2), (1, 3)])
def test_bands_are_taken_as_they_are_unless_a_recipe_is_named(channels, space):
    found = resolve(input_channels=channels, space=space)
    assert found.preprocess.bands
    assert found.preprocess.channel_count == channels
    assert found.preprocess.span() == ((0.0,) * channels, (255.0,) * channels)
    assert found.guessed
    assert not found.chosen
    assert "as they are" in found.warnings[0]
    named = resolve(overrides=["mean=2", "std=4"], input_channels=channels, space=space)
    assert named.chosen
    assert named.preprocess.mean == (2.0,) * channels
    assert not named.warnings


def test_a_grey_model_with_colour_statistics_gets_their_average():
    found = resolve("imagenet", input_channels=1)
    assert found.preprocess.mean == pytest.approx((0.449,))
    assert found.preprocess.channels == "GRAY"
    assert any("channel" in text for text in found.warnings)


def test_sources_in_their_order(tmp_path):
    model = tmp_path / "net.onnx"
    metadata = {"inspector.preprocess": json.dumps({"preset": "caffe"})}
    ask = {"model_path": model, "metadata": metadata, "input_size": (224, 224)}
    assert resolve(**ask).preprocess == PRESETS["caffe"]
    assert not resolve(**ask).guessed
    timm = {"input_size": [3, 224, 224], "mean": [0.1] * 3, "std": [0.2] * 3}
    (tmp_path / "config.json").write_text(json.dumps(timm), encoding="utf-8")
    assert resolve(**ask).preprocess.mean == (0.1,) * 3
    hugging_face = {"image_mean": [0.3] * 3, "image_std": [0.4] * 3, "size": 224, "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(hugging_face), encoding="utf-8")
    assert resolve(**ask).preprocess.mean == (0.3,) * 3
    (tmp_path / "net.preprocess.toml").write_text('preset = "inception"\n', encoding="utf-8")
    found = resolve(**ask)
    assert found.preprocess.mean == (0.5,) * 3
    assert "net.preprocess.toml" in found.evidence["mean"]
    assert resolve("raw", **ask).preprocess.scale == 1.0


def test_a_strangers_config_json_is_passed_over(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["X"]}', encoding="utf-8")
    found = resolve(model_path=tmp_path / "net.onnx")
    assert found.guessed
    assert len(found.warnings) == 1
    (tmp_path / "preprocessor_config.json").write_text("{", encoding="utf-8")
    found = resolve(model_path=tmp_path / "net.onnx")
    assert found.guessed
    assert any("ignored" in text for text in found.warnings)


def test_a_side_file_with_bad_values_is_put_aside(tmp_path):
    (tmp_path / "net.preprocess.toml").write_text("std = 0\n", encoding="utf-8")
    found = resolve(model_path=tmp_path / "net.onnx")
    assert found.guessed
    assert any("ignored" in text for text in found.warnings)
    assert found.preprocess == PRESETS["imagenet"]


def test_a_side_file_of_another_size_is_said(tmp_path):
    (tmp_path / "net.preprocess.toml").write_text("size = 64\n", encoding="utf-8")
    found = resolve(model_path=tmp_path / "net.onnx", input_size=(32, 32))
    assert found.preprocess.size == (32, 32)
    assert any("64 x 64" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (
            {"Image.BitmapPixelFormat": "Bgr8"},
            {"channels": "BGR", "scale": 1.0, "mean": (0.0,) * 3},
        ),
        (
            {"image.bitmappixelformat": "RGB8", "Image.NominalPixelRange": "Normalized_0_1"},
            {"channels": "RGB", "scale": 255.0},
        ),
        ({"Image.NominalPixelRange": "Normalized_1_1"}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
        (
            {"author": "Ultralytics", "task": "classify", "imgsz": "[640, 640]"},
            {"scale": 255.0, "size": (640, 640), "resize": "crop", "crop_pct": 1.0},
        ),
    ],
)
def test_model_metadata_is_evidence(metadata, expected):
    found = resolve(metadata=metadata)
    assert not found.guessed
    values = found.preprocess.to_dict()
    assert {key: values[key] for key in expected} == expected
    assert "metadata" in found.evidence["scale"]


def test_nominal_video_range():
    found = resolve(metadata={"Image.NominalPixelRange": "NominalRange_16_235"}).preprocess
    np.testing.assert_allclose(found.encode((0, 0, 0)), 16, atol=1e-4)
    np.testing.assert_allclose(found.encode((255, 255, 255)), 235, atol=1e-4)


@pytest.mark.parametrize("text", ["{", "[]", '{"std": 0}', '{"nope": 1}', '{"preset": "x"}', "3"])
def test_hostile_own_metadata_is_put_aside(text):
    found = resolve(metadata={"inspector.preprocess": text})
    assert found.guessed
    assert any("ignored" in words for words in found.warnings)


def test_the_zoos_metadata(shared):
    from converters import onnx_file

    file = onnx_file.read(shared / "zoo" / "cntk_mnist.onnx")
    found = resolve(metadata=file.metadata, input_channels=1, input_size=(28, 28))
    assert not found.guessed
    assert (found.preprocess.channels, found.preprocess.scale) == ("GRAY", 1.0)


# -- what is guessed, and doubted ------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 192), (50, 155), (160, 48), (48, 64), (256, 128)])
def test_the_guess_for_an_oblong_input_shows_the_whole_photo(size):
    found = resolve(input_size=size)
    assert found.guessed
    assert found.preprocess.resize == "squash"
    assert "not square" in found.evidence["resize"]
    for picture in (photo(200, 200), photo(200, 300)):
        assert found.preprocess.apply(picture)[1].seen_share == 1


def test_the_guess_for_other_networks_than_classifiers_shows_the_whole_photo():
    found = resolve(input_size=(320, 320), classifier=False)
    assert (found.preprocess.resize, found.preprocess.crop_pct) == ("letterbox", 1.0)
    assert found.preprocess.pad == (114.0, 114.0, 114.0)
    assert "not a classifier" in found.evidence["resize"]
    assert found.preprocess.apply(photo(200, 300))[1].seen_share == 1


def test_how_the_photo_is_fitted_is_guessed_only_where_nobody_says_it():
    assert resolve("imagenet", input_size=(32, 192)).preprocess.resize == "crop"
    assert resolve(overrides=["resize=crop"], input_size=(32, 192)).preprocess.resize == "crop"
    kept = resolve(overrides=["crop_pct=0.9"], input_size=(32, 192)).preprocess
    assert (kept.resize, kept.crop_pct) == ("squash", 0.9)
    assert resolve(overrides=["size=48,320"]).preprocess.resize == "squash"
    assert resolve(input_size=(200, 224)).preprocess.resize == "crop"
    ultralytics = {"author": "Ultralytics", "task": "classify"}
    told = resolve(metadata=ultralytics, input_size=(64, 128), classifier=False)
    assert told.preprocess.resize == "crop"


@pytest.mark.parametrize(
    ("photo_size", "share"), [((256, 256), 0.766), ((480, 640), 0.574), ((100, 400), 0.191)]
)
def test_the_share_of_the_photo_that_is_seen(photo_size, share):
    _, geometry = PRESETS["imagenet"].apply(photo(*photo_size))
    assert geometry.seen_share == pytest.approx(geometry.seen().mean())
    assert geometry.seen_share == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    "evidence",
    [
        {"producer": "tf2onnx"},
        {"producer": "keras"},
        {"names": ["x", "StatefulPartitionedCall/model/conv1/Conv2D"]},
        {"names": ["model/bn/FusedBatchNormV3"]},
    ],
)
def test_the_producer_is_evidence(evidence):
    found = resolve(input_size=(64, 64), **evidence)
    assert found.preprocess.mean == resolve(layout="NHWC", input_size=(64, 64)).preprocess.mean
    assert found.guessed
    assert "made by" in found.warnings[0] or "TensorFlow" in found.warnings[0]
    told = {"inspector.preprocess": json.dumps({"preset": "caffe"})}
    assert resolve(metadata=told, **evidence).preprocess.scale == 1.0


@pytest.mark.parametrize("producer", ["pytorch", "paddle", "", "onnx-caffe2"])
def test_other_producers_leave_the_guess_alone(producer):
    names = ["/features/Conv2D/Conv"] if producer == "pytorch" else ["/conv/Conv"]
    found = resolve(input_size=(64, 64), producer=producer, names=names)
    assert found.preprocess.mean == PRESETS["imagenet"].mean


@pytest.mark.parametrize(
    "settings",
    [
        ["mean=0.485,0.456,406"],
        ["mean=485,456,406"],
        ["scale=1"],
        ["mean=103.939,116.779,123.68"],
        ["std=0.0001"],
    ],
)
def test_recipes_that_hardly_anybody_means_are_said(settings):
    found = resolve("imagenet", settings)
    assert "check mean, std and scale" in found.warnings[-1]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_known_recipes_raise_no_doubt(preset):
    assert resolve(preset).warnings == ()
    assert not any("check mean" in text for text in resolve(preset, input_channels=1).warnings)


def test_the_range_of_a_recipe():
    black, white = PRESETS["caffe"].span()
    assert black == pytest.approx((-103.939, -116.779, -123.68))
    assert white == pytest.approx((151.061, 138.221, 131.32))


def test_a_free_size_that_the_network_refuses_is_replaced():
    def takes(size):
        return (160, 160) if size == (224, 224) else size

    found = resolve(input_size=(None, None), workable=takes)
    assert found.preprocess.size == (160, 160)
    assert any("160 x 160 is used" in text for text in found.warnings)
    assert resolve(overrides=["size=96"], workable=takes).preprocess.size == (96, 96)
    assert resolve(input_size=(224, 224), workable=takes).preprocess.size == (224, 224)
    oblong = resolve(input_size=(None, None), workable=lambda _: (32, 128)).preprocess
    assert (oblong.size, oblong.resize) == ((32, 128), "squash")


def _embedded(preprocessing, **more):
    return {
        METADATA_KEY: json.dumps({"method": "grad-cam", "preprocessing": preprocessing}),
        **more,
    }


def test_a_file_with_a_heatmap_is_preprocessed_as_the_heatmap_was_made():
    made = resolve("imagenet", input_size=(224, 224))
    found = resolve(
        metadata=_embedded(made.to_dict(), **{"inspector.preprocess": '{"preset": "caffe"}'}),
        input_size=(224, 224),
    )
    assert found.preprocess == made.preprocess
    assert not found.guessed
    assert not found.warnings
    assert found.evidence["mean"] == "written by inspector embed into the file"


def test_a_guess_that_was_embedded_stays_one_and_yields_to_what_is_declared():
    made = resolve(input_size=(224, 224))
    told = _embedded(made.to_dict())
    found = resolve(metadata=told, input_size=(224, 224))
    assert made.guessed
    assert found.guessed
    assert "guess (written by inspector embed" in found.warnings[0]
    declared = told | {"inspector.preprocess": '{"preset": "caffe"}'}
    found = resolve(metadata=declared, input_size=(224, 224))
    assert not found.guessed
    assert found.evidence["mean"] == "metadata inspector.preprocess"


@pytest.mark.parametrize(
    "preprocessing",
    [
        None,
        [],
        {"settings": [1]},
        {"settings": {"nope": 1}, "guessed": False},
        {"settings": {"std": 0}, "guessed": False},
        {"settings": {"mean": [[1]], "size": "large"}, "guessed": False},
        {"settings": {"size": [1e9, 1e9]}, "guessed": False},
        {"settings": {"std": [1, 1, float("nan")]}, "guessed": False},
    ],
)
def test_what_a_stranger_wrote_in_embeds_name_is_put_aside(preprocessing):
    found = resolve(metadata=_embedded(preprocessing))
    assert found.guessed
    assert found.preprocess == resolve().preprocess
    assert any("ignored" in warning for warning in found.warnings)


def test_metadata_of_a_heatmap_that_are_no_json_are_put_aside():
    found = resolve(metadata={METADATA_KEY: "[1, 2"})
    assert found.guessed
    assert any(METADATA_KEY in warning for warning in found.warnings)
