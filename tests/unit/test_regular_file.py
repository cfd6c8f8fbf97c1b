"""The one door to files whose name or place a stranger chose."""

import os
import sys
import threading
from pathlib import Path

import pytest

from converters.regular_file import (
    first_bytes,
    open_regular,
    open_to_append,
    read_beside,
    read_regular,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="devices and kernel files of Linux")


@pytest.fixture
def pipe(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes on this system")
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def _soon(work):
    """What the work raised; a door that waits fails the test instead of hanging it."""
    caught = []

    def run():
        try:
            work()
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "the door waits"
    return caught[0] if caught else None


def test_a_regular_file_is_read_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert read_regular(path, 10) == b"0123456789"
    assert first_bytes(path, 4) == b"0123"
    with open_regular(path) as stream:
        assert stream.read() == b"0123456789"


def test_a_larger_file_is_refused_unread(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)  # a hole: nothing could hold it
    with pytest.raises(OSError, match="more than 1 MiB"):
        read_regular(path, 1 << 20)


def test_a_pipe_is_not_waited_for(pipe):
    assert "not a regular file" in str(_soon(lambda: read_regular(pipe, 10)))
    assert "not a regular file" in str(_soon(lambda: open_regular(pipe)))
    assert "not a regular file" in str(_soon(lambda: open_to_append(pipe)))
    assert _soon(lambda: first_bytes(pipe, 4)) is None
    assert first_bytes(pipe, 4) == b""


@linux
@pytest.mark.parametrize("name", ["/dev/zero", "/dev/full", "/dev/tty", "/proc/kmsg", "/"])
def test_devices_and_kernel_files_give_nothing(name):
    found = []
    error = _soon(lambda: found.append(read_regular(name, 1 << 20)))
    assert error is not None or found == [b""]
    assert first_bytes(name, 8) == b""


def test_a_link_where_a_stranger_chose_the_name(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert read_regular(link, 100) == b"secret"
    with pytest.raises(OSError, match="is a link"):
        read_regular(link, 100, follow=False)


def test_a_side_file_stays_in_its_folder(tmp_path):
    folder, other = tmp_path / "model", tmp_path / "other"
    for place in (folder, other):
        place.mkdir()
        (place / "inside.json").write_bytes(b"{}")
    (folder / "out.json").symlink_to(other / "inside.json")
    (folder / "in.json").symlink_to("inside.json")
    (folder / "circle.json").symlink_to("circle.json")
    assert read_beside(folder, "inside.json", 10) == b"{}"
    assert read_beside(folder, "in.json", 10) == b"{}"
    for name in ("out.json", "circle.json", "missing.json", "a\0b", "../other/inside.json"):
        with pytest.raises(OSError, match=r".") as caught:
            read_beside(folder, name, 10)
        assert caught.value.strerror, name


def test_a_snapshot_of_the_hugging_face_cache_is_one_folder(tmp_path):
    blobs, snapshot = tmp_path / "m" / "blobs", tmp_path / "m" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "0123").write_bytes(b"{}")
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    (snapshot / "secret.json").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(b"secret")
    assert read_beside(snapshot, "config.json", 10) == b"{}"
    with pytest.raises(OSError, match="out of its folder"):
        read_beside(snapshot, "secret.json", 10)


def test_appending_goes_on_behind_what_is_kept(tmp_path):
    path = tmp_path / "journal"
    with open_to_append(path) as file:
        file.write(b"one\ntwo\n")
    with open_to_append(path, keep=4) as file:
        file.write(b"three\n")
    assert path.read_bytes() == b"one\nthree\n"


@pytest.mark.parametrize("second_name", [Path.symlink_to, Path.hardlink_to])
def test_appending_never_reaches_another_file(tmp_path, second_name):
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    name = tmp_path / "journal"
    second_name(name, precious)
    with pytest.raises(OSError, match="link"):
        open_to_append(name, keep=0)
    assert precious.read_bytes() == b"precious"


def test_appending_does_not_make_what_a_link_points_to(tmp_path):
    link = tmp_path / "journal"
    link.symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="link"):
        open_to_append(link)
    assert not (tmp_path / "new").exists()
