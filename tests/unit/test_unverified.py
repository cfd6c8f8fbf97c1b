"""A twin that is not the model: gradient methods are refused, or labelled when asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inspector
from converters.to_torch.optable import OPS, OpTable
from inspector.engines.twin import TwinEngine
from inspector.errors import MethodRefused

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.fixture
def broken():
    """ZFNet whose twin takes Relu for a leaky one."""

    def open_(engine="twin", **options):
        explainer = inspector.load(
            SAMPLES / "resnet20.onnx", device="cpu", engine=engine, **options
        )
        table = OpTable(OPS)
        table.register("Relu")(_leaky)
        explainer.model.twin_engine = TwinEngine(explainer.graph, table=table)
        return explainer

    return open_


def _leaky(X: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.leaky_relu(X, 0.1)


@pytest.fixture
def photo():
    return np.asarray(Image.open(SAMPLES / "images" / "cat_1.png"))


def test_gradient_methods_are_refused(broken, photo):
    with pytest.raises(MethodRefused, match="the twin fails"):
        broken().explain(photo, ["grad-cam"])
    report = broken().explain(photo, ["cam", "grad-cam"])
    assert [one.label for one in report.explanations] == ["cam"]
    (refusal,) = report.images[0].refused
    assert refusal.method == "grad-cam"
    assert "the twin fails" in str(refusal.error)


def test_methods_without_gradients_do_not_ask(broken, photo):
    report = broken().explain(photo, ["cam"])
    assert report.to_dict()["images"][0]["certificate"] is None


def test_unverified_maps_are_labelled(broken, photo):
    report = broken(unverified=True).explain(photo, ["cam", "grad-cam"])
    cam, grad_cam = report.explanations
    assert any(text.startswith("unverified:") for text in grad_cam.warnings)
    assert not any(text.startswith("unverified:") for text in cam.warnings)
    assert report.to_dict()["images"][0]["certificate"]["passed"] is False


def test_maps_of_the_twin_are_labelled_beside_those_of_a_sound_gradient_graph(broken, photo):
    found = broken("auto", unverified=True).explain(photo, ["grad-cam", "lrp-epsilon-plus"])
    labelled = {
        one.label: any(text.startswith("unverified:") for text in one.warnings)
        for one in found.explanations
    }
    assert labelled == {"grad-cam": False, "lrp-epsilon-plus": True}


def test_a_sound_twin_passes_and_the_report_says_so(photo):
    report = inspector.load(SAMPLES / "resnet20.onnx").explain(photo, ["grad-cam"])
    verdict = report.to_dict()["images"][0]["certificate"]
    assert verdict["passed"] is True
    assert "agrees with ONNX Runtime" in verdict["text"]
