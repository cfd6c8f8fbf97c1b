"""Large weights beside the parsed message: the same values, the same refusals, no copies."""

import pickle

import numpy as np
import onnx
import pytest
from networks import node, onnx_model
from onnx import TensorProto, helper, numpy_helper

import inspector
from converters import onnx_file
from converters.errors import NotAModel, UnsafeModel
from converters.onnx_file import weights_apart as module
from converters.onnx_file.weights_apart import set_apart
from inspector.compare.executions import compare_executions
from inspector.embed import embed
from inspector.embed.checks import base_of, checks_of
from inspector.engines.runtime import Runtime
from inspector.surgery.inputs import bind_inputs
from inspector.surgery.random_weights import permuted_weights

rng = np.random.default_rng(3)
CHANNELS = 48
STORED = {
    "w1": rng.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32) / 5,
    "w2": rng.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 20,
    "w3": rng.standard_normal((CHANNELS, 900)).astype(np.float32) / 7,
    "b3": rng.standard_normal(900).astype(np.float32),
    "spare": rng.standard_normal((200, 200)).astype(np.float32),
}
APART = {"w2", "w3"}
"""Those above the limit, which something reads."""


def network(stored=STORED, **options):
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1], name="first"),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1], name="second"),
        node("Relu", "c2", "r2"),
        node("GlobalAveragePool", "r2", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w3 b3", "y"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 12, 12])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 900])
    return onnx_model(nodes, [x], [y], stored, **options)


@pytest.fixture
def path(tmp_path):
    onnx.save(network(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def both(path):
    return onnx_file.read(path), onnx_file.read(path, weights_apart=True)


def images(count=2):
    return np.random.default_rng(0).random((count, 3, 12, 12)).astype(np.float32)


def references(model):
    return {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }


def test_large_weights_are_referred_to_and_hold_the_same_values(path):
    plain, apart = both(path)
    assert plain.weights is None
    assert references(apart.model) == APART
    for name in ("w1", "w2", "w3", "b3"):
        np.testing.assert_array_equal(apart.graph.constant(name), STORED[name])
        assert apart.graph.constant(name).flags.aligned
    assert apart.model.ByteSize() < 30_000 < path.stat().st_size
    assert (apart.sha256, apart.facts) == (plain.sha256, plain.facts)
    assert apart.external == ()


@pytest.mark.parametrize("ir_version", [3, 8])
def test_the_whole_model_is_the_one_that_was_read(tmp_path, ir_version):
    """Also where weights are inputs of the graph too."""
    model = network(ir_version=ir_version)
    if ir_version < 4:
        for tensor in model.graph.initializer:
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    onnx.save(model, tmp_path / "m.onnx")
    plain, apart = both(tmp_path / "m.onnx")
    whole = apart.whole_model()
    assert whole.graph == plain.model.graph
    assert apart.bytes_written == pytest.approx(whole.ByteSize(), abs=600)
    assert references(apart.model) >= APART  # the copy is another
    results = [Runtime(f, device="cpu").run({"x": images()}, ["y"])["y"] for f in (plain, apart)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("once", [True, False])
def test_onnx_runtime_computes_the_same(path, optimise, once):
    fetch = ["y", "r2", "c1"]
    found = [
        Runtime(file, device="cpu", optimise=optimise, once=once).run({"x": images()}, fetch)
        for file in both(path)
    ]
    for name in fetch:
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_types_of_weights(tmp_path, kind):
    """Products of matrices of a type that ONNX Runtime has kernels for."""
    weight = rng.standard_normal((300, 200)).astype(kind)
    nodes = [node("Cast", "x", "k", to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))]
    nodes += [node("MatMul", "k w", "m"), node("Cast", "m", "y", to=TensorProto.FLOAT)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 300])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 200])
    onnx.save(onnx_model(nodes, [x], [y], {"w": weight}), tmp_path / "m.onnx")
    plain, apart = both(tmp_path / "m.onnx")
    assert references(apart.model) == {"w"}
    feed = {"x": rng.standard_normal((2, 300)).astype(np.float32)}
    results = [Runtime(file, device="cpu").run(feed, ["y"])["y"] for file in (plain, apart)]
    np.testing.assert_array_equal(*results)


def test_weights_of_levels_that_are_given_as_other_levels(tmp_path):
    """Where products would saturate, the levels in the file are read by nothing any more."""
    levels = rng.integers(-127, 128, (CHANNELS, CHANNELS, 6, 6)).astype(np.int8)
    stored = {"s": np.float32(0.02), "z": np.uint8(3), "w": levels, "zw": np.int8(0)}
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearConv", "q s z w s zw s z", "c"),
        node("DequantizeLinear", "c s z", "y"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, 12, 12])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    onnx.save(onnx_model(nodes, [x], [y], stored), tmp_path / "m.onnx")
    plain, apart = both(tmp_path / "m.onnx")
    assert references(apart.model) == {"w"}
    feed = {"x": rng.random((1, CHANNELS, 12, 12)).astype(np.float32)}
    results = [Runtime(file, device="cpu").run(feed, ["y"])["y"] for file in (plain, apart)]
    np.testing.assert_array_equal(*results)
    assert len(np.unique(results[0])) > 10


def test_shapes_are_never_set_apart(tmp_path):
    """ONNX Runtime wants to see them as it loads a model."""
    nodes = [node("Gather", "t x", "y", axis=0)]
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])
    onnx.save(onnx_model(nodes, [x], [y], {"t": np.arange(1 << 16)}), tmp_path / "m.onnx")
    _, apart = both(tmp_path / "m.onnx")
    assert apart.weights is None
    assert not references(apart.model)


def test_changed_weights_are_those_of_the_changed_model(path):
    plain, apart = both(path)
    changed = [permuted_weights(file, ["w2"], 5) for file in (plain, apart)]
    results = [Runtime(f, device="cpu").run({"x": images()}, ["y"])["y"] for f in changed]
    np.testing.assert_array_equal(*results)
    before = Runtime(apart, device="cpu").run({"x": images()}, ["y"])["y"]
    assert np.abs(results[0] - before).max() > 0.01
    np.testing.assert_array_equal(changed[1].graph.constant("w2"), changed[0].graph.constant("w2"))
    value = np.full((1, 3, 12, 12), 0.5, np.float32)
    bound = bind_inputs(apart, {"x": value})
    np.testing.assert_allclose(
        Runtime(bound, device="cpu").run({}, ["y"])["y"],
        Runtime(plain, device="cpu").run({"x": value}, ["y"])["y"],
        atol=1e-6,
    )


def load(given):
    return inspector.load(given, device="cpu", preprocess=inspector.Preprocess(size=(12, 12)))


@pytest.mark.parametrize("engine", ["onnx", "twin"])
def test_maps_are_the_same(path, monkeypatch, engine):
    photo = (np.random.default_rng(1).random((12, 12, 3)) * 255).astype(np.uint8)

    def maps():
        model = inspector.load(
            path, device="cpu", engine=engine, preprocess=inspector.Preprocess(size=(12, 12))
        )
        found = [model.explain(photo, methods=[name]).heatmap for name in ("grad-cam", "gradient")]
        return model.file.weights is None, found

    plain, found = maps()
    monkeypatch.setattr(module, "LEAST", 1 << 40)
    other, wanted = maps()
    assert (plain, other) == (False, True)
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6 * np.abs(two).max())


def test_what_is_written_has_its_weights(path, tmp_path):
    made = embed(load(path), tmp_path / "out.onnx", "grad-cam")
    written = onnx.load_from_string(made.path.read_bytes())
    assert not references(written)
    assert made.path.stat().st_size == made.after < made.before * 1.05
    opened = load(made.path)
    checks = checks_of(opened, *base_of(opened))
    assert {check.status for check in checks} == {"pass"}


def test_models_in_memory_can_be_pickled(path):
    model = load(path.read_bytes())
    assert model.file.weights is not None
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - of this test
    assert again.file.sha256 == model.file.sha256
    np.testing.assert_array_equal(again.graph.constant("w2"), STORED["w2"])


def test_a_float16_copy_is_made_of_the_whole_model(path):
    photo = (np.random.default_rng(1).random((12, 12, 3)) * 255).astype(np.uint8)
    (found,) = compare_executions(load(path), "cpu,cpu+float16", photo, ["grad-cam"])
    assert not found.flips


def odd(change):
    model = network()
    change(next(tensor for tensor in model.graph.initializer if tensor.name == "w2"))
    return model.SerializeToString()


def short(tensor):
    tensor.raw_data = tensor.raw_data[:-4]


def doubled(tensor):
    tensor.float_data.extend([1.0])


def negative(tensor):
    tensor.dims[0] = -CHANNELS


def unknown(tensor):
    tensor.data_type = 999


def elsewhere(tensor):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights-00")


@pytest.mark.parametrize("change", [short, doubled, negative, unknown, elsewhere])
def test_what_is_odd_is_said_as_ever(change):
    data = odd(change)
    said = []
    for apart in (False, True):
        try:
            found = onnx_file.from_bytes(data, weights_apart=apart)
            said.append(numpy_helper.to_array(found.whole_model().graph.initializer[1]).tobytes())
        except (UnsafeModel, NotAModel) as error:
            said.append(str(error))
    assert said[0] == said[1]


def test_a_reference_that_the_file_wrote_itself_leads_nowhere():
    """The name that references use is drawn anew for each file."""
    data = network().SerializeToString()
    names = {
        entry.value
        for _ in range(2)
        for tensor in onnx.ModelProto.FromString(set_apart(data)[0]).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert len(names) == 2
    model = network()
    model.graph.initializer[3].ClearField("raw_data")
    model.graph.initializer[3].data_location = TensorProto.EXTERNAL
    model.graph.initializer[3].external_data.add(key="location", value=names.pop())
    with pytest.raises(UnsafeModel):
        onnx_file.from_bytes(model.SerializeToString(), weights_apart=True)


def test_two_graphs_in_one_file_are_left_to_the_parser():
    data = network().SerializeToString()
    assert set_apart(data + data) == (data + data, None)


def test_a_file_that_holds_little_beside_them_is_not_kept():
    """Keeping its bytes would hold what the message holds once more."""
    large = numpy_helper.from_array(rng.standard_normal((300, 300)).astype(np.float32), "k")
    model = network()
    model.graph.node.append(helper.make_node("Constant", [], ["k"], value=large))
    for name in ("a", "b"):
        model.graph.node.append(helper.make_node("Identity", ["k"], [name]))
    assert set_apart(model.SerializeToString())[1] is not None
    model.graph.node[-3].attribute[0].t.CopyFrom(
        numpy_helper.from_array(rng.standard_normal((900, 900)).astype(np.float32), "k")
    )
    assert set_apart(model.SerializeToString())[1] is None


def test_external_data_are_read_once(tmp_path, monkeypatch):
    """And handed to ONNX Runtime as they are in memory; bodies have theirs, too."""
    model = network()
    body = helper.make_graph(
        [helper.make_node("MatMul", ["f", "inner"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(rng.standard_normal((CHANNELS, 900)).astype(np.float32), "inner")],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["u"], then_branch=body, else_branch=body)
    )
    model.graph.output.append(helper.make_tensor_value_info("u", TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "plain.onnx")
    plain = onnx_file.read(tmp_path / "plain.onnx")
    onnx.save(
        model,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=1024,
    )
    file = onnx_file.read(tmp_path / "m.onnx", weights_apart=True)
    assert file.weights is None
    feed = {"x": images()}
    wanted = Runtime(plain, device="cpu").run(feed, ["y", "u"])
    opened = []
    from converters.onnx_file import external

    real = external.open_regular
    monkeypatch.setattr(external, "open_regular", lambda *a, **k: opened.append(a) or real(*a, **k))
    assert file.sha256
    hashing = len(opened)
    for exposed in ([], ["r1"]):
        found = Runtime(file, device="cpu").run(feed, ["y", "u", *exposed])
        for name in ("y", "u"):
            np.testing.assert_array_equal(found[name], wanted[name])
    assert len(opened) == hashing + 1


@pytest.mark.parametrize("shift", range(4))
def test_values_are_not_copied_again_wherever_they_lie_in_the_file(tmp_path, shift):
    model = network()
    model.producer_name = "x" * shift  # moves all that follows by so many bytes
    onnx.save(model, tmp_path / "m.onnx")
    apart = onnx_file.read(tmp_path / "m.onnx", weights_apart=True)
    for tensor in apart.model.graph.initializer:
        if tensor.name in APART:
            one, other = (apart.weights.array(tensor) for _ in range(2))
            assert np.shares_memory(one, other)
            assert (one.ctypes.data % 64, one.flags.writeable) == (0, False)
            np.testing.assert_array_equal(one, STORED[tensor.name])


def padded(number, more):
    """A number of variable length in more bytes than it needs."""
    return bytes([number & 127 | 128, number >> 7 | 128, *[128] * (more - 1), 0])


@pytest.mark.parametrize("more", [1, 2, 4, 6])
@pytest.mark.parametrize("which", ["number", "length"])
def test_heads_that_are_written_longer_are_left_to_the_parser(which, more):
    """It takes some and refuses others: what is written anew would pass."""
    data = network().SerializeToString()
    model = onnx.ModelProto.FromString(data)
    tensor = next(one for one in model.graph.initializer if one.name == "w2")
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    number = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number << 3 | 2
    tag = padded(number, more) if which == "number" else bytes([number])
    size = bytes([len(raw) & 127 | 128, len(raw) >> 7 & 127 | 128])
    size += padded(len(raw) >> 14, more) if which == "length" else bytes([len(raw) >> 14])
    graph = model.graph.SerializeToString()
    whole = tensor.SerializeToString()
    inside = whole + tag + size + raw
    field = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number << 3 | 2

    def framed(key, content):
        length = bytearray()
        left = len(content)
        while left > 127:
            length.append(left & 127 | 128)
            left >>= 7
        return bytes([key, *length, left]) + content

    assert framed(field, whole) in graph
    graph = graph.replace(framed(field, whole), framed(field, inside))
    model.ClearField("graph")
    key = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number << 3 | 2
    data = model.SerializeToString() + framed(key, graph)
    found = []
    for apart in (False, True):
        try:
            file = onnx_file.from_bytes(data, weights_apart=apart)
            found.append(file.whole_model().SerializeToString())
        except NotAModel as error:
            found.append(str(error))
    assert found[0] == found[1]


def test_what_a_tensor_says_beside_its_values_is_kept(tmp_path):
    model = network()
    model.graph.initializer[1].doc_string = "of the second layer"
    onnx.save(model, tmp_path / "m.onnx")
    plain, apart = both(tmp_path / "m.onnx")
    assert "w2" in references(apart.model)
    assert apart.whole_model().SerializeToString() == plain.model.SerializeToString()


@pytest.mark.parametrize("ir_version", [3, 8])
def test_weights_among_the_inputs_that_nothing_reads(tmp_path, ir_version):
    """ONNX Runtime keeps them where they may be replaced, from version 4 on, and asks for them."""
    model = network(ir_version=ir_version)
    for tensor in model.graph.initializer:
        if ir_version < 4 or tensor.name == "spare":
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    onnx.save(model, tmp_path / "m.onnx")
    plain, apart = both(tmp_path / "m.onnx")
    assert references(apart.model) == {*APART, "spare"}
    results = [Runtime(f, device="cpu").run({"x": images()}, ["y"])["y"] for f in (plain, apart)]
    np.testing.assert_array_equal(*results)


def test_weights_that_bodies_have_of_their_own_under_the_same_name(tmp_path):
    """Nothing reads those of the main graph then; where a body has none, it reads them."""

    def body(name, own):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        stored = [numpy_helper.from_array(2 * STORED["w3"], "w3")] if own else []
        return helper.make_graph([node("MatMul", "f w3", name)], name, [], [value], stored)

    for other in (True, False):
        model = network({**STORED, "yes": np.array(True)})
        del model.graph.node[-1]
        branches = {"then_branch": body("z1", True), "else_branch": body("z2", other)}
        model.graph.node.append(helper.make_node("If", ["yes"], ["y"], **branches))
        model.graph.initializer.append(
            numpy_helper.from_array(rng.standard_normal((400, 400)).astype(np.float32), "much")
        )
        onnx.save(model, tmp_path / "m.onnx")
        plain, apart = both(tmp_path / "m.onnx")
        assert references(apart.model) == ({"w2"} if other else APART)
        results = [
            Runtime(f, device="cpu").run({"x": images()}, ["y"])["y"] for f in (plain, apart)
        ]
        np.testing.assert_array_equal(*results)
