"""Files with a heatmap in other runtimes: onnxruntime-web (WASM, in node) and OpenVINO.

``make runtimes`` installs them.  ``INSPECTOR_NODE_MODULES`` is a folder where ``npm install
onnxruntime-web`` ran; ``INSPECTOR_OPENVINO`` a Python that has ``openvino``.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import inspector
from inspector.embed import embed
from tests.unit.test_embed import _network, _opened

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("onnxruntime_web.mjs")
TOLERANCE = 1e-4
FILES = (
    *(("own", "grad-cam"), ("own", "guided-backprop"), ("own", "guided-grad-cam")),
    *(("resnet20", "grad-cam"), ("zfnet", "guided-backprop")),
)

OPENVINO = """
import sys, numpy, openvino
model, name, given, result = sys.argv[1:]
core = openvino.Core()
compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
numpy.save(result, compiled({name: numpy.load(given)})["heatmap"])
"""


def _web(folder, model, name, x):
    modules = Path(os.environ.get("INSPECTOR_NODE_MODULES", ROOT)).absolute()
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (modules / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("no onnxruntime-web: make runtimes installs it")
    given, result = folder / "x.bin", folder / "y.bin"
    x.tofile(given)
    words = ["node", SCRIPT, modules, model, name, json.dumps(x.shape), given, result]
    subprocess.run(words, check=True, timeout=300, capture_output=True)  # noqa: S603
    return np.fromfile(result, np.float32)


def _openvino(folder, model, name, x):
    python = os.environ.get("INSPECTOR_OPENVINO", sys.executable)
    probe = [python, "-c", "import openvino"]
    missing = subprocess.run(probe, check=False, capture_output=True).returncode  # noqa: S603
    if missing:
        pytest.skip("no openvino: make runtimes installs it")
    given, result = folder / "x.npy", folder / "y.npy"
    np.save(given, x)
    words = [python, "-c", OPENVINO, model, name, given, result]
    subprocess.run(words, check=True, timeout=300, capture_output=True)  # noqa: S603
    return np.load(result).reshape(-1)


RUNTIMES = {"web": _web, "openvino": _openvino}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("model", "method"), FILES)
def test_a_runtime_gives_the_same_heatmap(tmp_path, model, method, runtime):
    out = tmp_path / "out.onnx"
    if model == "own":
        opened = _opened(tmp_path, _network(18))
    else:
        opened = inspector.load(ROOT / "sample_models" / f"{model}.onnx")
    found = embed(opened, out, method, runtime=runtime)
    assert not found.left_over
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    height, width = opened.size()
    x = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32)
    expected = session.run(["heatmap"], {name: x})[0].reshape(-1)
    values = RUNTIMES[runtime](tmp_path, out, name, x)
    assert np.abs(values - expected).max() <= TOLERANCE * np.abs(expected).max()
