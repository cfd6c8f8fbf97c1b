"""Every method on every sample model: the numbers of a photo, and the report's document.

What a formula should give is held by the oracles of ``tests/unit``; these hold that a change of
the code that should not change a number does not.
"""

from pathlib import Path

import numpy as np
import pytest
from oracles import convolutional

import inspector
from inspector.network.classifier.head import LinearHead
from inspector.verify.certificate import Verdict

SAMPLES = Path(__file__).parents[2] / "sample_models"
MODELS = sorted(path.stem for path in SAMPLES.glob("*.onnx"))
PHOTO = SAMPLES / "images" / "cat_1.png"
REQUESTS = {
    "occlusion": "occlusion:window=8,stride=4",
    "integrated-gradients": "integrated-gradients:steps=4",
    "smooth-grad": "smooth-grad:samples=3",
    "rise": "rise:masks=40",
    "score-cam": "score-cam:channels=12",
    "ablation-cam": "ablation-cam:channels=12",
}
BLOCK = 4


def coarse(values):
    """A map as it is kept: (h, w) of a layer as it is, (C, H, W) of the input in blocks.

    Returns:
        (2, C, H / 4, W / 4): the blocks' means, and the means of their magnitudes.
    """
    if values.ndim == 2:
        return values
    channels, height, width = values.shape
    blocks = values.reshape(channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return np.stack([blocks.mean(axis=(2, 4)), np.abs(blocks).mean(axis=(2, 4))])


@pytest.mark.parametrize("name", MODELS)
def test_the_maps_of_a_sample_model(golden_arrays, name, monkeypatch):
    verdict = Verdict(True, "not of interest here", "now")
    monkeypatch.setattr("inspector.opened.verdict_for", lambda *_, **__: verdict)
    model = inspector.load(SAMPLES / f"{name}.onnx", device="cpu")
    wanted = [
        name for name in convolutional() if name != "cam" or isinstance(model.head, LinearHead)
    ]
    report = model.explain(PHOTO, [REQUESTS.get(method, method) for method in wanted])
    maps = [explanation.attribution for explanation in report.explanations]
    assert [attribution.method for attribution in maps] == wanted
    found = {attribution.method: coarse(attribution.values) for attribution in maps}
    golden_arrays(found, f"maps/{name}")


def test_the_archives_are_those_of_the_sample_models():
    assert sorted(path.stem for path in (Path(__file__).parent / "maps").iterdir()) == MODELS


def test_the_document_of_a_report(golden_document):
    model = inspector.load(SAMPLES / "resnet20.onnx", device="cpu")
    requests = ["cam", "grad-cam", "guided-backprop", "occlusion:window=8,stride=4"]
    document = model.explain(PHOTO, requests, target="top2").images[0].to_dict()
    versions = document.pop("versions")
    assert {"python", "onnx", "torch", "numpy"} <= set(versions)
    # What rounding alone decides, and differs from processor to processor.
    document["certificate"].pop("text")
    for result in document["results"]:
        for fact in ("cam_residual", "score_difference"):
            assert 0 <= result["facts"].pop(fact, 0.0) < 1e-5
    golden_document(document, "report")
