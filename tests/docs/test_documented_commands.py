"""Every command and every Python block of the documentation runs as it is written."""

import warnings

import onnxruntime  # noqa: F401 - loaded once, so that no command forks a child that loads it anew
import pytest
import torch  # noqa: F401 - as above
from commands import NOT_RUN, ROOT, all_commands, arguments, blocks

from inspector import cli

RUN = [(block, command) for block, command in all_commands() if command not in NOT_RUN]
PYTHON = [block for block in blocks() if block.language == "python"]

SLOW = (
    "docs/studies/",
    *(f"docs/{page}.md" for page in ("audit", "compare", "convert", "verify")),
    *(f"docs/{page}.md" for page in ("inputs", "reading", "schemas", "tutorial")),
)
"""Pages whose commands belong to the long runs, as audits and studies of any page do."""


def cases():
    for block, command in RUN:
        slow = block.page.startswith(SLOW) or command.split()[1] in {"audit", "compare", "study"}
        long = pytest.mark.conformance if slow else ()
        yield pytest.param(command, id=f"{block}-{command}", marks=long)


@pytest.mark.parametrize("command", list(cases()))
def test_a_documented_command_runs(command, workspace, tmp_path, capsys):
    found, folder = arguments(command, workspace), tmp_path
    writes = found[0] in {"explain", "compare", "study", "audit"} and "--recheck" not in found
    if writes and "-o" in found:
        folder = workspace / found[found.index("-o") + 1]
    elif writes:
        found += ["-o", str(tmp_path)]
    with warnings.catch_warnings():  # the command line shows the package's own warnings
        warnings.simplefilter("default")
        status = cli.run(found)
    shown = capsys.readouterr()
    assert status == 0, f"{found}\n{shown.out}\n{shown.err}"
    assert shown.out
    if found[0] == "audit" and writes:
        assert {"report.json", "rows.csv"} <= {path.name for path in folder.iterdir()}
    if found[0] in {"explain", "compare", "study"}:
        assert [*folder.glob("*.png"), *folder.glob("*.svg")], "no picture was written"
        assert any(folder.glob("*.json")), "no report was written"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_documented_python_block_runs(block, workspace):
    source = compile(block.text, f"{ROOT / block.page}", "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        exec(source, {"__name__": "__main__"})  # noqa: S102 - our own documentation
    assert any((workspace / "out").iterdir())


def test_what_is_not_run_is_documented():
    assert set(NOT_RUN) <= {command for _, command in all_commands()}


def test_commands_are_found_on_every_page_that_explains_one():
    pages = {block.page for block, _ in all_commands()}
    studies = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/studies").glob("*.md")}
    assert pages >= {"README.md", "docs/compare.md", "docs/convert.md", *studies}
    assert len(PYTHON) >= 2
