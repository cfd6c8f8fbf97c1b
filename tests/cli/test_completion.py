"""What the shell offers: commands, options, methods, targets and layers."""

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from inspector.cli import program

MODEL = str(Path(__file__).parents[2] / "sample_models" / "resnet20.onnx")


def offered(words, begun):
    shell = ShellComplete(program, {}, "inspector", "_INSPECTOR_COMPLETE")
    return [item.value for item in shell.get_completions(words, begun)]


@pytest.mark.parametrize(
    ("words", "begun", "found"),
    [
        ([], "dem", ["demo"]),
        (["explain", MODEL], "--alp", ["--alpha"]),
        (["explain", MODEL, "-m"], "grad-", ["grad-cam", "grad-cam++"]),
        (["explain", MODEL, "-t"], "ho", ["horse"]),
        (["explain", MODEL, "-t"], "TOP", ["top1", "top3"]),
        (["explain", MODEL, "--layer"], "relu_18", ["relu_18"]),
        (["explain", MODEL, "--layer"], "la", ["last"]),
        (["explain", "nothing.onnx", "-t"], "h", []),
        (["explain", __file__, "--layer"], "r", []),
    ],
)
def test_what_is_offered(words, begun, found):
    assert offered(words, begun) == found


def test_classes_come_from_the_file_that_is_named(tmp_path):
    (tmp_path / "names.txt").write_text("badger\n" * 1 + "fox\n", encoding="utf-8")
    words = ["explain", MODEL, "--labels", str(tmp_path / "names.txt"), "-t"]
    assert offered(words, "") == ["top1", "top3", "badger", "fox"]
