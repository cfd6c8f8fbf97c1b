"""Opening good models: what exporters and caches really produce, and what is learned of it."""

import hashlib
import os
import time
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.errors import NotAModel, UnsafeModel
from converters.onnx_file import from_proto, read

OPSETS = [helper.make_opsetid("", 18)]
WEIGHT = np.arange(8, dtype=np.float32).reshape(4, 2)


def built(*nodes, initialisers=(), opsets=(), functions=(), outputs=("y",)):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        list(initialisers),
    )
    model = helper.make_model(
        graph, opset_imports=[*OPSETS, *opsets], functions=list(functions), ir_version=9
    )
    model.producer_name, model.producer_version = "maker", "1.2"
    return model


def with_weight():
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return built(node, initialisers=[numpy_helper.from_array(WEIGHT, "w")])


def with_external(location="m.onnx.data", offset=4, extra=()):
    model = with_weight()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset, "length": 32, **dict(extra)}
    for key, value in entries.items():
        weight.external_data.add(key=key, value=str(value))
    return model


def save(path: Path, model) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def save_data(path: Path) -> Path:
    path.write_bytes(b"skip" + WEIGHT.tobytes())
    return path


def test_facts_of_a_plain_file(tmp_path):
    model = with_weight()
    helper.set_model_props(model, {"names": "{0: 'cat'}"})
    path = save(tmp_path / "m.onnx", model)
    opened = read(path)
    assert opened.path == path
    assert opened.folder == tmp_path.resolve()
    assert opened.external == ()
    assert opened.metadata == {"names": "{0: 'cat'}"}
    assert (opened.exporter, opened.producer, opened.ir_version) == ("maker", "maker 1.2", 9)
    assert opened.facts.file_bytes == path.stat().st_size
    assert (opened.facts.nodes, opened.facts.initialisers, opened.facts.data_bytes) == (1, 1, 32)
    assert opened.facts.opsets == {"ai.onnx": 18}
    assert opened.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(opened.graph.constant("w"), WEIGHT)


def test_the_model_is_not_changed():
    model = with_weight()
    before = model.SerializeToString(deterministic=True)
    opened = from_proto(model)
    assert opened.model.SerializeToString(deterministic=True) == before
    assert model.SerializeToString(deterministic=True) == before
    assert opened.sha256 == hashlib.sha256(before).hexdigest()


def test_external_data_beside_the_model(tmp_path):
    model = save(tmp_path / "m.onnx", with_external())
    data = save_data(tmp_path / "m.onnx.data")
    opened = read(model)
    assert opened.external == (data.resolve(),)
    assert not opened.model.graph.initializer[0].raw_data, "named, not loaded"
    np.testing.assert_array_equal(opened.graph.constant("w"), WEIGHT)
    own, weight = (
        hashlib.sha256(b).hexdigest() for b in (model.read_bytes(), data.read_bytes()[4:])
    )
    lines = f"{own}\nm.onnx.data\0{4}\0{32}\0{weight}\n"
    assert opened.sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_hash_sees_external_data_and_notices_a_change(tmp_path):
    model = save(tmp_path / "m.onnx", with_external())
    data = save_data(tmp_path / "m.onnx.data")
    first = read(model).sha256
    unhashed = read(model)
    data.write_bytes(data.read_bytes()[:-1] + b"?" + b"longer")
    assert read(model).sha256 != first
    with pytest.raises(UnsafeModel, match="changed after it was examined"):
        _ = unhashed.sha256


def two_tensors(folder, links):
    """A model whose two weights are read through links, to files that have other contents."""
    folder.mkdir()
    for name, value in (("a.bin", 1.0), ("b.bin", 2.0)):
        (folder / name).write_bytes(np.full((4, 4), value, np.float32).tobytes())
    for link, name in links.items():
        (folder / link).symlink_to(name)
    weights = []
    for name, link in (("w", "first"), ("v", "second")):
        weight = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4, 4])
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=link)
        weights.append(weight)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    return save(folder / "m.onnx", built(*nodes, initialisers=weights))


def test_hash_says_which_tensor_reads_which_file(tmp_path):
    one = two_tensors(tmp_path / "one", {"first": "a.bin", "second": "b.bin"})
    other = two_tensors(tmp_path / "other", {"first": "b.bin", "second": "a.bin"})
    assert one.read_bytes() == other.read_bytes()
    assert read(one).external[0].name == read(other).external[0].name
    assert read(one).sha256 != read(other).sha256


def test_hash_is_of_what_was_parsed(tmp_path):
    path = save(tmp_path / "m.onnx", with_weight())
    parsed, opened = hashlib.sha256(path.read_bytes()).hexdigest(), read(path)
    path.write_bytes(b"another file by now")
    assert opened.sha256 == parsed


def edit_unseen(path):
    """Other bytes of the same size, and the time put back."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_an_edit_with_the_time_put_back_is_noticed(tmp_path):
    model = save(tmp_path / "m.onnx", with_external())
    data = save_data(tmp_path / "m.onnx.data")
    unhashed, hashed = read(model), read(model)
    assert hashed.sha256
    time.sleep(0.02)  # a clock tick of the file system
    edit_unseen(data)
    for use in (
        lambda: unhashed.sha256,
        hashed.external_contents,
        hashed.require_unchanged,
        lambda: hashed.graph.constant("w"),
    ):
        with pytest.raises(UnsafeModel, match="changed after it was examined"):
            use()


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_onnx_runtime_runs_what_was_hashed(tmp_path, monkeypatch, most):
    """Given the bytes; where they are too many, the files are looked at again behind it."""
    import onnxruntime

    from inspector.engines.runtime import Runtime

    model = save(tmp_path / "m.onnx", with_external())
    data = save_data(tmp_path / "m.onnx.data")
    opened = read(model)
    monkeypatch.setattr(type(opened), "external_contents", partialmethod(contents_of, most))
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(Runtime(opened).run({"x": x}, ["y"])["y"], x @ WEIGHT)

    class Late(onnxruntime.InferenceSession):
        """Somebody writes between the last look and the loading."""

        def __init__(self, *args, **options):
            time.sleep(0.02)
            edit_unseen(data)
            super().__init__(*args, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Late)
    with pytest.raises(UnsafeModel, match="changed after it was examined"):
        Runtime(opened).run({"x": x}, ["y"])


def contents_of(file, most):
    return file._data.contents(file._digest, file.sha256, most)


def test_external_data_in_a_folder_and_through_a_link_inside(tmp_path):
    (tmp_path / "weights").mkdir()
    save_data(tmp_path / "weights" / "real.bin")
    (tmp_path / "weights" / "w.bin").symlink_to("real.bin")
    opened = read(save(tmp_path / "m.onnx", with_external("./weights/w.bin")))
    assert opened.external == ((tmp_path / "weights" / "real.bin").resolve(),)
    np.testing.assert_array_equal(opened.graph.constant("w"), WEIGHT)


def test_hugging_face_cache(tmp_path):
    """Model and data are links into ``blobs``, under names that are hashes."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save(blobs / "1111", with_external("model.onnx_data"))
    save_data(blobs / "2222")
    (snapshot / "model.onnx").symlink_to("../../../blobs/1111")
    (snapshot / "model.onnx_data").symlink_to("../../../blobs/2222")
    opened = read(snapshot / "model.onnx")
    assert opened.external == ((blobs / "2222").resolve(),)
    assert opened.folder == blobs.resolve()
    np.testing.assert_array_equal(opened.graph.constant("w"), WEIGHT)


def test_hugging_face_cache_runs_in_onnxruntime(tmp_path):
    import onnxruntime

    test_hugging_face_cache(tmp_path)
    opened = read(tmp_path / "snapshots" / "abc" / "onnx" / "model.onnx")
    options = onnxruntime.SessionOptions()
    key = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(key, str(opened.folder))
    session = onnxruntime.InferenceSession(
        opened.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = np.ones((1, 4), dtype=np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ WEIGHT, rtol=0, atol=0)


def test_length_may_be_left_out_though_more_follows(tmp_path):
    model = with_external()
    entries = model.graph.initializer[0].external_data
    del entries[next(i for i, e in enumerate(entries) if e.key == "length")]
    data = save_data(tmp_path / "m.onnx.data")
    data.write_bytes(data.read_bytes() + b"other tensors")
    opened = read(save(tmp_path / "m.onnx", model))
    np.testing.assert_array_equal(opened.graph.constant("w"), WEIGHT)


def test_external_tensor_without_elements(tmp_path):
    model = with_external()
    empty = model.graph.initializer.add()
    empty.CopyFrom(model.graph.initializer[0])
    empty.name, empty.dims[0], empty.external_data[2].value = "none", 0, "0"
    model.graph.node.append(helper.make_node("Identity", ["none"], ["read"]))
    save_data(tmp_path / "m.onnx.data")
    opened = read(save(tmp_path / "m.onnx", model))
    assert opened.graph.constant("none").shape == (0, 2)


def test_unknown_keys_of_external_data_are_dropped(tmp_path):
    save_data(tmp_path / "m.onnx.data")
    path = save(tmp_path / "m.onnx", with_external(extra=[("prepacked_0", "x")]))
    opened = read(path)
    keys = {entry.key for entry in opened.model.graph.initializer[0].external_data}
    assert keys == {"location", "offset", "length"}
    np.testing.assert_array_equal(opened.graph.constant("w"), WEIGHT)


def test_functions_are_inlined_and_compute_the_same():
    local = [*OPSETS, helper.make_opsetid("local", 1)]
    inner = helper.make_function(
        "local",
        "scaled",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["two"], value_float=2.0),
            helper.make_node("Mul", ["a", "two"], ["b"]),
        ],
        OPSETS,
    )
    outer = helper.make_function(
        "local",
        "act",
        ["a"],
        ["b"],
        [
            helper.make_node("scaled", ["a"], ["t"], domain="local"),
            helper.make_node("Relu", ["t"], ["b"]),
        ],
        local,
    )
    model = built(
        helper.make_node("act", ["x"], ["h"], domain="local"),
        helper.make_node("act", ["h"], ["y"], domain="local"),
        opsets=local[1:],
        functions=[inner, outer],
    )
    opened = from_proto(model)
    assert not opened.model.functions
    assert opened.facts.functions == ("scaled", "act")
    assert opened.facts.nodes == len(opened.graph.nodes) == 6
    assert {"h", "y"} <= set(opened.graph.tensors), "tensors of the main graph keep their names"
    x = np.array([[-1.0, 0.5, 2.0, -3.0]], dtype=np.float32)
    np.testing.assert_array_equal(_run(model, x), _run(opened.model, x))
    np.testing.assert_array_equal(_run(opened.model, x), 4 * np.maximum(x, 0))


def test_function_of_another_opset_is_refused():
    function = helper.make_function(
        "local",
        "f",
        ["a"],
        ["b"],
        [helper.make_node("Relu", ["a"], ["b"])],
        [helper.make_opsetid("", 13)],
    )
    call = helper.make_node("f", ["x"], ["y"], domain="local")
    model = built(call, opsets=[helper.make_opsetid("local", 1)], functions=[function])
    with pytest.raises(UnsafeModel, match=r"needs opset 13 .* the model imports 18"):
        from_proto(model)


def test_unused_domain_is_only_reported():
    model = with_weight()
    model.opset_import.append(helper.make_opsetid("com.nobody", 3))
    assert from_proto(model).facts.unused_domains == ("com.nobody",)


def test_operators_of_onnxruntime_are_allowed():
    node = helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft")
    model = built(node, opsets=[helper.make_opsetid("com.microsoft", 1)])
    assert from_proto(model).graph.nodes[0].domain == "com.microsoft"


def test_nodes_out_of_order_are_sorted_bodies_too():
    branch = helper.make_graph(
        [
            helper.make_node("Relu", ["inner"], ["out"]),
            helper.make_node("Neg", ["h"], ["inner"]),  # h: captured from outside
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("out", 1, None)],
    )
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    model = built(
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        helper.make_node("Abs", ["x"], ["h"]),
        initialisers=[condition],
    )
    opened = from_proto(model)
    assert opened.facts.sorted_nodes
    assert [n.op_type for n in opened.graph.nodes] == ["Abs", "If"]
    body = opened.graph.nodes[1].attributes["then_branch"]
    assert [n.op_type for n in body.node] == ["Neg", "Relu"]
    assert _run(opened.model, [[-2.0, 3.0, 0.0, 1.0]]).tolist() == [[0.0] * 4]


def _run(model, x):
    import onnxruntime

    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.asarray(x, dtype=np.float32)})[0]


def test_a_body_may_reuse_a_name_of_its_surroundings():
    branch = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    assert from_proto(built(node, initialisers=[condition])).facts.nesting == 1


@pytest.mark.parametrize("kind", sorted(set(TensorProto.DataType.values()) - {0}))
def test_every_element_type_has_the_size_that_onnx_writes(kind):
    """Odd counts, so that types below eight bits leave a half-filled byte."""
    if kind == TensorProto.STRING:
        values = np.array([b"a", b"b", b"c"], dtype=object)
        forms = [helper.make_tensor("w", kind, [3], list(values))]
    else:
        array = np.ones(3).astype(helper.tensor_dtype_to_np_dtype(kind))
        forms = [numpy_helper.from_array(array, "w")]
        forms.append(helper.make_tensor("w", kind, [3], [1, 1, 1]))
        assert forms[0].data_type == kind
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["w"], ["read"])]
    for tensor in forms:
        opened = from_proto(built(*nodes, initialisers=[tensor]))
        assert opened.graph.constant("w").shape == (3,)
        tensor.dims[0] = 9
        with pytest.raises(UnsafeModel, match="initialiser 'w' declares"):
            from_proto(built(*nodes, initialisers=[tensor]))


def test_text_in_a_local_encoding_is_no_obstacle(tmp_path):
    data = with_weight().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(data.replace(b"maker", b"m\xfcker"))
    assert read(path).exporter == "m\N{REPLACEMENT CHARACTER}ker"
    node_name = built(helper.make_node("Relu", ["x"], ["y"], name="abcdefg"))
    path.write_bytes(node_name.SerializeToString().replace(b"abcdefg", b"abc\xffefg"))
    with pytest.raises(NotAModel, match="UTF-8"):
        read(path)


def test_zoo_opens(shared):
    paths = sorted((shared / "zoo").glob("*.onnx"))
    assert paths
    for path in paths:
        opened = read(path)
        assert opened.graph.nodes
        assert not opened.model.functions


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("corrupt-model.onnx", NotAModel, "is not an ONNX model but plain text"),
        ("qonnx_custom_domain.onnx", UnsafeModel, r"onnx.brevitas::BipolarQuant \(8 nodes"),
    ],
)
def test_zoo_refusals(shared, name, error, said):
    with pytest.raises(error, match=said):
        read(shared / "zoo" / "refuse" / name)
