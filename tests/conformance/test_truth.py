"""The truth table of this project's own methods, and the reproductions that its page prints."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "truth.md"
sys.path.insert(0, str(ROOT / "benchmarks" / "truth"))

from cells import OURS, exact  # noqa: E402 - it lies in a folder of scripts
from reasons import reason_of  # noqa: E402

pytestmark = pytest.mark.conformance


def test_every_red_cell_of_ours_is_by_definition_of_the_method():
    found = exact(1, [], lambda _: None)
    red = {
        (method, name): cell.interval[0]
        for (package, method), row in found.items()
        for name, cell in row.items()
        if package == OURS and cell.state == "wrong"
    }
    assert {key: red[key] for key in red if not reason_of(*key)} == {}
    assert len(red) > 10  # the units ask something


def reproductions():
    """Blocks of the page that need no other package."""
    ours = PAGE.read_text().partition(f"### {OURS}")[2].partition("\n### ")[0]
    return re.findall(r"\n([\w+-]+)\n\n```python\n(.*?)```", ours, re.DOTALL)


def test_reproductions_of_our_red_cells_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = [one for one in reproductions() if "tetromino" not in one[1]]
    assert found
    for method, text in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(text, {})  # noqa: S102 - our own page
        numbers = [float(line.rsplit(" ", 1)[1]) for line in printed.getvalue().splitlines()]
        assert numbers, method
        assert min(numbers) < 0.9, (method, numbers)
