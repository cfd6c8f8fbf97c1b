import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from inspector.errors import UsageError
from inspector.photos import preprocess
from inspector.photos.photo import Photo
from inspector.photos.preprocess_choice import PRESETS, Preprocess

SIZES = ((480, 640), (640, 480), (300, 301), (257, 256), (33, 40), (224, 1000), (35, 35), (7, 90))


def photo(height, width, seed=0, dtype=np.uint8):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    return Photo.of(smooth.astype(dtype))


@pytest.fixture(scope="module")
def vision():
    pytest.importorskip("torch")
    from torchvision_loader import load_torchvision

    return load_torchvision()  # which imports its transforms too


CROPS = [
    (224, 256, "bilinear"),
    (224, 232, "bilinear"),
    (224, 256, "bicubic"),
    (32, 32, "lanczos"),
    (95, 100, "box"),
]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("side", "short", "how"), CROPS)
def test_crop_equals_the_literal_steps(size, side, short, how):
    picture = photo(*size)
    height, width = size
    if width < height:
        scaled = (short, int(short * height / width))
    else:
        scaled = (int(short * width / height), short)
    filters = {"bilinear": 2, "bicubic": 3, "lanczos": 1, "box": 4}
    image = Image.fromarray(picture.rgb8).resize(scaled, filters[how])
    left, top = round((scaled[0] - side) / 2.0), round((scaled[1] - side) / 2.0)
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), np.float64)
    expected = (pixels / 255 - MEAN) / STD
    mine = Preprocess((side, side), crop_pct=side / short, interpolation=how, mean=MEAN, std=STD)
    found, _ = mine.apply(picture)
    np.testing.assert_allclose(found.transpose(1, 2, 0), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("side", "short", "how"), CROPS)
def test_crop_equals_torchvision(vision, size, side, short, how):
    oracle = vision.transforms.Compose(
        [
            vision.transforms.Resize(short, vision.transforms.InterpolationMode(how)),
            vision.transforms.CenterCrop(side),
            vision.transforms.ToTensor(),
            vision.transforms.Normalize(MEAN, STD),
        ]
    )
    picture = photo(*size)
    mine = Preprocess((side, side), crop_pct=side / short, interpolation=how, mean=MEAN, std=STD)
    found, _ = mine.apply(picture)
    expected = oracle(Image.fromarray(picture.rgb8)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


WINDOWS = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


@pytest.mark.parametrize("how", WINDOWS)
@pytest.mark.parametrize(
    ("size", "recipe"),
    [
        ((7, 300), {"size": (32, 32), "crop_pct": 0.9}),
        ((901, 211), {"size": (64, 48)}),
        ((40, 3000), {"size": (16, 16)}),
        ((5, 5), {"size": (64, 64)}),
        (
            (51, 61),
            {"size": (33, 20), "crop_pct": 0.7, "channels": "GRAY", "mean": (0,), "std": (1,)},
        ),
        ((30, 90), {"size": (40, 40), "resize": "letterbox", "channels": "BGR"}),
        ((30, 90), {"size": (40, 40), "resize": "squash", "crop_pct": 0.5}),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [np.uint8, float, "bands"])
def test_window_of_the_scaled_photo_is_that_of_the_whole(monkeypatch, size, recipe, how, kind):
    picture = photo(*size, dtype=np.uint8 if kind == "bands" else kind)
    if kind == "bands":
        recipe = {**recipe, "channels": "3", "mean": (0.0,) * 3, "std": (1.0,) * 3}
        picture = replace(picture, bands=picture.pixels.transpose(2, 0, 1).astype(np.float32))
    mine = Preprocess(**recipe, interpolation=how, scale=1.0)
    whole, place = mine.apply(picture)
    monkeypatch.setattr(preprocess, "_MOST_SCALED", 0)
    part, same = mine.apply(picture)
    assert place == same
    difference = np.abs(whole - part) * np.reshape(mine.std, (-1, 1, 1))
    assert difference.max() <= (1 if kind is np.uint8 else 0.05)


def test_photo_of_one_pixel_by_many_takes_no_more_memory_than_its_input(monkeypatch):
    tall = photo(30_000, 1)
    made, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *a: made.append(size) or resize(self, size, *a)
    )
    found, geometry = Preprocess((224, 224), crop_pct=0.875).apply(tall)
    assert made == [(224, 224)]
    assert found.shape == (3, 224, 224)
    assert geometry.scale == (256.0, 256.0)
    assert geometry.shift == (-(30_000 * 256 - 224) / 2, -16)


@pytest.mark.parametrize("size", SIZES)
def test_squash_equals_torchvision(vision, size):
    picture = photo(*size)
    resized = vision.transforms.Resize((90, 120))(Image.fromarray(picture.rgb8))
    found, _ = Preprocess((90, 120), resize="squash", scale=1.0).apply(picture)
    np.testing.assert_array_equal(found.transpose(1, 2, 0), np.asarray(resized))


def test_efficientnet_lite_recipe(vision):
    picture = photo(375, 500)
    image = Image.fromarray(picture.rgb8)
    image = vision.transforms.CenterCrop(224)(
        vision.transforms.Resize(256, vision.transforms.InterpolationMode.BICUBIC)(image)
    )
    expected = (np.asarray(image, np.float64) - 127) / 128
    recipe = Preprocess(
        crop_pct=0.875, interpolation="bicubic", scale=1.0, mean=(127,) * 3, std=(128,) * 3
    )
    found, _ = recipe.apply(picture)
    np.testing.assert_allclose(found.transpose(1, 2, 0), expected, atol=1e-6)


def test_a_crop_that_is_not_square_covers_the_input():
    found, geometry = Preprocess((100, 200), scale=1.0).apply(photo(300, 300))
    assert found.shape == (3, 100, 200)
    assert geometry.scale == (200 / 300, 200 / 300)
    assert geometry.shift == (-50.0, 0.0)


def test_letterbox_pads_with_its_colour_in_the_models_order():
    white = Photo.of(np.full((50, 100, 3), 255, np.uint8))
    recipe = Preprocess((100, 100), resize="letterbox", pad=(10, 20, 30), scale=1.0, channels="BGR")
    found, geometry = recipe.apply(white)
    assert found[:, 0, 0].tolist() == [30, 20, 10]
    assert found[:, 50, 50].tolist() == [255, 255, 255]
    assert geometry.shift == (25.0, 0.0)


@pytest.mark.parametrize("size", [(50, 101), (51, 100), (55, 50), (64, 33)])
@pytest.mark.parametrize("photo_size", [(32, 33), (33, 32), (31, 31), (17, 40)])
def test_the_odd_pixel_of_a_letterbox_lies_behind_the_photo(size, photo_size):
    """Below or to the right; the photo's own pixels come back from the map exactly."""
    ratio = min(size[0] / photo_size[0], size[1] / photo_size[1])
    if ratio < 1:
        size = (size[0] + 40, size[1] + 41)
    pixels = np.random.default_rng(0).integers(0, 200, (*photo_size, 3), dtype=np.uint8)
    recipe = Preprocess(
        size, resize="letterbox", pad=(255, 254, 253), scale=1.0, interpolation="nearest"
    )
    found, geometry = recipe.apply(Photo.of(pixels))
    inside = (found != np.float32([255, 254, 253])[:, None, None]).all(axis=0)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    for at, side in ((rows, size[0]), (columns, size[1])):
        before, behind = int(at[0]), side - 1 - int(at[-1])
        assert behind - before in (0, 1)
        assert (behind - before) == (side - len(at)) % 2
    assert geometry.shift == (float(rows[0]), float(columns[0]))


@pytest.mark.parametrize("size", [(41, 60), (40, 61), (43, 60), (40, 67)])
def test_a_map_on_an_oddly_padded_letterbox_comes_back_exactly(size):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    found, geometry = Preprocess(size, resize="letterbox", scale=1.0).apply(Photo.of(pixels))
    assert geometry.scale == (1.0, 1.0)
    laid, seen = geometry.lay_back(found[0])
    assert seen.all()
    np.testing.assert_array_equal(laid, pixels[:, :, 0])


def test_deep_pixels_are_not_rounded():
    fine = Photo.of(np.full((20, 30, 3), 100.4))
    found, _ = Preprocess((10, 10), scale=1.0).apply(fine)
    np.testing.assert_allclose(found, 100.4, atol=1e-4)
    same, _ = Preprocess((10, 10), scale=1.0).apply(photo(20, 30, dtype=float))
    eight, _ = Preprocess((10, 10), scale=1.0).apply(photo(20, 30))
    np.testing.assert_allclose(same, eight, atol=1.01)  # eight bits round twice


def test_bgr_and_grey_channels():
    picture = photo(30, 30)
    rgb, _ = Preprocess((30, 30)).apply(picture)
    bgr, _ = Preprocess((30, 30), channels="BGR").apply(picture)
    grey, _ = Preprocess((30, 30), channels="GRAY", mean=(0.0,), std=(1.0,), scale=1.0).apply(
        picture
    )
    np.testing.assert_array_equal(bgr, rgb[::-1])
    assert grey.shape == (1, 30, 30)
    np.testing.assert_array_equal(grey[0], np.asarray(Image.fromarray(picture.rgb8).convert("L")))


@pytest.mark.parametrize("name", PRESETS)
def test_decode_shows_what_the_model_saw(name):
    recipe = Preprocess.preset(name).changed({"size": [30, 40], "crop_pct": 1.0})
    picture = photo(30, 40)
    found, _ = recipe.apply(picture)
    np.testing.assert_array_equal(recipe.decode(found), picture.pixels)


def test_encode_equals_apply_of_a_flat_photo():
    for recipe in (*PRESETS.values(), PRESETS["caffe"].changed({"channels": "GRAY"})):
        flat = Photo.of(np.full((50, 50, 3), (200, 100, 50), np.uint8))
        values = recipe.apply(flat)[0][:, 10, 10]
        tolerance = 0.6 / recipe.scale / min(recipe.std) if recipe.channels == "GRAY" else 1e-6
        np.testing.assert_allclose(recipe.encode((200, 100, 50)), values, atol=tolerance)


def test_the_occluder_is_the_mean_where_one_is_known_else_mid_grey():
    np.testing.assert_allclose(PRESETS["imagenet"].fill(), 0, atol=1e-7)
    np.testing.assert_allclose(PRESETS["caffe"].fill(), 0, atol=1e-5)
    np.testing.assert_allclose(PRESETS["unit"].fill(), 0.5)
    np.testing.assert_allclose(PRESETS["raw"].fill(), 127.5)
    assert "no mean" in PRESETS["raw"].fill_pixel()[1]
    np.testing.assert_allclose(PRESETS["caffe"].fill_pixel()[0], (103.939, 116.779, 123.68))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", [0, 4]),
        ("size", [10]),
        ("size", [10.5, 3]),
        ("size", [10**9, 10]),
        ("resize", "cropp"),
        ("interpolation", "bicubik"),
        ("channels", "RGBA"),
        ("layout", "NCWH"),
        ("crop_pct", 0),
        ("crop_pct", 1.5),
        ("crop_pct", float("nan")),
        ("scale", 0),
        ("scale", "big"),
        ("std", [0, 1, 1]),
        ("mean", [1, 2]),
        ("mean", True),
        ("pad", [300, 0, 0]),
    ],
)
def test_values_that_cannot_be_meant(key, value):
    with pytest.raises(UsageError, match=key):
        Preprocess().changed({key: value})


def test_unknown_names_name_the_nearest():
    with pytest.raises(UsageError, match="imagenet"):
        Preprocess.preset("imagnet")
    with pytest.raises(UsageError, match="crop_pct"):
        Preprocess().changed({"crop_pt": 1})
    with pytest.raises(UsageError, match="bicubic"):
        Preprocess(interpolation="bicubik")


def test_toml_round_trip(tmp_path):
    for recipe in PRESETS.values():
        path = tmp_path / "own.toml"
        path.write_text(recipe.toml(), encoding="utf-8")
        assert Preprocess.from_file(path) == recipe


def test_toml_with_a_preset_and_one_change(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('preset = "caffe"\nsize = 96\n', encoding="utf-8")
    assert Preprocess.from_file(path) == PRESETS["caffe"].changed({"size": [96, 96]})


HUGGING_FACE = {
    "vit": (
        {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "do_normalize": True,
            "size": {"height": 224, "width": 224},
            "resample": 2,
            "rescale_factor": 1 / 255,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
        {
            "size": (224, 224),
            "resize": "squash",
            "crop_pct": 1.0,
            "scale": 255.0,
            "mean": (0.5,) * 3,
            "interpolation": "bilinear",
        },
    ),
    "old vit": (
        {
            "feature_extractor_type": "ViTFeatureExtractor",
            "size": 384,
            "do_normalize": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
        {"size": (384, 384), "resize": "squash"},
    ),
    "convnext": (
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 224},
            "crop_pct": 0.875,
            "resample": 3,
            "do_normalize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
        {"size": (224, 224), "resize": "crop", "crop_pct": 0.875, "interpolation": "bicubic"},
    ),
    "convnext 384": (
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384, "crop_pct": 0.875},
        {"size": (384, 384), "resize": "squash", "crop_pct": 1.0},
    ),
    "mobilenet": (
        {
            "image_processor_type": "MobileNetV2ImageProcessor",
            "size": {"shortest_edge": 256},
            "crop_size": {"height": 224, "width": 224},
            "do_center_crop": True,
            "do_normalize": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
        {"size": (224, 224), "resize": "crop", "crop_pct": 0.875},
    ),
    "mobilevit": (
        {
            "image_processor_type": "MobileViTImageProcessor",
            "size": {"shortest_edge": 288},
            "crop_size": {"height": 256, "width": 256},
            "do_flip_channel_order": True,
        },
        {
            "size": (256, 256),
            "channels": "BGR",
            "mean": (0.0,) * 3,
            "std": (1.0,) * 3,
            "scale": 255.0,
        },
    ),
    "deit": (
        {
            "image_processor_type": "DeiTImageProcessor",
            "size": {"height": 256, "width": 256},
            "crop_size": 224,
            "resample": 3,
        },
        {"size": (224, 224), "resize": "squash", "crop_pct": 0.875},
    ),
    "efficientnet": (
        {
            "image_processor_type": "EfficientNetImageProcessor",
            "size": {"height": 380, "width": 380},
            "do_center_crop": False,
            "crop_size": {"height": 289, "width": 289},
            "resample": 0,
            "do_normalize": True,
            "include_top": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.5, 0.25, 0.5],
        },
        {
            "size": (380, 380),
            "resize": "squash",
            "std": (0.25, 0.0625, 0.25),
            "interpolation": "nearest",
        },
    ),
    "no rescale": (
        {"image_processor_type": "X", "size": 64, "do_rescale": False, "do_normalize": False},
        {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3},
    ),
}


@pytest.mark.parametrize("kind", HUGGING_FACE)
def test_hugging_face_configs(tmp_path, kind):
    config, expected = HUGGING_FACE[kind]
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    found = Preprocess.from_file(path).to_dict()
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value) if key in ("mean", "std", "crop_pct") else value)


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_timm_configs(tmp_path, wrap, mode):
    config = {
        "input_size": [3, 240, 256],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": mode,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"pretrained_cfg": config} if wrap else config), encoding="utf-8")
    found = Preprocess.from_file(path)
    assert found.size == (240, 256)
    assert found.resize == {"center": "crop", "squash": "squash", "border": "letterbox"}[mode]
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert found.crop_pct == 0.95
    assert found.scale == 255.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"x": 1}',
        '{"image_mean": 3, "size": []}',
        '{"size": {}, "do_resize": true}',
        '{"input_size": 3, "mean": 1}',
        '{"image_mean": ["a"], "image_std": [1], "size": 3}',
        '{"do_resize": true, "size": {"shortest_edge": 800, "longest_edge": 1333}}',
        '{"do_resize": true, "size": 10, "resample": 77}',
        "[" * 100_000,
    ],
)
def test_broken_settings_files_are_usage_errors(tmp_path, text):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        Preprocess.from_file(path)
    assert "\n" not in str(caught.value)


def test_broken_toml_and_missing_files(tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes(b"size = [\xff")
    with pytest.raises(UsageError):
        Preprocess.from_file(path)
    path.write_text("sise = 3", encoding="utf-8")
    with pytest.raises(UsageError, match="size"):
        Preprocess.from_file(path)
    with pytest.raises(UsageError, match="cannot be read"):
        Preprocess.from_file(tmp_path / "none.toml")
