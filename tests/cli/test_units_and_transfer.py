"""``inspector study units`` and ``transfer`` as a user calls them."""

import json
import shutil

import pytest

pytestmark = pytest.mark.conformance


def test_units(inspector, samples, tmp_path):
    done = inspector(
        "study",
        "units",
        samples / "all_cnn_c.onnx",
        samples / "images",
        "--target",
        "horse",
        "--count",
        "2",
        "--photos",
        "3",
        "-o",
        "out",
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 192 units are shown for 'horse'" in done.stdout
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["units.csv", "units.json", "units.png"]
    done = inspector("study", "units", samples / "zfnet.onnx", samples / "images")
    assert done.returncode == 3
    assert "node_relu_6" in done.stderr
    assert "top-activations" in done.stderr
    done = inspector(
        "study", "units", samples / "resnet20.onnx", samples / "images", "--target", "unicorn"
    )
    assert done.returncode == 2


def test_transfer(inspector, samples, tmp_path):
    for photo in (samples / "images").glob("*.png"):
        folder = tmp_path / "photos" / photo.stem[:-2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder)
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"no picture")
    done = inspector(
        "study",
        "transfer",
        samples / "zfnet.onnx",
        "photos",
        "--folds",
        "2",
        "--cost",
        "0.01",
        "--layers",
        "0,4",
        "--json",
        "-o",
        "out",
    )
    assert done.returncode == 4, done.stderr
    report = json.loads(done.stdout)
    assert report["images"]["used"] == 20
    layers = report["result"]["models"][0]["layers"]
    assert [row["layer"] for row in layers] == ["relu", "relu_4"]
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["transfer.csv", "transfer.json", "transfer.png"]
    done = inspector("study", "transfer", samples / "zfnet.onnx", "photos")
    assert done.returncode == 2
    assert "'airplane' has 2" in done.stderr
    assert "--folds 2" in done.stderr


def test_transfer_with_a_table(inspector, samples, tmp_path):
    rows = [
        "image,label",
        *(
            f"{p.name},{p.stem[:-2] in {'cat', 'dog', 'deer', 'frog'}}"
            for p in sorted((samples / "images").glob("*.png"))
        ),
    ]
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    options = ["--layers", "last", "--pool", "grid:2", "--folds", "4"]
    done = inspector(
        "study",
        "transfer",
        samples / "resnet20.onnx",
        samples / "images",
        "--truth",
        "truth.csv",
        *options,
    )
    assert done.returncode == 0, done.stderr
    assert "20 photos of 2 classes" in done.stdout
