"""The study of the grey square, against a loop over its places."""

import json
from pathlib import Path

import numpy as np
import pytest

import inspector
from inspector.errors import ImageRefused
from inspector.journal import Journal
from inspector.methods.occlusion import windows
from inspector.studies.occlusion import occlusion

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PHOTOS = [SAMPLES / "images" / f"{name}_1.png" for name in ("horse", "ship")]
COARSE = {"window": 16, "stride": 8}


@pytest.fixture(scope="module")
def model():
    return inspector.load(SAMPLES / "zfnet.onnx")


def test_every_position_equals_a_run_of_its_own(model):
    found = occlusion(model, PHOTOS, **COARSE)
    layer = found.numbers["layer"]
    boxes = list(windows(32, 32, 16, 8))
    preprocess = model.preprocessing.preprocess
    rows = iter(found.table)
    for path, entry in zip(PHOTOS, found.numbers["photos"], strict=True):
        image = preprocess.apply(inspector.load_photo(path))[0]
        whole = model.forward(image[None], [layer])[layer][0]
        unit = int(whole.sum((1, 2)).argmax())
        assert (
            entry["feature_map"]["unit"] == unit
            if isinstance(entry["feature_map"], dict)
            else (entry["feature_map"] == unit)
        )
        index = None
        for top, left, bottom, right in boxes:
            hidden = image.copy()
            hidden[:, top:bottom, left:right] = preprocess.fill()[:, None, None]
            values = model.forward(hidden[None], [layer, model.scores.tensor])
            scores = values[model.scores.tensor][0].astype(np.float64)
            chances = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            row = next(rows)
            assert (row["top"], row["left"], row["bottom"], row["right"]) == (
                top, left, bottom, right,
            )  # fmt: skip
            assert row["total_activation"] == pytest.approx(values[layer][0, unit].sum(), rel=1e-4)
            assert row["label_index"] == int(scores.argmax())
            if index is None:
                plain = model.forward(image[None], [model.scores.tensor])[model.scores.tensor][0]
                index = int(plain.argmax())
            assert row["probability"] == pytest.approx(chances[index], rel=1e-4, abs=1e-6)
    assert next(rows, None) is None


def test_a_resumed_run_is_the_run_in_one_go(model, tmp_path):
    first = Journal(tmp_path / "j", "run")
    whole = occlusion(model, PHOTOS, **COARSE, journal=first)
    first.close()
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(lines[:-1]))
    second = Journal(tmp_path / "j", "run")
    assert second.found
    again = occlusion(model, PHOTOS, **COARSE, journal=second)
    second.close()
    assert again.numbers == whole.numbers
    assert again.table == whole.table


def test_a_bad_photo_is_counted(model, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    found = occlusion(model, [bad, PHOTOS[0]], **COARSE)
    assert (found.images, len(found.refused)) == (1, 1)
    with pytest.raises(ImageRefused):
        occlusion(model, [bad], **COARSE)
    found.save(tmp_path)
    assert json.loads((tmp_path / "occlusion.json").read_text())["study"] == "occlusion"


@pytest.mark.parametrize("name", ["winml_squeezenet_fp16_opset7", "mobilenetv2_qdq_int8_244"])
def test_third_party_models(shared, name):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    found = occlusion(model, [shared / "photos" / "cat.jpg"], window=112, stride=112)
    assert found.table
    assert all(0 <= row["probability"] <= 1 for row in found.table)
