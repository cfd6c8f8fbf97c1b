"""Methods that run a part of the network, or stop early: what they spare changes no number."""

import numpy as np
import pytest
from networks import HEIGHT, WIDTH, Net

import inspector
from inspector.evidence import Evidence
from inspector.methods import ablation_cam
from inspector.photos.preprocess import Preprocess

PHOTO = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def model(tmp_path):
    import onnx

    onnx.save(Net(3).proto(), tmp_path / "net.onnx")
    how = Preprocess(size=(HEIGHT, WIDTH), scale=255.0)
    return inspector.load(tmp_path / "net.onnx", device="cpu", preprocess=how)


def explained(model, request):
    return model.explain(PHOTO, request, target="1")


@pytest.mark.parametrize("channels", [0, 2])
def test_ablation_before_a_linear_head_runs_nothing_again(model, monkeypatch, channels):
    features = model.head.features
    request = f"ablation-cam:channels={channels}"
    with monkeypatch.context() as patched:
        patched.setattr(ablation_cam, "_by_head", lambda *_: None)
        wanted = model.explain(PHOTO, request, target="1", layer=features).attribution
    monkeypatch.setattr(Evidence, "drops_at_layer", None)
    found = model.explain(PHOTO, request, target="1", layer=features).attribution
    assert wanted.any()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_ablation_of_a_sum_of_classes_by_the_head(model, monkeypatch):
    features = model.head.features
    with monkeypatch.context() as patched:
        patched.setattr(ablation_cam, "_by_head", lambda *_: None)
        wanted = model.explain(
            PHOTO, "ablation-cam", target="sum(1; -2)", layer=features
        ).attribution
    found = model.explain(PHOTO, "ablation-cam", target="sum(1; -2)", layer=features).attribution
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_rise_stops_when_the_error_is_small(model):
    every = explained(model, "rise:masks=600,error=0")
    facts = every.explanation.facts["rise"]
    errors = dict(facts["error_after_masks"])
    assert list(errors) == [128, 256, 512, 600]
    assert facts["masks"] == 600
    enough = errors[256]
    assert enough < errors[128]
    early = explained(model, f"rise:masks=600,error={enough}")
    assert early.explanation.facts["rise"]["masks"] == 256
    of_256 = explained(model, "rise:masks=256,error=0").attribution
    np.testing.assert_array_equal(early.attribution, of_256)
    np.testing.assert_array_equal(
        early.attribution, explained(model, f"rise:masks=600,error={enough}").attribution
    )


@pytest.mark.parametrize("error", ["-0.1", "1"])
def test_an_error_out_of_range_is_refused(model, error):
    with pytest.raises(inspector.errors.UsageError, match="error"):
        explained(model, f"rise:error={error}")
