"""The other commands, and what holds for all of them."""

import json
import re
import subprocess
import sys

import click
import pytest
from waiting import WAIT, soon

from inspector.cli import Commands, program
from inspector.methods import methods

NAMES = sorted(program.list_commands(click.Context(program)))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_for_itself_and_all_its_options(name):
    assert isinstance(program, Commands)
    command = program.get_command(click.Context(program), name)
    assert command is not None
    assert (command.help or "").strip()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"


def test_explain_help_lists_methods_and_options_from_the_code(inspector):
    text = inspector("explain", "--help").stdout
    flat = " ".join(text.split())
    for method in methods().values():
        assert method.name in text
        assert method.summary.split(";")[0].split(":")[0] in flat
        for option in method.options.values():
            assert f":{option.name}={option.default}" in text
            assert option.help.split(";")[0].split(":")[0] in flat


# What a command's work needs, and the list of commands does not.
NOT_FOR_HELP = {"numpy", "subprocess", "tempfile", "ctypes", "csv"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["explain", "--help"],
        ["layers", "{m}"],
        ["explain", "{m}", "{i}", "-m", "cam", "-m", "occlusion"],
    ],
)
def test_torch_is_not_imported(samples, tmp_path, arguments):
    """Also not in the supervised child: the check runs in the process that does the work."""
    model, image = samples / "resnet20.onnx", samples / "images" / "cat_1.png"
    called = [argument.format(m=model, i=image) for argument in arguments]
    program_text = (
        "import sys, inspector.cli, inspector.cli.supervise as s\n"
        "s._can_fork = lambda: False\n"
        f"status = inspector.cli.run({called!r})\n"
        "heavy = {'torch', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "if '--help' in sys.argv: heavy |= {'onnxruntime'} & set(sys.modules)\n"
        f"if sys.argv[1:] == ['--help']: heavy |= {NOT_FOR_HELP!r} & set(sys.modules)\n"
        "sys.exit(status or ('imported ' + ', '.join(heavy) if heavy else 0))\n"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program_text, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_layers_names_default_and_head(inspector, samples):
    found = json.loads(inspector("layers", samples / "zfnet.onnx", "--json").stdout)
    default = [row for row in found["layers"] if row["default"]]
    assert [row["shape"] for row in default] == [[64, 8, 8]]
    assert found["layers"][0]["field"] == "5x5"
    assert found["cam"].startswith("not exact")
    text = inspector("layers", samples / "resnet20.onnx").stdout
    assert "exact at" in text
    assert "<- default" in text


def test_check_says_which_methods_work(inspector, samples):
    found = json.loads(inspector("check", samples / "zfnet.onnx", "--json").stdout)
    assert found["methods"]["cam"].startswith("refused")
    assert found["methods"]["grad-cam"] == "works"
    assert len(found["sha256"]) == 64


def test_doctor_reports_versions_and_providers(inspector):
    done = inspector("doctor")
    assert done.returncode == 0
    assert "CPUExecutionProvider       runs" in done.stdout
    assert re.search(
        r"^8-bit products +(exact|saturate on this processor)", done.stdout, re.MULTILINE
    )
    assert "torch" in done.stdout


def test_interrupt_is_130(samples, tmp_path):
    """Ctrl-C reaches the whole foreground group, supervisor and worker alike."""
    import os
    import signal

    photo = samples / "images" / "cat_1.png"
    child = subprocess.Popen(  # noqa: S603 - our own program
        [
            sys.executable,
            "-m",
            "inspector",
            "explain",
            str(samples / "all_cnn_c.onnx"),
            *[str(photo)] * 400,
            "-m",
            "cam",
            "-o",
            "out",
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    begun = soon(lambda: list((tmp_path / "out").glob("*.json")))
    assert child.poll() is None
    os.killpg(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=WAIT)
    assert begun, errors
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
