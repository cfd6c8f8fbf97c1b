"""Files of an earlier run in the folder that is written into."""

import hashlib
import json
import os

import pytest
from PIL import Image

from inspector.earlier_files import earlier_files
from inspector.errors import UsageError
from inspector.render import png

MODEL = "m" * 64


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "cat.png"
    Image.new("RGB", (8, 8)).save(path)
    return path


@pytest.fixture
def out(tmp_path, photo):
    """A folder with the files of an earlier run, and two of somebody else."""
    folder = tmp_path / "out"
    names = ("cat.cam.cat", "cat.sheet")
    for name in names:
        png.write(folder / f"{name}.png", Image.new("RGB", (8, 8)))
    (folder / "cat.cam.cat.npz").write_bytes(b"numbers")
    (folder / "other.txt").write_text("mine")
    Image.new("RGB", (8, 8)).save(folder / "cat.holiday.png")
    _report(folder, photo)
    return folder


def _report(folder, photo, model=MODEL, **more):
    digest = hashlib.sha256(photo.read_bytes()).hexdigest()
    files = {"png": "cat.cam.cat.png", "npz": "cat.cam.cat.npz"}
    document = {
        "model": {"name": "net.onnx", "sha256": model},
        "image": {"name": "cat.png", "sha256": digest},
        "results": [{"files": files}],
        **more,
    }
    (folder / "cat.json").write_text(json.dumps(document))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_the_new_run_does_not_write_goes(out, photo):
    found = earlier_files(out, [("cat", photo)], MODEL)
    assert list(found) == ["cat"]
    found["cat"].remove([out / "cat.sheet.png", out / "cat.json"])
    assert names(out) == ["cat.holiday.png", "cat.json", "cat.sheet.png", "other.txt"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f, p: _report(f, p, "x" * 64), r"another model \(.net.onnx.\)"),
        (lambda f, p: Image.new("RGB", (9, 9)).save(p), r"another photo \(.cat.png.\)"),
        (lambda f, p: (f / "cat.json").write_text("[1, 2]"), "is not a report"),
        (lambda f, p: (f / "cat.json").write_text("{" * 9000), "is not a report"),
        (lambda f, p: (f / "cat.json").write_bytes(b"\xff\xfe"), "is not a report"),
    ],
)
def test_results_of_another_photo_or_model_are_not_overwritten(out, photo, change, says):
    change(out, photo)
    with pytest.raises(UsageError, match=says) as refused:
        earlier_files(out, [("cat", photo)], MODEL)
    assert "-o" in str(refused.value)


def test_a_report_that_is_a_link_is_not_followed(out, photo, tmp_path):
    (out / "cat.json").rename(tmp_path / "far.json")
    (out / "cat.json").symlink_to(tmp_path / "far.json")
    with pytest.raises(UsageError, match="is not a report"):
        earlier_files(out, [("cat", photo)], MODEL)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_report_that_is_a_pipe_does_not_block(out, photo):
    (out / "cat.json").unlink()
    os.mkfifo(out / "cat.json")
    with pytest.raises(UsageError, match="is not a report"):
        earlier_files(out, [("cat", photo)], MODEL)


def test_a_forged_report_names_no_other_files(out, photo):
    named = ["other.txt", "../cat.png", "cat.holiday.png", "/etc/passwd", 7, ["cat.x.png"]]
    _report(out, photo, results=[{"files": dict(enumerate(named))}, 3, {"files": 4}])
    before = names(out)
    earlier_files(out, [("cat", photo)], MODEL)["cat"].remove([])
    _report(out, photo, results={"files": 1})
    earlier_files(out, [("cat", photo)], MODEL)["cat"].remove([])
    assert names(out) == [name for name in before if name != "cat.sheet.png"]
    assert photo.exists()


def test_all_findings_are_named_at_once_and_same_results_on_request(out, photo):
    with pytest.raises(UsageError, match="results of this photo and model"):
        earlier_files(out, [("cat", photo)], MODEL, "fail")
    for place in range(7):
        (out / f"cat-{place}.json").write_text("[]")
    photos = [(f"cat-{place}", photo) for place in range(7)]
    with pytest.raises(UsageError, match=r"cat-4.json is not a report.*; and 2 more"):
        earlier_files(out, photos, MODEL)


def test_a_photo_that_cannot_be_read_is_left_to_its_opening(out, photo):
    photo.unlink()
    assert list(earlier_files(out, [("cat", photo)], MODEL)) == ["cat"]


def test_a_folder_that_is_not_there_holds_nothing(tmp_path, photo):
    assert earlier_files(tmp_path / "new", [("cat", photo)], MODEL) == {}
