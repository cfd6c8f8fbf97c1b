"""``inspector study occlusion`` as a user calls it."""

import csv
import json

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from PIL import Image

pytestmark = pytest.mark.conformance


def saved(path, activation):
    """Save Conv 3x3, an activation, pooling and Softmax on an RGB image of 12x12; two classes."""
    body = (
        f"c = Conv<pads = [1, 1, 1, 1]>(x, w) a = {activation}(c) g = GlobalAveragePool(a) "
        "f = Flatten(g) y = Softmax(f)"
    )
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 12, 12] x) => '
        f"(float[N, 2] y) {{{body}}}"
    )
    weights = np.random.default_rng(6).normal(size=(2, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, path)


def written(folder):
    """Report and table of a run; its figure is a picture that can be read to the end."""
    assert sorted(path.name for path in folder.iterdir()) == [
        "occlusion.csv",
        "occlusion.json",
        "occlusion.png",
    ]
    with Image.open(folder / "occlusion.png") as figure:
        figure.load()
        assert figure.format == "PNG"
        assert figure.width > 1000
        assert len(figure.getcolors(1 << 24)) > 100
    with (folder / "occlusion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads((folder / "occlusion.json").read_text()), rows


def plausible(report, rows):
    """The numbers are of one run: the grids are the table's, and probabilities are some."""
    result = report["result"]
    down, across = (len(result["positions"][axis]) for axis in ("rows", "columns"))
    grids = [photo[key] for photo in result["photos"] for key in ("probability", "label_index")]
    assert all(np.shape(grid) == (down, across) for grid in grids)
    assert len(rows) == down * across * len(result["photos"])
    for photo in result["photos"]:
        mine = [row for row in rows if int(row["place"]) == photo["image"]["place"]]
        for key in ("total_activation", "probability", "label_probability", "label_index"):
            table = [float(row[key]) for row in mine]
            np.testing.assert_allclose(table, np.ravel(photo[key]), rtol=1e-6)
        assert np.all(np.asarray(photo["probability"]) >= 0)
        best = np.asarray(photo["label_probability"])
        assert np.all(np.asarray(photo["probability"]) <= best + 1e-9)
        assert np.all(best <= 1)
        assert sum(label["positions"] for label in photo["labels"]) == down * across
        agreement = photo["correlation_of_projection_and_drop"]
        assert agreement is None or -1 <= agreement <= 1


def test_a_sample_model(inspector, samples, tmp_path):
    photos = [samples / "images" / f"{name}_1.png" for name in ("horse", "ship")]
    done = inspector(
        "study",
        "occlusion",
        samples / "zfnet.onnx",
        *photos,
        "--window",
        "16",
        "--stride",
        "8",
        "-o",
        "out",
    )
    assert done.returncode == 0, done.stderr
    assert "horse_1.png: the probability of 'horse' is 1.000" in done.stdout
    report, rows = written(tmp_path / "out")
    plausible(report, rows)
    assert report["images"] == {"used": 2, "refused": []}
    assert report["result"]["projection"]["refused"] is None
    assert [photo["class"]["label"] for photo in report["result"]["photos"]] == ["horse", "ship"]


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tf2onnx_resnet50thin_nhwc", [1024, 7, 7]),
        ("winml_squeezenet_fp16_opset7", [1000, 13, 13]),
    ],
)
def test_third_party_models(inspector, shared, tmp_path, name, shape):
    done = inspector(
        "study",
        "occlusion",
        shared / "zoo" / f"{name}.onnx",
        shared / "photos" / "cat.jpg",
        "--window",
        "112",
        "--stride",
        "112",
        "--preprocess",
        "caffe",
        "-o",
        "out",
    )
    assert done.returncode == 0, done.stderr
    report, rows = written(tmp_path / "out")
    plausible(report, rows)
    result = report["result"]
    assert result["layer_shape"] == shape
    assert result["positions"] == {key: [[0, 112], [112, 224]] for key in ("rows", "columns")}
    (photo,) = result["photos"]
    assert 0.3 < photo["unoccluded"]["probability"] < 1
    assert np.ptp(photo["probability"]) > 0
    assert result["projection"]["refused"] is None
    assert "0 unknown" in result["projection"]["coverage"]


def test_a_bad_photo(inspector, samples, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    model, photo = samples / "zfnet.onnx", samples / "images" / "cat_1.png"
    coarse = ("--window", "16", "--stride", "16", "-o", "out")
    done = inspector("study", "occlusion", model, "bad.png", photo, *coarse)
    assert done.returncode == 4
    assert "bad.png" in done.stderr
    report, rows = written(tmp_path / "out")
    plausible(report, rows)
    assert report["images"]["used"] == 1
    assert "bad.png" in report["images"]["refused"][0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--window", "33"), "window 33 does not fit an input of 32x32"),
        (("--window", "8", "--stride", "9"), "stride 9 would leave pixels uncovered"),
        (("--fill", "256"), "from 0 to 255, not 256"),
        (("--feature", "999"), "no feature map '999'"),
        (("--target", "unicorn"), "unicorn"),
        (("--projection", "cam"), "no projection 'cam'"),
    ],
)
def test_what_cannot_be_meant(inspector, samples, tmp_path, options, words):
    done = inspector(
        "study",
        "occlusion",
        samples / "zfnet.onnx",
        samples / "images" / "cat_1.png",
        *options,
        "-o",
        "out",
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not [*tmp_path.glob("out/occlusion.*g"), *tmp_path.glob("out/occlusion.*n")]


def test_a_refused_projection_leaves_the_rest(inspector, tmp_path):
    """The deconvnet's rule knows no Softplus: panel c says so, the other four are drawn."""
    saved(tmp_path / "smooth.onnx", "Softplus")
    pixels = np.random.default_rng(7).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    arguments = (
        "study",
        "occlusion",
        "smooth.onnx",
        "photo.png",
        "--window",
        "6",
        "--stride",
        "3",
        "--preprocess",
        "unit",
    )
    done = inspector(*arguments, "-o", "out")
    assert done.returncode == 0, done.stderr
    said = "the deconvnet rule is defined for rectifiers, and this model has 1 Softplus"
    assert "warning: no projection: " in done.stderr
    assert said in done.stderr
    report, rows = written(tmp_path / "out")
    plausible(report, rows)
    assert said in report["result"]["projection"]["refused"]
    assert report["result"]["projection"]["coverage"] == ""
    assert report["result"]["photos"][0]["correlation_of_projection_and_drop"] is None
    assert any(text.startswith("no projection: ") for text in report["warnings"])

    done = inspector(*arguments, "--extension", "signal-first", "-o", "extended")
    assert done.returncode == 0, done.stderr
    extended, again = written(tmp_path / "extended")
    assert extended["result"]["projection"]["refused"] is None
    assert again == rows


def test_a_model_without_probabilities(inspector, shared, tmp_path):
    done = inspector(
        "study",
        "occlusion",
        shared / "zoo" / "yolox_person_detector.onnx",
        shared / "photos" / "cat.jpg",
        "-o",
        "out",
    )
    assert done.returncode == 3
    assert "the model gives no class probabilities" in done.stderr
    assert not (tmp_path / "out" / "occlusion.png").exists()
