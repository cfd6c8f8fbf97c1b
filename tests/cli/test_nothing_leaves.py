"""What a command does outside its folders: no statistics, no socket, no stranger's module."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "sample_models" / "resnet20.onnx"
FACTORY = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
    def forward(self, x):
        return self.conv(x).relu().mean((2, 3))
"""
HOOK = """
import sys
def seen(event, arguments):
    if event in ("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open({log!r}, "a") as file:
            file.write(f"{{event}} {{arguments}}\\n")
sys.addaudithook(seen)
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a photo and a module, in which the user stands."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "nets.py").write_text(FACTORY)
    return tmp_path


def environment(home, **more):
    kept = {k: v for k, v in os.environ.items() if k not in {"INSPECTOR_CACHE", "PYTHONSAFEPATH"}}
    kept.pop("ORT_DISABLE_TELEMETRY", None)
    path = os.pathsep.join(map(str, [*more.pop("path", []), ROOT]))
    cache = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    return {**kept, **cache, "PYTHONPATH": path, **more}


COMMANDS = {
    "explain": [str(MODEL), "photo.png", "-m", "grad-cam", "-m", "occlusion:window=16,stride=16"],
    "verify": [str(MODEL), "photo.png"],
    "convert": ["nets:Net", "--trust", "--input", "?,3,8,8", "-o", "m.onnx"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_statistics_and_no_socket(place, command):
    log, hooks = place / "sockets", place / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK.format(log=str(log)))
    words = [sys.executable, "-m", "inspector", command, *COMMANDS[command]]
    strace = shutil.which("strace")
    works = strace and not subprocess.call([strace, "-o", os.devnull, "true"])  # noqa: S603
    if works:  # what native code does, too
        words = [strace, "-f", "-qq", "-e", "trace=socket,connect", "-o", str(place / "st"), *words]
    done = subprocess.run(  # noqa: S603 - our own command
        words,
        cwd=place,
        env=environment(place, path=[hooks]),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not log.exists(), log.read_text()
    if works:
        calls = [line for line in (place / "st").read_text().splitlines() if "AF_UNIX" not in line]
        assert not [line for line in calls if "socket(" in line or "connect(" in line]
    left = [p for p in place.rglob("*") if "onnxruntime" in p.name.lower() or p.name == "deviceid"]
    assert not left


def test_who_wants_statistics_is_not_overruled():
    probe = "import os, converters; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    said = [
        subprocess.run(  # noqa: S603 - our own script
            [sys.executable, "-c", probe],
            env=environment(ROOT, **wish),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        for wish in ({}, {"ORT_DISABLE_TELEMETRY": "0"})
    ]
    assert said == ["1", "0"]


def test_modules_in_the_folder_where_the_user_stands_are_not_run(tmp_path):
    """``python -m inspector`` is given that folder as the first of Python's path."""
    for name in ("typing", "numpy", "onnx", "click", "converters"):
        (tmp_path / f"{name}.py").write_text(f"open('run-{name}', 'w')\nraise SystemExit(3)\n")
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "inspector", "check", str(MODEL)],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert not list(tmp_path.glob("run-*"))
    assert done.returncode == 0, done.stderr


def test_the_checkout_can_be_run_where_it_lies():
    kept = {k: v for k, v in environment(ROOT).items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "inspector", "--version"],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
