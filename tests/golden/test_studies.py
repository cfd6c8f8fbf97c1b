"""The figure of every study, as a thumbnail.

A thumbnail shows what a figure is made of and where: pictures, curves, colours, blocks of text.
Numbers and words are held where they are made.
"""

from pathlib import Path

import pytest
from PIL import Image

import inspector
from inspector.photos.dataset import LabelledPhoto
from inspector.studies import studies
from inspector.verify.certificate import Verdict

SAMPLES = Path(__file__).parents[2] / "sample_models"
IMAGES = SAMPLES / "images"
PHOTOS = [IMAGES / f"{name}.png" for name in ("cat_1", "ship_2", "horse_1", "truck_1")]
LABELLED = [LabelledPhoto(p, p.stem.partition("_")[0]) for p in sorted(IMAGES.glob("[ch]*.png"))]
SNAPSHOTS = (str(SAMPLES / "zfnet_snapshots" / "zfnet_epoch_001.onnx"),)
SIDE = 220  # pixels of a thumbnail

# Model, photos and options: as few of everything as still fill the figure.
CASES = {
    "correspondence": ("zfnet", [], {"parts": str(IMAGES / "parts.json"), "draws": 9}),
    "evolution": (
        "zfnet",
        PHOTOS,
        {"snapshots": SNAPSHOTS, "layers": "relu_4", "units": "0,3", "count": 2, "shown": 2},
    ),
    "faithfulness": (
        "resnet20",
        PHOTOS,
        {"method": ("cam", "gradient"), "steps": 2, "subsets": 3, "grid": 2, "mosaics": 1},
    ),
    "filters": ("zfnet", [], {"second_units": 4}),
    "invariance": (
        "zfnet",
        PHOTOS[:2],
        {"translation": "-0.25:0.25:3", "scale": "1:1.5:3", "rotation": "0:270:4"},
    ),
    "layers": ("zfnet", PHOTOS, {"most": 3, "units": 2}),
    "localisation": (
        "resnet20",
        [],
        {"boxes": str(IMAGES / "boxes.csv"), "resamples": 20, "examples": 2, "method": ("cam",)},
    ),
    "occlusion": ("zfnet", PHOTOS[:1], {"window": 16, "stride": 8}),
    "pooling": (
        "base_c",
        LABELLED,
        {"against": (str(SAMPLES / "strided_cnn_c.onnx"),), "reconstructed": 1},
    ),
    "reconstruction": ("base_c", PHOTOS[:1], {"most": 2}),
    "sanity": ("resnet20", PHOTOS[:1], {"method": ("gradient", "cam"), "stages": 2}),
    "top-activations": ("zfnet", PHOTOS, {"units": "0,3", "count": 2}),
    "transfer": ("zfnet", LABELLED, {"folds": 2, "cost": 0.01}),
    "units": ("resnet20", PHOTOS, {"count": 2, "photos": 2}),
}


@pytest.fixture(autouse=True)
def certified(monkeypatch):
    """Nobody's twin is in question here, and a certificate takes longer than a figure."""
    verdict = Verdict(True, "not of interest here", "now")
    monkeypatch.setattr("inspector.opened.verdict_for", lambda *_, **__: verdict)


def test_every_study_has_a_figure_here():
    assert sorted(CASES) == sorted(studies())


@pytest.mark.parametrize("name", CASES)
def test_the_figure_of_a_study(golden, name):
    model, photos, options = CASES[name]
    opened = inspector.load(SAMPLES / f"{model}.onnx", device="cpu")
    figure = studies()[name].function(opened, photos, **options).figure
    factor = SIDE / max(figure.size)
    size = (round(figure.width * factor), round(figure.height * factor))
    golden(figure.resize(size, Image.Resampling.BOX), f"studies/{name}")
