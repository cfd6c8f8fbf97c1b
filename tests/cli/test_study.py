"""``inspector study`` as a user calls it."""

import json
import subprocess
import sys


def test_help_lists_the_studies(inspector):
    done = inspector("study", "--help")
    assert done.returncode == 0
    assert "filters" in done.stdout


def test_help_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from inspector.cli import run\n"
        "assert run(['study', '--help']) == 0\n"
        "assert not {'torch', 'onnxruntime'} & set(sys.modules)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_filters(inspector, samples, tmp_path):
    done = inspector("study", "filters", samples / "zfnet_coarse.onnx", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "much aliasing" in done.stdout
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["filters.json", "filters.png"]


def test_json_and_a_bad_photo(inspector, samples, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = inspector("study", "filters", samples / "zfnet.onnx", samples / "images" / "cat_1.png",
                     "bad.png", "--json")  # fmt: skip
    assert done.returncode == 4
    report = json.loads(done.stdout)
    assert report["study"] == "filters"
    assert report["images"]["used"] == 1
    assert "bad.png" in report["images"]["refused"][0]


def test_refusals(inspector, samples):
    assert inspector("study", "nothing").returncode == 2
    done = inspector("study", "filters", samples / "zfnet.onnx", "--layer", "3")
    assert done.returncode == 2
    assert "do not act on the image's pixels" in done.stderr


def test_top_activations(inspector, samples, tmp_path):
    done = inspector("study", "top-activations", samples / "zfnet.onnx", samples / "images",
                     "--layer", "1", "--units", "0,5", "--count", "2", "-o", "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 unit(s) of relu_1, strongest over 20 photo(s)" in done.stdout
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["top-activations.csv", "top-activations.json", "top-activations.png"]
    done = inspector("study", "top-activations", samples / "zfnet.onnx", samples / "images",
                     "--layer", "1", "--units", "999")  # fmt: skip
    assert done.returncode == 2
    assert "there is no unit 999" in done.stderr
    assert inspector("study", "top-activations", samples / "zfnet.onnx").returncode == 2
