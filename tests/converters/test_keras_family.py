"""Keras, SavedModel and TFLite to ONNX, for real: the trained ResNet-20 in every form."""

import importlib.util
import json

import numpy as np
import pytest
from frameworks_apart import run_script
from trained_resnet20 import PHOTOS, SAMPLES, SETTINGS, assert_same_pictures

import inspector
from converters.conversion import convert, recognise
from converters.errors import ConversionFailed, NotTrusted

MISSING = [name for name in ("tensorflow", "tf2onnx") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.converters,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

LABELS = (SAMPLES / "labels.txt").read_text().split()


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """All forms of the network, built by Keras in a process of its own."""
    folder = tmp_path_factory.mktemp("keras")
    run_script(
        "keras_networks.py", SAMPLES / "resnet20.onnx", SAMPLES / "cifar10_sample.npz", folder
    )
    return folder


@pytest.fixture(scope="session")
def converted(sources, tmp_path_factory):
    """Certificates by source; each conversion in its own child process."""
    folder, found = tmp_path_factory.mktemp("onnx"), {}
    for name in (
        "resnet20.keras",
        "resnet20.h5",
        "saved",
        "resnet20.tflite",
        "resnet20_int8.tflite",
    ):
        found[name] = convert(
            str(sources / name),
            folder / f"{name}.onnx",
            trust=name == "saved",
            labels=LABELS,
            preprocess=SETTINGS,
        )
    return found


def test_differences_are_small(converted):
    for name, certificate in converted.items():
        assert certificate.worst <= (0.05 if "int8" in name else 1e-4), (name, certificate)
        assert certificate.top1 == 1.0, name
        assert {t.samples for t in certificate.trials} == {1, 3, 4}  # the batch is free
        assert certificate.quantised == ("int8" in name)
        assert len(certificate.source_sha256) == 64
        assert ("ai-edge-litert" if ".tflite" in name else "tf2onnx") in certificate.versions


def test_the_file_says_where_it_comes_from(converted):
    certificate = converted["resnet20.keras"]
    model = inspector.load(certificate.path)
    assert model.input.layout == "NHWC"
    assert model.class_labels.names == tuple(LABELS)
    assert model.preprocessing.preprocess.mean == (0.4914, 0.4822, 0.4465)
    recorded = json.loads(model.file.metadata["inspector.conversion"])
    assert recorded["source"]["name"] == "resnet20.keras"
    beside = certificate.path.with_name(certificate.path.name + ".certificate.json")
    assert json.loads(beside.read_text()) == recorded
    assert recorded == json.loads(json.dumps(certificate.to_dict()))


def test_pictures_do_not_depend_on_the_framework(converted):
    """PyTorch (NCHW), Keras and TFLite (NHWC): one network, one Grad-CAM."""
    for name in ("resnet20.keras", "resnet20.h5", "saved", "resnet20.tflite"):
        assert_same_pictures(converted[name].path, "NHWC")


def test_an_int8_network_names_the_same_classes(converted):
    reference = inspector.load(SAMPLES / "resnet20.onnx")
    other = inspector.load(converted["resnet20_int8.tflite"].path)
    with np.load(SAMPLES / "cifar10_sample.npz") as stored:
        pixels = stored["x"][:100]
    same = []
    for image in pixels:
        tensor = reference.preprocessing.preprocess.apply(inspector.Photo.of(image))[0][None]
        best = [
            int(np.argmax(model.forward(tensor, [model.scores.tensor])[model.scores.tensor]))
            for model in (reference, other)
        ]
        same.append(best[0] == best[1])
    assert np.mean(same) >= 0.97
    found = other.explain(PHOTOS[0], "grad-cam").images[0].explanations[0].attribution.values
    assert found.max() > 0


def test_programs_are_refused_by_name(sources, tmp_path):
    for name in ("program.keras", "program.h5"):
        with pytest.raises(ConversionFailed, match=r"twice \(Lambda\)"):
            convert(str(sources / name), tmp_path / "m.onnx", trust=True)
    with pytest.raises(NotTrusted, match="can read and write files"):
        convert(str(sources / "saved"), tmp_path / "m.onnx")
    with pytest.raises(ConversionFailed, match="no model that Keras could build"):
        convert(str(sources / "only.weights.h5"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_broken_files_are_refused(sources, tmp_path):
    for name in ("resnet20.keras", "resnet20.h5", "resnet20.tflite"):
        data = (sources / name).read_bytes()
        broken = tmp_path / name
        broken.write_bytes(data[: len(data) // 2])
        with pytest.raises(ConversionFailed):
            convert(str(broken), tmp_path / "m.onnx", trust=True)
        broken.unlink()
    assert not list(tmp_path.iterdir())


def test_sources_are_recognised(sources):
    known = {
        name: recognise(str(sources / name))
        for name in (
            "resnet20.keras",
            "resnet20.h5",
            "saved",
            "saved/saved_model.pb",
            "resnet20.tflite",
        )
    }
    titles = {name: found.title if found else None for name, found in known.items()}
    assert titles == {
        "resnet20.keras": "Keras",
        "resnet20.h5": "Keras",
        "saved": "TensorFlow SavedModel",
        "saved/saved_model.pb": "TensorFlow SavedModel",
        "resnet20.tflite": "TFLite",
    }
    assert recognise(str(SAMPLES / "resnet20.onnx")) is None


def test_explain_opens_a_source_and_keeps_what_it_became(sources, tmp_path, monkeypatch):
    monkeypatch.setenv("INSPECTOR_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "net.keras"
    source.write_bytes((sources / "resnet20.keras").read_bytes())
    model = inspector.load(source, preprocess=inspector.Preprocess(size=(32, 32)))
    assert model.path.name == "net.onnx"
    kept = list((tmp_path / "cache" / "converted").rglob("*.onnx"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    again = inspector.load(source, preprocess=inspector.Preprocess(size=(32, 32)))
    assert kept[0].stat().st_mtime_ns == before
    assert again.file.sha256 == model.file.sha256
