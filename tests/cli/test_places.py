"""Places that cannot be written to: a sentence and status 2, and nothing is lost or overwritten."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inspector import whole_file
from inspector.cli import run
from inspector.errors import UsageError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="devices of Linux")


@pytest.fixture
def shell(tmp_path, samples):
    """Run ``inspector ARGUMENTS`` with its streams bent by a shell."""

    def call(arguments, streams="", **environment):
        command = f'"$0" -m inspector {arguments} {streams}'
        return subprocess.run(  # noqa: S603 - our own program
            ["/bin/sh", "-c", command, sys.executable],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={**os.environ, "SAMPLES": str(samples), **environment},
        )

    return call


@pytest.mark.parametrize("arguments", ['layers "$SAMPLES/resnet20.onnx" --json', "--help"])
def test_a_full_output_is_said_in_a_line(shell, arguments):
    done = shell(arguments, "> /dev/full")
    assert done.returncode == 2
    assert "output: " in done.stderr
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_output_ends_without_a_word(shell):
    for streams in ("| true", ">&-"):
        done = shell('layers "$SAMPLES/resnet20.onnx"', streams)
        assert done.stderr == "", streams


def test_results_do_not_depend_on_who_listens(shell, tmp_path):
    shell('explain "$SAMPLES/resnet20.onnx" "$SAMPLES/images/cat_1.png" -m cam', ">&- 2>&- <&-")
    assert (tmp_path / "inspection" / "cat_1.json").stat().st_size > 100


def test_a_default_folder_that_is_a_link(shell, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "cat_1.json").write_text("precious")
    (tmp_path / "inspection").symlink_to(other)
    explain = 'explain "$SAMPLES/resnet20.onnx" "$SAMPLES/images/cat_1.png" -m cam'
    refused = shell(explain)
    assert refused.returncode == 2
    assert "is a link" in refused.stderr
    assert (other / "cat_1.json").read_text() == "precious"
    foreign = shell(f"{explain} -o inspection")
    assert foreign.returncode == 2
    assert "is not a report" in foreign.stderr
    assert (other / "cat_1.json").read_text() == "precious"
    (other / "cat_1.json").unlink()
    named = shell(f"{explain} -o inspection")
    assert named.returncode == 0, named.stderr
    assert (other / "cat_1.json").exists()


@pytest.mark.parametrize("place", ["/dev/null", "/dev/full", "/dev/null/x", "x" * 300])
@pytest.mark.parametrize("command", ["verify a.onnx -o", "convert a.pt2 -o"])
def test_no_device_is_replaced(capsys, command, place):
    before = Path("/dev/null").stat().st_rdev
    assert run([*command.split(), place]) == 2
    assert (place.rpartition("/x")[0] or place) in capsys.readouterr().err
    assert Path("/dev/null").stat().st_rdev == before


def test_a_full_disk_is_said_as_such(tmp_path, monkeypatch):
    place = tmp_path / "a.json"

    def full(folder):
        handle, path = os.open("/dev/full", os.O_WRONLY), folder / "draft"
        path.write_bytes(b"")
        return handle, path

    monkeypatch.setattr(whole_file, "temporary_file", full)
    with pytest.raises(UsageError, match=r"No space left on device.*the disk is full"):
        whole_file.write_whole(place, b"x" * 100)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_system_is_a_sentence(capsys):
    from inspector.cli.supervise import outcome

    def work():
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/x")

    assert outcome(work) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: /somewhere/x: No space left on device; the disk is full")


def test_a_cache_that_keeps_nothing_is_said_once(shell, tmp_path):
    (tmp_path / "file").write_text("x")
    done = shell(
        'explain "$SAMPLES/resnet20.onnx" "$SAMPLES/images/cat_1.png" '
        '"$SAMPLES/images/dog_1.png" -m grad-cam',
        INSPECTOR_CACHE=str(tmp_path / "file"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("nothing is kept in the cache") == 1
