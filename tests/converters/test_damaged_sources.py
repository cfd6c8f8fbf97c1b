"""Cut, flipped, incomplete and lying sources through the real command.

Whatever a framework makes of them, the command ends soon, with the status of a refused model and
one line that names the file and what to do.
"""

import importlib.util
import json
import random
import shutil
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from frameworks_apart import run_script

from converters.to_onnx.pytorch.module import declare_torchvision

pytestmark = pytest.mark.converters


def lacks(*names):
    """A skip where packages are missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


TENSORFLOW = lacks("tensorflow", "tf2onnx", "keras", "h5py")


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A sound .keras, .h5 and SavedModel of one network."""
    folder = tmp_path_factory.mktemp("sound")
    run_script("keras_small.py", folder)
    return folder


def require_refusal(source, *words, options=(), status=3):
    """One line of a refusal that names the source; the line."""
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "inspector", "convert", source, "-o", source.parent / "out.onnx",
         "--timeout", "200", *options],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    said = done.stderr
    assert done.returncode == status, said
    assert "Traceback" not in said
    assert "internal error" not in said
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert source.name in line  # or a file of it
    assert any(word in line for word in words), line
    assert ";" in line  # and what to do
    assert not (source.parent / "out.onnx").exists()
    return line


def cut(data, share):
    return data[: int(len(data) * share)]


def flipped(data, seed, count=20):
    """Bits of the first half, where headers and configurations are."""
    generator, made = random.Random(seed), bytearray(data)  # noqa: S311 - a test's numbers
    for _ in range(count):
        made[generator.randrange(len(made) // 2)] ^= 1 << generator.randrange(8)
    return bytes(made)


def repacked(source, path, **changes):
    """A copy of an archive with members changed; those that become None are left out."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members.update({name.replace("__", "."): data for name, data in changes.items()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)


@TENSORFLOW
@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_keras_file(sound, tmp_path, suffix, damage):
    data = (sound / f"m.{suffix}").read_bytes()
    source = tmp_path / f"m.{suffix}"
    source.write_bytes(cut(data, 0.7) if damage == "cut" else flipped(data, 1))
    require_refusal(source, "cut off or damaged", "damaged archive")


@TENSORFLOW
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model__weights__h5": None}, "model.weights"),
        ({"config__json": b"{"}, "configuration is not JSON"),
        ({"config__json": b"[]"}, "Keras does not load it"),
        ({"zeros": bytes(300 << 20)}, "decompression bomb"),
    ],
)
def test_an_archive_of_keras_that_lacks_or_lies(sound, tmp_path, change, words):
    repacked(sound / "m.keras", tmp_path / "m.keras", **change)
    require_refusal(tmp_path / "m.keras", words)


@TENSORFLOW
def test_a_configuration_that_contradicts_the_weights(sound, tmp_path):
    with zipfile.ZipFile(sound / "m.keras") as archive:
        config = json.loads(archive.read("config.json"))
    config["config"]["layers"][1]["config"]["filters"] = 5
    repacked(sound / "m.keras", tmp_path / "m.keras", config__json=json.dumps(config).encode())
    require_refusal(tmp_path / "m.keras", "Keras does not load it: Input 0")


@TENSORFLOW
def test_weights_of_another_shape(sound, tmp_path):
    import h5py

    source = tmp_path / "m.h5"
    shutil.copy(sound / "m.h5", source)
    with h5py.File(source, "r+") as file:
        found = []
        file["model_weights"].visit(found.append)
        name = next(name for name in found if name.endswith("kernel"))
        del file["model_weights"][name]
        file["model_weights"][name] = np.zeros((1, 2), np.float32)
    require_refusal(source, "Shape mismatch")


@TENSORFLOW
@pytest.mark.parametrize("damage", ["cut", "no variables", "cut variables"])
def test_a_damaged_saved_model(sound, tmp_path, damage):
    source = tmp_path / "saved"
    shutil.copytree(sound / "saved", source)
    if damage == "cut":
        path = source / "saved_model.pb"
        path.write_bytes(cut(path.read_bytes(), 0.7))
    elif damage == "no variables":
        shutil.rmtree(source / "variables")
    else:
        path = next((source / "variables").glob("*.data*"))
        path.write_bytes(path.read_bytes()[:50])
    require_refusal(source, "TensorFlow does not load it", options=["--trust"])


@lacks("tflite", "flatbuffers", "ai_edge_litert")
@pytest.mark.parametrize("damage", ["cut", "flipped", "lies"])
def test_a_damaged_tflite_file(tmp_path, damage):
    from tflite_files import OperatorOf, TensorOf, tflite_file

    shape = (1, 4, 4, 2)
    weights = np.ones((3, 1, 1, 2), np.float32)
    tensors = [
        TensorOf("x", shape),
        TensorOf("w", (3, 3, 3, 2) if damage == "lies" else weights.shape, data=weights),
        TensorOf("y", (1, 4, 4, 3)),
    ]
    known = {"stride_h": 1, "stride_w": 1}
    data = tflite_file((tensors, [OperatorOf("CONV_2D", ["x", "w"], ["y"], known)]), ["x"], ["y"])
    source = tmp_path / "m.tflite"
    made = {"cut": cut(data, 0.6), "flipped": data[:8] + bytes(40) + data[48:], "lies": data}
    source.write_bytes(made[damage])
    require_refusal(source, "broken TFLite file", "tensor", "contradicts itself")


@pytest.fixture
def folder(tmp_path):
    """A folder as timm saves it."""
    declare_torchvision()
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", num_classes=3)
    timm.models.save_for_hf(network, tmp_path / "hub", safe_serialization=True)
    return tmp_path / "hub"


@lacks("timm", "safetensors")
@pytest.mark.parametrize(
    ("member", "make", "words"),
    [
        ("model.safetensors", lambda data: cut(data, 0.6), "model.safetensors"),
        ("model.safetensors", lambda data: b"\xff" * 16 + data[16:], "model.safetensors"),
        ("config.json", lambda data: cut(data, 0.5), "config.json"),
        ("config.json", lambda data: data.replace(b"test_resnet", b"no_such_net"), "no_such_net"),
    ],
)
def test_a_damaged_folder_of_the_hub(folder, member, make, words):
    path = folder / member
    path.write_bytes(make(path.read_bytes()))
    require_refusal(folder, words)


@pytest.mark.parametrize("kind", ["pt2", "pt"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_cut_file_of_pytorch(tmp_path, kind, share):
    source = tmp_path / f"m.{kind}"
    network = torch.nn.Conv2d(3, 4, 3).eval()
    example = (torch.zeros(1, 3, 8, 8),)
    if kind == "pt2":
        torch.export.save(torch.export.export(network, example), source)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(network, example), source)
    source.write_bytes(cut(source.read_bytes(), share))
    options = [] if kind == "pt2" else ["--trust", "--input", "?,3,8,8"]
    require_refusal(source, "is cut off", options=options)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_cut_frozen_graph(tmp_path, share):
    """Read without TensorFlow: a graph of one placeholder and its result, or no such thing."""
    name = lambda number, text: bytes([number << 3 | 2, len(text)]) + text  # noqa: E731 - short
    nodes = [
        name(1, b"input") + name(2, b"Placeholder"),
        name(1, b"out") + name(2, b"Relu") + name(3, b"input"),
    ]
    data = b"".join(bytes([10, len(node)]) + node for node in nodes)
    source = tmp_path / "m.pb"
    source.write_bytes(cut(data, share))
    require_refusal(source, "frozen graph", "not a model")
