"""The study of invariance, against transforms and distances written out."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper

import inspector
from inspector.errors import ImageRefused, MethodRefused, UnknownLayer, UsageError
from inspector.passes.feature_vectors import feature_vector, first_layer, last_hidden, last_map
from inspector.passes.journal import Journal
from inspector.studies.invariance import invariance
from inspector.studies.invariance.transforms import Sweep, parse_sweep, transformed

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PHOTOS = [SAMPLES / "images" / f"{name}_1.png" for name in ("cat", "dog", "horse", "ship")]
RNG = np.random.default_rng(11)
W1, W2, W3 = RNG.normal(size=(4, 3, 3, 3)), RNG.normal(size=(6, 64)), RNG.normal(size=(5, 6))
COLOUR = np.array([0.25, -1.5, 3.0], np.float32)
SHORT = {"translation": "-0.3:0.3:5", "scale": "1:1.5:3", "rotation": "0:270:4"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Conv 3x3, Relu, MaxPool, Gemm, Relu, Gemm, Softmax on an RGB image of 8x8."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Dropout", ["a"], ["d"]),
        helper.make_node("Gemm", ["d", "w3"], ["z"], transB=1),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    weights = ((W1, "w1"), (W2 / 8, "w2"), (W3, "w3"))
    onnx.save(
        onnx_model(
            nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 5]}, {n: np.float32(w) for w, n in weights}
        ),
        path,
    )
    return inspector.load(path, preprocess="unit")


@pytest.fixture
def undrawn(monkeypatch):
    """No figure: it takes longer than the numbers."""
    monkeypatch.setattr(
        "inspector.studies.invariance.figure.invariance_sheet", lambda *_, **__: None
    )


def slow_transform(image, kind, value, colour):
    """Place by place: where a pixel comes from, and its four neighbours there."""
    _, height, width = image.shape
    cy, cx = (height - 1) / 2, (width - 1) / 2
    found = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            if kind == "scale":
                sy, sx = cy + (y - cy) / value, cx + (x - cx) / value
            elif kind == "rotation":  # counter-clockwise, rows counted downwards
                a = math.radians(value)
                up, right = cy - y, x - cx
                sy = cy - (math.cos(a) * up - math.sin(a) * right)
                sx = cx + (math.sin(a) * up + math.cos(a) * right)
            else:
                down = kind == "vertical translation"
                sy, sx = y - value * down, x - value * (not down)
            for row in (math.floor(sy), math.floor(sy) + 1):
                for column in (math.floor(sx), math.floor(sx) + 1):
                    weight = (1 - abs(sy - row)) * (1 - abs(sx - column))
                    inside = 0 <= row < height and 0 <= column < width
                    found[:, y, x] += weight * (image[:, row, column] if inside else colour)
    return found


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("scale", 1.37),
        ("scale", 0.6),
        ("rotation", 25.0),
        ("rotation", 200.5),
        ("rotation", -90.0),
        ("vertical translation", -3.0),
        ("horizontal translation", 4.0),
        ("vertical translation", 30.0),
    ],
)
def test_transforms_equal_the_definition(size, kind, value):
    image = RNG.normal(size=(3, *size)).astype(np.float32)
    found = transformed(image, kind, value, COLOUR)
    np.testing.assert_allclose(found, slow_transform(image, kind, value, COLOUR), atol=1e-5)
    assert found.dtype == image.dtype


def test_what_moves_by_whole_pixels_or_not_at_all_is_exact():
    image = RNG.normal(size=(3, 9, 9)).astype(np.float32)
    still = (
        ("scale", 1.0),
        ("rotation", 0.0),
        ("rotation", 360.0),
        ("vertical translation", 0.0),
        ("horizontal translation", 0.0),
    )
    for kind, value in still:
        np.testing.assert_array_equal(transformed(image, kind, value, COLOUR), image)
    down = transformed(image, "vertical translation", 2.0, COLOUR)
    np.testing.assert_array_equal(down[:, 2:], image[:, :-2])
    np.testing.assert_array_equal(down[:, :2], np.broadcast_to(COLOUR[:, None, None], (3, 2, 9)))
    left = transformed(image, "horizontal translation", -3.0, COLOUR)
    np.testing.assert_array_equal(left[:, :, :-3], image[:, :, 3:])
    np.testing.assert_array_equal(
        transformed(image, "rotation", 90.0, COLOUR), np.rot90(image, 1, (1, 2))
    )


def test_normalising_and_moving_change_places(small):
    """Network values are moved, which is the same as moving pixels and normalising them."""
    del small
    model = inspector.load(SAMPLES / "zfnet.onnx")
    preprocess = model.preprocessing.preprocess
    photo = inspector.load_photo(PHOTOS[0])
    grey = np.asarray(preprocess.fill_pixel()[0], np.float32)
    pixels = photo.pixels.transpose(2, 0, 1).astype(np.float32)
    moved = transformed(pixels, "rotation", 33.0, grey)
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (preprocess.mean, preprocess.std))
    tensor, _ = preprocess.apply(photo)
    found = transformed(tensor, "rotation", 33.0, preprocess.fill())
    np.testing.assert_allclose(found, (moved / preprocess.scale - mean) / std, atol=1e-4)


def slow_features(image):
    """First layer, hidden layer and probabilities of the small network."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    first = np.array(
        [
            [
                [max(0, (w * padded[:, y : y + 3, x : x + 3]).sum()) for x in range(8)]
                for y in range(8)
            ]
            for w in W1.astype(np.float32)
        ]
    )
    pooled = first.reshape(4, 4, 2, 4, 2).max((2, 4)).ravel()
    hidden = np.maximum((W2 / 8).astype(np.float32) @ pooled, 0)
    scores = W3.astype(np.float32) @ hidden
    powers = np.exp(scores - scores.max())
    return first.ravel(), hidden, powers / powers.sum()


@pytest.mark.usefixtures("undrawn")
def test_curves_equal_the_papers_definition(small):
    photos = [RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(2)]
    found = invariance(small, photos, target="3", **SHORT)
    numbers = found.numbers
    assert (numbers["early_layer"]["tensor"], numbers["late_layer"]["tensor"]) == ("r", "d")
    kinds = {one["transform"]: one["values"] for one in numbers["transforms"]}
    assert kinds == {
        "vertical translation": (-2.0, -1.0, 0.0, 1.0, 2.0),
        "scale": (1.0, 1.25, 1.5),
        "rotation": (0.0, 90.0, 180.0, 270.0),
    }
    grey = np.full(3, 0.5, np.float32)
    for photo, entry in zip(photos, numbers["photos"], strict=True):
        image = (photo.transpose(2, 0, 1) / 255).astype(np.float32)
        early, late, before = slow_features(image)
        assert entry["untransformed"]["probability"] == pytest.approx(before[3], rel=1e-5)
        for kind, values in kinds.items():
            curve = entry["curves"][kind]
            for at, value in enumerate(values):
                one, two, known = slow_features(slow_transform(image, kind, value, grey))
                for key, new, old in (("early", one, early), ("late", two, late)):
                    distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(new, old, strict=True)))
                    length = math.sqrt(sum(b**2 for b in old))
                    assert curve[f"euclidean_{key}"][at] == pytest.approx(distance, abs=2e-5)
                    assert curve[f"distance_{key}"][at] == pytest.approx(
                        distance / length, abs=2e-5
                    )
                assert curve["probability"][at] == pytest.approx(known[3], abs=1e-5)
                assert curve["label_index"][at] == known.argmax()
            halved = [
                Sweep(kind, (v,), 8 if "tr" in kind else 0).extent[0]
                for v, p in zip(values, curve["probability"], strict=True)
                if p <= entry["untransformed"]["probability"] / 2
            ]
            assert curve["halved_at"] == (pytest.approx(min(halved)) if halved else None)


@pytest.mark.usefixtures("undrawn")
def test_what_does_not_move_has_no_distance(small):
    photos = [RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8)]
    found = invariance(small, photos, **SHORT)
    (photo,) = found.numbers["photos"]
    for kind, at in (("vertical translation", 2), ("scale", 0), ("rotation", 0)):
        curve = photo["curves"][kind]
        assert curve["distance_early"][at] == curve["distance_late"][at] == 0
        assert curve["probability"][at] == photo["untransformed"]["probability"]
    assert len(found.table) == 12


@pytest.mark.usefixtures("undrawn")
def test_a_photo_with_rotational_symmetry_does_not_change(small):
    quarter = RNG.integers(0, 256, (8, 8, 3)).astype(np.float32)
    whole = np.mean([np.rot90(quarter, k) for k in range(4)], axis=0).astype(np.float32)
    found = invariance(small, [whole], translation="", scale="", rotation="0:315:8")
    curve = found.numbers["photos"][0]["curves"]["rotation"]
    for key in ("distance_early", "distance_late"):
        turned = np.array(curve[key])
        assert turned[::2].max() < 1e-5 < turned[1::2].min()


@pytest.mark.usefixtures("undrawn")
def test_summary(small):
    photos = [RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(3)]
    found = invariance(small, photos, translation="-0.3:0.3:5", scale="", rotation="")
    (one,) = found.numbers["summary"]
    curves = [photo["curves"]["vertical translation"] for photo in found.numbers["photos"]]
    early = np.mean([curve["distance_early"] for curve in curves], axis=0)
    assert one["nearest"]["extent"] == pytest.approx(1 / 8)
    assert one["nearest"]["distance_early"] == pytest.approx(early[[1, 3]].mean())
    assert one["farthest"]["distance_early"] == pytest.approx(early[[0, 4]].mean())
    far = [curve["probability"][at] for curve in curves for at in (0, 4)]
    assert one["farthest"]["probability"] == pytest.approx(np.mean(far))
    assert one["halved"]["extents"] == [curve["halved_at"] for curve in curves]
    away = np.array([2, 1, 0, 1, 2]) / 8
    slope = np.linalg.lstsq(away[:, None], early, rcond=None)[0]
    rest = ((early - away * slope) ** 2).sum()
    assert one["straight_line"]["early"] == pytest.approx(1 - rest / (early**2).sum())
    assert "a shift of 12% of the height moves the features of r by" in found.sentences[0]


def test_extents():
    assert Sweep("rotation", (0, 350, 180, -90, 270)).extent.tolist() == [0, 10, 180, 90, 90]
    assert Sweep("scale", (0.5, 1, 2)).extent.tolist() == [2, 1, 2]
    assert Sweep("vertical translation", (-4, 8), 32).extent.tolist() == [0.125, 0.25]
    found = parse_sweep("vertical translation", "-0.268:0.268:25", (224, 100))
    assert found.values == tuple(range(-60, 61, 5))  # the paper's pixels
    assert parse_sweep("rotation", " ", (8, 8)) is None
    for text in (
        "1",
        "0:1",
        "0:1:2:3",
        "a:b:3",
        "0:1:0",
        "0:2:3",
        "0:1:9999",
        "nan:1:3",
        "0:1:1.5",
    ):
        with pytest.raises(UsageError):
            parse_sweep("horizontal translation", text, (8, 8))


@pytest.mark.usefixtures("undrawn")
def test_a_resumed_run_gives_the_same(small, tmp_path, monkeypatch):
    photos = [RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(3)]
    path = tmp_path / "kept.jsonl"
    journal = Journal(path, "id")
    whole = invariance(small, photos, **SHORT, journal=journal)
    images = []
    run = type(small).forward
    monkeypatch.setattr(type(small), "forward", lambda *a: (images.append(len(a[1])), run(*a))[1])
    invariance(small, photos, **SHORT, journal=journal)
    journal.close()
    known = sum(images)  # the originals, and blank images that measure shapes
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:6]) + lines[6][:20])  # five results, and one that was cut off
    journal = Journal(path, "id")
    assert journal.found == 5
    again = invariance(small, photos, **SHORT, journal=journal)
    journal.close()
    assert json.dumps(again.to_dict()) == json.dumps(whole.to_dict())
    assert sum(images) - 2 * known == 3 + 4 + 2 + 3  # the second's rotation, all of the third


@pytest.mark.usefixtures("undrawn")
def test_layers_are_found_and_named(small, shared):
    assert (first_layer(small).tensor, last_map(small).tensor) == ("r", "r")
    assert last_hidden(small).shape == (6,)
    zfnet = inspector.load(SAMPLES / "zfnet.onnx")
    assert [f(zfnet).tensor for f in (first_layer, last_map, last_hidden)] == [
        "relu",
        "relu_4",
        "relu_6",
    ]
    every = inspector.load(SAMPLES / "all_cnn_c.onnx")  # its classifier is a convolution
    assert last_map(every).tensor == last_hidden(every).tensor == "relu_7"
    assert feature_vector(zfnet, 1).tensor == feature_vector(zfnet, "relu_1").tensor == "relu_1"
    with pytest.raises(UnknownLayer):
        feature_vector(zfnet, "nothing")
    numbered = inspector.load(shared / "zoo" / "winml_cifar10_convnet.onnx")  # tensors "7", "8" ..
    assert first_layer(numbered).tensor == numbered.layers[0].tensor
    assert feature_vector(numbered, "1").tensor == numbered.layers[1].tensor
    hidden = last_hidden(numbered)
    assert hidden.tensor.isdecimal()
    assert feature_vector(numbered, hidden.tensor).tensor == hidden.tensor
    with pytest.raises(UnknownLayer):
        feature_vector(small, "w1")
    found = invariance(
        small,
        [np.zeros((8, 8, 3), np.uint8)],
        early="x",
        late="y",
        rotation="90:90:1",
        scale="",
        translation="",
    )
    assert found.numbers["early_layer"]["shape"] == (3, 8, 8)


@pytest.mark.usefixtures("undrawn")
def test_features_of_zero_are_said(small):
    found = invariance(small, [np.zeros((8, 8, 3), np.uint8)], **SHORT)
    assert any("all features of r, d are 0" in text for text in found.warnings)
    curve = found.numbers["photos"][0]["curves"]["scale"]
    assert curve["distance_early"] == [None] * 3
    json.dumps(found.to_dict(), allow_nan=False)


def test_what_cannot_be_meant(small, shared, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(ImageRefused):
        invariance(small, [bad])
    with pytest.raises(UsageError, match="no photos"):
        invariance(small, [])
    with pytest.raises(UsageError, match="photos"):
        invariance(small, PHOTOS, count=0)
    with pytest.raises(UsageError, match="no transform"):
        invariance(small, PHOTOS, translation="", scale="", rotation="")
    with pytest.raises(UsageError, match=r"^fill is mean"):
        invariance(small, PHOTOS, fill="red")
    with pytest.raises(UsageError, match="targets"):
        invariance(small, PHOTOS, target=("1", "2"))
    with pytest.raises(UsageError, match="no class 9"):
        invariance(small, PHOTOS, target=("9",))
    detector = inspector.load(shared / "zoo" / "fastestdet_detector.onnx")
    with pytest.raises(MethodRefused, match="no class probabilities"):
        invariance(detector, PHOTOS)


@pytest.mark.usefixtures("undrawn")
def test_photos_refused_and_left_out(small, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    found = invariance(small, [bad, *PHOTOS], count=2, **SHORT)
    assert (found.images, len(found.refused), found.numbers["photos_left_out"]) == (2, 1, 2)
    assert [p["image"]["place"] for p in found.numbers["photos"]] == [1, 2]
    found = invariance(small, [*PHOTOS, bad], count=4, **SHORT)
    assert not found.refused  # not opened
    targets = ("top1", "1", "2", "3", "4")
    found = invariance(small, [bad, *PHOTOS], count=9, target=targets, **SHORT)
    assert [p["class"]["index"] for p in found.numbers["photos"]] == [1, 2, 3, 4]


def test_on_a_sample_model(tmp_path):
    model = inspector.load(SAMPLES / "zfnet.onnx")
    found = invariance(model, PHOTOS * 2, count=8, **SHORT, horizontal="0:0.2:2")
    summary = found.numbers["summary"][0]
    assert summary["nearest"]["distance_early"] > 2 * summary["nearest"]["distance_late"]
    names = [path.name for path in found.save(tmp_path)]
    assert names == ["invariance.png", "invariance.csv", "invariance.json"]


@pytest.mark.conformance
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "name",
    [
        "winml_squeezenet_fp16_opset7",
        "tf2onnx_resnet50thin_nhwc",
        "mobilenetv2_qdq_int8_244",
    ],
)
def test_third_party_models(shared, name):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    photos = [shared / "photos" / "cat.jpg"]
    found = invariance(model, photos, translation="0:0.1:2", scale="1:1.2:2", rotation="0:45:2")
    for curve in found.numbers["photos"][0]["curves"].values():
        assert curve["distance_early"][0] == curve["euclidean_late"][0] == 0
        assert 0 < curve["distance_early"][1] < 3
        assert 0 < curve["distance_late"][1] < 3
