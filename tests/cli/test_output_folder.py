"""``-o``: places that cannot be written into, and figures among the photos."""

import shutil

import pytest

from inspector.cli import run
from inspector.errors import UsageError
from inspector.whole_file import check_folder, make_folder


@pytest.mark.parametrize(
    "command",
    [
        ("explain", "MODEL", "PHOTO", "-o", "MODEL/x"),
        ("explain", "MODEL", "PHOTO", "-o", "MODEL"),
        ("study", "occlusion", "MODEL", "PHOTO", "-o", "MODEL/x/y"),
        ("compare", "MODEL", "MODEL", "PHOTO", "-o", "MODEL/x"),
        ("verify", "MODEL", "-o", "MODEL/x.json"),
        ("convert", "MODEL", "-o", "MODEL/x.onnx"),
        ("convert", "MODEL", "-o", "FOLDER"),
    ],
)
def test_a_place_that_cannot_be_written_is_a_usage_error(command, samples, tmp_path, capsys):
    model = tmp_path / "model.onnx"
    shutil.copy(samples / "all_cnn_c.onnx", model)
    before = sorted(tmp_path.iterdir())
    places = {
        "MODEL": str(model),
        "PHOTO": str(samples / "images" / "cat_1.png"),
        "FOLDER": str(tmp_path),
    }
    words = [
        next((w.replace(k, v) for k, v in places.items() if w.startswith(k)), w) for w in command
    ]
    assert run(words) == 2
    said = capsys.readouterr().err
    assert str(model) in said or str(tmp_path) in said
    assert "internal error" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_is_checked_without_being_made(tmp_path, monkeypatch):
    check_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UsageError, match=f"{tmp_path}: the folder cannot be written into"):
        check_folder(tmp_path / "a" / "b")


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        make_folder(tmp_path / "file" / "x")


def test_a_second_run_does_not_explain_the_figures_of_the_first(inspector, samples, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(samples / "images" / "cat_1.png", folder)
    command = ("explain", samples / "all_cnn_c.onnx", folder, "-m", "cam", "-o", folder)
    assert inspector(*command).returncode == 0
    first = sorted(path.name for path in folder.iterdir())
    assert "cat_1.cam.cat.png" in first
    again = inspector(*command)
    assert again.returncode == 0
    assert "1 figure(s) of onnx-inspector left out" in again.stderr
    assert sorted(path.name for path in folder.iterdir()) == first


@pytest.mark.parametrize(
    "address", ["https://e.org/a.onnx", "HTTP://e.org/a", "s3://b/a", "file:///a"]
)
def test_an_address_is_not_taken_for_a_path(inspector, samples, tmp_path, address):
    model, photo = samples / "resnet20.onnx", samples / "images/cat_1.png"
    for words in (
        ("layers", address),
        (address, photo),
        ("explain", model, address),
        ("convert", address, "-o", "net.onnx"),
        ("explain", model, photo, "-m", "cam", "-o", address),
        ("embed", model, "-o", f"{address}/net.onnx"),
    ):
        done = inspector(*words)
        assert done.returncode in {2, 3, 4}, words
        assert f"{address}: " in done.stderr or f"{address}/net.onnx: " in done.stderr, done.stderr
        assert "is an address, and nothing is" in done.stderr
    assert not list(tmp_path.iterdir())
