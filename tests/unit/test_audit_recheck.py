"""A second look at a report: what was changed in it or beside it is named."""

import json
import shutil

import audit_scenes as scenes
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from inspector.audit.report.recheck import recheck
from inspector.audit.run import AuditOptions, audit
from inspector.cli.audit import command
from inspector.errors import UsageError
from inspector.opening import Opening


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    place = tmp_path_factory.mktemp("recheck")
    model = scenes.saved(place, cheats=False)
    data = scenes.folder(place / "data", photos=4, share=0)
    options = AuditOptions(workers=1, thumbnails=False, fail_if=("top1 < 0.5", "top5 < 0.1"))
    audit(Opening(model, overrides=("mean=0", "std=1")), data, place / "out", options)
    return place / "out"


@pytest.fixture
def report(written, tmp_path):
    return shutil.copytree(written, tmp_path / "out")


def differing(report):
    return {check.name: check.text for check in recheck(report) if not check.agrees}


def test_a_report_as_it_was_written_agrees(report):
    names = [check.name for check in recheck(report)]
    assert differing(report) == {}
    assert {"rows.parquet", "report.html", "summary", "threshold 'top1 < 0.5'", "verdict"} <= {
        *names
    }


def change(report, edit):
    document = json.loads((report / "report.json").read_bytes())
    edit(document)
    (report / "report.json").write_text(json.dumps(document))


def test_a_number_that_the_rows_do_not_give_is_named(report):
    change(report, lambda document: document["summary"]["top1"].update(value=0.25))
    found = differing(report)
    assert set(found) == {"summary", "threshold 'top1 < 0.5'", "verdict"}
    assert "summary.top1.value is 1.0 by the rows, 0.25 in the report" in found["summary"]


def test_a_verdict_that_does_not_follow_is_named(report):
    change(report, lambda document: document["verdict"].update(passed=False))
    assert set(differing(report)) == {"verdict"}
    change(report, lambda document: document["thresholds"].pop())
    assert "threshold met" in differing(report)["verdict"]


def test_other_rows_and_other_files_are_named(report):
    table = parquet.read_table(report / "rows.parquet").to_pylist()
    table[0]["correct"] = not table[0]["correct"]
    parquet.write_table(pa.Table.from_pylist(table), report / "rows.parquet")
    (report / "report.html").unlink()
    (report / "junit.xml").write_bytes(b"<testsuites/>")
    found = differing(report)
    assert {"rows.parquet", "report.html", "junit.xml", "summary", "class"} <= set(found)
    assert "SHA-256" in found["junit.xml"]


STRANGE = {
    "text for a number": ("probability", "often"),
    "a list": ("probability", [1.0]),
    "a mapping": ("correct", {"a": 1}),
    "a number that is none": ("probability", float("nan")),
    "an infinity": ("border", float("inf")),
    "lists to compare": ("border", [1]),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_rows_of_a_stranger_are_refused(report, kind):
    column, value = STRANGE[kind]
    rows = parquet.read_table(report / "rows.parquet").to_pylist()
    changed = [row | {column: value} for row in rows]
    parquet.write_table(pa.Table.from_pylist(changed), report / "rows.parquet")
    with pytest.raises(UsageError):
        recheck(report)


def test_groups_that_are_no_list_are_refused(report):
    change(report, lambda document: document["data"].update(groups=5))
    with pytest.raises(UsageError, match="no audit writes"):
        recheck(report)


@pytest.mark.parametrize("name", ["../report.json", "", "/etc/hostname"])
def test_files_elsewhere_are_not_read(report, name):
    change(report, lambda document: document["files"].update({name: "0" * 64}))
    assert "not a file beside" in differing(report)[name]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {}, "thresholds": 3}'])
def test_what_is_no_report_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UsageError):
        recheck(tmp_path)


def test_thresholds_of_a_stranger_are_named(report):
    change(report, lambda document: document["thresholds"].append(3))
    change(report, lambda document: document["thresholds"].append({"fail_if": "top1 <"}))
    assert {"threshold 'None'", "threshold 'top1 <'", "verdict"} == set(differing(report))


def test_the_command_needs_neither_model_nor_data(report):
    found = CliRunner().invoke(command, ["--recheck", str(report)])
    assert found.exit_code == 0, found.output
    assert "agrees  rows.parquet" in found.output
    (report / "rows.csv").write_bytes(b"")
    found = CliRunner().invoke(command, ["--recheck", str(report / "report.json")])
    assert found.exit_code == 1
    assert "DIFFERS rows.csv" in found.output
