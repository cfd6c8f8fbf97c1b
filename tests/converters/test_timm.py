"""Folders of timm become files with labels and preprocessing; nothing in them runs."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from converters.conversion import convert, recognise
from converters.errors import ConversionFailed
from converters.source import LABELS, PREPROCESS, Options
from converters.to_onnx import huggingface
from converters.to_onnx import timm as timm_converter
from converters.to_onnx.pytorch.module import declare_torchvision

declare_torchvision()
timm = pytest.importorskip("timm", reason="the extra timm is not installed")

from safetensors.torch import load_file, save_file  # noqa: E402 - behind the skip

pytestmark = [pytest.mark.conformance, pytest.mark.usefixtures("forked_children")]

NAMES = ["cat", "dog", "bird", "fish", "ant"]
ARGUMENTS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 12, 16], "num_classes": 5}
CONFIG = {
    "architecture": "resnet18",
    "num_classes": 5,
    "label_names": NAMES,
    "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 12, 16]},
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "crop_pct": 0.9,
        "crop_mode": "center",
        "interpolation": "bicubic",
    },
}


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """A small ResNet: its folder and itself."""
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False, **ARGUMENTS).eval()
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder, network


@pytest.fixture
def copy(resnet, tmp_path):
    """A copy of the folder, to be changed."""
    return shutil.copytree(resnet[0], tmp_path / "copy")


def change(folder, **entries):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **entries}))


def test_a_classifier(resnet, tmp_path):
    folder, network = resnet
    assert recognise(str(folder)).title == "timm"
    assert recognise(str(folder)).program == ""
    assert huggingface.recognises(str(folder)) is None
    certificate = convert(str(folder), tmp_path / "m.onnx")
    assert certificate.worst < 1e-4
    assert {"torch", "timm", "safetensors"} <= set(certificate.versions)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
    for n in (1, 3):
        x = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            expected = network(x).numpy()
        (got,) = session.run(["logits"], {"input": x.numpy()})
        np.testing.assert_allclose(got, expected, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata[LABELS]) == NAMES
    assert json.loads(metadata[PREPROCESS]) == {
        "size": [32, 32],
        "resize": "crop",
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "scale": 255.0,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "channels": "RGB",
        "layout": "NCHW",
    }
    model = onnx.load(tmp_path / "m.onnx")  # noqa: TID251 - this test made the file
    scopes = [p.value for node in model.graph.node for p in node.metadata_props]
    assert any("layer1.0" in scope for scope in scopes)


def test_settings_at_the_top_of_the_file(copy, tmp_path):
    """As timm wrote them once."""
    flat = {k: v for k, v in CONFIG.items() if k != "pretrained_cfg"} | CONFIG["pretrained_cfg"]
    (copy / "config.json").write_text(json.dumps(flat))
    export = timm_converter.convert(str(copy), tmp_path / "m.onnx", Options())
    assert export.inputs[0].shape == (None, 3, 32, 32)
    assert export.preprocess["std"] == [0.2, 0.3, 0.4]
    assert export.labels == tuple(NAMES)


def test_weights_of_another_model_are_named(copy, tmp_path):
    state = load_file(copy / "model.safetensors")
    del state["fc.bias"]
    state |= {"strange": torch.zeros(1), "fc.weight": torch.zeros(5, 3)}
    save_file(state, copy / "model.safetensors")
    with pytest.raises(ConversionFailed) as caught:
        timm_converter.convert(str(copy), tmp_path / "m.onnx", Options())
    assert "lacks fc.bias" in caught.value.what
    assert "strange" in caught.value.what
    assert "fc.weight is 5x3 instead of 5x16" in caught.value.what


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"architecture": "no_such_net"}, "no architecture 'no_such_net'"),
        ({"architecture": "hf-hub:someone/resnet18"}, "no architecture"),
        ({"architecture": "local-dir:/tmp"}, "no architecture"),
        ({"model_args": {"checkpoint_path": "evil.pth"}}, "where else to look for weights"),
        ({"model_args": {"pretrained_cfg": {"file": "evil.pth"}}}, "where else to look"),
        ({"model_args": {"no_such_argument": 1}}, "with the arguments of config.json"),
        ({"label_names": ["one"]}, "names 1 classes and computes 5 scores"),
    ],
)
def test_folders_that_do_not_fit(copy, entries, message, tmp_path):
    change(copy, **entries)
    with pytest.raises(ConversionFailed, match=message):
        timm_converter.convert(str(copy), tmp_path / "m.onnx", Options())


def test_weights_in_a_pickle_are_read_as_weights(resnet, copy, tmp_path):
    (copy / "model.safetensors").unlink()
    torch.save(resnet[1].state_dict(), copy / "pytorch_model.bin")
    assert recognise(str(copy)).title == "timm"
    export = timm_converter.convert(str(copy), tmp_path / "m.onnx", Options())
    x = np.ones((1, 3, 32, 32), np.float32)
    np.testing.assert_allclose(
        export.run([x])[0], resnet[1](torch.from_numpy(x)).detach().numpy(), atol=1e-6
    )


def test_a_pickle_that_is_more_than_weights_is_refused(copy, tmp_path):
    (copy / "model.safetensors").unlink()
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), copy / "pytorch_model.bin")
    with pytest.raises(ConversionFailed, match="holds a whole module") as caught:
        timm_converter.convert(str(copy), tmp_path / "m.onnx", Options())
    assert "weights_only=False" in caught.value.hint


def test_a_folder_without_weights_says_which_it_looked_for(copy):
    (copy / "model.safetensors").unlink()
    (copy / "tf_model.h5").write_bytes(b"")
    with pytest.raises(ConversionFailed, match=r"no model\.safetensors, and tf_model\.h5 is of"):
        recognise(str(copy))


def test_a_folder_that_transformers_wrote(resnet, copy, tmp_path):
    """TimmWrapper...: weights below a prefix, and names that are mere numbers."""
    state = resnet[1].state_dict()
    save_file({f"timm_model.{n}": t for n, t in state.items()}, copy / "model.safetensors")
    change(
        copy,
        architectures=["TimmWrapperForImageClassification"],
        model_type="timm_wrapper",
        label_names=[f"LABEL_{i}" for i in range(5)],
    )
    found = recognise(str(copy))
    assert found.title == "timm"
    export = timm_converter.convert(str(copy), tmp_path / "m.onnx", Options())
    assert export.labels == ()
    assert any("'timm_model.'" in note for note in export.notes)


def test_names_of_imagenet_are_known_by_their_number():
    names = timm_converter._labels({"num_classes": 1000}, {})
    assert len(names) == 1000
    assert names[281].startswith("tabby")
    assert timm_converter._labels({"num_classes": 7}, {}) == ()
    described = {"label_names": ["n1", "n2"], "label_descriptions": {"n1": "cat", "n2": "dog"}}
    assert timm_converter._labels({"num_classes": 2}, described) == ("cat", "dog")


def test_weights_that_are_no_safetensors(copy, tmp_path):
    (copy / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ConversionFailed, match="not a safetensors file"):
        timm_converter.convert(str(copy), tmp_path / "m.onnx", Options())
