"""Heatmaps in files of other networks: tokens, quantised levels, boxes, regions."""

import detectors
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from quantised_networks import network
from vision_transformers import SIZE, TokensFirst, ViT, exported

import inspector
from inspector.embed import base_of, checks_of, embed
from inspector.errors import MethodRefused, UsageError
from inspector.surgery.embedded import HEATMAP
from tests.networks import node, onnx_model

_RNG = np.random.default_rng(0)


def _w(*shape):
    return _RNG.normal(size=shape).astype(np.float32)


def _proved(out, **options):
    again = inspector.load(out, preprocess="unit", **options)
    found = checks_of(again, *base_of(again))
    assert [check.status for check in found] == ["pass"] * 4, found


def _run(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run([HEATMAP], {session.get_inputs()[0].name: x})[0]


def _transformer(tmp_path, module):
    path = tmp_path / "vit.onnx"
    path.write_bytes(exported(module))
    how = {"preprocess": "unit", "overrides": ("resize=squash",)}
    return inspector.load(path, **how), how


@pytest.mark.parametrize("size", ["input", "layer"])
@pytest.mark.parametrize("kind", [{}, {"extra": 0, "across": True}], ids=["plain", "across"])
def test_tokens_are_laid_on_their_grid(tmp_path, kind, size):
    torch.manual_seed(3)
    opened, how = _transformer(tmp_path, ViT(**kind).eval())
    out = tmp_path / "out.onnx"
    embed(opened, out, "hires-cam", size=size)
    again = inspector.load(out, **how)
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}
    shape = SIZE if size == "input" else (6, 4)
    assert _run(out, _w(2, 3, *SIZE)).shape == (2, *shape)


def test_a_layer_that_holds_its_tokens_first_is_refused(tmp_path):
    torch.manual_seed(3)
    opened, _ = _transformer(tmp_path, TokensFirst().eval())
    with pytest.raises(MethodRefused, match="rows of the layer's batch"):
        embed(opened, tmp_path / "never.onnx")
    assert not (tmp_path / "never.onnx").exists()


def _quantised(tmp_path):
    """A network in levels alone: the layer, too, holds integers, and its floor is a ReLU."""
    kernel = _RNG.integers(-60, 60, (4, 3, 3, 3)).astype(np.int8)
    second = _RNG.integers(-60, 60, (4, 4, 3, 3)).astype(np.int8)
    text = (
        "q = QuantizeLinear(X, s, z)"
        " a = QLinearConv<pads=[1,1,1,1]>(q, s, z, K, t, n, u, floor)"
        " b = QLinearConv<pads=[1,1,1,1]>(a, u, floor, L, t, n, v, floor)"
        " p = com.microsoft.QLinearGlobalAveragePool(b, v, floor, v, floor)"
        " f = DequantizeLinear(p, v, floor) g = Flatten(f) Y = MatMul(g, M)"
    )
    model = network(
        text,
        x="float[N,3,12,12] X",
        y="float[N,5] Y",
        domain="com.microsoft",
        s=np.float32(0.008),
        z=np.uint8(0),
        t=np.float32(0.01),
        u=np.float32(0.02),
        v=np.float32(0.05),
        n=np.int8(0),
        floor=np.uint8(0),
        K=kernel,
        L=second,
        M=_w(4, 5),
    )
    path = tmp_path / "levels.onnx"
    path.write_bytes(model.SerializeToString())
    return inspector.load(path, preprocess="unit")


@pytest.mark.parametrize("method", ["grad-cam", "guided-backprop"])
def test_a_layer_of_levels_is_read_as_the_numbers_that_they_stand_for(tmp_path, method):
    opened, out = _quantised(tmp_path), tmp_path / "out.onnx"
    found = embed(opened, out, method)
    _proved(out)
    if method == "grad-cam":
        assert found.facts["layer"] == "b"
        floats = onnx.load_from_string(out.read_bytes()).graph.initializer
        assert not any(t.data_type == 1 and np.prod(t.dims) > 200 for t in floats)


@pytest.mark.parametrize("method", ["hires-cam", "gradient"])
@pytest.mark.parametrize("layout", ["columns", "anchors", "detr", "pairs"])
def test_the_surest_box_is_chosen_by_the_file(tmp_path, layout, method):
    path, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    detectors.exported(layout, path)
    embed(inspector.load(path, preprocess="unit"), out, method)
    _proved(out)
    if method != "hires-cam":
        return
    for colour, row, column in ((0, 8, 40), (1, 48, 0)):
        x = np.zeros((1, 3, detectors.SIDE, detectors.SIDE), np.float32)
        x[0, colour, row : row + 8, column : column + 8] = 1.0
        heatmap = _run(out, x)[0]
        found = np.unravel_index(heatmap.argmax(), heatmap.shape)
        assert np.abs(np.subtract(found, (row + 4, column + 4))).max() <= 5


@pytest.mark.parametrize("layout", ["listed", "combined"])
def test_boxes_that_the_graph_sorts_are_refused(tmp_path, layout):
    path = tmp_path / "net.onnx"
    detectors.exported(layout, path)
    opened = inspector.load(path, preprocess="unit")
    with pytest.raises(MethodRefused, match="sorts or suppresses"):
        embed(opened, tmp_path / "never.onnx")
    assert not (tmp_path / "never.onnx").exists()


def _segmenter(tmp_path, *, ends="", background=False):
    labels = "background,cat,dog" if background else "tree,cat,dog"
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "a", "b"),
        node("Conv", "b w2", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "d"),
        node("Conv", "d w3", "e"),
        node("Resize", "e none scales", "seg" if not ends else "f", mode="linear"),
        *([node(ends, "f", "seg", axis=1)] if ends else []),
    ]
    constants = {
        "w1": _w(6, 3, 3, 3),
        "w2": _w(6, 6, 3, 3),
        "w3": _w(3, 6, 1, 1),
        "none": np.zeros(0, np.float32),
        "scales": np.float32([1, 1, 2, 2]),
    }
    model = onnx_model(nodes, {"x": ("N", 3, 24, 32)}, {"seg": ("N", 3, 24, 32)}, constants)
    for key, value in (("task", "segmentation"), ("names", labels)):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    path = tmp_path / "segments.onnx"
    path.write_bytes(model.SerializeToString())
    return inspector.load(path, preprocess="unit")


@pytest.mark.parametrize("ends", ["", "Softmax"])
@pytest.mark.parametrize("method", ["grad-cam", "gradient"])
def test_the_largest_region_is_chosen_by_the_file(tmp_path, method, ends):
    out = tmp_path / "out.onnx"
    opened = _segmenter(tmp_path, ends=ends)
    assert opened.sure_reading.task == "segmenter"
    embed(opened, out, method)
    _proved(out)


def _arranged(tmp_path, shape, bias):
    """A segmenter whose map has the classes last, or none: one class is a plane."""
    planes, rng = shape[3] if len(shape) == 4 else 1, np.random.default_rng(0)
    end = {"perm": [0, 2, 3, 1]} if planes > 1 else {}
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "a", "b"),
        node("Conv", "b w2", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "d"),
        node("Conv", "d w3 bias", "e"),
        node("Resize", "e none scales", "f", mode="linear"),
        node("Transpose" if end else "Squeeze", "f" if end else "f one", "seg", **end),
    ]
    constants = {
        "w1": rng.normal(size=(6, 3, 3, 3)),
        "w2": rng.normal(size=(6, 6, 3, 3)),
        "w3": rng.normal(size=(planes, 6, 1, 1)),
        "bias": np.full(planes, bias, np.float32),
        "none": np.zeros(0, np.float32),
        "scales": np.float32([1, 1, 2, 2]),
        "one": np.array([1], np.int64),
    }
    constants |= {name: constants[name].astype(np.float32) for name in ("w1", "w2", "w3")}
    model = onnx_model(nodes, {"x": (shape[0], 3, 24, 32)}, {"seg": shape}, constants)
    names = ",".join(("tree", "cat", "dog")[:planes])
    for key, value in (("task", "segmentation"), ("names", names)):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    path = tmp_path / "segments.onnx"
    path.write_bytes(model.SerializeToString())
    return inspector.load(path, preprocess="unit")


@pytest.mark.parametrize("shape", [("N", 24, 32, 3), ("N", 24, 32)], ids=["last", "plane"])
def test_a_region_is_chosen_wherever_the_classes_stand(tmp_path, shape):
    out, opened = tmp_path / "out.onnx", _arranged(tmp_path, shape, 0.0)
    assert opened.sure_reading.channel == (2 if len(shape) == 4 else None)
    embed(opened, out)
    _proved(out)


def test_a_file_that_finds_nothing_in_random_images_is_not_judged(tmp_path):
    out = tmp_path / "out.onnx"
    embed(_arranged(tmp_path, ("N", 24, 32), -1000.0), out)
    again = inspector.load(out, preprocess="unit")
    found = checks_of(again, *base_of(again))[-1]
    assert (found.name, found.status) == ("heatmap", "undecided")
    assert "finds nothing in a random image" in found.text


def test_a_file_with_a_fixed_batch_is_judged_by_its_images(tmp_path):
    out = tmp_path / "out.onnx"
    embed(_arranged(tmp_path, (4, 24, 32, 3), 0.0), out)
    _proved(out)


def test_an_item_of_each_photo_is_refused_by_name(tmp_path):
    opened = _segmenter(tmp_path)
    with pytest.raises(MethodRefused, match="a file chooses top1 alone"):
        embed(opened, tmp_path / "never.onnx", target="cat")
    with pytest.raises(UsageError, match="of a classifier alone"):
        embed(opened, tmp_path / "never.onnx", class_input=True)
    embed(opened, tmp_path / "fixed.onnx", target="seg[1,3,4]")
    _proved(tmp_path / "fixed.onnx")


def test_a_reader_with_an_lstm_is_written_for_one_of_its_characters(tmp_path):
    nodes = [
        node("Conv", "x w1", "a", strides=[8, 2], kernel_shape=[8, 2]),
        node("Relu", "a", "b"),
        node("Squeeze", "b height", "c"),
        node("Transpose", "c", "t", perm=[2, 0, 1]),
        node("LSTM", "t W R B", "r", hidden_size=4, direction="bidirectional"),
        node("Transpose", "r", "s", perm=[2, 0, 1, 3]),
        node("Reshape", "s flat", "u"),
        node("MatMul", "u w2", "v"),
        node("Softmax", "v", "text", axis=2),
    ]
    constants = {"w1": _w(6, 3, 8, 2), "w2": _w(8, 5), "height": np.array([2])}
    constants |= {"W": _w(2, 16, 6), "R": _w(2, 16, 4), "B": _w(2, 32)}
    constants["flat"] = np.array([0, 12, 8])
    path, out = tmp_path / "reader.onnx", tmp_path / "out.onnx"
    shapes = {"x": ("N", 3, 8, 24)}, {"text": ("N", 12, 5)}
    path.write_bytes(onnx_model(nodes, *shapes, constants).SerializeToString())
    opened = inspector.load(path, preprocess="unit")
    with pytest.raises(MethodRefused, match=r"read as: sequence.*--target 'text\[0,0\]'"):
        embed(opened, out, "hires-cam")
    assert not out.exists()
    embed(opened, out, "hires-cam", target="text[2,3]", layer="b")
    _proved(out)
