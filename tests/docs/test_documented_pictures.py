"""Pictures of the guides stand beside the commands that `docs/draw.py` draws them with."""

import importlib.util
import re

import pytest
from commands import ROOT, all_commands

PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


def drawn():
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs/draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PICTURES


def words(command):
    return command.split()


PICTURES = drawn()
COMMANDS = [(block.page, words(command)) for block, command in all_commands()]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_stands_on_the_page_of_its_command(name):
    command = PICTURES[name]
    pages = {page for page, given in COMMANDS if given == words(command)}
    generated = [
        page.relative_to(ROOT).as_posix()
        for page in PAGES
        if " ".join(words(command)) in " ".join(page.read_text().split())
    ]
    shown = [
        page.relative_to(ROOT).as_posix()
        for page in PAGES
        if re.search(rf"!\[[^]]+\]\(\S*images/{name}\.jpg\)", page.read_text())
    ]
    assert {*pages, *generated} & {*shown}, f"{name}: command and picture stand apart"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_enough_for_a_page(name):
    largest = 150_000 if name.endswith("-lite0") else 400_000
    assert 0 < (ROOT / f"docs/images/{name}.jpg").stat().st_size <= largest


def test_every_picture_of_a_page_has_a_description():
    for page in PAGES:
        assert not re.search(r"!\[\s*\]\(", page.read_text()), page
