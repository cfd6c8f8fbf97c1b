"""``inspector study layers`` as a user calls it."""

import json

import pytest

pytestmark = pytest.mark.conformance


def test_a_sheet_of_all_layers(inspector, samples, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = inspector(
        "study",
        "layers",
        samples / "zfnet.onnx",
        samples / "images",
        "bad.png",
        "--most",
        "3",
        "--units",
        "2",
        "-o",
        "out",
    )
    assert done.returncode == 4, done.stderr
    assert "3 of 5 layers over 20 photo(s), 6 unit(s) shown" in done.stdout
    assert "a unit of layer 0 sees 5x5 pixels, one of layer 4 43x43" in done.stdout
    assert "bad.png" in done.stderr
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["layers.csv", "layers.json", "layers.png"]
    report = json.loads((tmp_path / "out" / "layers.json").read_text())
    assert [row["index"] for row in report["result"]["layers"]] == [0, 2, 4]
    assert len(report["images"]["refused"]) == 1
    assert len((tmp_path / "out" / "layers.csv").read_text().splitlines()) == 7


def test_what_cannot_be_meant(inspector, samples):
    model, photos = samples / "zfnet.onnx", samples / "images"
    for options, words in (
        (("--layers", "99"), "99"),
        (("--most", "1"), "1 layers"),
        (("--units", "99"), "99 units"),
        (("--projection", "cam"), "no projection"),
    ):
        done = inspector("study", "layers", model, photos, *options)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
