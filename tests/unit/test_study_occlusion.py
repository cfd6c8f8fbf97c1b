"""The study of the grey square, against a loop over its places."""

import json
from pathlib import Path

import numpy as np
import pytest

import inspector
import inspector.studies.occlusion.figure
from inspector.errors import ConverterError, ImageRefused, MethodRefused
from inspector.evidence import local_forward
from inspector.network.receptive_fields import local_stages
from inspector.passes.journal import Journal
from inspector.photos.occluder import windows
from inspector.projection.projector import Projector
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
                top,
                left,
                bottom,
                right,
            )
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


@pytest.fixture
def drawn(monkeypatch):
    """Rows and remarks of each figure."""
    kept, draw = [], inspector.studies.occlusion.figure.occlusion_sheet

    def sheet(rows, **remarks):
        kept.append((rows, remarks))
        return draw(rows, **remarks)

    monkeypatch.setattr(inspector.studies.occlusion.figure, "occlusion_sheet", sheet)
    return kept


def changes_nothing(found, rows):
    """Every position has the values of the unoccluded photo, in the numbers and in the panels."""
    for entry, row in zip(found.numbers["photos"], rows, strict=True):
        before = entry["unoccluded"]
        for values, value in (
            (entry["total_activation"], before["total"]),
            (row.totals, before["total"]),
            (entry["probability"], before["probability"]),
            (row.probabilities, before["probability"]),
            (entry["score"], before["score"]),
            (entry["label_probability"], before["label_probability"]),
        ):
            np.testing.assert_allclose(values, value, rtol=1e-5)
        assert np.unique(entry["label_index"]).tolist() == [before["label"]]
        assert np.unique(row.labels).tolist() == [before["label"]]
        assert (row.total, row.probability) == (before["total"], before["probability"])


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_square_in_the_photos_one_colour_changes_nothing(model, drawn, level):
    photo = np.full((32, 32, 3), level, np.uint8)
    found = occlusion(model, [photo], **COARSE, fill=str(level))
    found.draw()
    ((rows, _),) = drawn
    changes_nothing(found, rows)
    assert "changes at 0 of 9 positions" in found.sentences[-1]
    np.testing.assert_allclose(rows[0].picture, level, atol=1e-3)


def test_a_square_with_the_photos_own_pixels_changes_nothing(model, drawn, monkeypatch):
    monkeypatch.setattr(
        local_forward, "patched", lambda image, boxes, _: np.repeat(image[None], len(boxes), 0)
    )
    found = occlusion(model, PHOTOS, **COARSE)
    found.draw()
    ((rows, _),) = drawn
    changes_nothing(found, rows)


def test_a_square_changes_nothing_where_it_hides_its_own_colour(model):
    photo = np.random.default_rng(8).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    photo[:, :16] = 90
    found = occlusion(model, [photo], window=8, stride=8, fill="90")
    (entry,) = found.numbers["photos"]
    assert np.shape(entry["score"]) == (4, 4)
    changed = np.abs(np.subtract(entry["score"], entry["unoccluded"]["score"]))
    assert changed[:, :2].max() < 1e-5
    assert changed[:, 2:].min() > 1e-5


@pytest.mark.parametrize("error", [MethodRefused, ConverterError])
@pytest.mark.parametrize("after", [0, 1])
def test_a_refused_projection_is_said_in_its_panel(model, drawn, monkeypatch, error, after):
    """Refused on the first photo or on a later one: the other panels stay, none is tried again."""
    project, calls, messages = Projector.__call__, [], []

    def refuse(self, images, units):
        calls.append(units)
        if len(calls) > after:
            raise error("not for this network")
        return project(self, images, units)

    def box(panel, message, size):
        messages.append(message)
        return panel

    monkeypatch.setattr(Projector, "__call__", refuse)
    monkeypatch.setattr(inspector.studies.occlusion.figure, "message_box", box)
    found = occlusion(model, [*PHOTOS, PHOTOS[0]], **COARSE)
    found.draw()
    ((rows, remarks),) = drawn
    assert len(calls) == after + 1
    assert [row.signal is None for row in rows] == [place >= after for place in range(3)]
    assert messages == ["no projection: not for this network"] * (3 - after)
    assert remarks["why"] == found.numbers["projection"]["refused"] == "not for this network"
    assert found.numbers["projection"]["coverage"] == ""
    assert "no projection: not for this network" in found.warnings
    agreements = [one["correlation_of_projection_and_drop"] for one in found.numbers["photos"]]
    assert [one is None for one in agreements] == [place >= after for place in range(3)]
    assert np.ptp([row["probability"] for row in found.table]) > 0


def test_an_unverified_twin_leaves_the_rest(model, monkeypatch):
    """Without a certificate there is no projection; what needs forward passes alone is done."""

    def fails(methods):
        raise MethodRefused("the twin differs from ONNX Runtime")

    monkeypatch.setattr(model, "require_certificate", fails)
    found = occlusion(model, PHOTOS[:1], **COARSE)
    assert found.numbers["projection"]["refused"] == "the twin differs from ONNX Runtime"
    assert len(found.table) == 9


@pytest.mark.conformance
@pytest.mark.parametrize("name", ["winml_squeezenet_fp16_opset7", "mobilenetv2_qdq_int8_244"])
def test_third_party_models(shared, name):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    found = occlusion(model, [shared / "photos" / "cat.jpg"], window=112, stride=112)
    assert found.table
    assert all(0 <= row["probability"] <= 1 for row in found.table)


def test_squares_on_crops_give_the_same_numbers(model, monkeypatch):
    for name in ("PER_SESSION", "PER_WEIGHT", "PER_NODE", "COPIED"):
        monkeypatch.setattr(local_stages, name, 0)
    local = []
    how = {"window": 4, "stride": 3}
    right = local_forward.LocalForward.__call__
    monkeypatch.setattr(
        local_forward.LocalForward,
        "__call__",
        lambda self, *given: [local.append(self.local), right(self, *given)][1],
    )
    (found,) = occlusion(model, PHOTOS[:1], **how).numbers["photos"]
    assert all(local)
    monkeypatch.setattr(local_forward, "FEWEST", 10_000)
    (wanted,) = occlusion(model, PHOTOS[:1], **how).numbers["photos"]
    for key in ("total_activation", "score", "probability"):
        scale = np.abs(wanted[key]).max()
        np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=1e-5 * scale)
    assert found["label_index"] == wanted["label_index"]
