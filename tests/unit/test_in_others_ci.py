"""The GitHub Action, the hooks of pre-commit and llms.txt: valid, and their shell runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import audit_scenes as scenes
import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
STEPS = {step.get("name", step.get("uses")): step for step in ACTION["runs"]["steps"]}
HOSTILE = "$(touch stolen); `touch stolen`; \"'; touch stolen; #"

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def test_the_action_is_composite_and_its_steps_are_complete():
    assert ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert "run" not in step or step["shell"] == "bash"
    assert {name for name, one in ACTION["inputs"].items() if one.get("required")} == {
        "model",
        "data",
    }
    said = re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text())
    assert set(said) == set(ACTION["inputs"])


def test_no_input_is_part_of_a_script():
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


@pytest.fixture
def workspace(tmp_path):
    """A workspace with a model, data and an ``inspector`` that says how it was called."""
    (tmp_path / "bin").mkdir()
    called = tmp_path / "bin" / "inspector"
    report = {"verdict": {"passed": False}}
    called.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "json.dump(sys.argv[1:], open('called.json', 'w'))\n"
        f"os.makedirs('out', exist_ok=True)\njson.dump({report}, open('out/report.json', 'w'))\n"
        "print('::error::a class of that name')\nsys.exit(1)\n"
    )
    called.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "photos").mkdir()
    return tmp_path


def run(workspace, **inputs):
    """The step "Audit" as a runner would run it."""
    given = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()} | {
        "model": "model.onnx",
        "data": "photos",
        "output": "out",
        **inputs,
    }
    step = STEPS["Audit"]
    filled = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: given[m[1]], text)
        for name, text in step["env"].items()
    }
    (workspace / "step.sh").write_text(step["run"])
    own = {
        "PATH": f"{workspace / 'bin'}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(workspace),
        "GITHUB_OUTPUT": str(workspace / "outputs.txt"),
        "GITHUB_STEP_SUMMARY": str(workspace / "summary.md"),
    }
    return subprocess.run(  # noqa: S603 - the step of our own action
        [shutil.which("bash"), "--noprofile", "--norc", "-eo", "pipefail", "step.sh"],
        cwd=workspace,
        env={**os.environ, **own, **filled},
        capture_output=True,
        text=True,
        check=False,
    )


@bash
def test_the_audit_s_status_is_the_step_s_and_its_outputs_are_kept(workspace):
    found = run(workspace, **{"fail-if": "top1 < 0.8\n\n inside_box < 0.5", "options": "-m\ncam"})
    assert found.returncode == 1
    assert json.loads((workspace / "called.json").read_text()) == [
        *("audit", "--output=out", "--fail-if=top1 < 0.8", "--fail-if= inside_box < 0.5"),
        *("-m", "cam", "--", "model.onnx", "photos"),
    ]
    outputs = (workspace / "outputs.txt").read_text().splitlines()
    assert outputs == ["report=out/report.json", "sarif=out/findings.sarif", "passed=false"]
    assert (workspace / "summary.md").read_text() == "    ::error::a class of that name\n"


@bash
def test_what_a_model_says_is_no_command_to_the_runner(workspace):
    first, said, last = run(workspace).stdout.splitlines()
    token = first.removeprefix("::stop-commands::")
    assert re.fullmatch("[0-9a-f]{32}", token)
    assert (said, last) == ("::error::a class of that name", f"::{token}::")


@bash
@pytest.mark.parametrize("name", ["fail-if", "options"])
def test_hostile_inputs_are_arguments_and_nothing_else(workspace, name):
    run(workspace, **{name: HOSTILE})
    called = json.loads((workspace / "called.json").read_text())
    assert any(HOSTILE in argument for argument in called)
    assert not (workspace / "stolen").exists()


@bash
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "missing.onnx"),
        ("model", HOSTILE),
        ("data", "--version"),
        ("output", ""),
        ("output", "a\npassed=true"),
        ("thresholds", "missing.toml"),
        ("upload-sarif", "perhaps"),
    ],
)
def test_wrong_inputs_are_named_before_anything_runs(workspace, name, value):
    found = run(workspace, **{name: value})
    assert found.returncode == 2
    assert f"input {name}" in found.stderr
    assert not (workspace / "called.json").exists()
    assert not (workspace / "stolen").exists()


@bash
@pytest.mark.conformance
def test_a_real_audit_in_the_action_s_step(workspace):
    scenes.saved(workspace, cheats=True)
    scenes.folder(workspace / "data", photos=8)
    stub = workspace / "bin" / "inspector"
    stub.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m inspector "$@"\n')
    found = run(
        workspace,
        model="cheating.onnx",
        data="data",
        options="--set\nmean=0\n--set\nstd=1",
        **{"fail-if": "photos < 100"},
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert "gate failed: photos is 16, below 100" in found.stderr
    assert json.loads((workspace / "out" / "findings.sarif").read_bytes())["runs"]
    assert "passed=false" in (workspace / "outputs.txt").read_text()


# -- pre-commit -----------------------------------------------------------------------------------


def test_hooks_have_what_pre_commit_asks_for():
    for hook in HOOKS.values():
        assert {"id", "name", "entry", "language", "files"} <= set(hook)
        assert re.search(hook["files"], "models/a.onnx")
        assert not re.search(hook["files"], "a.onnx.json")


@bash
def test_the_hook_checks_each_file_and_ends_with_the_last_fault(tmp_path):
    stub = tmp_path / "inspector"
    stub.write_text('#!/bin/sh\necho "$@" >> called.txt\ncase "$3" in bad*) exit 3;; esac\n')
    stub.chmod(0o755)
    status = subprocess.run(  # noqa: S603 - the entry of our own hook
        [*shlex.split(HOOKS["inspector-check"]["entry"]), "bad one.onnx", "good.onnx"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    ).returncode
    assert status == 3
    called = (tmp_path / "called.txt").read_text().splitlines()
    assert called == ["check -- bad one.onnx", "check -- good.onnx"]


# -- llms.txt -------------------------------------------------------------------------------------


def test_llms_txt_leads_to_pages_that_are_there():
    text = (ROOT / "llms.txt").read_text()
    assert text.startswith("# onnx-inspector\n\n> ")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 8
    assert all((ROOT / link).is_file() for link in links)
