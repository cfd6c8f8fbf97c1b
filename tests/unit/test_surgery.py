"""Surgery on a graph: exposing inner tensors, and the part of a network behind a layer."""

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import node, onnx_model
from onnx import TensorProto, helper

from converters.graph import Graph
from inspector.network.tail import tail_of
from inspector.surgery.expose import exposed

onnxruntime.set_default_logger_severity(4)


def floats(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(nodes, outputs, constants=None):
    return onnx_model(
        nodes,
        [floats("x", [1, 3, 6, 6])],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        {k: np.asarray(v) for k, v in (constants or {}).items()},
        opset=17,
    )


@pytest.fixture
def residual():
    """Conv a, Relu b, Conv c, Add s = c + b, Relu t, mean m, y = m * w; z beside, from a."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.standard_normal((3, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((3, 3, 3, 3)).astype(np.float32),
        "w": np.float32(2),
        "k": np.float32(3),
    }
    nodes = [
        node("Mul", "k k", "kk"),
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "b w2", "c", pads=[1, 1, 1, 1]),
        node("Add", "c b", "s"),
        node("Relu", "s", "t"),
        node("GlobalAveragePool", "t", "m"),
        node("Mul", "m w", "y"),
        node("Mul", "a kk", "z"),
    ]
    return model(nodes, ["y", "z"], constants)


def run(serialised, x, *, optimise=True):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    if not optimise:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(serialised, settings, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


X = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32)


def test_exposed_tensors_come_out_and_the_results_stay(residual):
    before = run(residual.SerializeToString(), X)
    with exposed(residual, ["c", "b"]) as serialised:
        found = run(serialised, X)
    assert list(found) == ["y", "z", "c", "b"]
    for name in ("y", "z"):
        np.testing.assert_allclose(found[name], before[name], atol=1e-5)
    plain = run(residual.SerializeToString(), X, optimise=False)
    np.testing.assert_allclose(found["b"] + found["c"], run_tensor(residual, "s"), atol=1e-5)
    assert plain.keys() == before.keys()


def run_tensor(proto, name):
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return run(copy.SerializeToString(), X, optimise=False)[name]


def test_the_model_is_as_it_was_afterwards(residual):
    before = residual.SerializeToString(deterministic=True)
    with exposed(residual, ["a", "b", "t"]):
        assert len(residual.graph.output) == 5
    assert residual.SerializeToString(deterministic=True) == before
    with pytest.raises(RuntimeError, match="on purpose"), exposed(residual, ["a"]):
        raise RuntimeError("on purpose")
    assert residual.SerializeToString(deterministic=True) == before


def test_outputs_inputs_and_repetitions_are_not_added_twice(residual):
    with exposed(residual, ["y", "x", "b", "b"]) as serialised:
        added = onnx.load_model_from_string(serialised).graph.output
    assert [value.name for value in added] == ["y", "z", "b"]


def test_a_wrong_declaration_in_the_file_cannot_contradict_an_exposed_tensor(residual):
    residual.graph.value_info.append(floats("b", [9, 9]))
    with exposed(residual, ["b"]) as serialised:
        added = onnx.load_model_from_string(serialised).graph.output[-1]
    assert not added.HasField("type")


# -- tails -----------------------------------------------------------------------------------------


def tail(proto, start, target):
    found = tail_of(Graph(proto), start, target)
    return [n.outputs[0] for n in found.nodes], set(found.frontier), found


def test_the_tail_holds_what_lies_between(residual):
    nodes, frontier, found = tail(residual, {"t"}, "y")
    assert nodes == ["m", "y"]
    assert frontier == set()
    assert found.connected


def test_a_skip_connection_that_passes_the_layer_by_is_on_the_frontier(residual):
    nodes, frontier, _ = tail(residual, {"c"}, "y")
    assert nodes == ["s", "t", "m", "y"]
    assert frontier == {"b"}


def test_constants_and_what_is_folded_from_them_are_not_on_the_frontier(residual):
    nodes, frontier, _ = tail(residual, {"a"}, "z")
    assert nodes == ["z"]
    assert frontier == set()


def test_a_target_that_does_not_depend_on_the_start_has_no_tail(residual):
    nodes, frontier, found = tail(residual, {"b"}, "z")
    assert nodes == []
    assert frontier == set()
    assert not found.connected


def test_the_whole_network_is_the_tail_of_its_input(residual):
    nodes, frontier, _ = tail(residual, {"x"}, "y")
    assert nodes == ["a", "b", "c", "s", "t", "m", "y"]
    assert frontier == set()


def test_the_start_is_not_computed_again(residual):
    nodes, _, _ = tail(residual, {"b", "t"}, "y")
    assert nodes == ["m", "y"]


def test_what_a_body_captures_counts_as_read():
    then = helper.make_graph([node("Mul", "b a", "th")], "then", [], [floats("th", None)])
    other = helper.make_graph([node("Identity", "b", "el")], "else", [], [floats("el", None)])
    nodes = [
        node("Relu", "x", "a"),
        node("Neg", "a", "b"),
        node("ReduceMax", "x", "top", keepdims=0),
        node("Greater", "top zero", "flag"),
        helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
    ]
    proto = model(nodes, ["y"], {"zero": np.float32(0)})
    names, frontier, _ = tail(proto, {"b"}, "y")
    assert names == ["y"]
    assert frontier == {"a", "flag"}


def test_the_frontier_is_enough_to_run_the_tail(residual):
    """Fed with the layer and the frontier, the twin needs nothing else, and agrees."""
    import torch

    from converters.to_torch.program import Program

    program = Program(residual)
    graph = Graph(residual)
    whole = program.run({"x": torch.from_numpy(X)}, graph.tensors)
    for layer in ("a", "b", "c", "s", "t", "m"):
        found = tail_of(graph, {layer}, "y")
        feeds = {name: whole[name] for name in (layer, *found.frontier)}
        assert torch.equal(program.run(feeds, ["y"])["y"], whole["y"])
        planned = program.plan(list(feeds), ["y"]).nodes
        assert [n.outputs for n in planned] == [n.outputs for n in found.nodes]
