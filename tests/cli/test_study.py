"""``inspector study`` as a user calls it."""

import json
import signal
import subprocess
import sys

import pytest
from waiting import soon


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
    assert names == ["filters.csv", "filters.json", "filters.png"]


def test_json_and_a_bad_photo(inspector, samples, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = inspector(
        "study",
        "filters",
        samples / "zfnet.onnx",
        samples / "images" / "cat_1.png",
        "bad.png",
        "--json",
    )
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
    done = inspector(
        "study",
        "top-activations",
        samples / "zfnet.onnx",
        samples / "images",
        "--layer",
        "1",
        "--units",
        "0,5",
        "--count",
        "2",
        "-o",
        "out",
    )
    assert done.returncode == 0, done.stderr
    assert "2 unit(s) of relu_1, strongest over 20 photo(s)" in done.stdout
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["top-activations.csv", "top-activations.json", "top-activations.png"]
    done = inspector(
        "study",
        "top-activations",
        samples / "zfnet.onnx",
        samples / "images",
        "--layer",
        "1",
        "--units",
        "999",
    )
    assert done.returncode == 2
    assert "there is no unit 999" in done.stderr
    assert inspector("study", "top-activations", samples / "zfnet.onnx").returncode == 2


def test_evolution(inspector, samples, tmp_path):
    early = samples / "zfnet_snapshots" / "zfnet_epoch_001.onnx"
    done = inspector(
        "study",
        "evolution",
        samples / "zfnet.onnx",
        samples / "images",
        "--snapshots",
        early,
        "--layers",
        "0,4",
        "--units",
        "3,8",
        "-o",
        "out",
    )
    assert done.returncode == 0, done.stderr
    assert "4 unit(s) of 2 layer(s) at 2 snapshots" in done.stdout
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["evolution.csv", "evolution.json", "evolution.png"]
    report = json.loads((tmp_path / "out" / "evolution.json").read_text())
    assert [one["units"] for one in report["result"]["layers"]] == [[3, 8], [3, 8]]


@pytest.mark.conformance
def test_an_interrupted_run_goes_on(samples, tmp_path):
    """Ctrl-C in the middle: what was found is kept, and the end is that of a run in one go."""
    photos = sorted((samples / "images").glob("*.png"))
    (tmp_path / "many").mkdir()
    for place in range(600):
        (tmp_path / "many" / f"{place:04d}.png").symlink_to(photos[place % len(photos)])
    command = [
        sys.executable,
        "-m",
        "inspector",
        "study",
        "top-activations",
        str(samples / "zfnet.onnx"),
        "many",
        "--units",
        "3,1",
        "--count",
        "4",
    ]
    kept = tmp_path / "cut" / "top-activations.partial.jsonl"
    cut = subprocess.Popen(  # noqa: S603 - our own program
        [*command, "-o", "cut"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        stdout=subprocess.DEVNULL,
    )
    assert soon(lambda: kept.exists() and kept.stat().st_size > 5000, 120)
    cut.send_signal(signal.SIGINT)
    _, said = cut.communicate(timeout=60)
    assert cut.returncode == 130, said
    assert "results are kept" in said
    assert not (tmp_path / "cut" / "top-activations.png").exists()
    found = kept.read_text().count("\n") - 1
    assert 0 < found < 600

    def run(folder):
        return subprocess.run(  # noqa: S603 - our own program
            [*command, "-o", folder],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    again, whole = run("cut"), run("whole")
    assert f"goes on where an interrupted run stopped ({found} results)" in again.stderr
    assert (again.returncode, whole.returncode) == (0, 0)
    assert not kept.exists()
    for name in ("top-activations.csv", "top-activations.json", "top-activations.png"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
