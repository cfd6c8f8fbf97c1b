"""Data sets and reports at remote addresses: names, bounds, secrets, what is stored and when."""

import io
import json
import os
import zipfile

import fsspec
import pytest
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from inspector.audit.remote import transfer
from inspector.audit.remote.staging import check_address, is_remote, staged, without_credentials
from inspector.audit.remote.transfer import Transfer, names_below, redacted
from inspector.cli import audit as audit_command
from inspector.errors import UsageError


def png(value=0):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 40, 90)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def memory():
    """Files of this process's memory, as a store of objects."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield fsspec.filesystem("memory")
    MemoryFileSystem.store.clear()


def fetched(folder, url):
    (folder / "data").mkdir(parents=True)
    moved = Transfer(folder, url)
    return moved, moved.fetch()


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "name",
    [
        *("../a.png", "a/../../b.png", "/etc/a.png", "a//b.png", "./a.png", "a\\b.png"),
        *("C:a.png", "", "a\0.png"),
    ],
)
def test_a_name_that_leads_out_is_none(name):
    assert names_below(name) is None


@pytest.mark.parametrize("name", ["a.png", "cat/a b.png", "ü/..a.png", "a/b/c.png"])
def test_a_name_below_the_folder_keeps_its_parts(name):
    assert names_below(name) == tuple(name.split("/"))


def test_an_archive_cannot_write_outside_of_the_staging_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in ("cat/1.png", "../../evil.png", "notes.docx", "cat/\\..\\evil.png"):
            archive.writestr(name, png())
    place = tmp_path / "one" / "two"
    _, found = fetched(place, f"zip://::file://{tmp_path}/photos.zip")
    assert files(place) == ["data/data/cat/1.png"]
    assert not list(tmp_path.rglob("evil.png"))
    assert any("leads out" in reason for reason in found["failed"].values())


def test_a_table_brings_the_pictures_of_its_folder_and_no_other_file(memory, tmp_path):
    memory.pipe({"/set/t.csv": b"image\na.png\n", "/set/a.png": png(), "/set/other.csv": b"x"})
    place = tmp_path / "work"
    _, found = fetched(place, "memory://set/t.csv")
    assert found["source"] == "data/t.csv"
    assert files(place) == ["data/a.png", "data/t.csv"]


def test_what_a_listing_says_of_its_files_is_the_version(memory, tmp_path):
    memory.pipe("/set/a.png", png())
    before = fetched(tmp_path / "1", "memory://set")[1]["version"]
    assert fetched(tmp_path / "2", "memory://set")[1]["version"] == before
    memory.pipe("/set/a.png", png() + b"more")
    assert fetched(tmp_path / "3", "memory://set")[1]["version"] != before


def test_a_photo_that_cannot_be_fetched_is_one_reason(memory, tmp_path, monkeypatch):
    memory.pipe({"/set/a.png": png(), "/set/b.png": png()})
    opened = MemoryFileSystem._open

    def broken(self, path, *given, **options):
        if path.endswith("b.png"):
            message = f"denied for {os.environ['AWS_SECRET_ACCESS_KEY']}"
            raise PermissionError(message)
        return opened(self, path, *given, **options)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setattr(MemoryFileSystem, "_open", broken)
    _, found = fetched(tmp_path / "work", "memory://set")
    assert found["failed"] == {"b.png": "denied for ***"}
    assert files(tmp_path / "work") == ["data/set/a.png"]


def test_annotations_that_cannot_be_fetched_stop_the_run(memory, tmp_path, monkeypatch):
    memory.pipe({"/set/a.png": png(), "/set/annotations.json": b"{}" + b" " * 2000})
    monkeypatch.setattr(transfer, "MOST_BYTES", 1000)
    with pytest.raises(UsageError, match=r"annotations\.json cannot be fetched: it has more than"):
        fetched(tmp_path / "work", "memory://set")


def test_a_file_that_is_larger_than_the_listing_says_is_left_out(memory, tmp_path, monkeypatch):
    memory.pipe("/set/a.png", png() + bytes(5000))
    monkeypatch.setattr(transfer, "MOST_BYTES", 1000)
    listed = Transfer._listed

    def lies(self, *given):
        found, failed = listed(self, *given)
        return [(address, name, None, text) for address, name, _, text in found], failed

    monkeypatch.setattr(Transfer, "_listed", lies)
    _, found = fetched(tmp_path / "work", "memory://set")
    assert "more than" in found["failed"]["a.png"]
    assert not files(tmp_path / "work")


def test_more_than_fits_is_refused_before_it_is_fetched(memory, tmp_path, monkeypatch):
    memory.pipe("/set/a.png", png())
    monkeypatch.setattr(transfer, "_SPARE", 1 << 60)
    with pytest.raises(UsageError, match="are free in"):
        fetched(tmp_path / "work", "memory://set")
    monkeypatch.setattr(transfer, "MOST_FILES", 0)
    with pytest.raises(UsageError, match="more than 0 files"):
        fetched(tmp_path / "again", "memory://set")


def test_the_document_is_stored_last_and_a_journal_that_is_done_is_removed(memory, tmp_path):
    moved = Transfer(tmp_path, report="memory://out/report")
    moved.fetch()
    assert memory.exists("/out/report/audit.partial.jsonl")  # the place can be written to
    folder = tmp_path / "report"
    (folder / "thumbnails").mkdir()
    (folder / "thumbnails" / "a.png").write_bytes(png())
    (folder / "audit.partial.jsonl").write_bytes(b"row\n")
    moved.store(whole=False)
    assert memory.cat("/out/report/audit.partial.jsonl") == b"row\n"
    assert memory.exists("/out/report/thumbnails/a.png")
    (folder / "audit.partial.jsonl").unlink()
    for name in ("report.json", "rows.csv"):
        (folder / name).write_bytes(name.encode())
    written = []
    moved._written = lambda name, data, write=moved._written: (
        written.append(name),
        write(name, data),
    )
    assert moved.store(whole=True) == 2
    assert written == ["rows.csv", "report.json"]
    assert not memory.exists("/out/report/audit.partial.jsonl")


def test_an_interrupted_run_goes_on_from_the_remote_journal(memory, tmp_path):
    memory.pipe("/out/audit.partial.jsonl", b"head\nrow\n")
    moved = Transfer(tmp_path, report="memory://out")
    moved.fetch()
    assert (tmp_path / "report" / "audit.partial.jsonl").read_bytes() == b"head\nrow\n"


def test_a_link_in_the_reports_folder_is_not_followed(memory, tmp_path):
    (tmp_path / "secret").write_text("secret")
    moved = Transfer(tmp_path, report="memory://out")
    moved.fetch()
    (tmp_path / "report" / "rows.csv").symlink_to(tmp_path / "secret")
    (tmp_path / "report" / "audit.partial.jsonl").symlink_to(tmp_path / "secret")
    moved.store(whole=True)
    assert not memory.exists("/out/rows.csv")
    assert not memory.exists("/out/audit.partial.jsonl")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://example.org/photos", "https:// is refused"),
        ("zip://a::https://example.org/a.zip", "https:// is refused"),
        ("reference://::s3://bucket/index.json", "reference:// is refused"),
        ("s3://key:word@bucket/photos", r"s3://\*\*\*: the address holds a password"),
    ],
)
def test_an_address_that_is_refused(address, said):
    with pytest.raises(UsageError, match=said) as caught:
        check_address(address)
    assert "word@" not in str(caught.value)


@pytest.mark.parametrize("text", ["photos", "./s3/photos", "C:\\photos", "a:b", "photos/a::b"])
def test_a_path_is_no_address(text):
    assert not is_remote(text)


def test_an_unknown_protocol_and_a_missing_package_are_named(tmp_path):
    with pytest.raises(UsageError, match="does not know this protocol"):
        Transfer(tmp_path, "nosuch://a/b").fetch()
    if "s3fs" not in fsspec.registry:
        pytest.importorskip("fsspec")
        try:
            import s3fs  # noqa: F401
        except ImportError:
            with pytest.raises(UsageError, match=r"onnx-inspector\[remote\]"):
                Transfer(tmp_path, "s3://a/b").fetch()


def test_messages_hold_no_secret(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "abcdef123456")
    said = redacted("GET https://u:pw12@host/a?X-Amz-Signature=99 with abcdef123456")
    assert "pw12" not in said
    assert "99" not in said
    assert "abcdef" not in said


def test_the_audit_runs_on_copies_and_without_credentials(tmp_path, monkeypatch):
    """Through the command and a real process that transfers; the audit itself is not run."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(png())
    (tmp_path / "photos" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    seen = {}

    def audited(opening, limits, options):
        seen.update(options, secret=os.environ.get("AWS_SECRET_ACCESS_KEY"))
        seen["photos"] = files(options["data"])
        (options["output"] / "report.json").write_text("{}")
        return 0

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setattr(audit_command, "_supervised", audited)
    given = ["model.onnx", f"file://{tmp_path}/photos", "-o", f"file://{tmp_path}/report"]
    found = CliRunner().invoke(audit_command.command, given, standalone_mode=False)
    assert found.exception is None, found.output
    assert seen["secret"] is None
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "wJalrXUtnFEMI"  # noqa: S105 - invented
    assert seen["photos"] == ["a.png"]
    assert list(seen["fetched"].failed) == ["gone.png"]
    assert seen["data"].parent.parent != tmp_path
    assert files(tmp_path / "report") == ["report.json"]
    assert not seen["data"].exists()


def test_what_cannot_be_stored_is_kept_here(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = tmp_path / "target"
    with staged(tmp_path, f"file://{target}") as place:
        (place.folder / "report.json").write_text("{}")
        (target / "audit.partial.jsonl").unlink()
        target.rmdir()
        target.write_text("a file in the way")
        with pytest.raises(UsageError, match="what was computed is kept in") as caught:
            place.store()
    kept = next(tmp_path.glob("inspector-report-*"))
    assert str(kept) in str(caught.value)
    assert json.loads((kept / "report.json").read_text()) == {}


def test_only_what_a_process_needs_is_left(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json")
    with without_credentials():
        assert "HF_TOKEN" not in os.environ
        assert "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ
        assert "PATH" in os.environ
    assert os.environ["HF_TOKEN"] == "hf_abcdefgh"  # noqa: S105 - invented
