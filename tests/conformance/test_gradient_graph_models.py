"""The gradient graph of whole networks against the float64 twin, and heatmaps in their files.

Float32 gradients flip gates: a difference counts where it is larger than a few times that of the
twin's own float32 gradient from its float64 one.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import inspector
from converters.errors import UnsupportedOperator
from converters.onnx_file import read
from inspector.embed import base_of, checks_of, embed
from inspector.engines.gradient_graph import GradientGraph
from inspector.engines.rules import Rule
from inspector.engines.twin import TwinEngine
from inspector.model import Model
from inspector.target import Sampled, Target

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "sample_models").glob("*.onnx"))
ZOO = sorted((ROOT.parent / "shared" / "zoo").glob("*.onnx"))

pytestmark = pytest.mark.conformance

TOLERANCE = 1e-4

NARROW = {"mobilenetv2_qdq_int8_244": 0.9, "winml_squeezenet_fp16_opset7": 0.995}
"""Least cosine where every tensor is rounded, to levels or to 16 bits: one gate that flips is a
difference of the size of a weight.  The twin itself has .94 to .999 of the first."""

UNCOVERED: dict[str, str] = {}
"""Networks with an operator that has no rule."""


def _target(model, x):
    tensor = model.scores.tensor
    values = model.forward(x, [tensor])[tensor]
    index = np.unravel_index(int(np.argmax(values[0])), values[0].shape)
    return Sampled(Target(tensor, tuple(map(int, index)), "largest"), model.with_samples)


@pytest.mark.parametrize("path", [*SAMPLES, *ZOO], ids=lambda path: path.stem)
def test_the_input_gradient_is_that_of_the_twin(path):
    file = read(path)
    model = Model(file, device="cpu")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, model.input.channels, *model.size())).astype(np.float32)
    x = np.abs(x) * 60 if model.input.integer else x
    name = model.input.name
    start = {name: model.as_in_graph(name, model.input.arrange(x).astype(np.float32))}
    target, rule = [_target(model, x)], Rule("gradient")
    graph = GradientGraph(file, optimise=False)
    try:
        found = graph.signals(start, {}, target, rule)[name]
    except UnsupportedOperator:
        assert path.stem in UNCOVERED
        return
    exact = TwinEngine(file.graph, dtype=torch.float64).signals(start, {}, target, rule)[name]
    if path.stem in NARROW:
        own, other = found.astype(np.float64).ravel(), exact.ravel()
        cosine = own @ other / (np.linalg.norm(own) * np.linalg.norm(other))
        assert cosine >= NARROW[path.stem]
        return
    narrow = model.twin_engine.signals(start, {}, target, rule)[name]
    peak = np.abs(exact).max()
    noise = np.abs(narrow - exact).max() / peak
    assert np.abs(found - exact).max() / peak <= max(TOLERANCE, 5 * noise)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", ["grad-cam", "guided-backprop"])
def test_an_embedded_heatmap_is_the_methods(path, method, tmp_path):
    out = tmp_path / "out.onnx"
    embed(inspector.load(path), out, method)
    again = inspector.load(out)
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}


CLASSIFIERS = [
    *("winml_squeezenet_fp16_opset7", "mobilenetv2_qdq_int8_244", "tf2onnx_resnet50thin_nhwc"),
    *("torch_dynamo_mnist_opset18", "cntk_mnist"),
]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_embedded_grad_cam_is_the_twins(name, tmp_path):
    path = next((one for one in ZOO if one.stem == name), None)
    if path is None:
        pytest.skip("the zoo is not at hand")
    out = tmp_path / "out.onnx"
    embed(inspector.load(path), out, "grad-cam")
    again = inspector.load(out)
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}
