"""``inspector study localisation`` as a user calls it."""

import json

import pytest

pytestmark = pytest.mark.conformance


def test_methods_and_boxes(inspector, samples, tmp_path):
    boxes = samples / "images" / "boxes.csv"
    done = inspector(
        "study",
        "localisation",
        samples / "resnet20.onnx",
        samples / "images",
        "--boxes",
        boxes,
        "-m",
        "cam",
        "-m",
        "grad-cam:counterfactual=yes",
        "--tolerance",
        "0",
        "--resamples",
        "100",
        "-o",
        "out",
    )
    assert done.returncode == 0, done.stderr
    assert "20 photo(s), 20 labelled object(s)" in done.stdout
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["localisation.csv", "localisation.json", "localisation.png"]
    report = json.loads((tmp_path / "out" / "localisation.json").read_text())
    methods = [one["method"] for one in report["result"]["methods"]]
    assert methods == ["cam", "grad-cam_counterfactual-True"]
    assert report["options"]["method"] == ["cam", "grad-cam:counterfactual=yes"]


def test_a_bad_box_and_no_boxes(inspector, samples, tmp_path):
    (tmp_path / "dog_1.png").symlink_to(samples / "images" / "dog_1.png")
    (tmp_path / "cat_1.png").symlink_to(samples / "images" / "cat_1.png")
    (tmp_path / "boxes.csv").write_text(
        "image,label,x0,y0,x1,y1\ndog_1.png,dog,0,0,31,32\ncat_1.png,cat,0,0,320,32\n"
    )
    model = samples / "resnet20.onnx"
    done = inspector("study", "localisation", model, "--boxes", "boxes.csv", "-m", "cam", "--json")
    assert done.returncode == 4
    assert "line 3: the box 0,0,320,32 reaches outside" in done.stderr
    assert json.loads(done.stdout)["images"]["used"] == 1
    done = inspector("study", "localisation", model)
    assert done.returncode == 2
    assert "--boxes" in done.stderr
