"""``inspector study reconstruction`` and ``pooling`` as a user calls them."""

import json
import shutil

import pytest

pytestmark = pytest.mark.conformance


def test_reconstruction_without_an_image(inspector, samples, tmp_path):
    done = inspector(
        "study",
        "reconstruction",
        samples / "strided_cnn_c.onnx",
        "--layers",
        "1",
        "--layers",
        "relu_5",
        "--unconditioned",
        "0-2",
    )
    assert done.returncode == 0, done.stderr
    assert "the deconvnet needs no image for all 2 layers, up to relu_5" in done.stdout
    names = sorted(path.name for path in (tmp_path / "inspection").iterdir())
    assert names == ["reconstruction.json", "reconstruction.png"]


def test_max_pooling_is_refused_by_name(inspector, samples):
    done = inspector("study", "reconstruction", samples / "base_c.onnx", "--layers", "relu_4")
    assert done.returncode == 3
    assert "MaxPool node 'node_max_pool2d'" in done.stderr
    assert "give photos" in done.stderr


def test_pooling(inspector, samples, tmp_path):
    for photo in (samples / "images").glob("*_1.png"):
        folder = tmp_path / "photos" / photo.stem.partition("_")[0]
        folder.mkdir(parents=True)
        shutil.copy(photo, folder)
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"no picture")
    arguments = (
        "study",
        "pooling",
        samples / "base_c.onnx",
        "photos",
        "--against",
        samples / "strided_cnn_c.onnx",
        "--reconstructed",
        "3",
    )
    done = inspector(*arguments, "--json")
    assert done.returncode == 4, done.stderr
    report = json.loads(done.stdout)
    assert [one["max_poolings"] for one in report["result"]["networks"]] == [2, 0]
    assert [one["accuracy"]["photos"] for one in report["result"]["networks"]] == [10, 10]
    assert len(report["images"]["refused"]) == 1

    (tmp_path / "photos" / "bird").rename(tmp_path / "photos" / "unicorn")
    done = inspector(*arguments)
    assert done.returncode == 2
    assert "no class of base_c.onnx: unicorn; of strided_cnn_c.onnx: unicorn" in done.stderr
