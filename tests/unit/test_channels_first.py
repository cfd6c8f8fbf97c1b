"""Element-wise nodes move in front of the Transpose; values, names and outputs stay."""

from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import onnx_model
from onnx import TensorProto as T
from onnx import helper as oh
from onnx import numpy_helper

import inspector
from converters.graph import Graph
from converters.graph.activations import find_activations
from converters.onnx_file.channels_first import move_channels_first
from inspector.errors import UnknownLayer

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def model(nodes, constants, outputs, opset=21):
    return onnx_model(
        nodes,
        {"image": [None, 3, 8, 8]},
        [
            oh.make_tensor_value_info(name, T.FLOAT, [None, 4] if name == "logits" else None)
            for name in outputs
        ],
        {k: np.asarray(v, np.float32) for k, v in constants.items()},
        opset=opset,
    )


def values(proto, names, image):
    """All named tensors, as ONNX Runtime computes them without changing the graph."""
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    known = {value.name for value in shown.graph.output}
    shown.graph.output.extend(oh.make_empty_tensor_value_info(n) for n in names if n not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def residual():
    """Two convolutions whose sum and activation run with channels last, and a mean."""
    rng = np.random.default_rng(0)
    constants = {
        "W0": rng.normal(size=(5, 3, 3, 3)),
        "W1": rng.normal(size=(5, 5, 3, 3)),
        "W2": rng.normal(size=(5, 4)),
        "slope": rng.uniform(size=5),
        "gain": rng.normal(size=(1, 1, 1, 5)),
        "half": 0.5,
        "low": -1.0,
        "high": 2.0,
        "places": rng.normal(size=(8, 8, 1)),
    }
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        oh.make_node("Conv", ["image", "W0"], ["c0"], **pads),
        oh.make_node("Transpose", ["c0"], ["t0"], "turn0", perm=TO_LAST),
        oh.make_node("PRelu", ["t0", "slope"], ["p0"], "prelu"),
        oh.make_node("Transpose", ["p0"], ["f0"], perm=TO_FIRST),
        oh.make_node("Conv", ["f0", "W1"], ["c1"], **pads),
        oh.make_node("Transpose", ["c1"], ["t1"], perm=TO_LAST),
        oh.make_node("Mul", ["t1", "gain"], ["m1"]),
        oh.make_node("Add", ["p0", "m1"], ["a1"]),
        oh.make_node("Clip", ["a1", "low", "high"], ["k1"]),
        oh.make_node("Sub", ["half", "k1"], ["s1"]),
        oh.make_node("Relu", ["s1"], ["r1"]),
        oh.make_node("ReduceMean", ["r1"], ["pooled"], axes=[1, 2], keepdims=0),
        oh.make_node("MatMul", ["pooled", "W2"], ["logits"]),
    ]
    return model(nodes, constants, ["logits"], opset=17)


IMAGE = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)


def test_every_tensor_that_is_read_keeps_its_name_and_its_bits():
    proto = residual()
    names = [name for node in proto.graph.node for name in node.output]
    before = values(proto, names, IMAGE)
    move_channels_first(proto)
    onnx.checker.check_model(proto)
    made = {name for node in proto.graph.node for name in node.output}
    # What lies between two nodes that moved is read on the other side alone.
    assert set(names) - made == {"t0", "t1", "m1", "a1", "k1", "s1"}
    names = [name for name in names if name in made]
    after = values(proto, names, IMAGE)
    for name in names:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_the_map_exists_with_channels_first():
    proto = residual()
    move_channels_first(proto)
    moved = ["p0", "m1", "a1", "k1", "s1", "r1"]
    first = values(proto, [f"{name}_channels_first" for name in moved], IMAGE)
    last = values(residual(), moved, IMAGE)
    for name in moved:
        np.testing.assert_array_equal(
            first[f"{name}_channels_first"], last[name].transpose(TO_FIRST), err_msg=name
        )
    kinds = {node.op_type: list(node.input) for node in proto.graph.node}
    assert kinds["Add"] == ["p0_channels_first", "m1_channels_first"]
    assert kinds["Relu"] == ["s1_channels_first"]


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (oh.make_node("Add", ["t0", "places"], ["out"]), "a constant that differs between places"),
        (oh.make_node("Add", ["t0", "image_mean"], ["out"]), "a tensor that is computed"),
        (oh.make_node("Softmax", ["t0"], ["out"], axis=3), "an operator over an axis"),
        (oh.make_node("Relu", ["image"], ["out"]), "no Transpose before it"),
    ],
)
def test_what_is_not_element_wise_stays(node, why):
    proto = residual()
    before = [
        proto.graph.node[0],
        proto.graph.node[1],
        oh.make_node("ReduceMean", ["t0"], ["image_mean"], axes=[1, 2]),
        node,
    ]
    fresh = model(before, {}, ["out"], opset=17)
    fresh.graph.initializer.extend(proto.graph.initializer)
    expected = fresh.SerializeToString(deterministic=True)
    move_channels_first(fresh)
    assert fresh.SerializeToString(deterministic=True) == expected, why


def test_what_a_body_reads_stays():
    proto = residual()
    body = oh.make_graph(
        [oh.make_node("Identity", ["s1"], ["inner"])],
        "body",
        [],
        [oh.make_tensor_value_info("inner", T.FLOAT, None)],
    )
    condition = numpy_helper.from_array(np.asarray(1, bool), "yes")
    proto.graph.initializer.append(condition)
    proto.graph.node.append(
        oh.make_node("If", ["yes"], ["same"], then_branch=body, else_branch=body)
    )
    before = values(proto, ["same"], IMAGE)
    move_channels_first(proto)
    assert "s1" in {name for node in proto.graph.node for name in node.output}
    np.testing.assert_array_equal(values(proto, ["same"], IMAGE)["same"], before["same"])


def test_composites_are_recognised_on_the_other_side():
    """A SiLU spelled as x * sigmoid(x), whose parts an unread Transpose would pull apart."""
    nodes = [
        oh.make_node("Conv", ["image", "W"], ["c"]),
        oh.make_node("Transpose", ["c"], ["t"], perm=TO_LAST),
        oh.make_node("Sigmoid", ["t"], ["gate"]),
        oh.make_node("Mul", ["t", "gate"], ["silu"]),
        oh.make_node("ReduceMean", ["silu"], ["logits"], axes=[1, 2], keepdims=0),
    ]
    proto = model(nodes, {"W": np.ones((4, 3, 3, 3))}, ["logits"], opset=17)
    move_channels_first(proto)
    assert [a.kind for a in find_activations(Graph(proto))] == ["Silu"]


def test_names_that_are_taken_are_left_alone():
    proto = residual()
    proto.graph.node.append(oh.make_node("Neg", ["r1"], ["p0_channels_first"]))
    move_channels_first(proto)
    onnx.checker.check_model(proto)
    made = [name for node in proto.graph.node for name in node.output]
    assert len(made) == len(set(made))


def test_a_network_with_channels_last_has_its_layers_where_one_with_channels_first_has(tmp_path):
    onnx.save(residual(), tmp_path / "net.onnx")
    found = inspector.load(tmp_path / "net.onnx", preprocess="raw")
    assert [layer.tensor for layer in found.layers][-1] == "r1_channels_first"
    assert found.layers[-1].chain[:3] == ("Conv", "Mul", "Add")
    photo = inspector.Photo.of(np.random.default_rng(2).integers(0, 256, (8, 8, 3), np.uint8))
    # Named with its channels last, a map is read with its channels first.
    for name in ("r1", "r1_channels_first", "last"):
        result = found.explain(photo, "grad-cam", layer=name).images[0].explanations[0]
        assert result.attribution.values.shape == (8, 8)
        maps = found.forward(np.float32(IMAGE[:1]), ["r1"])["r1"]
        assert maps.shape == (1, 8, 8, 5)


def test_a_map_that_exists_with_channels_last_alone_is_read_so(tmp_path):
    """Read as (N, C, h, w) it would give a picture of 8 places by 5 channels."""
    proto = residual()
    at = next(i for i, node in enumerate(proto.graph.node) if node.op_type == "ReduceMean")
    proto.graph.node[at].input[0] = "shifted"
    proto.graph.node.insert(at, oh.make_node("Add", ["r1", "places"], ["shifted"]))
    onnx.save(proto, tmp_path / "net.onnx")
    found = inspector.load(tmp_path / "net.onnx", preprocess="raw")
    photo = inspector.Photo.of(np.random.default_rng(2).integers(0, 256, (8, 8, 3), np.uint8))
    drawn = found.explain(photo, "grad-cam", layer="shifted", target="1").attribution
    x, _ = found.preprocessing.preprocess.apply(photo)
    maps = found.forward(x[None], ["shifted"])["shifted"][0]
    weights = numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == "W2"))
    wanted = np.maximum(maps @ weights[:, 1] / 64, 0)  # the mean over 8 x 8 places
    assert wanted.any()
    np.testing.assert_allclose(drawn, wanted, atol=1e-4 * wanted.max())


@pytest.mark.parametrize("last", [False, True])
def test_the_image_itself_is_read_as_the_first_convolution_reads_it(last, tmp_path):
    weight = np.random.default_rng(4).normal(size=(5, 3, 3, 3))
    nodes = [oh.make_node("Sub", ["image", "mean"], ["centred"])]
    nodes += [oh.make_node("Transpose", ["centred"], ["turned"], perm=TO_FIRST)] * last
    nodes += [
        oh.make_node("Conv", ["turned" if last else "centred", "W"], ["maps"]),
        oh.make_node("ReduceMean", ["maps"], ["means"], axes=[2, 3], keepdims=0),
        oh.make_node("MatMul", ["means", "W2"], ["logits"]),
    ]
    proto = model(nodes, {"W": weight, "W2": np.ones((5, 4)), "mean": 0.5}, ["logits"], opset=17)
    if last:
        shape = proto.graph.input[0].type.tensor_type.shape
        for dim, size in zip(shape.dim[1:], (8, 8, 3), strict=True):
            dim.dim_value = size
    onnx.save(proto, tmp_path / "net.onnx")
    found = inspector.load(tmp_path / "net.onnx", preprocess="raw")
    photo = inspector.Photo.of(np.random.default_rng(5).integers(0, 256, (8, 8, 3), np.uint8))
    result = found.explain(photo, "grad-cam", layer="centred").images[0].explanations[0]
    assert result.attribution.values.shape == (8, 8)


def test_what_nothing_reads_as_a_map_is_refused(tmp_path):
    """Four axes do not make a map: heads of an attention, tokens by tokens."""
    proto = residual()
    proto.graph.node.append(oh.make_node("MatMul", ["c1", "c1"], ["products"]))
    onnx.save(proto, tmp_path / "net.onnx")
    found = inspector.load(tmp_path / "net.onnx", preprocess="raw")
    photo = inspector.Photo.of(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UnknownLayer, match="not known to be a map"):
        found.explain(photo, "grad-cam", layer="products")


def test_gradients_do_not_depend_on_the_side(tmp_path):
    """The same network written with channels first: maps agree to rounding."""
    proto = residual()
    weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type != "Transpose"]
    same = {"t0": "c0", "f0": "p0", "t1": "c1"}
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)
        if node.op_type == "ReduceMean":
            node.attribute[0].ints[:] = [2, 3] if node.attribute[0].name == "axes" else []
    weights["slope"], weights["gain"] = (
        weights[name].reshape(5, 1, 1) for name in ("slope", "gain")
    )
    onnx.save(residual(), tmp_path / "last.onnx")
    onnx.save(model(nodes, weights, ["logits"], opset=17), tmp_path / "first.onnx")
    photo = inspector.Photo.of(np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8))
    results = [
        inspector.load(tmp_path / f"{name}.onnx", preprocess="raw")
        .explain(photo, ["grad-cam", "grad-cam++", "gradient"])
        .images[0]
        .explanations
        for name in ("last", "first")
    ]
    for pair in zip(*results, strict=True):
        for one, two in pairwise(pair):
            expected = two.attribution.values
            peak = float(np.abs(expected).max())
            assert peak > 0
            assert np.abs(one.attribution.values - expected).max() <= 1e-5 * peak, one.label
