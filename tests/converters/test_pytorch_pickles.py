"""Whole modules in pickles: named without unpickling, with a command that exports them."""

import pickle
import re
import shlex
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from converters.conversion import recognise
from converters.errors import ConversionFailed, reason_of, said_by
from converters.to_onnx.pytorch.pickled import Pickled, pickled

PROGRAM = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return self.layer(x).mean((2, 3))
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that saves a whole module of a program that this process forgets again."""
    (tmp_path / "stranger.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)

    def save(key="", *, legacy=False, package="stranger"):
        module = __import__("stranger")
        network = module.Net()
        module.Net.__module__ = package
        parts = package.split(".")
        for count in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:count]), module)
        content = {"epoch": 3, key: network} if key else network
        path = tmp_path / "net.pt"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        return path, network

    yield save
    sys.modules.pop("stranger", None)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["", "model"])
def test_a_whole_module_is_named_with_its_place(made, key, legacy):
    path, _ = made(key, legacy=legacy)
    assert pickled(path) == Pickled("stranger.Net", key, ("stranger.Net",))
    with pytest.raises(ConversionFailed, match=r"whole module in a pickle \(stranger\.Net\)"):
        recognise(str(path))


@pytest.mark.conformance
def test_the_command_exports_it(made, tmp_path):
    path, network = made("ema")
    with pytest.raises(ConversionFailed) as caught:
        recognise(str(path))
    command = re.search(r"(python -c .*) \(with the size", caught.value.hint)[1]
    program = shlex.split(command)[2].replace("224, 224", "16, 16")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=200)  # noqa: S603 - our own
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    x = np.ones((1, 3, 16, 16), np.float32)
    (got,) = session.run(None, {session.get_inputs()[0].name: x})
    with torch.no_grad():
        np.testing.assert_allclose(got, network(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_a_model_of_ultralytics_is_sent_to_its_own_exporter(made):
    path, _ = made("model", package="ultralytics.nn.tasks")
    with pytest.raises(ConversionFailed) as caught:
        recognise(str(path))
    assert "ultralytics.nn.tasks.Net" in caught.value.what
    assert f"yolo export model={path} format=onnx" in caught.value.hint


def test_layers_of_pytorch_alone_need_no_program_of_an_author(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)), tmp_path / "net.pt")
    with pytest.raises(ConversionFailed, match=r"\(torch\.nn\.modules\.container\.Seq") as caught:
        recognise(str(tmp_path / "net.pt"))
    assert caught.value.hint.startswith("where you trust its author: python -c")


@pytest.mark.conformance
def test_classes_that_a_script_defined_are_imported_from_its_file(made, tmp_path, monkeypatch):
    """As notebooks and training scripts save them: PyTorch's container, their own parts in it."""
    module = __import__("stranger")
    monkeypatch.setattr(module.Net, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Net", module.Net, raising=False)
    torch.save(torch.nn.Sequential(module.Net()), tmp_path / "net.pt")
    with pytest.raises(ConversionFailed, match=r"Sequential with __main__\.Net") as caught:
        recognise(str(tmp_path / "net.pt"))
    assert "in the place of PROGRAM the file, without .py" in caught.value.hint
    command = re.search(r"(python -c .*) \(with the size", caught.value.hint)[1]
    program = shlex.split(command)[2].replace("PROGRAM", "stranger")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=200)  # noqa: S603 - our own
    assert (tmp_path / "net.onnx").is_file()


class Options(dict):
    """As Lightning's AttributeDict: a class of another program's beside the weights."""


class Harm:
    def __reduce__(self):
        return subprocess.Popen, (["touch", "it-ran"],)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"w": torch.ones(2)}, "epoch": 3},
        torch.nn.Linear(2, 2).state_dict(),
        {"w": torch.nn.Parameter(torch.ones(1)), "lr": np.float64(0.1)},
        {"w": torch.ones(1), "more": Harm()},
        {"state_dict": {"w": torch.ones(2)}, "hyper_parameters": Options(lr=0.1)},
    ],
)
def test_weights_and_harm_are_no_modules(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    torch.save(content, path)
    assert pickled(path) == Pickled()
    with pytest.raises(ConversionFailed, match="holds weights and not how"):
        recognise(str(path))
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04rest", b"\x80\x02}", pickle.dumps([1], 2)])
def test_damaged_files_hold_no_module(data, tmp_path):
    (tmp_path / "w.pt").write_bytes(data)
    assert pickled(tmp_path / "w.pt") == Pickled()


def chained(*texts):
    """An error that was caused by another, and so on; the first text is the outermost."""
    found = None
    for text in reversed(texts):
        error = ValueError(text)
        error.__cause__ = found
        found = error
    return found


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (chained("Failed to export", "While doing things\nsize 7 is not 8"), "size 7 is not 8"),
        (chained("no guard on u0\n\nconsider using others.\nCaused by: x\n"), "no guard on u0"),
        (chained("C++ Traceback\n----\nInvalidError: no shape\n  [Hint: 1 != 2]\n"), "no shape"),
        (
            chained("a boolean of a tracer\nThe error occurred while tracing f\nSee also\n"),
            "a boolean of a tracer",
        ),
        (
            chained("no file variables\nYou may be trying to load on another device"),
            "no file variables",
        ),
        (
            chained(
                "Exception encountered when calling Conv2D.call().\n\n\x1b[1m{{function_node "
                "__wrapped__Conv2D_device_/job:x}} only NHWC on the CPU\x1b[0m\n\nArguments "
                "received by Conv2D.call():\n  • inputs=tf.Tensor(shape=(1, 3, 32, 32))"
            ),
            "only NHWC on the CPU",
        ),
        (chained("Got 3 Expected: 1\n Please fix the inputs."), "Got 3 Expected: 1"),
        (chained("only this"), "only this"),
        (chained("outer", ""), "outer"),
        (chained(""), ""),
    ],
)
def test_the_reason_of_an_error(error, reason):
    assert reason_of(error) == reason
    assert said_by(error) == (f"ValueError: {reason}" if reason else "ValueError")
