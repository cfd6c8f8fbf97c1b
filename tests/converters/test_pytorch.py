"""PyTorch's four forms to ONNX, for real, each in a process of its own."""

import pickle
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import inspector
from converters.conversion import convert, recognise
from converters.errors import ConversionFailed, NotTrusted
from converters.source import Options

HERE = Path(__file__).parent
SHAPE = Options(inputs=((None, 3, 16, 16),))


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """The network with weights that no default gives, and a folder with all its forms."""
    folder = tmp_path_factory.mktemp("torch")
    shutil.copy(HERE / "torch_networks.py", folder / "torch_networks.py")
    sys.path.insert(0, str(HERE))
    try:
        from torch_networks import Net
    finally:
        sys.path.remove(str(HERE))
    torch.manual_seed(3)
    net = Net().eval()
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.randn_like(value)).abs_() if value.ndim == 1 else None
    torch.save(net.state_dict(), folder / "net.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}},
               folder / "wrapped.pt")  # fmt: skip
    image = torch.zeros(2, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch")
        free = torch.export.export(net, (image,), dynamic_shapes=({0: batch},))
        torch.export.save(free, folder / "free.pt2")
        torch.export.save(torch.export.export(net, (image,)), folder / "fixed.pt2")
        torch.jit.save(torch.jit.trace(net, image), folder / "script.pt")
    return net, folder


def held_against(certificate, net, batch=3):
    """The file's outputs on fresh inputs, beside the module's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(certificate.path, providers=["CPUExecutionProvider"])
    image = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(9))
    (got,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    expected = net(image).detach().numpy()
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()
    return session


def test_exported_program(network, tmp_path):
    net, folder = network
    assert recognise(str(folder / "free.pt2")).program == ""  # data
    certificate = convert(str(folder / "free.pt2"), tmp_path / "m.onnx")
    session = held_against(certificate, net)
    assert session.get_inputs()[0].shape == ["batch", 3, 16, 16]
    assert certificate.worst <= 1e-4


def test_exported_program_of_a_fixed_batch(network, tmp_path):
    net, folder = network
    certificate = convert(str(folder / "fixed.pt2"), tmp_path / "m.onnx")
    held_against(certificate, net, batch=2)
    assert any("batch is fixed at 2" in note for note in certificate.notes)


def test_factory_with_weights(network, tmp_path, monkeypatch):
    net, folder = network
    monkeypatch.chdir(folder)
    for weights in ("net.pth", "wrapped.pt"):
        options = Options(inputs=SHAPE.inputs, weights=str(folder / weights))
        with pytest.raises(NotTrusted, match="a function that makes a model runs"):
            convert("torch_networks:net", tmp_path / "m.onnx", options=options)
        certificate = convert("torch_networks:net", tmp_path / "m.onnx", options=options,
                              trust=True)  # fmt: skip
        session = held_against(certificate, net)
        assert session.get_inputs()[0].shape == ["batch", 3, 16, 16]


def test_layers_keep_the_path_of_their_module(network, tmp_path, monkeypatch):
    _, folder = network
    monkeypatch.chdir(folder)
    convert("torch_networks:net", tmp_path / "m.onnx", options=SHAPE, trust=True)
    model = inspector.load(tmp_path / "m.onnx", preprocess="unit")
    modules = [layer.module for layer in model.layers]
    assert "stem.2" in modules
    assert "blocks.1" in modules
    assert model.layer_for("blocks.0")[0].module == "blocks.0"
    photo = np.zeros((16, 16, 3), np.uint8)
    assert model.explain(photo, "grad-cam", layer="blocks.0").images[0].explanations


def test_wrong_weights_are_named(network, tmp_path, monkeypatch):
    net, folder = network
    monkeypatch.chdir(folder)
    state = dict(net.state_dict())
    state["fc.weight"] = torch.zeros(7, 8)
    state["more"] = state.pop("fc.bias")
    torch.save(state, tmp_path / "bad.pth")
    options = Options(inputs=SHAPE.inputs, weights=str(tmp_path / "bad.pth"))
    with pytest.raises(ConversionFailed) as caught:
        convert("torch_networks:net", tmp_path / "m.onnx", options=options, trust=True)
    for name in ("fc.weight", "fc.bias", "more"):
        assert name in str(caught.value)


def test_torchscript(network, tmp_path):
    net, folder = network
    with pytest.raises(NotTrusted, match="TorchScript is a program"):
        convert(str(folder / "script.pt"), tmp_path / "m.onnx", options=SHAPE)
    certificate = convert(str(folder / "script.pt"), tmp_path / "m.onnx", options=SHAPE, trust=True)
    held_against(certificate, net)


def test_a_module_in_memory(network):
    net, _ = network
    model = inspector.load(net, torch.zeros(1, 3, 16, 16), preprocess="unit")
    assert model.path.name == "Net.onnx"
    assert model.layers[-1].module == "blocks.1"
    report = model.explain(np.full((16, 16, 3), 90, np.uint8), ["cam", "grad-cam"])
    assert len(report.images[0].explanations) == 2
    with pytest.raises(inspector.errors.UsageError, match="example"):
        inspector.load(net)


class Payload:
    """Runs when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_nothing_is_unpickled(network, tmp_path, monkeypatch):
    _, folder = network
    monkeypatch.chdir(folder)
    marker = tmp_path / "ran"
    whole, weights = tmp_path / "whole.pt", tmp_path / "weights.pth"
    torch.save(Payload(marker), whole)
    torch.save({"fc.weight": Payload(marker)}, weights)
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    for path in (whole, tmp_path / "old.pth"):
        with pytest.raises(ConversionFailed, match="name --weights"):
            convert(str(path), tmp_path / "m.onnx", trust=True)
    for path in (weights, tmp_path / "old.pth"):
        options = Options(inputs=SHAPE.inputs, weights=str(path))
        with pytest.raises(ConversionFailed, match="holds more than weights"):
            convert("torch_networks:net", tmp_path / "m.onnx", options=options, trust=True)
    assert not marker.exists()


def test_records_are_held_to_their_size(network, tmp_path):
    """A record that says 10 bytes and unpacks to 300 MiB."""
    _, folder = network
    bomb = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(folder / "free.pt2") as source, zipfile.ZipFile(bomb, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        stem = source.namelist()[0].partition("/")[0]
        target.writestr(f"{stem}/extra", bytes(300 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(ConversionFailed, match="distrust this file"):
        convert(str(bomb), tmp_path / "m.onnx")
    outside = tmp_path / "outside.pt2"
    shutil.copy(folder / "free.pt2", outside)
    with zipfile.ZipFile(outside, "a") as target:
        target.writestr("../../evil", b"x")
    with pytest.raises(ConversionFailed, match="distrust this file"):
        convert(str(outside), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
