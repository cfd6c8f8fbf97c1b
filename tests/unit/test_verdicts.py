"""What ``inspector check`` says of methods: what ``explain`` does with a probe image."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inspector
from converters.graph import Graph
from inspector.errors import ExplainedError
from inspector.explain import attempts
from inspector.methods import methods
from inspector.network.outputs.score_tensors import candidates
from inspector.verdicts import method_verdicts, probe_target, verdicts

PHOTO = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("INSPECTOR_CACHE", "off")


def network(*, stem=(), head=(), outputs=("y",), shapes=(["n", 4],)):
    """conv - relu - mean - linear, with nodes before and behind; returns the model."""
    rng = np.random.default_rng(1)
    nodes = [
        *stem,
        helper.make_node("Conv", ["s" if stem else "x", "w"], ["c"], "conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "v"], ["z" if head else "y"], "linear"),
        *head,
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(outputs, shapes, strict=True)
        ],
        [
            numpy_helper.from_array(rng.standard_normal((6, 3, 3, 3)).astype(np.float32), "w"),
            numpy_helper.from_array(rng.standard_normal((6, 4)).astype(np.float32), "v"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def unknown_operator():
    """An operator that the twin lacks, in the stem, multiplied by 0."""
    return network(
        stem=[
            helper.make_node("Cast", ["x"], ["i"], "cast", to=TensorProto.INT32),
            helper.make_node("MurmurHash3", ["i"], ["h"], "hash", domain="com.microsoft"),
            helper.make_node("Cast", ["h"], ["g"], "back", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["g", "zero"], ["nothing"], "mul"),
            helper.make_node("Add", ["x", "nothing"], ["s"], "add"),
        ]
    )


def no_gradient():
    """Scores behind a product with 0."""
    return network(head=[helper.make_node("Mul", ["z", "zero"], ["y"], "mul")])


def smooth():
    """An activation that guided backpropagation is not defined for."""
    return network(stem=[helper.make_node("Tanh", ["x"], ["s"], "tanh")])


def dense():
    """An output with a value per pixel and channel: no classes."""
    return network(outputs=("r",), shapes=(["n", 6, 16, 16],))


MODELS = {
    "plain": network,
    "unknown operator": unknown_operator,
    "no gradient": no_gradient,
    "smooth": smooth,
}


@pytest.mark.parametrize("name", MODELS)
def test_check_says_what_explain_does(tmp_path, name):
    path = tmp_path / "model.onnx"
    onnx.save(MODELS[name](), path)
    found = method_verdicts(inspector.load(path, device="cpu", preprocess="imagenet"))
    assert list(found) == list(methods())
    for method, verdict in found.items():
        model = inspector.load(path, device="cpu", preprocess="imagenet")
        try:
            model.explain(PHOTO, method)
        except ExplainedError:
            assert verdict.startswith("refused: "), (method, verdict)
        else:
            assert verdict == "works", method


def test_a_refusal_names_operator_and_node(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(unknown_operator(), path)
    found = method_verdicts(inspector.load(path, device="cpu", preprocess="imagenet"))
    assert found["cam"] == found["occlusion"] == "works"
    assert "MurmurHash3" in found["grad-cam"]
    assert "hash" in found["grad-cam"]


def test_what_takes_long_is_tried_after_the_rest_is_known(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    onnx.save(network(), path)
    tried = []

    def recorded(opened, image, requests, target):
        tried.extend(text.partition(":")[0] for text in requests)
        return attempts(opened, image, requests, target)

    monkeypatch.setattr("inspector.verdicts.attempts", recorded)
    model = inspector.load(path, device="cpu", preprocess="imagenet")
    known = []
    for name, _ in verdicts(model):
        known.append(name)
        if name == "x-grad-cam":
            assert not {"smooth-grad", "gradient", "attn-lrp"}.intersection(tried)
        if name == "smooth-grad":
            assert not {"attn-lrp", "lrp-epsilon-plus"}.intersection(tried)
    assert known.index("occlusion") < known.index("x-grad-cam") < known.index("smooth-grad")
    assert sorted(known) == sorted(methods())


def test_a_model_without_classes_is_probed_at_its_largest_element(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(dense(), path)
    model = inspector.load(path, device="cpu", preprocess="imagenet")
    assert not model.scores.classifier
    image = np.random.default_rng(2).standard_normal((1, 3, 16, 16)).astype(np.float32)
    values = model.forward(image, ["r"])["r"][0]
    place = np.unravel_index(values.argmax(), values.shape)
    assert probe_target(model, image) == f"r[{','.join(map(str, place))}]"
    assert method_verdicts(model)["occlusion"] == "works"


def test_scores_come_before_coordinates():
    """A detector that joins boxes and the sigmoid of its scores, and one with two outputs."""
    together = network(
        head=[
            helper.make_node("Sigmoid", ["z"], ["s_"], "sigmoid"),
            helper.make_node("Concat", ["f", "s_"], ["y"], "join", axis=1),
        ]
    )
    assert candidates(Graph(together)) == ("z", "y")
    apart = network(outputs=("boxes", "conf"), shapes=(["n", 6], ["n", 6]))
    assert candidates(Graph(apart)) == ("conf", "boxes")
