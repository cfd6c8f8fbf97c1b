"""Models that leave their input's size free, although the network does not."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import inspector
from inspector.errors import ModelRefused
from inspector.network.inputs.sizes import sizes_to_try
from inspector.overview import overview

FREE = ("n", 3, "height", "width")


def written(path, nodes, weights, shape=FREE, classes=3):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def flattened(path, height, width, shape=FREE):
    """A convolution and a linear layer over all positions, for one input size."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"]),
    ]
    weights = {"w": random(2, 3, 3, 3), "m": random(2 * height * width, 3)}
    return written(path, nodes, weights, shape)


def tokens(path, side, patch=16):
    """Patches with an embedding of their positions, as a vision transformer has it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", strides=[patch, patch]),
        helper.make_node("Reshape", ["c", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Add", ["t", "positions"], ["a"]),
        helper.make_node("ReduceMean", ["a"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "head"], ["y"]),
    ]
    weights = {
        "w": random(4, 3, patch, patch),
        "shape": np.array([0, 4, -1]),
        "positions": random(1, side * side, 4),
        "head": random(4, 3),
    }
    return written(path, nodes, weights)


def test_a_position_embedding_tells_the_size(tmp_path):
    model = inspector.load(tokens(tmp_path / "vit.onnx", side=11))
    assert model.preprocessing.preprocess.size == (176, 176)
    assert "176 x 176 is used" in " ".join(model.preprocessing.warnings)
    photo = np.zeros((20, 20, 3), np.uint8)
    assert model.explain(photo, "occlusion:window=88").images[0].predictions


def test_a_network_that_runs_keeps_the_size_of_the_guess(tmp_path):
    model = inspector.load(tokens(tmp_path / "vit.onnx", side=14))
    assert model.preprocessing.preprocess.size == (224, 224)
    assert len(model.preprocessing.warnings) == 1  # the guess itself


@pytest.mark.parametrize("size", [(32, 100), (160, 160), (28, 28)])
def test_a_size_in_use_is_found(tmp_path, size):
    model = inspector.load(flattened(tmp_path / "flat.onnx", *size))
    assert model.preprocessing.preprocess.size == size


def test_a_side_that_the_file_fixes_is_taken(tmp_path):
    path = flattened(tmp_path / "line.onnx", 32, 320, ("n", 3, 32, "width"))
    assert inspector.load(path).preprocessing.preprocess.size == (32, 320)


def test_the_size_that_was_tried_is_said(tmp_path):
    path = flattened(tmp_path / "odd.onnx", 37, 53)
    model = inspector.load(path)
    with pytest.raises(ModelRefused, match=r"224 x 224 pixels, which the file leaves free"):
        overview(model)
    with pytest.raises(ModelRefused, match="37 x 54"):
        inspector.load(path, overrides=["size=37,54"]).explain(
            np.zeros((20, 20, 3), np.uint8), "occlusion"
        )


def test_a_named_size_is_used_by_all_commands(tmp_path):
    path = flattened(tmp_path / "odd.onnx", 37, 53)
    model = inspector.load(path, overrides=["size=37,53"])
    assert model.model.size() == (37, 53)
    assert overview(model).rows[0].shape == (2, 37, 53)
    assert model.head.reason  # finds out the map's size by a forward pass
    assert model.certificate.text


def test_sizes_are_tried_once_and_keep_what_is_fixed(tmp_path):
    graph = inspector.load(tokens(tmp_path / "vit.onnx", side=14)).graph
    sizes = sizes_to_try(graph, (224, 224), (None, None))
    assert len(set(sizes)) == len(sizes)
    assert (224, 224) not in sizes
    assert {height for height, _ in sizes_to_try(graph, (32, 224), (32, None))} == {32}
