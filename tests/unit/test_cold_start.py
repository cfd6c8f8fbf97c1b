"""What one Grad-CAM from the shell loads and makes: facts that its processor time stands on."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_RUN = """
import json, sys
from pathlib import Path

import onnxruntime
from converters import onnx_file
from inspector.cli import run, supervise

supervise._can_fork = lambda: False  # in this process, so that it can be looked into
made = {"sessions": 0, "parsed": 0}

class Session(onnxruntime.InferenceSession):
    def __init__(self, *arguments, **options):
        made["sessions"] += 1
        super().__init__(*arguments, **options)

parse = onnx_file._parse

def counted(*arguments, **options):
    made["parsed"] += 1
    return parse(*arguments, **options)

onnxruntime.InferenceSession, onnx_file._parse = Session, counted
words = ["explain", *sys.argv[1:], "-m", "grad-cam", "--format", "png", "-q"]
assert run(words) == 0
print(json.dumps({"made": made, "modules": sorted(sys.modules)}))
"""

_NOT_LOADED = (
    *("torch", "scipy", "matplotlib", "rich", "pandas"),
    *("numpy.ma", "numpy.random"),
    *("converters.conversion", "inspector.cli.terminal", "inspector.methods.occlusion"),
    *("inspector.render.csv", "inspector.render.html", "inspector.render.sarif"),
    "inspector.studies",
)


def test_one_grad_cam_loads_its_own_method_and_formats_and_opens_the_model_once(tmp_path):
    _explained(tmp_path)  # certifies the model, and keeps the verdict
    found = _explained(tmp_path)
    loaded = set(found["modules"])
    assert [name for name in _NOT_LOADED if name in loaded] == []
    # Shapes of all layers; the photo; shapes of the tail; the tail with its backward pass.
    assert found["made"] == {"sessions": 4, "parsed": 1}


def _explained(folder):
    """What a process loaded and made that drew one map."""
    names = ("resnet20.onnx", "images/horse_1.png")
    arguments = [*(str(ROOT / "sample_models" / name) for name in names), "-o", str(folder / "out")]
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", _RUN, *arguments],
        env={**os.environ, "INSPECTOR_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_process_that_waits_for_the_work_loads_no_library_of_numbers():
    code = "import sys, inspector.cli.explain; print([n for n in %r if n in sys.modules])"
    heavy = ("numpy", "onnx", "PIL", "onnxruntime", "rich")
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code % (heavy,)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


_HELP = """
import contextlib, io, json, sys
from inspector.cli import program, run

with contextlib.redirect_stdout(io.StringIO()) as said:
    groups = [[name] for name in program.list_commands(None)]
    studies = [["study", name] for name in program.get_command(None, "study").list_commands(None)]
    statuses = {run([*words, "--help"]) for words in ([], *groups, *studies)}
print(json.dumps({"statuses": [*statuses], "modules": [*sys.modules], "text": said.getvalue()}))
"""


def test_no_help_page_loads_a_library_of_numbers_or_a_method():
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", _HELP],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["statuses"] == [0]
    assert "grad-cam++" in found["text"]
    assert "study top-activations [OPTIONS]" in found["text"]
    heavy = {"numpy", "onnx", "onnxruntime", "torch", "PIL", "matplotlib", "rich", "scipy"}
    own = {"inspector.methods", "inspector.studies", "converters.onnx_file", "converters.graph"}
    assert (heavy | own).intersection(found["modules"]) == set()
