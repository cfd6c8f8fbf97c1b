"""What is left behind by processes that were killed goes; what is in use stays."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converters import work_folder as module
from converters.work_folder import announce_to, sweep, temporary_file, work_folder

ROOT = Path(__file__).parents[2]
LEAVES = """
import os, signal, sys
from pathlib import Path
from converters.work_folder import temporary_file, work_folder
handle, path = temporary_file(Path(sys.argv[1]))
with work_folder(Path(sys.argv[1])) as folder:
    (folder / "draft").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
posix = pytest.mark.skipif(os.name != "posix", reason="a process is asked for by a signal")


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch):
    monkeypatch.setattr(module, "_told", set())
    monkeypatch.setattr(module, "_listener", [])


def left_by_a_killed_process(folder):
    words = [sys.executable, "-c", LEAVES, str(folder)]
    subprocess.run(words, cwd=ROOT, check=False, timeout=60)  # noqa: S603 - our own script
    return sorted(path.name for path in folder.iterdir())


def renamed(folder, **parts):
    """What a process left, under the name that another one would have given it."""
    (place,) = (p for p in folder.iterdir() if p.is_dir())
    found = module._NAME.fullmatch(place.name)
    name = place.name
    for key, value in parts.items():
        start, end = found.span(key)
        name = name[:start] + value + name[end:]
        found = module._NAME.fullmatch(name)
    return place.rename(folder / name)


def test_a_work_folder_is_private_and_goes(tmp_path):
    with work_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert os.name != "posix" or folder.stat().st_mode & 0o777 == 0o700
        (folder / "draft").write_text("half")
        sweep(tmp_path)
        assert (folder / "draft").exists(), "in use"
    assert list(tmp_path.iterdir()) == []


@posix
def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path):
    assert len(left_by_a_killed_process(tmp_path)) == 2
    (tmp_path / ".inspector-notes").write_text("the user's own")
    handle, path = temporary_file(tmp_path)
    os.close(handle)
    assert {p.name for p in tmp_path.iterdir()} == {".inspector-notes", path.name}


@posix
def test_a_process_of_the_same_number_is_another_one(tmp_path):
    left_by_a_killed_process(tmp_path)
    place = renamed(tmp_path, pid=str(os.getpid()), start="1")
    sweep(tmp_path)
    assert place.exists() is not Path("/proc/self/stat").exists()


@posix
@pytest.mark.parametrize("part", [{"host": "0" * 6}, {"space": "1"}])
def test_of_another_machine_or_container_only_old_things_go(tmp_path, part):
    left_by_a_killed_process(tmp_path)
    place = renamed(tmp_path, **part)
    sweep(tmp_path)
    assert place.exists()
    old = time.time() - module.OLD_SECONDS - 60
    os.utime(place, (old, old))
    sweep(tmp_path)
    assert not place.exists()


@posix
def test_what_was_left_before_the_machine_started_anew_goes(tmp_path):
    left_by_a_killed_process(tmp_path)
    place = renamed(tmp_path, boot="0" * 6, pid=str(os.getpid()))
    sweep(tmp_path)
    assert not place.exists()


@posix
def test_a_link_is_removed_and_what_it_names_stays(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("mine")
    work = tmp_path / "work"
    work.mkdir()
    left_by_a_killed_process(work)
    place = next(p for p in work.iterdir() if p.is_dir())
    (place / "draft").unlink()
    place.rmdir()
    place.symlink_to(kept)
    sweep(work)
    assert list(work.iterdir()) == []
    assert (kept / "file").exists()


def test_each_folder_is_announced_once(tmp_path):
    read, write = os.pipe()
    announce_to(write)
    for _ in range(2):
        handle, path = temporary_file(tmp_path)
        os.close(handle)
        path.unlink()
    assert os.read(read, 4096) == os.fsencode(tmp_path) + b"\0"
    os.close(read)
    os.close(write)
    with work_folder(tmp_path / "..") as folder:  # nobody listens any more
        assert folder.is_dir()
