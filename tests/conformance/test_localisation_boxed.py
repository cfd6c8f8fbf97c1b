"""Localisation of ImageNet models on all boxed photos: what must hold if maps and boxes fit."""

import pytest

import inspector
from inspector.studies.localisation import localisation

pytestmark = pytest.mark.conformance


def check(model, shared, least):
    """Maps point at the objects far more often than the middle does, and boxes overlap better."""
    boxes = shared / "photos" / "boxed" / "boxes.csv"
    found = localisation(model, boxes=boxes, method=("cam", "grad-cam"), examples=0)
    assert found.images == 40
    assert not found.refused
    cam, grad_cam = found.numbers["methods"]
    for one in (cam, grad_cam):
        assert one["better_than_centre"]["pointing"]["low"] > 0
        assert one["pointing"]["value"] >= least
        assert one["max_box_acc"]["value"] > found.numbers["centre"]["max_box_acc"]["value"]
        assert one["empty_maps"] == 0
    # A linear head behind a mean: both are the same map but for its negative part.
    assert abs(cam["max_box_acc"]["value"] - grad_cam["max_box_acc"]["value"]) <= 0.05


@pytest.mark.filterwarnings("ignore:.*the network sees:inspector.errors.InspectorWarning")
@pytest.mark.filterwarnings("ignore:.*more photos have warnings:inspector.errors.InspectorWarning")
@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("winml_squeezenet_fp16_opset7", {"preprocess": "caffe"}, 0.65),
        ("mobilenetv2_qdq_int8_244", {"preprocess": "imagenet"}, 0.75),
    ],
)
def test_zoo(shared, name, options, least):
    check(inspector.load(shared / "zoo" / f"{name}.onnx", **options), shared, least)


@pytest.mark.filterwarnings("ignore:.*the network sees:inspector.errors.InspectorWarning")
@pytest.mark.filterwarnings("ignore:.*more photos have warnings:inspector.errors.InspectorWarning")
def test_efficientnet_lite0(lite0, shared):
    check(inspector.load(lite0.path), shared, 0.75)
