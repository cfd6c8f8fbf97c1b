"""Studies on networks that give no classes: each works, or refuses before a photo is computed."""

import json
import warnings

import numpy as np
import pytest
from detectors import exported
from PIL import Image

import inspector
from inspector.errors import InspectorWarning, MethodRefused
from inspector.model import Model
from inspector.photos.dataset import LabelledPhoto
from inspector.studies import Findings, studies

LAYER_STUDIES = {
    "filters": {},
    "layers": {},
    "reconstruction": {},
    "top-activations": {},
    "transfer": {"folds": 2, "cost": 0.01},
    "correspondence": {"parts": "parts.json"},
}
"""What is asked of a layer, with options that these photos need."""

ITEM_STUDIES = {
    "faithfulness": {"method": ("grad-cam",), "count": 1, "steps": 3, "subsets": 3},
    "sanity": {"method": ("hires-cam",), "count": 1, "stages": 1},
}
"""What is asked of maps, whatever they are of: of the most certain box."""

CLASS_STUDIES = {
    "invariance": {},
    "localisation": {"boxes": "boxes.csv"},
    "occlusion": {},
    "pooling": {},
    "units": {},
}
"""What is asked of classes."""

OTHER_FILES = {"evolution"}
"""Of several snapshots of one network, layer by layer."""

QUICK = {"layers", "top-activations"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    exported("columns", folder / "detector.onnx")
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / name)
    rows = [f"{name},{i % 3},4,4,40,40" for i, name in enumerate(names)]
    (folder / "boxes.csv").write_text("\n".join(["image,label,x0,y0,x1,y1", *rows]))
    parts = {part: [8 * k, 8, 8 * k + 8, 24] for k, part in enumerate("abc")}
    marked = [{"image": name, "parts": parts} for name in names]
    (folder / "parts.json").write_text(json.dumps({"photos": marked}))
    return folder, names


def found(scene, name, options):
    folder, names = scene
    study = studies()[name]
    model = inspector.load(
        folder / "detector.onnx",
        device="cpu",
        preprocess="unit",
        overrides=["resize=squash"],
        labels=["red", "green", "blue"],
        unverified=True,
    )
    assert model.reading().task == "detector"
    photos = [folder / one for one in names]
    if study.labelled:
        photos = [LabelledPhoto(one, str(i % 3)) for i, one in enumerate(photos)]
    files = {k: folder / v if isinstance(v, str) else v for k, v in options.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InspectorWarning)
        return study.function(model, photos, **files)


def test_every_study_is_one_of_these():
    assert set(studies()) == {*LAYER_STUDIES, *ITEM_STUDIES, *CLASS_STUDIES, *OTHER_FILES}


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.conformance)
        for name in (*LAYER_STUDIES, *ITEM_STUDIES)
    ],
)
def test_a_study_of_layers_or_maps_takes_a_detector(scene, name):
    result = found(scene, name, {**LAYER_STUDIES, **ITEM_STUDIES}[name])
    assert isinstance(result, Findings)
    assert result.sentences


@pytest.mark.parametrize("name", CLASS_STUDIES)
def test_a_study_of_classes_refuses_a_detector_before_it_computes(scene, name, monkeypatch):
    passes = []
    forward = Model.forward
    monkeypatch.setattr(Model, "forward", lambda *a, **k: passes.append(a) or forward(*a, **k))
    with pytest.raises(MethodRefused, match="class"):
        found(scene, name, CLASS_STUDIES[name])
    assert len(passes) <= 1  # the probe image, by which the task is recognised
