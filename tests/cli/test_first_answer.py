"""What a command says first: which command was meant, the classes, where the files are."""

import io
from dataclasses import replace
from pathlib import Path

import click
import pytest
from rich.console import Console

import inspector
from inspector.cli import check, program, run
from inspector.cli.terminal import show_report

SAMPLES = Path(__file__).parents[2] / "sample_models"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["explian", "m.onnx", "p.png"], "Did you mean explain?"),
        (["study", "filtres", "m.onnx"], "Did you mean filters?"),
        (["zzz"], "No such command 'zzz'."),
        (["explain", "m.onnx", "p.png", "--format", "gif"], "no format 'gif'"),
        (["explain", "m.onnx", "p.png", "--format", ","], "no format is named"),
    ],
)
def test_a_word_that_is_no_command(words, says, capsys):
    assert run(words) == 2
    assert says in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("first", ["model.onnx", "folder/model", "./explain", ".", "model.keras"])
def test_a_file_is_explained(first):
    context = click.Context(program)
    name, _, rest = program.resolve_command(context, [first, "photo.png"])
    assert (name, rest) == ("explain", [first, "photo.png"])


def test_a_command_is_not_a_file_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "check").write_text("")
    monkeypatch.chdir(tmp_path)
    assert program.resolve_command(click.Context(program), ["check", "x"])[0] == "check"


def test_no_command_at_all_shows_the_help(capsys):
    assert run([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Usage: inspector")
    assert "\n  explain  Show where MODEL looks in each IMAGE" in said
    assert "..." not in said.partition("Commands:")[2]


@pytest.fixture(scope="module")
def report():
    model = inspector.load(SAMPLES / "resnet20.onnx")
    return model.explain(SAMPLES / "images" / "deer_1.png", "cam").images[0]


def classes(*probabilities):
    names = ("deer", "horse", "dog")
    return [
        {"label": name, "index": 0, "score": 1.0, "probability": p, "assumed_softmax": True}
        for name, p in zip(names, probabilities, strict=False)
    ]


def shown(report, written, capsys, **options):
    show_report(report, written, **options)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("probabilities", "says"),
    [
        (
            (0.5, 0.41, 0.09),
            "deer 50.0%, horse 41.0%, dog 9.0% (softmax of the scores); a close call",
        ),
        ((0.6, 0.4), "deer 60.0%, horse 40.0% (softmax of the scores)\n"),
        ((0.99999, 0.00001), "deer >99.9% (softmax of the scores)\n"),
        ((1.0, 0.0), "deer 100.0% (softmax of the scores)\n"),
        ((None, None), "deer score 1.000, horse score 1.000"),
    ],
)
def test_the_best_classes(report, probabilities, says, capsys):
    said = shown(replace(report, predictions=classes(*probabilities)), [Path("a.json")], capsys)
    assert says in said
    assert ("close call" in said) == ("close call" in says)


def test_paths_are_whole_and_details_on_request(report, tmp_path, capsys):
    folder = tmp_path / ("deep" * 50)
    written = [folder / "deer.cam.deer.png", folder / "deer.cam.deer.npz", folder / "deer.json"]
    said = shown(report, written, capsys)
    assert f"\n{written[0]}\n" in said
    assert f"numbers in {folder}: deer.cam.deer.npz, deer.json\n" in said
    assert "preprocessing" not in said
    said = shown(report, written, capsys, details=True)
    assert "preprocessing size=32,32: declared input of the model" in said
    assert "runs on: CPUExecutionProvider" in said


@pytest.mark.parametrize(("path", "heading"), [("d.png", "d.png"), ("deer/d.png", "deer/d.png")])
def test_photos_of_one_name_are_headed_as_they_were_named(report, path, heading, capsys):
    photo = replace(report.photo, path=Path(path), name="d.png")
    second = replace(report, photo=photo, stem="d-2")
    assert shown(second, [], capsys).startswith(f"{heading}  ")


@pytest.mark.parametrize("width", [20, 60, 200])
def test_nothing_that_is_copied_is_cut_at_any_width(report, width, monkeypatch):
    name = "/detect_head/cls_layers/conv5x5/conv5x5.2/Relu_output_0"
    one = report.explanations[0]
    attribution = replace(one.attribution, layer=name, method="guided-grad-cam")
    one = replace(one, heatmap=replace(one.heatmap, attribution=attribution))
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr("inspector.cli.terminal.table_console", lambda: console)
    show_report(replace(report, explanations=(one,)), [])
    assert name in text.getvalue()
    assert "…" not in text.getvalue()
    assert f"{one.attribution.score:.3f}" in text.getvalue()


@pytest.mark.parametrize("known", [True, False])
def test_check_ends_with_5_where_time_ran_out(known, monkeypatch, capsys):
    verdicts = {"cam": "works", "gradient": "works" if known else check._NOT_TRIED}
    monkeypatch.setattr(check, "_methods", lambda *_: verdicts)
    assert run(["check", str(SAMPLES / "resnet20.onnx")]) == (0 if known else 5)
    assert "cam      works" in capsys.readouterr().out
