"""Entries of the cache that somebody else wrote, edited or could have written are none."""

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper

from converters import conversion
from inspector.cache_folder import read_entry, usable_folder, write_entry
from inspector.errors import InspectorWarning
from inspector.opening import open_source

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are POSIX's")
NAME = "certificate-1.json"
CONTENT = {"passed": False, "text": "the gradient differs"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    place = tmp_path / "cache" / "deep"
    monkeypatch.setenv("INSPECTOR_CACHE", str(place))
    return place


def mode(path):
    return path.stat().st_mode & 0o777


def test_an_entry_comes_back(folder):
    assert read_entry(NAME) is None
    assert write_entry(NAME, CONTENT) == folder / NAME
    assert read_entry(NAME) == CONTENT
    assert write_entry("converted/ab/seal.json", {"sha256": "0"})
    assert read_entry("converted/ab/seal.json") == {"sha256": "0"}


@posix
def test_the_folder_is_the_users_alone(folder):
    write_entry("converted/ab/seal.json", {})
    assert [mode(p) for p in (folder, folder / "converted", folder / "converted" / "ab")] == [
        0o700
    ] * 3
    assert mode(folder / "key") == 0o600


def forge(path):
    document = json.loads(path.read_bytes())
    document["content"]["passed"] = True
    path.write_text(json.dumps(document))


def plant(path):
    path.write_text(json.dumps({"content": {**CONTENT, "passed": True}, "code": "0" * 64}))


def rename(path):
    """A genuine entry under another one's name."""
    write_entry("certificate-2.json", {**CONTENT, "passed": True})
    path.with_name("certificate-2.json").replace(path)


def relink(path):
    path.replace(path.with_name("real"))
    path.symlink_to("real")


def rekey(path):
    path.with_name("key").write_bytes(b"0" * 32)


def open_key(path):
    path.with_name("key").chmod(0o666)


@pytest.mark.parametrize("change", [forge, plant, rename, rekey])
def test_what_this_program_did_not_write_is_ignored_and_said(folder, change):
    change(write_entry(NAME, CONTENT))
    with pytest.warns(InspectorWarning, match=f"{NAME} in the cache is ignored .*did not write"):
        assert read_entry(NAME) is None


@posix
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.chmod(0o666), "written to by others"),
        (lambda path: path.chmod(0o620), "written to by others"),
        (lambda path: os.link(path, path.with_name("second")), "second name"),
        (relink, "is a link"),
        (open_key, "key in the cache is ignored"),
        (lambda path: path.parent.chmod(0o777), "written to by others"),
    ],
)
def test_what_others_could_have_written_is_ignored_and_said(folder, change, said):
    change(write_entry(NAME, CONTENT))
    with pytest.warns(InspectorWarning) as found:
        assert read_entry(NAME) is None
    assert said in str(found[0].message)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="gives files away")
@pytest.mark.parametrize("whose", [NAME, "key", "."])
def test_what_is_another_users_is_ignored_and_said(folder, whose):
    write_entry(NAME, CONTENT)
    os.chown(folder / whose, 4321, -1)
    with pytest.warns(InspectorWarning, match="another user's"):
        assert read_entry(NAME) is None
    if whose == ".":
        with pytest.warns(InspectorWarning, match="another user's"):
            assert usable_folder() is None


@posix
def test_an_entry_that_was_ignored_is_replaced_by_a_private_one(folder):
    write_entry(NAME, CONTENT).chmod(0o666)
    assert mode(write_entry(NAME, CONTENT)) == 0o600
    assert read_entry(NAME) == CONTENT


# -- converted files -------------------------------------------------------------------------------


def model_file(path, value):
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    shape = (1, 3, 8, 8)
    onnx.save(onnx_model([node], {"x": shape}, {"y": shape}, {"w": np.float32(value)}), path)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A source of a framework that only this test knows, and how often it was converted."""
    path, calls = tmp_path / "net.framework", []
    path.write_bytes(b"weights")

    def convert(text, output, **_):
        calls.append(text)
        model_file(output, 2.0)

    found = conversion.Recognised("framework", "Framework", "", (str(path),))
    monkeypatch.setattr(conversion, "recognise", lambda _: found)
    monkeypatch.setattr(conversion, "convert", convert)
    return path, calls


def opened(path):
    file = open_source(path)
    return file, float(file.graph.constant("w"))


def test_a_converted_file_is_kept(source):
    path, calls = source
    first, again = opened(path), opened(path)
    assert first[0].sha256 == again[0].sha256
    assert len(calls) == 1


def replaced(path):
    model_file(path, 666.0)


def broken(path):
    path.write_bytes(b"not a model")


def unsealed(path):
    path.with_name("seal.json").unlink()


@pytest.mark.parametrize("change", [replaced, broken, unsealed])
def test_a_replaced_file_is_not_opened_as_the_source(source, folder, change):
    path, calls = source
    opened(path)
    (kept,) = folder.rglob("*.onnx")
    change(kept)
    with pytest.warns(InspectorWarning, match="net.onnx in the cache is not what the source was"):
        assert opened(path)[1] == 2.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(path)[1] == 2.0
    assert len(calls) == 2


@posix
def test_without_a_folder_of_ones_own_it_is_converted_each_time(source, folder):
    path, calls = source
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    for _ in range(2):
        with pytest.warns(InspectorWarning, match="written to by others"):
            assert opened(path)[1] == 2.0
    assert len(calls) == 2
    assert list(folder.iterdir()) == []
    shutil.rmtree(folder)


def test_the_user_may_want_none(source, monkeypatch, folder):
    path, calls = source
    monkeypatch.setenv("INSPECTOR_CACHE", "off")
    assert [opened(path)[1] for _ in range(2)] == [2.0, 2.0]
    assert len(calls) == 2
    assert not Path(folder).exists()
