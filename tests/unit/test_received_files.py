"""The received files of ``shared/cases``, where that folder lies beside the project."""

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from field_checks import (
    BYPASS,
    GREEN_SQUARE,
    SQUARE,
    a_hint_works,
    is_a_sequence,
    is_inside,
    is_saturated,
    layer_is,
    no_percent,
    occlusion_is_exact,
    one_meaning,
    open_case,
    peak_of,
    points_at,
    random_photo,
    same_in_company,
    sees_all,
    unread_is_uncoloured,
)

import inspector
from converters.errors import ExplainedError


@pytest.fixture
def opened(tmp_path):
    return partial(open_case, tmp_path)


def _folder():
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "cases" / "maps").is_dir():
            return parent / "shared" / "cases"
    return None


@pytest.fixture
def received():
    """A file of ``shared/cases``."""

    def make(name):
        folder = _folder()
        if folder is None:
            pytest.skip("the received files (shared/cases) are not here")
        return folder / name

    return make


def _read(path):
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


RECEIVED_SQUARES = {
    "tiles-in-batch": (SQUARE, "(?!)"),
    "mirrored-branch": (SQUARE, "mirror|bypass|of the score"),
    "transposed-input": (SQUARE, "(?!)"),
    "ensemble": (SQUARE, BYPASS),
    "crop-in-graph": ((12, 28, 68, 84), "(?!)"),
}


@pytest.mark.parametrize("name", RECEIVED_SQUARES)
def test_received_map(opened, received, name):
    folder = received(f"maps/{name}")
    box, said = RECEIVED_SQUARES[name]
    explainer = opened(folder / "model.onnx")
    found = points_at(explainer, _read(folder / "photo.png"), box, said=said)
    if name == "crop-in-graph":
        unread_is_uncoloured(found)


def test_received_heads(opened, received):
    folder = received("maps/probability-head")
    explainer, photo = opened(folder / "model.onnx"), _read(folder / "photo.png")
    for index, peak, (x, y) in ((0, 0.6670805, (11, 3)), (1, 0.2064727, (13, 6))):
        values = explainer.explain(photo, "grad-cam", target=f"gender[{index}]").attribution
        assert values.max() == pytest.approx(peak, rel=1e-3)
        assert np.unravel_index(int(values.argmax()), values.shape) == (y, x)


def test_received_probabilities(opened, received):
    folder = received("maps/probabilities-shown")
    explainer, photo = opened(folder / "model.onnx"), _read(folder / "photo.png")
    report = explainer.explain(photo, "occlusion:window=16,stride=16", target="1")
    best = report.images[0].predictions[0]
    assert best["probability"] is None or best["probability"] == pytest.approx(1.0)


def test_received_unit(opened, received):
    folder = received("maps/sigmoid-negative")
    labels = folder / "labels.txt"
    explainer = opened(folder / "model.onnx", labels=labels)
    photo = _read(folder / "both.png")
    found = explainer.explain(photo, "grad-cam", target="healthy").explanation
    assert is_inside(peak_of(found), GREEN_SQUARE)
    photo = _read(folder / "negative.png")
    found = explainer.explain(photo, "grad-cam").explanation
    assert is_inside(peak_of(found), (40, 54, 10, 24))


def test_received_training_normalisation(opened, received):
    folder = received("maps/batchnorm-training")
    photos = [_read(folder / f"{name}.png") for name in ("photo", "other1", "other2")]
    model = onnx.ModelProto.FromString((folder / "model.onnx").read_bytes())
    explainer = opened(folder / "model.onnx")
    occlusion_is_exact(explainer, model, photos)
    same_in_company(explainer, model, photos, "cam")
    assert explainer.explain(photos[0], "gradient", target="1").attribution.any()


def test_received_cells(opened, received):
    file = received("models/rows_are_cells.onnx")
    model = onnx.ModelProto.FromString(file.read_bytes())
    for target in ("cells[3]", "cells[3,2]"):
        one_meaning(opened(file), model, target)


def test_received_age(opened, received):
    a_hint_works(opened(received("models/age_rank_one_output.onnx")), random_photo((32, 32)))


@pytest.mark.parametrize(
    ("name", "target", "layer"),
    [
        ("yolov8_dfl_default_layer", "output0[5,27]", "f1r"),
        ("multi_scale_default_layer", "output[20,3]", "r8"),
    ],
)
def test_received_layer(opened, received, name, target, layer):
    layer_is(opened(received(f"models/{name}.onnx")), random_photo(), target, layer)


def test_received_anchors(opened, received):
    no_percent(opened(received("models/anchors_as_classes.onnx")), random_photo())


def test_received_sequence(opened, received):
    is_a_sequence(opened(received("models/ctc_declared_as_one_step.onnx"), preprocess=None))


def test_received_wide_input(opened, received):
    sees_all(opened(received("models/wide_input_cropped.onnx"), preprocess=None))


def test_received_saturated(opened, received):
    explainer = opened(received("models/saturated_softmax_occlusion.onnx"))
    is_saturated(explainer, random_photo((32, 32)))


def test_received_producer(opened, received):
    file = received("models/tf2onnx_channels_first_guess.onnx")
    found = opened(file, preprocess=None).preprocessing.preprocess
    assert found.mean != inspector.Preprocess.preset("imagenet").mean


def test_received_casts(opened, received):
    explainer = opened(received("models/nhwc_tail_with_casts.onnx"))
    found = explainer.explain(random_photo((32, 32)), "grad-cam", target="0").explanation
    assert found.attribution.layer in {"r2", "r2_channels_first"}  # one map, two names


def test_received_uncertified(opened, received):
    explainer = opened(received("models/certificate_none.onnx"))
    with pytest.raises(ExplainedError):
        explainer.explain(random_photo((32, 32)), "grad-cam")
