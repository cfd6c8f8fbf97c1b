"""Sources of other frameworks where a model is asked for: every command takes them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_networks
from PIL import Image
from trained_resnet20 import SAMPLES

from converters.conversion import convert
from converters.source import Options
from inspector import cli
from inspector.cli import supervise

pytestmark = pytest.mark.usefixtures("forked_children")

PHOTO = SAMPLES / "images" / "cat_1.png"
SOURCE = "torch_networks:net"


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Exit status of ``inspector ARGUMENTS`` where the networks lie, and what it says."""
    monkeypatch.setattr(supervise, "_can_fork", lambda: False)
    monkeypatch.setenv("INSPECTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(Path(__file__).parent)

    def call(*arguments):
        status = cli.run([*map(str, arguments)])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


@pytest.fixture
def trained(tmp_path):
    """A network, and its weights in a file, which are not those that the factory makes."""
    torch.manual_seed(7)
    network = torch_networks.net().eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    return network, tmp_path / "weights.pt"


@pytest.mark.conformance
def test_a_function_with_its_weights_is_explained_and_kept(trained, said, tmp_path):
    network, weights = trained
    asked = [
        SOURCE,
        "--trust",
        "--input",
        "?,3,32,32",
        "--weights",
        weights,
        "--preprocess",
        "unit",
    ]
    status, out, _ = said("explain", *asked, PHOTO, "-m", "cam", "-o", tmp_path / "a", "--json")
    assert status == 0
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"), np.float32).transpose(2, 0, 1) / 255
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels)[None])[0].numpy()
    best = json.loads(out)["images"][0]["predictions"][0]
    assert best["index"] == int(logits.argmax())
    assert best["score"] == pytest.approx(float(logits.max()), rel=1e-4, abs=1e-5)
    kept = list((tmp_path / "cache" / "converted").rglob("*.onnx"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    assert said("layers", *asked)[0] == 0
    assert kept[0].stat().st_mtime_ns == before

    # A file and a source beside one another; what belongs to the source is not held against it.
    convert(
        SOURCE,
        tmp_path / "net.onnx",
        trust=True,
        options=Options(inputs=((None, 3, 32, 32),), weights=str(weights)),
    )
    status, out, err = said(
        "compare",
        tmp_path / "net.onnx",
        *asked,
        PHOTO,
        "-m",
        "cam",
        "-o",
        tmp_path / "b",
        "--max-flips",
        "0",
        "--min-rank",
        "0.999",
    )
    assert status == 0, out + err


def test_without_trust_no_command_runs_it(said):
    for name in ("explain", "compare", "check", "study"):
        arguments = {
            "explain": [SOURCE, PHOTO],
            "check": [SOURCE],
            "compare": [SAMPLES / "resnet20.onnx", SOURCE, PHOTO],
            "study": ["filters", SOURCE],
        }[name]
        status, _, err = said(name, *arguments)
        assert status == 3, name
        assert "--trust" in err


def test_what_an_onnx_file_says_itself_is_not_asked(said):
    for option in (["--input", "?,3,32,32"], ["--weights", "w.pt"]):
        status, _, err = said("layers", SAMPLES / "resnet20.onnx", *option)
        assert status == 2
        assert "for sources of other frameworks" in err
    status, _, err = said("layers", SOURCE, "--trust", "--input", "3 by 4")
    assert status == 2
    assert "write it as ?,3,224,224" in err


def test_an_interpreter_that_is_none_is_named(said):
    status, _, err = said("layers", SOURCE, "--trust", "--python", "no/such/python")
    assert status == 3
    assert "no/such/python" in err
