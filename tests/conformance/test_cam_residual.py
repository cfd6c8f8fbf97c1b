"""CAM accounts for the logit: mean of the map plus bias, on trained networks and real photos."""

import numpy as np
import onnx
import pytest
from references import SAMPLES, widened

from inspector.explain import load
from inspector.network.classifier.head import LinearHead

pytestmark = pytest.mark.conformance

TOLERANCE = 1e-4
"""Of the logits' scale, the largest magnitude among them."""


def residual(model, photo):
    """What ``explain`` states, and the same identity computed here from the map itself."""
    report = model.explain(photo, "cam")
    explanation = report.explanation
    attribution = explanation.attribution
    head = model.head
    assert isinstance(head, LinearHead)
    logit = attribution.values.astype(np.float64).mean() + head.bias[attribution.index]
    images = model.preprocessing.preprocess.apply(report.images[0].photo)[0][None]
    logits = model.forward(images, [model.scores.tensor])[model.scores.tensor].ravel()
    assert attribution.score == pytest.approx(logits[attribution.index], rel=1e-6)
    own = abs(logit - attribution.score) / np.abs(logits).max()
    return explanation.facts["cam_residual"], own


@pytest.mark.parametrize("name", ["resnet20", "all_cnn_c"])
def test_sample_models(name):
    model = load(SAMPLES / f"{name}.onnx", device="cpu")
    for photo in ("cat_1", "ship_2"):
        stated, own = residual(model, SAMPLES / "images" / f"{photo}.png")
        assert stated < TOLERANCE
        assert own < TOLERANCE


def test_efficientnet_lite0(lite0):
    model = load(lite0.path, device="cpu")
    stated, own = residual(model, lite0.path.parent / "cat.png")
    assert stated < TOLERANCE
    assert own < TOLERANCE


def test_nhwc_resnet50thin(shared):
    model = load(shared / "zoo" / "tf2onnx_resnet50thin_nhwc.onnx", device="cpu")
    for photo in ("cat.jpg", "horses.jpg"):
        stated, own = residual(model, shared / "photos" / photo)
        assert stated < TOLERANCE
        assert own < TOLERANCE


def test_squeezenet(shared):
    """The Custom Vision and WinML files are SqueezeNets too, in float32."""
    model = load(shared / "zoo" / "mltools_squeezenet_zipmap.onnx", device="cpu")
    for photo in ("cat.jpg", "both.png"):
        stated, own = residual(model, shared / "photos" / photo)
        assert stated < TOLERANCE
        assert own < TOLERANCE


def test_squeezenet_in_float16_reaches_the_precision_of_float16(shared):
    """The file computes in float16 (11 bits): 2.5e-4 was measured, and the report says so."""
    path = shared / "zoo" / "winml_squeezenet_fp16_opset7.onnx"
    model = load(path, device="cpu", preprocess="caffe")
    for photo in ("cat.jpg", "both.png"):
        stated, own = residual(model, shared / "photos" / photo)
        assert stated < 1e-3
        assert own < 1e-3
        if stated > TOLERANCE:
            explanation = model.explain(shared / "photos" / photo, "cam").explanation
            assert any("float16" in warning for warning in explanation.warnings)


def test_squeezenet_widened_to_float32(shared, tmp_path):
    """The same weights computed in float32: the identity holds to the last digits."""
    proto = widened(onnx.load_model(shared / "zoo" / "winml_squeezenet_fp16_opset7.onnx"))
    path = tmp_path / "squeezenet_float32.onnx"
    onnx.save_model(proto, path)
    model = load(path, device="cpu", preprocess="caffe")
    for photo in ("cat.jpg", "both.png"):
        stated, own = residual(model, shared / "photos" / photo)
        assert stated < TOLERANCE
        assert own < TOLERANCE
