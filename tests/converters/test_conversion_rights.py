"""What a source's program can do while it is converted: read itself, write its folder; no more."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from converters import rights
from converters.conversion.environment import kept_variables, readable
from converters.conversion.sandbox import Sandbox, _lifted
from converters.errors import ConversionFailed
from converters.source import Options

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux gives these means")
landlock = pytest.mark.skipif(rights.landlock_version() < 2, reason="this kernel has no Landlock")
PROGRAM = """
import json, os, resource, signal, socket
import torch

def tried(text):
    try:
        return str(eval(text))
    except Exception as error:
        return type(error).__name__

def report():
    told = json.load(open(os.path.join(os.path.dirname(__file__), "told.json")))
    found = {name: tried(text) for name, text in told.items()}
    with open("report.json", "w") as file:
        json.dump(found, file)
    raise RuntimeError("told")
"""


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Evaluates expressions in the child of a conversion: what each gave, or its error's name."""
    source, folder = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    folder.mkdir()
    (source / "report_nets.py").write_text(PROGRAM)

    def ask(**expressions):
        (source / "told.json").write_text(json.dumps(expressions))
        request = {
            "convert": "pytorch",
            "draft": str(folder / "m.onnx"),
            "options": Options(inputs=((None, 3, 8, 8),)).to_dict(),
            "path": str(source),
            "source": "report_nets:report",
        }
        child = Sandbox(folder, seconds=100, memory=None, where="x", reads=readable([str(source)]))
        with child, pytest.raises(ConversionFailed):
            child.ask(request)
        return json.loads((folder / "report.json").read_text())

    return ask


@linux
@landlock
def test_files(said, tmp_path):
    secret, elsewhere = tmp_path / "secret", tmp_path / "written"
    secret.write_text("SECRET")
    found = said(
        secret=f"open({str(secret)!r}).read()",
        home="os.listdir(os.path.realpath('/root' if os.getuid() == 0 else '/home'))",
        parent="open(f'/proc/{os.getppid()}/environ').read()",
        beside=f"open({str(elsewhere)!r}, 'w')",
        source="open(os.path.join(os.path.dirname(__file__), 'made.py'), 'w')",
        own="open('draft', 'w').write('x')",
        python="len(open(os.__file__).read()) > 0",
    )
    refused = "PermissionError"
    assert found == {
        **dict.fromkeys(("secret", "home", "parent", "beside", "source"), refused),
        "own": "1",
        "python": "True",
    }
    assert not elsewhere.exists()


@linux
def test_no_network(said):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = said(
            tcp=f"socket.create_connection(('127.0.0.1', {port}), 2)",
            udp="socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
            raw="socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
            local="bool(socket.socketpair())",
        )
    assert found == {
        "tcp": "PermissionError",
        "udp": "PermissionError",
        "raw": "PermissionError",
    } | {"local": "True"}


@linux
def test_bounds_and_descriptors(said):
    handle = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(handle, True)
    try:
        found = said(
            privileges="[l for l in open('/proc/self/status') if l.startswith('NoNewPrivs')]",
            capabilities="[int(l.split()[1], 16) & ~31 for l in open('/proc/self/status') "
            "if l.startswith(('CapPrm', 'CapEff'))]",
            descriptor=f"os.fstat({handle})",
            core="resource.getrlimit(resource.RLIMIT_CORE)",
            size="resource.getrlimit(resource.RLIMIT_FSIZE)[0] > 0",
            files="0 < resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 4096",
            processes="resource.getrlimit(resource.RLIMIT_NPROC)[0] > 0",
            time="100 < resource.getrlimit(resource.RLIMIT_CPU)[0] < 1e6",
        )
    finally:
        os.close(handle)
    assert found == {
        "privileges": "['NoNewPrivs:\\t1\\n']",
        "capabilities": "[0, 0]",
        "descriptor": "OSError",
        "core": "(0, 0)",
        **dict.fromkeys(("size", "files", "processes", "time"), "True"),
    }


SECRETS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "GITHUB_TOKEN", "KRB5CCNAME")


def test_no_secret_of_the_environment(said, monkeypatch):
    for name in (*SECRETS, "WEIGHTS_URL"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("INSPECTOR_PASS", "WEIGHTS_URL, OTHER")
    names = (*SECRETS, "WEIGHTS_URL", "INSPECTOR_PASS", "PATH")
    found = said(kept=f"[n for n in {names} if n in os.environ]", home="os.path.expanduser('~')")
    assert found["kept"] == "['WEIGHTS_URL', 'PATH']"
    assert Path(found["home"]).name == "work"


def test_the_user_can_lift_all_of_it(said, monkeypatch, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    monkeypatch.setenv("INSPECTOR_SANDBOX", "off")
    monkeypatch.setenv("HF_TOKEN", "token")
    found = said(
        secret=f"open({str(secret)!r}).read()",
        variable="os.environ['HF_TOKEN']",
        socket="bool(socket.socket())",
    )
    assert found == {"secret": "SECRET", "variable": "token", "socket": "True"}
    assert kept_variables(os.environ) == dict(os.environ)


def test_a_refused_right_is_told_with_what_lifts_it(monkeypatch):
    said = "making the model fails (PermissionError: [Errno 13] Permission denied: '/data')"
    assert "INSPECTOR_SANDBOX=off" in _lifted(said)
    assert _lifted("making the model fails (KeyError: 'x')") == ""
    monkeypatch.setenv("INSPECTOR_SANDBOX", "off")
    assert _lifted(said) == ""


def test_the_modules_of_another_python_are_found():
    another = Path(sys.executable).with_name("python3")
    found = rights.environment_folders(str(another))
    assert {Path(sys.prefix), Path(os.__file__).parent} <= set(found)
    assert rights.environment_folders(str(another.with_name("no-such-python")))


def test_links_of_a_snapshot_lead_to_its_blobs_and_others_nowhere(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "1").write_text("weights")
    (tmp_path / "secret").write_text("secret")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1")
    (snapshot / "secret").symlink_to("../../secret")
    (snapshot / "circle").symlink_to("circle")  # Path.resolve raises
    assert readable([str(snapshot), ""]) == (snapshot, blobs / "1")
