"""The study of units' strongest activations, against the definitions written out."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper

import inspector
from inspector.errors import ImageRefused, UnknownLayer, UsageError
from inspector.passes.ranking import strongest
from inspector.studies import parse_units
from inspector.studies.top_activations import top_activations

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PHOTOS = sorted((SAMPLES / "images").glob("*.png"))[:7]
RNG = np.random.default_rng(5)
W1, W2 = RNG.normal(size=(3, 3, 3, 3)), RNG.normal(size=(4, 3, 3, 3))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Conv 3x3, Relu, MaxPool 2x2, Conv 3x3, Relu on an RGB image of 8x8."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w2"], ["c2"], **pads),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    onnx.save(
        onnx_model(
            nodes,
            {"x": ["n", 3, 8, 8]},
            {"y": ["n", 4]},
            {n: np.float32(w) for w, n in ((W1, "w1"), (W2, "w2"))},
        ),
        path,
    )
    return inspector.load(path, preprocess="unit")


def convolve(image, weights):
    """3x3, padded by 1, place by place."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    _, height, width = image.shape
    return np.array(
        [
            [
                [(one * padded[:, y : y + 3, x : x + 3]).sum() for x in range(width)]
                for y in range(height)
            ]
            for one in weights
        ]
    )


def spread(signal, weights):
    """The transposed convolution: each place adds its filter, times the signal."""
    count, height, width = signal.shape
    found = np.zeros((weights.shape[1], height + 2, width + 2))
    for k in range(count):
        for y in range(height):
            for x in range(width):
                found[:, y : y + 3, x : x + 3] += signal[k, y, x] * weights[k]
    return found[:, 1:-1, 1:-1]


def slow_projection(image, unit, rule):
    """The strongest activation of a unit of the second layer, and its way down to the pixels."""
    first = convolve(image, W1.astype(np.float32))
    lit = np.maximum(first, 0)
    pooled = lit.reshape(3, 4, 2, 4, 2).max((2, 4))
    second = np.maximum(convolve(pooled, W2.astype(np.float32)), 0)
    y, x = np.unravel_index(second[unit].argmax(), second[unit].shape)
    kept = np.zeros_like(second)
    kept[unit, y, x] = second[unit, y, x]
    down = spread(kept, W2.astype(np.float32))
    unpooled = np.zeros_like(lit)
    for c in range(3):
        for i in range(4):
            for j in range(4):
                window = lit[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                dy, dx = np.unravel_index(window.argmax(), (2, 2))
                unpooled[c, 2 * i + dy, 2 * j + dx] = down[c, i, j]
    signal = np.maximum(unpooled, 0)
    if rule == "guided-backprop":
        signal *= first > 0
    return spread(signal, W1.astype(np.float32)), second[unit, y, x], (y, x)


@pytest.mark.parametrize("rule", ["deconvnet", "guided-backprop"])
def test_projections_equal_the_papers_steps(small, rule):
    photos = [RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(3)]
    found = top_activations(small, photos, layer="r2", units="0-3", count=3, projection=rule)
    seen = 0
    for entry in found.numbers["units"]:
        for winner in entry["winners"]:
            image = photos[winner["image"]["place"]].transpose(2, 0, 1) / 255
            slow, value, place = slow_projection(image, entry["unit"], rule)
            box = winner["patch"]
            inside = slice(box["top"], box["bottom"]), slice(box["left"], box["right"])
            assert winner["activation"] == pytest.approx(value, rel=1e-5)
            assert (winner["at"]["y"], winner["at"]["x"]) == place
            crop = slow[:, inside[0], inside[1]]
            assert winner["largest_in_projection"] == pytest.approx(np.abs(crop).max(), rel=1e-4)
            outside = slow.copy()
            outside[:, inside[0], inside[1]] = 0
            assert not outside.any()  # nothing leaves the receptive field
            seen += 1
    assert seen >= 8


def test_every_pixel_of_projections_and_patches(small, monkeypatch):
    photos = [RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(2)]
    kept = {}
    monkeypatch.setattr(
        "inspector.studies.top_activations.figure.activation_sheet",
        lambda rows, **_: kept.update(rows=rows),
    )
    found = top_activations(small, photos, layer="r2", units="1,3", count=2)
    found.draw()
    for row, entry in zip(kept["rows"], found.numbers["units"], strict=True):
        for patch, signal, winner in zip(
            row.patches, row.projections, entry["winners"], strict=True
        ):
            photo = photos[winner["image"]["place"]]
            slow, _, _ = slow_projection(photo.transpose(2, 0, 1) / 255, entry["unit"], "deconvnet")
            box = winner["patch"]
            inside = slice(box["top"], box["bottom"]), slice(box["left"], box["right"])
            np.testing.assert_array_equal(patch, photo[inside])
            crop = slow[:, inside[0], inside[1]]
            np.testing.assert_allclose(signal, crop, atol=1e-4 * np.abs(crop).max())


def test_winners_equal_a_full_sort():
    model = inspector.load(SAMPLES / "zfnet.onnx")
    tensor = model.layers[2].tensor
    winners, used = strongest(model, tensor, iter(PHOTOS), (0, 7, 30), count=3, refused=[])
    assert used == len(PHOTOS)
    for unit, found in winners.items():
        every = []
        for place, path in enumerate(PHOTOS):
            tensors, _ = model.preprocessing.preprocess.apply(inspector.load_photo(path))
            values = model.forward(tensors[None], [tensor])[tensor][0, unit]
            y, x = np.unravel_index(values.argmax(), values.shape)
            every.append((-float(values[y, x]), place, int(y), int(x)))
        expected = [e for e in sorted(every) if e[0] < 0][:3]
        assert [(w.place, w.y, w.x) for w in found] == [e[1:] for e in expected]
        np.testing.assert_allclose([w.value for w in found], [-e[0] for e in expected], rtol=1e-5)


def test_equal_photos_keep_their_order(small):
    photo = RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    winners, _ = strongest(small, "r2", [photo] * 5, (0, 1, 2, 3), count=2, refused=[])
    assert all([w.place for w in found] == [0, 1] for found in winners.values() if found)
    assert any(winners.values())


def test_inactive_units_are_said(small, tmp_path):
    found = top_activations(small, [np.zeros((8, 8, 3), np.uint8)], layer="r2")
    assert found.sentences[1] == "never active: unit(s) 0, 1, 2, 3"
    assert [path.name for path in found.save(tmp_path)] == [
        "top-activations.png",
        "top-activations.json",
    ]


def test_units():
    assert parse_units("", 3) == (0, 1, 2)
    assert parse_units("", 64) == tuple(range(8))
    assert parse_units("5, 0-2,1", 6) == (5, 0, 1, 2)
    for text in ("6", "3-2", "a", "1-", "-1", "1,,2"):
        with pytest.raises(UsageError):
            parse_units(text, 6)


def test_what_cannot_be_meant(small, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(ImageRefused):
        top_activations(small, [bad])
    with pytest.raises(UsageError, match="no photos"):
        top_activations(small, [])
    with pytest.raises(UsageError, match="no projection"):
        top_activations(small, PHOTOS, projection="cam")
    with pytest.raises(UsageError, match="photos a unit"):
        top_activations(small, PHOTOS, count=0)
    with pytest.raises(UnknownLayer):
        top_activations(small, PHOTOS, layer=9)
    found = top_activations(small, [PHOTOS[0], bad, PHOTOS[1]], layer="r2", units="0-3")
    assert (found.images, len(found.refused)) == (2, 1)
    places = {w["image"]["place"] for u in found.numbers["units"] for w in u["winners"]}
    assert places <= {0, 2}


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("winml_squeezenet_fp16_opset7", 2),
        ("tf2onnx_resnet50thin_nhwc", 3),
        ("mobilenetv2_qdq_int8_244", 1),
    ],
)
def test_third_party_models(shared, tmp_path, name, layer):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    photos = [shared / "photos" / "cat.jpg", shared / "photos" / "horses.jpg"]
    found = top_activations(model, photos, layer=layer, units="0-2", count=2)
    rows = [winner for unit in found.numbers["units"] for winner in unit["winners"]]
    assert rows
    assert all(winner["largest_in_projection"] > 0 for winner in rows)
    size = found.numbers["receptive_field"]["size"]
    for winner in rows:
        box = winner["patch"]
        assert 0 < box["bottom"] - box["top"] <= size[0]
        assert 0 < box["right"] - box["left"] <= size[1]
    found.save(tmp_path)
    assert json.loads((tmp_path / "top-activations.json").read_text())["images"]["used"] == 2
