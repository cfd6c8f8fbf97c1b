"""Explaining through layers of quantised networks, written in each of the forms tools write."""

import numpy as np
import onnx
import onnxruntime
import pytest
from quantised_networks import network

import inspector
from converters.graph import Graph, Node
from inspector.errors import MethodRefused
from inspector.network.form import Form
from inspector.network.quantisation.levels import Levels, copies_of, levels_of, saturation_note

RNG = np.random.default_rng(1)
K = RNG.integers(-90, 90, (4, 3, 3, 3)).astype(np.int8)
L = RNG.integers(-90, 90, (4, 4, 3, 3)).astype(np.int8)
F = RNG.integers(-90, 90, (4, 5)).astype(np.int8)
WEIGHTS = {
    "K": K,
    "L": L,
    "F": F,
    "ks": np.full(4, 0.004, np.float32),
    "fs": np.float32(0.01),
    "n": np.int8(0),
    "nn": np.zeros(4, np.int8),
    "axes": np.array([2, 3]),
}
SCALES = {
    "xs": np.float32(0.02),
    "xz": np.uint8(128),
    "z": np.uint8(0),
    "as": np.float32(0.012),
    "bs": np.float32(0.015),
    "ss": np.float32(0.03),
    "sz": np.uint8(120),
    "ps": np.float32(0.01),
    "ys": np.float32(0.01),
    "yz": np.uint8(128),
}
DEQUANTISED = (
    "kf = DequantizeLinear<axis=0>(K, ks, nn) lf = DequantizeLinear<axis=0>(L, ks, nn)"
    " ff = DequantizeLinear(F, fs, n)"
    " xq = QuantizeLinear(X, xs, xz) xd = DequantizeLinear(xq, xs, xz)"
    " c = Conv<pads=[1,1,1,1]>(xd, kf)"
)
HEAD = (
    " m = Add({1}, b2) mq = QuantizeLinear(m, ss, sz) md = DequantizeLinear(mq, ss, sz)"
    " p = ReduceMean<axes=[2,3], keepdims=0>(md)"
    " pq = QuantizeLinear(p, ps, yz) pd = DequantizeLinear(pq, ps, yz)"
    " y = MatMul(pd, ff) yq = QuantizeLinear(y, ys, yz) Y = DequantizeLinear(yq, ys, yz)"
)
SECOND = (
    " b = Conv<pads=[1,1,1,1]>({0}, lf) bq = QuantizeLinear(b, bs, yz)"
    " b2 = DequantizeLinear(bq, bs, yz)"
)
ONE_PAIR = " q = QuantizeLinear(c, as, z) a = DequantizeLinear(q, as, z)"
FORMS = {
    "one DequantizeLinear": ONE_PAIR + SECOND.format("a") + HEAD.format("", "a"),
    "a DequantizeLinear for each reader": ONE_PAIR
    + " a2 = DequantizeLinear(q, as, z)"
    + SECOND.format("a")
    + HEAD.format("", "a2"),
    "a pair for each reader": ONE_PAIR
    + " q2 = QuantizeLinear(c, as, z) a2 = DequantizeLinear(q2, as, z)"
    + SECOND.format("a2")
    + HEAD.format("", "a"),
    "a Cast between": " q0 = QuantizeLinear(c, as, z) q = Cast<to=2>(q0)"
    " a = DequantizeLinear(q, as, z) q2 = Cast<to=2>(q0) a2 = DequantizeLinear(q2, as, z)"
    + SECOND.format("a")
    + HEAD.format("", "a2"),
}
OPERATORS = (
    "xq = QuantizeLinear(X, xs, xz)"
    " a = QLinearConv<pads=[1,1,1,1]>(xq, xs, xz, K, ks, nn, as, z)"
    " bq = QLinearConv<pads=[1,1,1,1]>(a, as, z, L, ks, nn, bs, yz)"
    " mq = com.microsoft.QLinearAdd(a, as, z, bq, bs, yz, ss, sz)"
    " pq = com.microsoft.QLinearGlobalAveragePool(mq, ss, sz, ps, yz)"
    " fq = Flatten(pq)"
    " yq = QLinearMatMul(fq, ps, yz, F, fs, n, ys, yz) Y = DequantizeLinear(yq, ys, yz)"
)
IMAGES = np.random.default_rng(2).normal(size=(3, 3, 9, 9)).astype(np.float32)


def opened(tmp_path, text, **constants):
    proto = network(
        text,
        x="float[N,3,9,9] X",
        y="float[N,5] Y",
        domain="com.microsoft",
        **{**WEIGHTS, **SCALES, **constants},
    )
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    return inspector.load(path, device="cpu", preprocess="unit")


@pytest.fixture
def reference(tmp_path):
    """Maps of the plainest form; the activations are checked against ONNX Runtime's own."""
    (tmp_path / "reference").mkdir()
    return opened(tmp_path / "reference", DEQUANTISED + FORMS["one DequantizeLinear"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "gradient", "guided-backprop"])
def test_all_forms_of_pairs_give_the_same_map(tmp_path, reference, form, method):
    model = opened(tmp_path, DEQUANTISED + FORMS[form])
    found = model.attribute(IMAGES, method, target="3", layer="a")
    wanted = reference.attribute(IMAGES, method, target="3", layer="a")
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "guided-backprop"])
def test_operators_on_levels_give_the_map_of_pairs(tmp_path, reference, method):
    model = opened(tmp_path, OPERATORS)
    found = model.attribute(IMAGES, method, target="3", layer="a")
    wanted = reference.attribute(IMAGES, method, target="3", layer="a")
    flat = [v.reshape(len(v), -1) for v in (found, wanted)]
    # The pair form rounds once more, behind the mean; levels may differ by one.
    for one, other in zip(*flat, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.99
        assert np.abs(one - other).max() < 0.1 * np.abs(other).max()


def test_levels_are_explained_as_what_they_stand_for(tmp_path):
    """A layer whose zero point is not 0: the same as behind its DequantizeLinear."""
    text = DEQUANTISED + ONE_PAIR + SECOND.format("a") + HEAD.format("", "a")
    model = opened(tmp_path, text)
    for method in ("grad-cam", "grad-cam++"):
        found = model.attribute(IMAGES, method, target="0", layer="mq")
        wanted = model.attribute(IMAGES, method, target="0", layer="md")
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_the_default_layer_is_read_behind_the_clamp(tmp_path):
    """What lies before QuantizeLinear has negative values that the network never sees."""
    text = DEQUANTISED + FORMS["a DequantizeLinear for each reader"]
    model = opened(tmp_path, text)
    assert model.layers[0].tensor == "a"
    found = model.forward(IMAGES, ["c", "a"])
    assert found["c"].min() < 0 <= found["a"].min()


def test_copies_are_found_from_each_of_them_and_only_they(tmp_path):
    text = (
        "q = QuantizeLinear(X, xs, xz) a = DequantizeLinear(q, xs, xz)"
        " b = DequantizeLinear(q, same, xz) c = DequantizeLinear(q, as, xz)"
        " p = QuantizeLinear(X, same, xz) d = DequantizeLinear(p, xs, xz)"
        " o = QuantizeLinear(X, as, xz) e = DequantizeLinear(o, xs, xz)"
        " Y = Sum(a, b, c, d, e)"
    )
    graph = Graph(network(text, same=SCALES["xs"], **SCALES))
    assert copies_of(graph, "a") == ("a", "b", "d")
    assert copies_of(graph, "d") == ("d", "a", "b")
    assert copies_of(graph, "c") == ("c",)
    assert copies_of(graph, "e") == ("e",)
    assert copies_of(graph, "X") == ("X",)
    assert copies_of(graph, "Y") == ("Y",)


def test_what_levels_stand_for_is_read_off_the_node_that_made_them():
    text = (
        "q = QuantizeLinear<axis=1>(X, s4, z4) t = Reshape(q, shape)"
        " i = Cast<to=7>(X) Y = DequantizeLinear<axis=1>(t, s4, z4)"
    )
    scale, zero = np.array([1, 2, 3, 4], np.float32), np.array([0, 1, 2, 3], np.uint8)
    graph = Graph(network(text, s4=scale, z4=zero, shape=np.array([-1, 4])))
    found = levels_of(graph, "t")
    assert found is not None
    levels = np.arange(8, dtype=np.uint8).reshape(2, 4)
    np.testing.assert_array_equal(found.read(levels), (levels.astype(float) - zero) * scale)
    assert levels_of(graph, "i") is None
    assert levels_of(graph, "Y") is None


def test_integers_of_unknown_scale_are_refused(tmp_path):
    text = (
        "i = Cast<to=2>(X) j = Cast<to=1>(i) kf = DequantizeLinear<axis=0>(K, ks, nn)"
        " ff = DequantizeLinear(F, fs, n) c = Conv(j, kf) p = GlobalAveragePool(c)"
        " f = Flatten(p) Y = MatMul(f, ff)"
    )
    model = opened(tmp_path, text)
    model.unverified = True  # the cast to integers stops the gradient, which the certificate says
    with pytest.raises(MethodRefused, match="scale is not known"):
        model.attribute(IMAGES, "grad-cam", target="0", layer="i")


# -- scores that saturate ------------------------------------------------------------------------


def test_a_score_at_the_end_of_its_range_is_noted():
    text = "c = MatMul(X, w) q = QuantizeLinear(c, s, z) Y = DequantizeLinear(q, s, z)"
    constants = {"w": np.eye(4, dtype=np.float32), "s": np.float32(0.1), "z": np.uint8(55)}
    graph = Graph(network(text, **constants))
    for tensor in ("c", "Y"):
        assert "largest value that can be held, 20" in saturation_note(
            graph, tensor, np.array([[1.0, 20.0]], np.float32)
        )
        assert "smallest value" in saturation_note(graph, tensor, np.array([-5.5]))
        assert saturation_note(graph, tensor, np.array([19.9, -5.4])) == ""
    assert "largest" in saturation_note(graph, "q", np.array([255], np.uint8))
    assert saturation_note(graph, "q", np.array([254, 1], np.uint8)) == ""
    assert saturation_note(graph, "X", np.array([1e9])) == ""


def test_the_note_reaches_the_report(tmp_path):
    text = DEQUANTISED + FORMS["one DequantizeLinear"]
    model = opened(tmp_path, text, ys=np.float32(1e-4))
    photo = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
    for method in ("grad-cam", "gradient"):
        (image,) = model.explain(photo, method).images
        notes = image.explanations[0].heatmap.attribution.notes
        assert any("saturates its quantiser" in note for note in notes)


# -- types of weights ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "opset"),
    [("INT4", 21), ("UINT4", 21), ("INT8", 13), ("INT16", 21), ("FLOAT8E4M3FN", 19)],
)
def test_weights_of_any_type_that_can_be_held(tmp_path, stored, opset):
    kind = getattr(onnx.TensorProto, stored)
    values = np.random.default_rng(3).integers(1, 7, (4, 3, 3, 3)).astype(np.float32)
    weight = onnx.helper.make_tensor("K", kind, values.shape, values.ravel().tolist())
    proto = network(
        "kf = DequantizeLinear(K, ks) c = Conv(X, kf) r = Relu(c) p = GlobalAveragePool(r)"
        " Y = Flatten(p)",
        x="float[N,3,9,9] X",
        y="float[N,4] Y",
        opset=opset,
        K=weight,
        ks=np.float32(0.1),
    )
    path = tmp_path / "weights.onnx"
    onnx.save(proto, path)
    model = inspector.load(path, device="cpu", preprocess="unit")
    wanted = (values[1] * np.float32(0.1))[None].repeat(3, 0)  # d mean(relu(conv)) at one corner
    found = model.attribute(np.abs(IMAGES), "gradient", target="1")
    np.testing.assert_allclose(found[:, :, 0, 0], wanted[:, :, 0, 0] / 49, rtol=1e-5)


def test_types_that_nothing_can_hold_are_refused_with_the_node(tmp_path):
    onnxruntime.set_default_logger_severity(4)
    text = "q = com.microsoft.QLinearReduceMean(X, s, z, s, z) Y = DequantizeLinear(q, s, z)"
    proto = network(text, domain="com.microsoft", s=np.float32(1), z=np.uint8(0))
    from converters.errors import UnsupportedOperator
    from converters.to_torch.program import Program

    with pytest.raises(UnsupportedOperator, match="QLinearReduceMean"):
        Program(proto).plan(["X"], ["Y"])


def test_a_form_reads_and_writes_maps_with_channels_last_and_several_scales():
    """One door for both: what is written is read again, and a gradient is per real number."""
    node = Node(0, "q", "", "QuantizeLinear", ("x", "s", "z"), ("y",), {"axis": 3})
    scale, zero = np.array([0.5, 2.0]), np.array([3.0, 0.0])
    form = Form(3, Levels(node, scale, zero, 0, 255, axis=3))
    held = np.arange(12, dtype=np.uint8).reshape(1, 2, 3, 2)
    real = form.read(held)
    assert real.shape == (1, 2, 2, 3)
    np.testing.assert_array_equal(real[0, 1], held[0, :, :, 1] * 2.0)
    np.testing.assert_array_equal(real[0, 0], (held[0, :, :, 0].astype(float) - 3) * 0.5)
    np.testing.assert_array_equal(form.write(real), held)
    assert form.write(real).dtype == np.uint8
    signal = form.read_gradient(np.ones((1, 2, 3, 2)))
    np.testing.assert_array_equal(signal[0, :, 0, 0], [2.0, 0.5])


def test_scales_per_channel_are_not_read_behind_what_moves_channels():
    """A padded copy has the levels of its source; behind a transposition the axis is another."""
    graph = Graph(
        network(
            "q = QuantizeLinear<axis=1>(X, s4, z4) m = MaxPool<kernel_shape=[2, 2]>(q)"
            " turned = Transpose<perm=[0, 2, 3, 1]>(q) t = QuantizeLinear(X, one, seven)"
            " padded = Pad(t, pads) Y = DequantizeLinear<axis=1>(m, s4, z4)",
            s4=np.array([1, 2, 3, 4], np.float32),
            z4=np.zeros(4, np.uint8),
            one=np.float32(0.25),
            seven=np.uint8(7),
            pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        )
    )
    pooled, padded = levels_of(graph, "m"), levels_of(graph, "padded")
    assert pooled is not None
    assert pooled.scale.tolist() == [1, 2, 3, 4]
    assert levels_of(graph, "turned") is None
    assert padded is not None
    assert (float(padded.scale), float(padded.zero_point)) == (0.25, 7)
