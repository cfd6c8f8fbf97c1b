"""``inspector compare`` as a user calls it."""

import json

import pytest
from click.testing import CliRunner

from inspector.cli import program
from inspector.errors import UsageError


def test_table_files_and_layers(inspector, samples, tmp_path):
    done = inspector(
        "compare",
        samples / "zfnet.onnx",
        samples / "zfnet_snapshots" / "zfnet_epoch_040.onnx",
        samples / "images" / "cat_1.png",
        samples / "images" / "dog_1.png",
        "-o",
        "out",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("B differs from A beyond float32 noise: output logits has SQNR")
    assert "A  zfnet.onnx" in done.stdout
    assert "<- beyond noise" in done.stdout
    assert "cat_1.png" in done.stdout
    assert "no single layer stands out" in done.stdout
    assert "predictions flip" in done.stdout
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "comparison.json",
        "comparison.png",
    ]


def test_json_and_nothing_else(inspector, samples):
    model, photo = samples / "resnet20.onnx", samples / "images" / "cat_1.png"
    done = inspector("compare", model, model, photo, "-m", "cam", "--json", "--worst", "0")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["flips"] == 0
    assert report["images"][0]["maps"][0]["rank_correlation"] == pytest.approx(1)
    assert report["parting"]["parts_at"] is None
    assert report["a"]["model"]["sha256"] == report["b"]["model"]["sha256"]


def test_status_of_gates_and_bad_images(inspector, samples):
    a, b = samples / "zfnet.onnx", samples / "zfnet_snapshots" / "zfnet_epoch_001.onnx"
    photo = samples / "images" / "frog_1.png"
    quick = ["--layer-images", "0", "--worst", "0"]
    failed = inspector("compare", a, b, photo, "missing.png", "--min-rank", "0.999", *quick)
    assert failed.returncode == 1
    assert "gate failed: rank correlation below 0.999" in failed.stderr
    assert "missing.png: no such file" in failed.stderr
    skipped = inspector("compare", a, a, photo, "missing.png", "--min-rank", "0.999", *quick)
    assert skipped.returncode == 4
    assert "gate failed" not in skipped.stderr
    nothing = inspector("compare", a, a, "missing.png", *quick)
    assert nothing.returncode == 4


def test_each_model_may_have_its_own_preprocessing(inspector, samples):
    model, photo = samples / "resnet20.onnx", samples / "images" / "cat_1.png"
    done = inspector(
        "compare",
        model,
        model,
        photo,
        "--preprocess-b",
        "unit",
        "--set-a",
        "interpolation=nearest",
        "--json",
        "--worst",
        "0",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["a"]["preprocess"]["settings"]["interpolation"] == "nearest"
    assert report["b"]["preprocess"]["settings"]["mean"] == [0, 0, 0]
    # The inputs differ, the layers do not: only the first, which sees the image, parts.
    assert report["parting"]["parts_at"] == report["parting"]["layers"][0]["name"]


def test_refusals_are_one_line(inspector, samples):
    model = samples / "resnet20.onnx"
    done = inspector("compare", model, "nothing.onnx", samples / "images" / "cat_1.png")
    assert done.returncode == 3
    assert len(done.stderr.strip().splitlines()) == 1
    assert inspector("compare", model, model).returncode == 2


@pytest.mark.parametrize("way", [("resnet20.onnx",), ("--on", "cpu,cpu+plain")])
def test_options_of_sources_are_refused_where_nothing_is_converted(samples, monkeypatch, way):
    monkeypatch.setattr("inspector.cli.compare.supervised", lambda work, **_: work())
    own = [str(samples / word) if word.endswith(".onnx") else word for word in way]
    words = ["compare", str(samples / "resnet20.onnx"), *own]
    words += [str(samples / "images" / "cat_1.png"), "--signature", "other"]
    found = CliRunner().invoke(program, words, standalone_mode=False)
    assert isinstance(found.exception, UsageError)
    assert "--signature are for sources" in str(found.exception.hint)


def test_one_file_in_two_ways(inspector, samples):
    model, photo = samples / "zfnet.onnx", samples / "images" / "cat_1.png"
    quick = ["--worst", "0", "--layer-images", "0"]
    done = inspector("compare", model, photo, "--on", "cpu,cpu+plain", "--json", *quick)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"]["moved"] is False
    assert report["b"]["execution"] == "cpu+plain"
    refused = inspector("compare", model, photo, "--on", "cpu,qnn")
    assert refused.returncode == 2
    assert "no QNNExecutionProvider; it has" in refused.stderr
    assert "onnxruntime-qnn" in refused.stderr
