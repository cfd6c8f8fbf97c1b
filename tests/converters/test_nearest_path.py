"""Paths that do not exist: what is suggested, by every door that opens them."""

import pickle

import pytest

import inspector
from converters import onnx_file
from converters.conversion import convert
from converters.errors import ConversionFailed, NotAModel
from converters.nearest_path import did_you_mean
from converters.regular_file import NoSuchFile, read_regular
from inspector.audit.data_set import open_data_set
from inspector.errors import ImageRefused, UsageError
from inspector.photos.photo import load_photo
from inspector.photos.preprocess_choice import resolve

THERE = ("cat.png", "resnet.onnx", "Hund.JPG", "labels.txt", "a b.png", "photos/horse.png")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in THERE:
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("cta.png", "cat.png"),
        ("cat.pmg", "cat.png"),
        ("cat.jpg", "cat.png"),
        ("cat", "cat.png"),
        ("resnet.onx", "resnet.onnx"),
        ("resnett.onnx", "resnet.onnx"),
        ("hund.jpg", "Hund.JPG"),
        ("a  b.png", "'a b.png'"),
        ("photo/horse.png", "photos/horse.png"),
        ("phots/hrose.png", "photos/horse.png"),
        ("photos/horse.pg", "photos/horse.png"),
        ("photo", "photos"),
        ("../nowhere/else.png", ""),
        ("something-else.onnx", ""),
        ("resnet.png", ""),
        ("cat.onnx", ""),
        ("", ""),
        ("\0", ""),
        ("x" * 5000, ""),
        ("/" * 50 + "nowhere", ""),
    ],
)
def test_the_path_that_is_spelled_alike(folder, given, meant):
    assert did_you_mean(given) == (f"did you mean {meant}?" if meant else "")


def test_names_that_a_terminal_would_obey_are_not_suggested(folder):
    (folder / "bag\x1b[2J.txt").write_bytes(b"0")
    (folder / "bag\u202e.txt").write_bytes(b"0")
    (folder / "bags.txt").symlink_to(folder / "nowhere")
    assert did_you_mean("bag.txt") == ""


def test_a_folder_of_many_files_is_not_searched_without_end(folder, monkeypatch):
    monkeypatch.setattr("converters.nearest_path._MOST_ENTRIES", 0)
    assert did_you_mean("cta.png") == ""


@pytest.mark.parametrize(
    ("call", "error", "given"),
    [
        (inspector.load, NotAModel, "resnte.onnx"),
        (onnx_file.read, NotAModel, "resnet.onx"),
        (load_photo, ImageRefused, "cat.pgn"),
        (resolve, UsageError, "lable.txt"),
        (open_data_set, UsageError, "phtos"),
        (lambda source: convert(source, "out.onnx"), ConversionFailed, "resnet.onn"),
    ],
    ids=["load", "read", "photo", "preprocess", "data", "convert"],
)
def test_every_door_suggests(folder, call, error, given):
    with pytest.raises(error, match=r"did you mean (resnet\.onnx|labels\.txt|cat\.png|photos)\?"):
        call(
            folder.__class__(given)
            if call in {load_photo, open_data_set, onnx_file.read}
            else given
        )


def test_the_clause_of_the_door_itself_has_the_suggestion(folder):
    with pytest.raises(FileNotFoundError) as caught:
        read_regular("label.txt", 10)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):  # noqa: S301 - ours
        assert isinstance(error, NoSuchFile)
        assert error.strerror.endswith("; did you mean labels.txt?")
        assert error.filename == "label.txt"
