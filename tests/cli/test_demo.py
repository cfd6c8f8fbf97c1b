"""``inspector demo``, offline and from what the package holds; `--open`."""

from importlib.resources import files
from pathlib import Path

import pytest

from inspector.cli import demo, explain, run

SAMPLES = Path(__file__).parents[2] / "sample_models"


def test_the_package_holds_the_sample_model_and_photos():
    held = files("inspector") / "sample"
    for name, source in (("resnet20.onnx", "resnet20.onnx"), ("cat.png", "images/cat_1.png")):
        assert (held / name).read_bytes() == (SAMPLES / source).read_bytes()


def test_demo_explains_what_it_brings_and_prints_the_command(inspector, tmp_path):
    done = inspector("demo", "-o", tmp_path / "demo folder")
    assert done.returncode == 0, done.stderr
    assert "$ inspector explain" in done.stdout
    assert "'" + str(tmp_path / "demo folder") + "'" in done.stdout
    found = {path.name for path in (tmp_path / "demo folder").iterdir()}
    assert {"resnet20.onnx", "cat.png", "cat.sheet.png", "horse.grad-cam.horse.png"} <= found
    assert inspector("demo", "-o", tmp_path / "demo folder").returncode == 0  # once more


def test_demo_overwrites_no_other_file(tmp_path, capsys):
    (tmp_path / "cat.png").write_bytes(b"mine")
    assert run(["demo", "-o", str(tmp_path)]) == 2
    assert "is another file" in capsys.readouterr().err
    assert (tmp_path / "cat.png").read_bytes() == b"mine"


@pytest.mark.parametrize("sheet", [False, True])
def test_open_shows_the_figures_of_this_run(tmp_path, monkeypatch, sheet):
    shown = []
    monkeypatch.setattr(explain.click, "launch", lambda path: shown.append(Path(path).name) or 0)
    monkeypatch.setenv("DISPLAY", ":0")
    words = ["explain", SAMPLES / "resnet20.onnx", SAMPLES / "images" / "cat_1.png", "-m", "cam"]
    words += ["--open", "-q", "-o", tmp_path, *(["--sheet"] if sheet else [])]
    (tmp_path / "older.png").write_bytes((SAMPLES / "images" / "cat_1.png").read_bytes())
    assert run([str(word) for word in words]) == 0
    assert shown == ["cat_1.sheet.png" if sheet else "cat_1.cam.cat.png"]


@pytest.mark.parametrize("display", ["", ":0"])
def test_where_nothing_opens_pictures_the_path_is_said(tmp_path, monkeypatch, capsys, display):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setattr(explain.click, "launch", lambda path: 0 if not display else 1)
    figure = demo.Path(tmp_path / "a.png")
    monkeypatch.setattr(explain, "is_own_figure", lambda path: True)
    figure.write_bytes(b"")
    explain._open(tmp_path, 0)
    assert str(figure) in capsys.readouterr().err


PHOTO = ["explain", str(SAMPLES / "resnet20.onnx"), str(SAMPLES / "images" / "cat_1.png")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--raw", "--contour"], "--raw and --contour exclude each other"),
        (["--raw", "--grid"], "--raw and --grid exclude each other"),
        (["-q", "-v"], "--quiet and --verbose exclude each other"),
        (["--format", "npz", "--sheet"], "--sheet asks for a picture"),
        (["--format", "npy,json", "--columns", "2"], "--sheet asks for a picture"),
        (["--format", "json", "--grid"], "--grid asks for a picture"),
        (["--format", "svg", "--open"], "--open shows PNG files"),
    ],
)
def test_options_that_cannot_be_had_together_are_refused(tmp_path, capsys, words, says):
    assert run([*PHOTO, *words, "-o", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_number_of_columns_asks_for_a_sheet(tmp_path):
    assert run([*PHOTO, "-m", "cam", "-q", "--columns", "1", "-o", str(tmp_path)]) == 0
    assert (tmp_path / "cat_1.sheet.png").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["explain", "m.onnx", "a.png", ""], "IMAGE... is empty"),
        (["layers", ""], "MODEL is empty"),
        (["embed", "m.onnx", "-o", ""], "--output is empty"),
        (["compare", "a.onnx", ""], "is empty"),
        (["study", "filters", "", "a.png"], "MODEL is empty"),
    ],
)
def test_an_empty_name_is_not_the_working_folder(capsys, words, says):
    assert run(words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "variable of the shell" in said
