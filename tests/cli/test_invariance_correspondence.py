"""``inspector study invariance`` and ``correspondence`` as a user calls them."""

import json

import pytest

pytestmark = pytest.mark.conformance


def test_invariance(inspector, samples, tmp_path):
    photos = samples / "images"
    done = inspector(
        "study",
        "invariance",
        samples / "zfnet.onnx",
        photos,
        "--count",
        "2",
        "--translation",
        "-0.2:0.2:3",
        "--scale",
        "",
        "--rotation",
        "0:90:2",
        "-o",
        "out",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [one["transform"] for one in report["result"]["transforms"]] == [
        "vertical translation",
        "rotation",
    ]
    assert "18 further photo(s) are left out" in done.stderr
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["invariance.csv", "invariance.json", "invariance.png"]
    done = inspector("study", "invariance", samples / "zfnet.onnx", photos, "--scale", "0:1:2")
    assert done.returncode == 2
    assert "scale: '0:1:2'" in done.stderr


def test_correspondence(inspector, samples, tmp_path):
    done = inspector(
        "study",
        "correspondence",
        samples / "zfnet.onnx",
        "--draws",
        "9",
        "--parts",
        samples / "images" / "parts.json",
        "-o",
        "out",
    )
    assert done.returncode == 0, done.stderr
    assert "head at relu_4: " in done.stdout
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["correspondence.csv", "correspondence.json", "correspondence.png"]
    done = inspector("study", "correspondence", samples / "zfnet.onnx")
    assert done.returncode == 2
    assert "--parts FILE.json" in done.stderr
    (tmp_path / "bad.json").write_text('{"photos": [{"image": "../x.png", "parts": {}}]}')
    done = inspector("study", "correspondence", samples / "zfnet.onnx", "--parts", "bad.json")
    assert done.returncode == 2
    assert "image is not the plain name of a file in the folder" in done.stderr
