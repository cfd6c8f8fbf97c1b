"""What does not fit into memory at once is done in parts; what does not fit at all is said."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import inspector
from converters import onnx_file
from inspector import verdicts
from inspector.engines import runtime
from inspector.engines.runtime import Runtime
from inspector.errors import LimitExceeded
from inspector.verify import cache, checks

MODEL = Path(__file__).parents[2] / "sample_models" / "all_cnn_c.onnx"


def test_shapes_are_measured_in_parts(monkeypatch):
    opened = inspector.load(MODEL)
    expected = dict(inspector.load(MODEL).shapes())
    run, most = Runtime.run, []

    def narrow(self, feeds, fetch):
        if len(fetch) > 3:
            raise LimitExceeded("out of memory")
        most.append(len(fetch))
        return run(self, feeds, fetch)

    monkeypatch.setattr(Runtime, "run", narrow)
    assert dict(opened.shapes()) == expected
    assert max(most) <= 3


def test_methods_are_tried_one_by_one_and_the_one_that_does_not_fit_is_named(monkeypatch):
    def attempts(opened, image, methods, target):
        if len(methods) > 1 or methods == ["cam"]:
            raise MemoryError
        return dict.fromkeys(methods)

    monkeypatch.setattr(verdicts, "attempts", attempts)
    found = verdicts._within_memory(None, None, ["cam", "grad-cam"], "top1")
    assert isinstance(found["cam"], LimitExceeded)
    assert found["grad-cam"] is None


def made_weights(value):
    """A network whose weights are made by a node, not stored."""
    nodes = [
        helper.make_node(
            "ConstantOfShape", ["shape"], ["w"], value=helper.make_tensor("v", 1, [1], [value])
        ),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([4, 3, 3, 3]), "shape")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return onnx_file.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))


def test_large_constants_that_a_graph_makes_are_not_folded(monkeypatch):
    file, image = made_weights(0.25), np.random.default_rng(0).random((1, 3, 8, 8))
    assert runtime._not_folded(file.graph) == []
    folded = Runtime(file).run({"x": image}, ["y"])["y"]
    monkeypatch.setattr(runtime, "_MOST_UNFOLDED", 100)
    assert runtime._not_folded(file.graph) == ["ConstantFolding"]
    assert np.allclose(Runtime(file).run({"x": image}, ["y"])["y"], folded, rtol=1e-5)


def test_memory_that_ran_out_is_no_verdict_on_the_model(monkeypatch):
    def full(*_, **__):
        raise LimitExceeded("out of memory while the model ran")

    monkeypatch.setattr(checks, "quick", full)
    monkeypatch.setattr(cache, "kept_verdict", lambda *_: None)
    with pytest.raises(LimitExceeded):
        inspector.load(MODEL, engine="twin").explain(np.zeros((32, 32, 3), np.uint8), "grad-cam")
