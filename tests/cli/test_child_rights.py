"""What hostile code in a model's file could do: tried from where ONNX Runtime is loaded."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters import rights
from inspector.cli.rights import child_rights

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "sample_models" / "resnet20.onnx"
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux gives these means"),
    pytest.mark.skipif(rights.landlock_version() < 2, reason="this kernel has no Landlock"),
]
# Runs in the place of ONNX Runtime's first line, and tells what it could do on standard error.
HOOK = """
import json, os, socket, sys, tempfile

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime" and self in sys.meta_path:
            sys.meta_path.remove(self)
            print("TOLD" + json.dumps({n: tried(t) for n, t in TOLD.items()}), file=sys.stderr)

def tried(text):
    try:
        return str(eval(text))
    except Exception as error:
        return type(error).__name__

TOLD = __TOLD__
sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def told(tmp_path):
    """Runs a command; what each expression gave in its child, and the status."""
    hooks, work = tmp_path / "hooks", tmp_path / "work"
    hooks.mkdir()
    work.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(work / "photo.png")

    def ask(*words, expect=0, home=None, cwd=work, **expressions):
        (hooks / "sitecustomize.py").write_text(HOOK.replace("__TOLD__", repr(expressions)))
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "inspector", *map(str, words)],
            cwd=cwd,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(hooks), str(ROOT)]),
                "INSPECTOR_CACHE": str(tmp_path / "cache"),
                **({"HOME": str(home)} if home else {}),
            },
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
            pass_fds=[HANDLE],
        )
        assert done.returncode == expect, done.stderr
        return json.loads(done.stderr.partition("TOLD")[2].partition("\n")[0] or "{}")

    return ask


HANDLE = os.open("/dev/null", os.O_RDONLY)
REFUSED = "PermissionError"


def test_explain_reads_and_writes_what_its_options_name(told, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = told(
            *("explain", MODEL, "photo.png", "-m", "cam", "-o", "deep/out"),
            secret=f"open({str(secret)!r}).read()",
            parent="open(f'/proc/{os.getppid()}/environ').read()",
            elsewhere=f"open({str(tmp_path / 'made')!r}, 'w')",
            model=f"open({str(MODEL)!r}, 'r+b')",
            beside="open('made', 'w')",
            tcp=f"socket.create_connection(('127.0.0.1', {port}), 2)",
            udp="socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
            kill="os.kill(os.getppid(), 0)",
            descriptor=f"os.fstat({HANDLE})",
            photo="len(open('photo.png', 'rb').read()) > 0",
            output="os.listdir('deep/out')",
            temporary="len(tempfile.mkdtemp()) > 0",
        )
    denied = ("secret", "parent", "elsewhere", "model", "beside", "tcp", "udp", "kill")
    assert found == {
        **dict.fromkeys(denied, REFUSED),
        "descriptor": "OSError",
        "photo": "True",
        "output": "[]",
        "temporary": "True",
    }
    assert len(list((tmp_path / "work" / "deep" / "out").iterdir())) == 3
    assert not list(tmp_path.rglob(".inspector-*"))


@pytest.mark.parametrize("text", ["ids={}", "a=b={}", "mask:{}", "-tumour,mask:{},mask:other.png"])
def test_files_inside_of_a_text_are_read(text, tmp_path):
    path = tmp_path / "deep" / "a file.npy"
    path.parent.mkdir()
    path.write_bytes(b"x")
    with child_rights([text.format(path)], [], None) as given:
        assert path in given.reads
        assert path.parent in given.reads
    with child_rights([text.format("nowhere"), "--feed", "x=1"], [], None) as given:
        assert tmp_path not in given.reads


def test_a_folder_that_stays_empty_is_removed_again(told, tmp_path):
    (tmp_path / "work" / "broken.png").write_bytes(b"no picture")
    told("explain", MODEL, "broken.png", "-m", "cam", "-o", "deep/out", expect=4)
    assert not (tmp_path / "work" / "deep").exists()


def test_hidden_files_of_the_home_folder_are_not_given(told, tmp_path):
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id").write_text("SECRET")
    (home / ".netrc").write_text("SECRET")
    (home / "labels.txt").write_text("\n".join(map(str, range(10))))
    (home / "net.onnx").write_bytes(MODEL.read_bytes())
    found = told(
        *("layers", home / "net.onnx", "--labels", home / "labels.txt"),
        home=home,
        key=f"open({str(home / '.ssh' / 'id')!r}).read()",
        netrc=f"open({str(home / '.netrc')!r}).read()",
        names=f"len(os.listdir({str(home)!r}))",
        model=f"len(open({str(home / 'net.onnx')!r}, 'rb').read()) > 0",
    )
    assert found == {"key": REFUSED, "netrc": REFUSED, "names": "4", "model": "True"}


def test_pictures_that_links_in_a_folder_name_are_read(told, tmp_path):
    far, photos = tmp_path / "far", tmp_path / "work" / "photos"
    far.mkdir()
    photos.mkdir()
    (tmp_path / "work" / "photo.png").rename(far / "real.png")
    (far / "secret").write_text("SECRET")
    (photos / "a.png").symlink_to(far / "real.png")
    (photos / "b").symlink_to(far / "secret")
    found = told(
        *("explain", MODEL, "photos", "-m", "cam", "-o", "out"),
        secret=f"open({str(far / 'secret')!r}).read()",
    )
    assert found == {"secret": REFUSED}
    assert (tmp_path / "work" / "out" / "a.json").exists()


def test_the_user_can_lift_it(told, tmp_path, monkeypatch):
    monkeypatch.setenv("INSPECTOR_SANDBOX", "off")
    (tmp_path / "secret").write_text("SECRET")
    found = told("layers", MODEL, secret=f"open({str(tmp_path / 'secret')!r}).read()")
    assert found == {"secret": "SECRET"}
