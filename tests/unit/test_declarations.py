"""What the files of methods and studies say in their text is what they are when imported."""

import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import inspector.cli.study as study_command
from inspector.cli import completion, explain
from inspector.declarations import declarations
from inspector.methods import methods
from inspector.studies import studies, study_named

ROOT = Path(__file__).resolve().parents[2]


def test_text_of_methods_says_what_the_methods_are():
    found = declarations("inspector.methods", "method")
    assert set(found) == set(methods())
    for name, one in methods().items():
        assert found[name].summary == one.summary
        assert dict(found[name].options) == one.options
        assert found[name].module == one.function.__module__
    assert [one.name for one in completion.described_methods()] == list(methods())


def test_order_of_methods_does_not_depend_on_what_was_asked_for_before():
    code = (
        "from inspector.methods import methods, parse_request; parse_request('occlusion'); "
        "print(*methods())"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [one.name for one in completion.described_methods()]


def test_text_of_studies_says_what_the_studies_are():
    found = declarations("inspector.studies", "study")
    assert set(found) == set(studies())
    for name, one in studies().items():
        assert found[name].documentation == one.documentation
        assert dict(found[name].options) == one.options
        assert found[name].facts["images"] == one.images
        assert found[name].facts.get("labelled", False) == one.labelled
        assert study_named(name) is one


def test_study_of_no_name_is_not_found():
    with pytest.raises(KeyError):
        study_named("invarience")


@pytest.fixture
def without_source(monkeypatch):
    """Installed without source text."""
    for module in (completion, study_command):
        monkeypatch.setattr(module, "declarations", lambda *_: {})
    study_command._described.cache_clear()
    yield
    study_command._described.cache_clear()


def _pages():
    commands = [explain.command, study_command.command]
    commands += [study_command.command.get_command(None, name) for name in studies()]
    return [one.get_help(click.Context(one, info_name=one.name)) for one in commands]


def test_help_is_the_same_without_source(request):
    expected = _pages()
    request.getfixturevalue("without_source")
    assert _pages() == expected


def test_package_of_compiled_files_alone_declares_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "compiled_methods"
    folder.mkdir()
    text = '@method("plain", order=1)\ndef plain(x, *, size: int = -3):\n    """Plain one."""\n'
    (folder / "plain.py").write_text(text)
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert declarations("compiled_methods", "method")["plain"].options["size"].default == -3
    assert "compiled_methods" not in sys.modules  # read, not imported
    py_compile.compile(folder / "plain.py", cfile=folder / "plain.pyc")
    (folder / "plain.py").unlink()
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    monkeypatch.setattr(sys, "path_importer_cache", {})
    assert dict(declarations("compiled_methods", "method")) == {}
