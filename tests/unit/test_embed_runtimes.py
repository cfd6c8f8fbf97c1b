"""Files with a heatmap for runtimes that lack operators."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import inspector
from inspector.cli import program
from inspector.embed import RUNTIMES, base_of, checks_of, embed
from inspector.errors import UsageError
from inspector.surgery.embedded import HEATMAP
from tests.networks import node, onnx_model
from tests.unit.test_embed import _network, _opened, _w

SURGERY = Path(inspector.__file__).parent / "surgery"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("method", ["grad-cam", "guided-grad-cam"])
def test_the_heatmaps_own_nodes_have_no_operator_that_the_runtime_lacks(tmp_path, runtime, method):
    out = tmp_path / "out.onnx"
    found = embed(_opened(tmp_path, _network(18)), out, method, runtime=runtime)
    model = onnx.load_from_string(out.read_bytes())
    own = [
        one.op_type
        for one in model.graph.node
        if one.output[0].startswith("gradient/") or one.output[0] == HEATMAP
    ]
    assert set(own).isdisjoint(RUNTIMES[runtime].avoided)
    assert found.left_over == ()
    again = inspector.load(out, preprocess="unit")
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}


def test_operators_of_the_network_that_remain_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("inspector.cli.embed.supervised", lambda work, **_: work())
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("Softplus", "a", "b"),
        node("GlobalAveragePool", "b", "p"),
        node("Flatten", "p", "q"),
        node("MatMul", "q w2", "y"),
    ]
    constants = {"w1": _w(6, 3, 3, 3), "w2": _w(6, 5)}
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    model = onnx_model(nodes, {"x": ("N", 3, 16, 16)}, {"y": ("N", 5)}, constants)
    path.write_bytes(model.SerializeToString())
    words = ["embed", str(path), "-o", str(out), "--preprocess", "unit", "--for", "web"]
    found = CliRunner().invoke(program, words, standalone_mode=False)
    assert found.exception is None
    assert "onnxruntime-web on WebGPU lacks Softplus (1, of the network)" in found.output
    other = [*words[:3], str(tmp_path / "other.onnx"), *words[4:-1], "openvino"]
    found = CliRunner().invoke(program, other, standalone_mode=False)
    assert "OpenVINO has every operator" in found.output


def test_every_operator_that_rules_write_is_judged_of_each_runtime():
    """A new operator in a rule must be looked up in the runtimes' lists, and put down here."""
    written = set()
    for path in (*SURGERY.glob("gradient/*.py"), *SURGERY.glob("embedded*.py")):
        text = path.read_text()
        written |= set(re.findall(r'(?:op|ops|once|reduced)\(\s*"([A-Z]\w+)"', text))
    assert written == KNOWN


KNOWN = {
    *("Abs", "Add", "ArgMax", "AveragePool", "Cast", "Clip", "Concat", "ConstantOfShape", "Conv"),
    *("ConvTranspose", "Cos", "Cosh", "CumSum", "Div", "Einsum", "Equal", "Erf", "Exp", "Expand"),
    *(
        "Floor",
        "Gather",
        "GatherElements",
        "GatherND",
        "Gemm",
        "Greater",
        "Identity",
        "Less",
        "Log",
    ),
    "MatMul",
    "HardSigmoid",  # in the engine alone, never in a file
    "Resize",
    *("Mul", "Neg", "Not", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean"),
    *("ReduceSum", "Relu", "Reshape", "ReverseSequence", "RotaryEmbedding", "Round", "Scan"),
    *("ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign", "Sin", "Sinh", "Slice"),
    *("Softmax", "Softplus", "Split", "Sqrt", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Trilu"),
    *("Unsqueeze", "Where"),
}


def test_an_operator_that_cannot_be_avoided_is_refused_by_name(tmp_path):
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", "a", "p"),
        node("Flatten", "p", "q"),
        node("Trilu", "q", "r"),
        node("MatMul", "r w2", "y"),
    ]
    constants = {"w1": _w(6, 3, 3, 3), "w2": _w(6, 5)}
    model = onnx_model(nodes, {"x": (1, 3, 16, 16)}, {"y": (1, 5)}, constants, opset=16)
    opened, out = _opened(tmp_path, model), tmp_path / "never.onnx"
    with pytest.raises(Exception, match="needs Trilu, which --for avoids"):
        embed(opened, out, runtime="tensorrt")
    assert not out.exists()


@pytest.mark.parametrize("opset", [9, 16])
def test_top_k_is_taken_back_without_a_scatter(tmp_path, opset):
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("GlobalMaxPool", "a", "p"),
        node("Flatten", "p", "q"),
        node("TopK", "q", "r i", axis=1, k=3) if opset < 10 else node("TopK", "q k", "r i", axis=1),
        node("MatMul", "r w2", "y"),
    ]
    constants = {"w1": _w(6, 3, 3, 3), "w2": _w(3, 5), "k": np.array([3], np.int64)}
    if opset < 10:
        del constants["k"]
    model = onnx_model(nodes, {"x": ("N", 3, 16, 16)}, {"y": ("N", 5)}, constants, opset=opset)
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, model), out, "gradient", runtime="tensorrt")
    again = inspector.load(out, preprocess="unit")
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_class_input_is_refused_where_it_could_not_be_fed(tmp_path, runtime):
    out = tmp_path / "out.onnx"
    opened = _opened(tmp_path, _network())
    if runtime in {"web", "openvino"}:  # measured: neither lists the input
        with pytest.raises(UsageError, match="cannot be fed heatmap_class"):
            embed(opened, out, class_input=True, runtime=runtime)
        assert not out.exists()
    else:
        embed(opened, out, class_input=True, runtime=runtime)
