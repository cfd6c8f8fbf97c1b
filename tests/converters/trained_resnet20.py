"""The sample ResNet-20, come from another framework: the same network gives the same pictures."""

from pathlib import Path

import numpy as np

import inspector

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PHOTOS = sorted((SAMPLES / "images").glob("*.png"))[:6]
SETTINGS = {
    "size": [32, 32],
    "resize": "squash",
    "mean": [0.4914, 0.4822, 0.4465],
    "std": [0.2470, 0.2435, 0.2616],
}
TOLERANCE = 1e-3
"""Of a map's peak."""


def assert_same_pictures(path, layout):
    """Hold the maps of a converted file to those of the file that PyTorch wrote."""
    reference = inspector.load(SAMPLES / "resnet20.onnx")
    other = inspector.load(path)
    assert other.input.layout == layout
    for photo in PHOTOS:
        one, two = (
            model.explain(photo, ["grad-cam", "guided-backprop", "cam"]).images[0]
            for model in (reference, other)
        )
        assert one.predictions[0]["index"] == two.predictions[0]["index"]
        for a, b in zip(one.explanations, two.explanations, strict=True):
            expected, got = a.attribution.values, b.attribution.values
            peak = max(float(np.abs(expected).max()), 1e-6)
            assert np.abs(expected - got).max() <= TOLERANCE * peak, (path, photo.name, a.label)
