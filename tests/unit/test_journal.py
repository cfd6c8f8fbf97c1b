"""Results of a long run outlive it."""

import json
import os
from pathlib import Path

import pytest

from inspector.audit import run as audit_run
from inspector.audit.report import AuditReport
from inspector.cli import audit as command
from inspector.cli.options import OPENING
from inspector.errors import UsageError
from inspector.passes.journal import Journal, discard, identity_of


def lines(path):
    return path.read_text().splitlines()


def test_results_come_back_exactly(tmp_path):
    path = tmp_path / "deep" / "x.partial.jsonl"
    first = Journal(path, "run")
    values = [0.1, 1 / 3, 1e-320, -0.0, 2**60]
    first.keep("a", {"values": values, "name": "é\n"})
    first.keep("b", (1, 2))
    assert first["b"] == [1, 2]  # as it will read after a resumption
    first.close()
    again = Journal(path, "run")
    assert (again.found, again.kept) == (2, 2)
    assert again["a"] == {"values": values, "name": "é\n"}
    assert str(again["a"]["values"][3]) == "-0.0"
    assert "a" in again
    assert "c" not in again
    again.keep("c", None)
    again.close()
    assert len(lines(path)) == 4
    Journal(path, "run").finish()
    assert not path.exists()


def test_a_cut_off_line_is_forgotten(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, "run")
    journal.keep("a", 1)
    journal.keep("b", 2)
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        found = Journal(path, "run")
        assert found.found == whole[:cut].count(b"\n") - (cut > whole.index(b"\n"))
        found.keep("z", 9)
        found.close()
        rows = [json.loads(line) for line in lines(path)]
        assert rows[-1] == ["z", 9]
        assert Journal(path, "run").kept == found.kept


def test_another_run_is_not_taken_over(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, "one")
    journal.keep("a", 1)
    journal.close()
    other = Journal(path, "two")
    assert (other.found, other.kept) == (0, 0)
    other.keep("b", 2)
    other.close()
    assert Journal(path, "one").found == 0
    assert Journal(path, "two")["b"] == 2


@pytest.mark.parametrize(
    "garbage", [b"\0\xff" * 40, b"[1,2]\n", b'{"journal": 1}\n{}\n', b"[" * 9999]
)
def test_garbage_is_an_empty_journal(tmp_path, garbage):
    path = tmp_path / "j"
    path.write_bytes(garbage)
    journal = Journal(path, "run")
    assert journal.found == 0
    journal.keep("a", 1)
    journal.close()
    assert Journal(path, "run")["a"] == 1


def test_what_json_cannot_say_is_not_kept(tmp_path):
    journal = Journal(tmp_path / "j", "run")
    with pytest.raises(ValueError, match="JSON"):
        journal.keep("a", float("nan"))
    assert "a" not in journal


def test_memory_alone_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal()
    journal.keep("a", 1)
    journal.finish()
    assert journal["a"] == 1
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        Journal(tmp_path / "file" / "j", "run").keep("a", 1)


@pytest.mark.parametrize("second_name", [Path.symlink_to, Path.hardlink_to])
def test_a_journal_is_not_written_through_another_name(tmp_path, second_name):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path = tmp_path / "x.partial.jsonl"
    second_name(path, precious)
    with pytest.raises(UsageError, match="link"):
        Journal(path, "run").keep("a", 1)
    assert precious.read_text() == "precious"
    discard(path)  # --fresh: the name goes, what it stood for stays
    journal = Journal(path, "run")
    journal.keep("a", 1)
    journal.close()
    assert Journal(path, "run").found == 1
    assert precious.read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_not_a_journal(tmp_path):
    os.mkfifo(tmp_path / "j")
    with pytest.raises(UsageError, match="not a regular file"):
        Journal(tmp_path / "j", "run")


def test_identity_depends_on_all_that_matters(tmp_path):
    photo = tmp_path / "a.png"
    photo.write_bytes(b"1")
    base = identity_of({"layer": 1}, [photo])
    assert base == identity_of({"layer": 1}, [photo])
    assert base != identity_of({"layer": 2}, [photo])
    assert base != identity_of({"layer": 1}, [photo, photo])
    photo.write_bytes(b"22")
    assert base != identity_of({"layer": 1}, [photo])


@pytest.mark.parametrize("taken_over", [0, 2])
def test_rows_that_lay_in_the_folder_of_an_audit_are_said(
    tmp_path, monkeypatch, capsys, taken_over
):
    """Whoever prepared an unpacked folder may have written them."""
    contents = {"warnings": [], "data": {"refused": []}, "verdict": {"passed": None}}
    report = AuditReport(contents, [{}, {}, {}], taken_over=taken_over)
    monkeypatch.setattr(audit_run, "audit", lambda *_, **__: report)
    opening = dict.fromkeys(OPENING, ()) | {"device": "cpu", "trust": False, "labels": None}
    opening |= {"preprocess": None, "weights": "", "signature": "", "python": ""}
    status = command._audit(
        opening, model=Path("m"), data=tmp_path, output=tmp_path, as_json=True, method=()
    )
    assert status == 0
    said = capsys.readouterr().err
    assert ("2 of 3 photos are those of an interrupted run" in said) == bool(taken_over)
