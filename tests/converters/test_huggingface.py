"""Folders of transformers become files with labels and preprocessing; nothing in them runs."""

import json
import os
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

transformers = pytest.importorskip("transformers", reason="the extra huggingface is not installed")

import torch  # noqa: E402 - behind the skip
from safetensors.torch import load_file, save_file  # noqa: E402 - as above

from converters.conversion import convert, recognise  # noqa: E402 - as above
from converters.errors import ConversionFailed  # noqa: E402 - as above
from converters.source import LABELS, PREPROCESS, Options  # noqa: E402 - as above
from converters.to_onnx import huggingface  # noqa: E402 - as above
from converters.to_onnx.pytorch.module import declare_torchvision  # noqa: E402 - as above

declare_torchvision()  # transformers imports it where it is installed, with operators or without

pytestmark = [pytest.mark.conformance, pytest.mark.usefixtures("forked_children")]

NAMES = ["cat", "dog", "bird", "fish", "ant"]
PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}
LABELLED = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}


def saved(kind, config, folder):
    torch.manual_seed(0)
    network = kind(config).eval()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return network


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """A small ResNet: its folder and itself."""
    folder = tmp_path_factory.mktemp("resnet")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", **LABELLED
    )
    return folder, saved(transformers.ResNetForImageClassification, config, folder)


@pytest.fixture(scope="session")
def vit(tmp_path_factory):
    """A small vision transformer."""
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        **LABELLED,
    )
    return folder, saved(transformers.ViTForImageClassification, config, folder)


@pytest.fixture
def copy(resnet, tmp_path):
    """A copy of the ResNet's folder, to be changed."""
    return shutil.copytree(resnet[0], tmp_path / "copy")


def check(path, network):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
    for n in (1, 3):
        x = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            expected = network(pixel_values=x).logits.numpy()
        (got,) = session.run(["logits"], {"pixel_values": x.numpy()})
        np.testing.assert_allclose(got, expected, atol=1e-5)
    return session.get_modelmeta().custom_metadata_map


def test_a_classifier(resnet, tmp_path):
    folder, network = resnet
    assert recognise(str(folder)).program == ""
    certificate = convert(str(folder), tmp_path / "m.onnx")
    assert certificate.worst < 1e-4
    assert certificate.framework == "Hugging Face transformers"
    assert {"torch", "transformers", "safetensors"} <= set(certificate.versions)
    metadata = check(tmp_path / "m.onnx", network)
    assert json.loads(metadata[LABELS]) == NAMES
    assert json.loads(metadata[PREPROCESS]) == {
        "size": [32, 32],
        "resize": "squash",
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "scale": 255.0,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "channels": "RGB",
        "layout": "NCHW",
    }
    model = onnx.load(tmp_path / "m.onnx")  # noqa: TID251 - this test made the file
    scopes = [p.value for node in model.graph.node for p in node.metadata_props]
    assert any("resnet.encoder.stages.1" in scope for scope in scopes)


def test_a_transformer(vit, tmp_path):
    folder, network = vit
    export = huggingface.convert(str(folder), tmp_path / "m.onnx", Options())
    assert export.labels == tuple(NAMES)
    check(tmp_path / "m.onnx", network)
    model = onnx.load(tmp_path / "m.onnx")  # noqa: TID251 - this test made the file
    assert "Softmax" in {node.op_type for node in model.graph.node}  # attention can be looked at
    x = np.ones((2, 3, 32, 32), np.float32)
    with torch.no_grad():
        expected = network(pixel_values=torch.from_numpy(x)).logits.numpy()
    np.testing.assert_allclose(export.run([x])[0], expected, atol=1e-5)


@pytest.mark.parametrize("weights", ["safetensors", "pickle"])
def test_the_part_that_sees_of_a_model_of_images_and_texts(weights, tmp_path):
    """CLIP: the whole folder, whose text part is left out, gives the vectors of images."""
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "intermediate_size": 9, "vocab_size": 30},
        vision_config={**small, "intermediate_size": 9, "image_size": 32, "patch_size": 16},
        projection_dim=6,
    )
    network = saved(transformers.CLIPModel, config, tmp_path / "clip")
    if weights == "pickle":
        (tmp_path / "clip" / "model.safetensors").unlink()
        torch.save(network.state_dict(), tmp_path / "clip" / "pytorch_model.bin")
    export = huggingface.convert(str(tmp_path / "clip"), tmp_path / "m.onnx", Options())
    assert export.notes[0] == "the part that sees is read: CLIPVisionModelWithProjection"
    assert "text_model." in export.notes[1]
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network.vision_model(pixel_values=x).pooler_output
        expected = network.visual_projection(found).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (got,) = session.run(["image_embeds"], {"pixel_values": x.numpy()})
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_segmenter_brings_the_names_of_its_classes(tmp_path):
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[4, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        **LABELLED,
    )
    saved(transformers.SegformerForSemanticSegmentation, config, tmp_path / "segformer")
    source = str(tmp_path / "segformer")
    assert huggingface.convert(source, tmp_path / "m.onnx", Options()).labels == tuple(NAMES)


def test_missing_and_misshapen_weights_are_refused(copy, tmp_path):
    """transformers would fill them with random numbers and warn."""
    state = load_file(copy / "model.safetensors")
    del state["classifier.1.bias"]
    state["classifier.1.weight"] = torch.zeros(5, 7)
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConversionFailed, match=r"lacks classifier\.1\.bias.*of another shape"):
        huggingface.convert(str(copy), tmp_path / "m.onnx", Options())


def test_weights_that_nobody_uses_are_noted(copy, tmp_path):
    state = load_file(copy / "model.safetensors")
    save_file(
        {**state, "strange": torch.zeros(3)}, copy / "model.safetensors", metadata={"format": "pt"}
    )
    export = huggingface.convert(str(copy), tmp_path / "m.onnx", Options())
    assert "weights that are not used: strange" in export.notes


def test_no_preprocessing_is_noted(copy, tmp_path):
    (copy / "preprocessor_config.json").unlink()
    export = huggingface.convert(str(copy), tmp_path / "m.onnx", Options())
    assert export.preprocess == {}
    assert "preprocessor_config.json" in export.notes[0]
    assert export.inputs[0].shape == (None, 3, 224, 224)


def change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_code_that_comes_along_never_runs(copy, tmp_path):
    marker = tmp_path / "it-ran"
    (copy / "net.py").write_text(f"open({str(marker)!r}, 'w')")
    change(copy, auto_map={"AutoModelForImageClassification": "net.Net"})
    with pytest.raises(ConversionFailed, match="code of its own"):
        convert(str(copy), tmp_path / "m.onnx", trust=True)
    assert not marker.exists()


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def test_pickles_never_run(copy, tmp_path):
    marker = tmp_path / "it-ran"
    (copy / "model.safetensors").unlink()
    torch.save({"w": Payload(marker)}, copy / "pytorch_model.bin")
    with pytest.raises(ConversionFailed, match="holds more than weights"):
        convert(str(copy), tmp_path / "m.onnx", trust=True)
    assert not marker.exists()


@pytest.mark.parametrize("parts", [1, 2])
def test_weights_in_pickles_are_read_as_weights(resnet, copy, tmp_path, parts):
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = [f"pytorch_model-{part}.bin" for part in range(parts)]
    if parts == 1:
        torch.save(state, copy / "pytorch_model.bin")
    else:
        for part, file in enumerate(names):
            torch.save({n: state[n] for n in list(state)[part::parts]}, copy / file)
        index = {"weight_map": {n: names[i % parts] for i, n in enumerate(state)}}
        (copy / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert recognise(str(copy)).title == "Hugging Face transformers"
    export = huggingface.convert(str(copy), tmp_path / "m.onnx", Options())
    assert export.labels == tuple(NAMES)
    x = np.ones((1, 3, 32, 32), np.float32)
    with torch.no_grad():
        expected = resnet[1](pixel_values=torch.from_numpy(x)).logits.numpy()
    np.testing.assert_allclose(export.run([x])[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"architectures": ["NoSuchNetwork"]}, "no architecture 'NoSuchNetwork'"),
        ({"architectures": ["pipeline"]}, "no architecture 'pipeline'"),
        ({"architectures": ["BertModel"]}, "takes input_ids, not an image"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
    ],
)
def test_folders_that_are_no_networks_that_see(copy, entries, message, tmp_path):
    change(copy, **entries)
    with pytest.raises(ConversionFailed, match=message):
        huggingface.convert(str(copy), tmp_path / "m.onnx", Options())


@pytest.mark.parametrize("name", ["../../model.safetensors", "/etc/passwd", "pytorch_model.bin"])
def test_an_index_stays_in_its_folder(copy, name, tmp_path):
    (copy / "model.safetensors").unlink()
    index = {"weight_map": {"classifier.1.bias": name}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConversionFailed, match=r"names a file of weights|not safetensors"):
        huggingface.convert(str(copy), tmp_path / "m.onnx", Options())


def test_folders_of_others_are_left_to_them(tmp_path):
    assert huggingface.recognises(str(tmp_path)) is None
    for text in ("{}", "[]", "not JSON", json.dumps({"architecture": "resnet18"})):
        (tmp_path / "config.json").write_text(text)
        assert huggingface.recognises(str(tmp_path)) is None
