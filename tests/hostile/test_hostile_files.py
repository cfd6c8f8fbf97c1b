"""Files and models made to hurt: each is refused by name, quickly, and without eating memory."""

import contextlib
import os
import pickle
import resource
import time
import zipfile

import numpy as np
import onnx
import pytest
from hostile_models import bomb, external, field, function_bomb, model, nested, small
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from converters.errors import ConverterError, NotAModel, UnsafeModel
from converters.onnx_file import Limits, from_proto, read

SECONDS = 10.0
GROWTH_KIB = 256 * 1024


@pytest.fixture(autouse=True)
def _quick_and_small():
    """Every test here ends quickly and takes little memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start < SECONDS * 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KIB


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def refused(path_or_model, error=UnsafeModel, **options):
    start = time.monotonic()
    opened = from_proto if isinstance(path_or_model, onnx.ModelProto) else read
    with pytest.raises(error) as caught:
        opened(path_or_model, **options)
    assert time.monotonic() - start < SECONDS
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_status == 3
    return text


# --- no model at all ---------------------------------------------------------------------


def pickled() -> bytes:
    class Trap:
        def __reduce__(self):
            return os.abort, ()

    return pickle.dumps(Trap(), protocol=2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "TFLite"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs"),
        (b"\n<!DOCTYPE html><html></html>", "HTML"),
        (pickled(), "pickle"),
        (b"\x10\0\0\0\0\0\0\0" + b'{"a":{"b":1}}   ', "safetensors"),
        (b"this is not a model", "plain text"),
        (b"<?xml version='1.0'?><net/>", "XML"),
        (b"\x89PNG\r\n\x1a\n" + bytes(32), "PNG"),
        (b"\x1f\x8b\x08" + bytes(32), "gzip"),
        (b"\x08\x09", "without an ONNX graph"),
        (b"\xff" * 64, "not an ONNX model"),
        (bytes(64), "not an ONNX model"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, content, said):
    text = refused(write(tmp_path / "m.onnx", content), NotAModel)
    assert said in text
    assert "; " in text, "a hint follows"


@pytest.mark.parametrize(
    ("member", "said"),
    [("archive/data.pkl", "PyTorch"), ("model.weights.h5", "Keras"), ("notes", "zip archive")],
)
def test_zips_are_told_apart(tmp_path, member, said):
    with zipfile.ZipFile(tmp_path / "m.onnx", "w") as archive:
        archive.writestr(member, "content")
    assert said in refused(tmp_path / "m.onnx", NotAModel)


def test_missing_folder_and_pipe(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.onnx", NotAModel)
    write(tmp_path / "inside.onnx", small())
    assert "inside.onnx" in refused(tmp_path, NotAModel)
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "not a regular file" in refused(tmp_path / "pipe.onnx", NotAModel)
    assert refused("a\0b.onnx", NotAModel)


def test_truncation_is_named(tmp_path):
    data = small().SerializeToString()
    assert "cut off" in refused(write(tmp_path / "m.onnx", data[: len(data) // 2]), NotAModel)


# --- too much ----------------------------------------------------------------------------


def test_file_size(tmp_path):
    path = write(tmp_path / "m.onnx", small())
    assert "limit 100" in refused(path, limits=Limits(file_bytes=100))
    with (tmp_path / "huge.onnx").open("wb") as stream:
        stream.write(small().SerializeToString())
        stream.truncate(1 << 40)  # sparse: costs nothing to send in an archive
    assert "limit" in refused(tmp_path / "huge.onnx")


def test_many_empty_messages_are_counted_before_they_are_parsed(tmp_path):
    graph = b"\x0a\x00" * 5_000_000  # 10 MB of nodes that would take gigabytes
    assert "protobuf fields" in refused(write(tmp_path / "m.onnx", field(7, graph)))


def test_deep_nesting(tmp_path):
    assert "nested deeper" in refused(write(tmp_path / "m.onnx", nested(300)))
    assert "nested deeper" in refused(write(tmp_path / "deep.onnx", nested(10_000)))


def test_deep_nesting_in_memory():
    made = small()
    graph = made.graph
    for _ in range(10_000):
        graph = graph.node.add(op_type="If").attribute.add(name="then_branch", type=5).g
    assert "nested" in refused(made)


def test_nesting_through_functions():
    inner = helper.make_graph(
        [helper.make_node("f1", ["a"], ["o"], domain="local")],
        "b",
        [],
        [helper.make_tensor_value_info("o", 1, None)],
    )
    made = function_bomb(2, 1)
    outer = made.functions[0]
    del outer.node[:]
    cond = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", 9, [], [True]))
    branch = helper.make_node("If", ["c"], ["b"], then_branch=inner, else_branch=inner)
    outer.node.extend([cond, branch])
    assert from_proto(made).facts.nesting == 1
    assert "nested 1 deep" in refused(made, limits=Limits(nesting=0))


@pytest.mark.parametrize("depth", [40, 60])
def test_function_bomb(depth):
    made = function_bomb(depth)
    assert made.ByteSize() < 10_000
    text = refused(made)
    assert "nodes with functions expanded" in text


def test_function_bomb_of_width(tmp_path):
    assert "functions expanded" in refused(function_bomb(6, 20))


def test_functions_that_call_themselves():
    made = function_bomb(3)
    made.functions[-1].node[0].op_type = "f0"
    made.functions[-1].node[0].domain = "local"
    assert "call themselves" in refused(made)


def test_long_chain_of_functions():
    assert "chain longer" in refused(function_bomb(5000, 1))


def test_constant_in_a_function_counts_at_every_call():
    made = function_bomb(8, 3)
    value = helper.make_tensor("v", 1, [1000], [0.0] * 1000)
    made.functions[-1].node.append(helper.make_node("Constant", [], ["unused"], value=value))
    assert from_proto(made).facts.nodes == 3**7 * 4
    text = refused(made, limits=Limits(expansion_bytes=3**7 * 4000))
    assert "functions expand to" in text


def test_attribute_handed_down_counts_at_every_reference():
    """One large attribute of one call, copied to 3^7 constants."""
    made = function_bomb(8, 3)
    for function in made.functions[:-1]:
        function.attribute.append("big")
        for node in function.node:
            node.attribute.add(name="big", ref_attr_name="big", type=4)
    last = made.functions[-1]
    last.attribute.append("big")
    last.node.append(helper.make_node("Constant", [], ["unused"]))
    last.node[-1].attribute.add(name="value", ref_attr_name="big", type=4)
    value = helper.make_tensor("v", 1, [100_000], bytes(400_000), raw=True)
    made.graph.node[0].attribute.append(helper.make_attribute("big", value))
    assert made.ByteSize() < 410_000
    assert "functions expand to" in refused(made)
    value.ClearField("raw_data")
    value.dims[0] = 0
    made.graph.node[0].attribute[0].t.CopyFrom(value)
    assert from_proto(made).facts.nodes == 3**7 * 4


@pytest.mark.parametrize(
    ("dims", "said"),
    [
        ([1 << 40], "declares"),
        ([1 << 62] * 64, "declares"),
        ([2, -4], "negative"),
        ([1] * 65, "more than 64"),
        ([4, 3], "declares"),
        ([0], "declares"),
    ],
)
def test_dimensions_that_the_data_contradicts(dims, said):
    made = small()
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend(dims)
    assert said in refused(made)
    raw = made.graph.initializer[0]
    raw.ClearField("float_data")
    raw.raw_data = bytes(32)
    assert said in refused(made)


def test_sparse_tensor_that_unfolds_to_terabytes():
    made = small()
    values = helper.make_tensor("s", 1, [1], [1.0])
    indices = helper.make_tensor("s_i", 7, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [1 << 40])
    made.graph.sparse_initializer.append(sparse)
    assert "sparse and unfolds" in refused(made)
    sparse.dims[:] = [1] * 64 + [1 << 40]
    del made.graph.sparse_initializer[:]
    made.graph.sparse_initializer.append(sparse)
    assert "sparse and has 65 dimensions" in refused(made)


def test_long_names():
    made = small()
    made.graph.node[0].name = "n" * 5000
    assert "name longer" in refused(made)


def test_terminal_codes_in_names_are_escaped():
    made = model([helper.make_node("Relu", ["\x1b[2J\nno"], ["y"])])
    text = refused(made)
    assert "\x1b" not in text
    assert "\\x1b" in text


# --- out of the folder -------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path):
    (tmp_path / "model").mkdir()
    return write(tmp_path / "secret", bytes(32))


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "sub/../../secret",
        "..\\secret",
        "/etc/passwd",
        "C:\\secret",
        "\\\\host\\secret",
        "",
        "none.data",
        "*/_ORT_MEM_ADDR_/*",
        ".",
        "a\0b",
    ],
)
def test_locations_that_leave_the_folder(tmp_path, secret, location):
    (tmp_path / "model" / "sub").mkdir()
    memory = tmp_path / "model" / "*" / "_ORT_MEM_ADDR_"
    memory.mkdir(parents=True)
    write(memory / "*", bytes(32))
    path = write(tmp_path / "model" / "m.onnx", external(location))
    assert "external data" in refused(path)


def test_absolute_path_to_a_file_that_exists(tmp_path, secret):
    path = write(tmp_path / "model" / "m.onnx", external(str(secret)))
    assert "absolute" in refused(path)


def test_symbolic_link_out_of_the_folder(tmp_path, secret):
    path = write(tmp_path / "model" / "m.onnx", external("w.data"))
    (tmp_path / "model" / "w.data").symlink_to(secret)
    assert "link out of" in refused(path)


def test_folder_that_is_a_link_out_of_the_folder(tmp_path, secret):
    path = write(tmp_path / "model" / "m.onnx", external("up/secret"))
    (tmp_path / "model" / "up").symlink_to(tmp_path)
    assert "link out of" in refused(path)


def test_hard_link(tmp_path, secret):
    path = write(tmp_path / "model" / "m.onnx", external("w.data"))
    (tmp_path / "model" / "w.data").hardlink_to(secret)
    assert "hard link" in refused(path)


def test_links_into_one_folder_that_is_no_cache(tmp_path, secret):
    other = tmp_path / "other"
    other.mkdir()
    write(other / "real.onnx", external("w.data"))
    write(other / "real.data", bytes(32))
    (tmp_path / "model" / "m.onnx").symlink_to(other / "real.onnx")
    (tmp_path / "model" / "w.data").symlink_to(other / "real.data")
    assert "link out of" in refused(tmp_path / "model" / "m.onnx")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 64}, "has 64"),
        ({"offset": 8}, "behind the end"),
        ({"offset": -8}, "not whole numbers"),
        ({"offset": "1e3"}, "not whole numbers"),
        ({"length": "9" * 5000}, "not whole numbers"),
        ({"dims": (1 << 30, 1 << 30), "length": None}, "behind the end"),
        ({"extra": [("location", "other")]}, "twice"),
    ],
)
def test_external_data_that_is_not_there(tmp_path, options, said):
    write(tmp_path / "w.data", bytes(32))
    path = write(tmp_path / "m.onnx", external("w.data", **options))
    assert said in refused(path)


def test_one_file_for_many_tensors_is_counted_each_time(tmp_path):
    made = external("w.data")
    made.graph.initializer.extend(made.graph.initializer[0] for _ in range(9))
    for index, tensor in enumerate(made.graph.initializer):
        tensor.name = f"w{index}" if index else "w"
    write(tmp_path / "w.data", bytes(32))
    path = write(tmp_path / "m.onnx", made)
    assert read(path).facts.data_bytes == 320
    assert "more than 300 bytes" in refused(path, limits=Limits(data_bytes=300))


def test_external_data_of_a_body_whose_graph_had_to_be_sorted_is_what_was_examined(tmp_path):
    weight = external("./w.data").graph.initializer[0]
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["b"])],
        "then",
        [],
        [helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, None)],
        [weight],
    )
    choice = helper.make_node("If", ["yes"], ["h"], then_branch=body, else_branch=body)
    last = helper.make_node("Relu", ["h"], ["y"])
    made = model([last, choice], [helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])])
    path = write(tmp_path / "m.onnx", made)
    (tmp_path / "w.data").write_bytes(bytes(32))
    opened = read(path)
    assert [node.op_type for node in opened.model.graph.node] == ["If", "Relu"]
    for attribute in opened.model.graph.node[0].attribute:
        entries = attribute.g.initializer[0].external_data
        assert {entry.key: entry.value for entry in entries}["location"] == "w.data"


def test_external_data_in_attributes_and_without_a_folder(tmp_path, secret):
    made = external("../secret")
    node = helper.make_node("Constant", [], ["w"], value=made.graph.initializer[0])
    del made.graph.initializer[:]
    made.graph.node.insert(0, node)
    assert "'..'" in refused(write(tmp_path / "model" / "m.onnx", made))
    assert "no folder" in refused(external("w.data"))


# --- contradictions ----------------------------------------------------------------------


def relu(source, target, name=""):
    return helper.make_node("Relu", [source], [target], name=name)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (model([relu("nobody", "y", "lost")]), "'lost' reads 'nobody', which nobody makes"),
        (model([relu("x", "y"), relu("x", "y", "second")]), "'second' makes 'y'"),
        (model([relu("x", "x"), relu("x", "y")]), "makes 'x', which exists already"),
        (
            model([relu("b", "a", "loop"), relu("a", "b"), relu("x", "y")]),
            "circle through Relu 'loop'",
        ),
        (model([relu("y", "y")]), "circle"),
        (model([relu("x", "h")]), "output 'y' is made by no node"),
        (model([relu("x", "y")], outputs=()), "no outputs"),
        (model([relu("x", "y")], outputs=("y", "y")), "output 'y' stands twice"),
        (model([relu("x", "y")], inputs=("x", "x")), "input 'x' stands twice"),
        (model([helper.make_node("Magic", ["x"], ["y"], domain="x.y")]), "x.y::Magic (1 nodes"),
        (
            model([helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")]),
            "EPContext",
        ),
        (model([helper.make_node("Conv", ["x"], ["y"])]), "has 1 inputs"),
        (model([helper.make_node("Concat", ["x"], ["y"])]), "lacks attribute 'axis'"),
        (model([helper.make_node("Concat", ["x"], ["y"], axis="1")]), "wrong type"),
        (model([helper.make_node("Constant", [], ["y"])]), "0 values"),
    ],
)
def test_contradictions(made, said):
    assert said in refused(made)


def test_names_in_bodies():
    """A body sees what surrounds it, nothing else, and what it makes stays in it."""

    def branching(*nodes):
        branch = helper.make_graph(
            list(nodes), "b", [], [helper.make_tensor_value_info("o", 1, None)]
        )
        condition = helper.make_tensor("c", 9, [], [True])
        branches = {"then_branch": branch, "else_branch": branch}
        outer = [helper.make_node("If", ["c"], ["h"], **branches), relu("h", "y", "after")]
        return model(outer, [condition])

    assert from_proto(branching(relu("x", "o"))).facts.nodes == 4
    said = refused(branching(relu("nobody", "o", "within")))
    assert "'within' reads 'nobody'" in said
    assert "If 'h' reads 'o'" in refused(branching(relu("x", "other")))
    assert "circle through If 'h'" in refused(branching(relu("y", "o")))
    leaking = branching(relu("x", "o"))
    leaking.graph.node[1].input[0] = "o"
    assert "'after' reads 'o', which nobody makes" in refused(leaking)


def test_all_findings_are_told_at_once():
    made = model([relu("nobody", "y"), helper.make_node("Magic", ["x"], ["z"], domain="x.y")])
    made.graph.initializer.append(helper.make_tensor("w", 1, [1], [1.0]))
    made.graph.initializer[0].dims[0] = -1
    with pytest.raises(UnsafeModel) as caught:
        from_proto(made)
    assert len(caught.value.findings) == 3


def test_many_findings_are_cut_short():
    made = model([relu(f"n{i}", f"m{i}") for i in range(5000)], outputs=("m0",))
    text = refused(made)
    assert "and 4988 more" in text
    assert len(text) < 2000


def test_long_chain_of_nodes_is_no_recursion():
    count = 20_000
    nodes = [relu(f"h{i}", f"h{i + 1}") for i in range(count)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    assert from_proto(model(nodes)).facts.nodes == count
    reversed_order = from_proto(model(nodes[::-1]))
    assert reversed_order.facts.sorted_nodes
    assert [n.input[0] for n in reversed_order.model.graph.node][:2] == ["x", "h1"]


def test_newer_than_the_installed_onnx():
    made = small()
    made.opset_import[0].version = 1000
    assert "opset 1000 is newer" in refused(made)
    made = small()
    made.ir_version = 1000
    assert "IR version 1000 is newer" in refused(made)


def test_bombs_that_only_show_natively_pass_the_preflight():
    """They are for ``supervise``: test_bombs.py sends the same models through it."""
    for kind in ("ConstantOfShape", "Expand", "Tile", "Loop"):
        assert from_proto(bomb(kind)).facts.nodes


# --- anything ----------------------------------------------------------------------------

SEEDS = [
    small().SerializeToString(),
    function_bomb(3).SerializeToString(),
    bomb("Loop").SerializeToString(),
    external("w.data").SerializeToString(),
]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_models_are_refused_or_open(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    (folder / "w.data").write_bytes(bytes(32))
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(1, len(content))) :]
    try:
        opened = read(write(folder / "damaged.onnx", bytes(content)))
    except ConverterError:
        return
    for name in (*opened.graph.initialisers, *opened.graph.tensors):
        value = opened.graph.constant(name)
        assert value is None or isinstance(value, np.ndarray)
    assert len(opened.sha256) == 64


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_open(tmp_path_factory, content):
    with contextlib.suppress(ConverterError):
        read(write(tmp_path_factory.getbasetemp() / "any.onnx", content))


def test_the_harmless_model_opens():
    """What the others damage is good as it stands: their refusals are for what they changed."""
    assert set(from_proto(small()).graph.outputs) == {"y"}
    assert from_proto(function_bomb(3)).facts.functions == ("f0", "f1", "f2")
