"""A model file whose extra output is the heatmap of its own answer."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import inspector
from converters.errors import UnsupportedOperator
from inspector.cli import program
from inspector.embed import METHODS, base_of, checks_of, embed
from inspector.embed.plan import Plan
from inspector.errors import MethodRefused, ModelRefused, UsageError
from inspector.surgery.embedded import HEATMAP
from inspector.surgery.embedded_facts import METADATA_KEY
from tests.networks import node, onnx_model

_RNG = np.random.default_rng(0)


def _w(*shape):
    return _RNG.normal(size=shape).astype(np.float32)


def _network(opset=13, *, extra=(), pool="GlobalAveragePool"):
    """A classifier with a pooling that overlaps, a skip connection and a linear head."""
    nodes = [
        node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("MaxPool", "b", "c", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", "c w2", "d", pads=[1, 1, 1, 1]),
        node("Add", "c d", "e"),
        node("Relu", "e", "f"),
        *extra,
        node(pool, "g" if extra else "f", "p"),
        node("Flatten", "p", "q"),
        node("MatMul", "q w3", "r"),
        node("Add", "r bias", "y"),
    ]
    constants = {"w1": _w(6, 3, 3, 3), "w2": _w(6, 6, 3, 3), "w3": _w(6, 5), "bias": _w(5)}
    return onnx_model(nodes, {"x": ("N", 3, 16, 16)}, {"y": ("N", 5)}, constants, opset=opset)


def _opened(tmp_path, model, name="model.onnx", **options):
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return inspector.load(path, preprocess="unit", **options)


def _run(path, feeds, names=None):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(names, feeds)


@pytest.mark.parametrize("method", METHODS)
def test_the_heatmap_is_the_methods_own_map(tmp_path, method):
    opened = _opened(tmp_path, _network())
    out = tmp_path / "out.onnx"
    embed(opened, out, method)
    again = inspector.load(out, preprocess="unit")
    base, facts = base_of(again)
    found = checks_of(again, base, facts)
    assert [check.status for check in found] == ["pass"] * 4, found
    assert list(again.graph.outputs) == ["y", HEATMAP]


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 16, 18, 20])
def test_it_is_written_for_the_files_own_opset(tmp_path, opset):
    opened = _opened(tmp_path, _network(opset))
    out = tmp_path / "out.onnx"
    embed(opened, out, "guided-grad-cam", class_input=opset > 8)
    assert onnx.load_from_string(out.read_bytes()).opset_import[0].version == opset
    again = inspector.load(out, preprocess="unit")
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}


def test_the_batch_stays_free_and_samples_stay_apart(tmp_path):
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, _network()), out)
    x = _w(4, 3, 16, 16)
    (together,) = _run(out, {"x": x}, [HEATMAP])
    (alone,) = _run(out, {"x": x[2:3]}, [HEATMAP])
    assert together.shape == (4, 16, 16)
    np.testing.assert_allclose(together[2:3], alone, atol=1e-5 * np.abs(alone).max())


def test_an_input_may_pick_the_class(tmp_path):
    out, fixed = tmp_path / "out.onnx", tmp_path / "fixed.onnx"
    opened = _opened(tmp_path, _network())
    embed(opened, out, class_input=True)
    embed(opened, fixed, target=3)
    x = _w(3, 3, 16, 16)
    scores, best = _run(out, {"x": x}, ["y", HEATMAP])
    (of_three,) = _run(fixed, {"x": x}, [HEATMAP])
    (asked,) = _run(out, {"x": x, "heatmap_class": np.array([3], np.int32)}, [HEATMAP])
    np.testing.assert_allclose(asked, of_three, atol=1e-6 * np.abs(of_three).max())
    own = np.append(scores.argmax(1)[:2], 3).astype(np.int32)
    mixed = np.array([-1, own[1], 3], np.int32)
    (each,) = _run(out, {"x": x, "heatmap_class": mixed}, [HEATMAP])
    np.testing.assert_allclose(each[:2], best[:2], atol=1e-6 * np.abs(best).max())
    np.testing.assert_allclose(each[2], of_three[2], atol=1e-6 * np.abs(best).max())


def test_inputs_that_are_fed_become_constants_of_the_file(tmp_path):
    made = _network(extra=[node("Mul", "f s", "g")])
    made.graph.input.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [1]))
    out = tmp_path / "out.onnx"
    done = embed(_opened(tmp_path, made, feed=["s=2"]), out)
    assert done.facts["constants"] == {"s": "[2.0]"}
    again = inspector.load(out, preprocess="unit")
    assert list(again.graph.inputs) == ["x"]
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}
    x = _w(1, 3, 16, 16)
    (scores,) = _run(out, {"x": x}, ["y"])
    (own,) = _run(tmp_path / "model.onnx", {"x": x, "s": np.array([2], np.float32)}, ["y"])
    np.testing.assert_allclose(scores, own, atol=1e-5)


def test_a_map_of_the_layers_own_size(tmp_path):
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, _network()), out, size="layer")
    (found,) = _run(out, {"x": _w(1, 3, 16, 16)}, [HEATMAP])
    assert found.shape == (1, 8, 8)


def test_a_file_for_the_web_has_none_of_the_operators_that_it_lacks(tmp_path):
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, _network(18)), out, "guided-backprop", runtime="web")
    used = {one.op_type for one in onnx.load_from_string(out.read_bytes()).graph.node}
    assert used.isdisjoint({"ScatterElements", "OneHot", "TopK", "Max", "Min", "And", "Or"})
    again = inspector.load(out, preprocess="unit")
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}


def test_the_model_can_be_taken_out_again(tmp_path):
    model, out = _network(16), tmp_path / "out.onnx"
    embed(_opened(tmp_path, model), out, "guided-backprop")
    base, _ = base_of(inspector.load(out, preprocess="unit"))
    assert base.graph.model.graph == model.graph
    assert base_of(base) is None


def _refused(tmp_path, opened, error, match, method="grad-cam", **options):
    out = tmp_path / "never.onnx"
    with pytest.raises(error, match=match):
        embed(opened, out, method, **options)
    assert not out.exists()


def test_what_cannot_be_written_is_refused_by_name_and_leaves_no_file(tmp_path):
    opened = _opened(tmp_path, _network())
    _refused(tmp_path, opened, MethodRefused, "occlusion cannot be written", "occlusion")
    _refused(tmp_path, opened, UsageError, "no such size", size="huge")
    _refused(tmp_path, opened, UsageError, "no such runtime", runtime="toaster")
    _refused(tmp_path, opened, MethodRefused, "does not depend", target="b[0,0,0]", layer="f")
    _refused(tmp_path, opened, UsageError, "needs the scores", target="top3")
    region = [node("MaxRoiPool", "f rois", "g", name="regions", pooled_shape=[4, 4])]
    model = _network(extra=region)
    rois = np.float32([[0, 0, 0, 7, 7]])
    model.graph.initializer.append(onnx.numpy_helper.from_array(rois, "rois"))
    uncovered = _opened(tmp_path, model, "regions.onnx")
    _refused(tmp_path, uncovered, UnsupportedOperator, "MaxRoiPool.*'regions'", layer="f")
    largest = _opened(tmp_path, _network(pool="GlobalMaxPool"), "max.onnx")
    _refused(tmp_path, largest, MethodRefused, "CAM is not exact", "cam")


def test_a_file_that_exists_or_is_embedded_already_is_refused(tmp_path):
    opened, out = _opened(tmp_path, _network()), tmp_path / "out.onnx"
    embed(opened, out)
    before = out.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        embed(opened, out)
    assert out.read_bytes() == before
    again = inspector.load(out, preprocess="unit")
    _refused(tmp_path, again, ModelRefused, "a heatmap already")


def test_verify_finds_a_heatmap_that_is_another_one(tmp_path):
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, _network()), out)
    model = onnx.load_from_string(out.read_bytes())
    model.graph.node[-1].output[0] = "gradient/other"
    model.graph.node.append(node("Neg", "gradient/other", HEATMAP))
    out.write_bytes(model.SerializeToString())
    again = inspector.load(out, preprocess="unit")
    found = {check.name: check.status for check in checks_of(again, *base_of(again))}
    assert found["heatmap"] == "fail"
    assert found["outputs"] == "pass"


def test_a_written_file_keeps_the_preprocessing_of_its_heatmap(tmp_path):
    opened = _opened(tmp_path, _network())
    out = embed(opened, tmp_path / "out.onnx", "grad-cam").path
    again = inspector.load(out)
    assert again.preprocessing.preprocess == opened.preprocessing.preprocess
    assert not again.preprocessing.guessed
    assert set(again.preprocessing.evidence.values()) >= {
        "written by inspector embed into the file"
    }


def test_metadata_of_strangers_are_not_trusted(tmp_path):
    model = _network()
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, "[1, 2"
    assert base_of(_opened(tmp_path, model)) is None
    entry.value = "[" * 60_000
    assert base_of(_opened(tmp_path, model, "deep.onnx")) is None
    entry.value = '{"method": "grad-cam"}'
    assert base_of(_opened(tmp_path, model, "other.onnx")) is None


def test_the_command_writes_the_file_and_refuses_to_do_it_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("inspector.cli.embed.supervised", lambda work, **_: work())
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    path.write_bytes(_network().SerializeToString())
    words = ["embed", str(path), "-o", str(out), "--preprocess", "unit"]
    found = CliRunner().invoke(program, words, standalone_mode=False)
    assert found.exception is None
    assert "output heatmap, grad-cam of top1 at f" in found.output
    again = CliRunner().invoke(program, words, standalone_mode=False)
    assert isinstance(again.exception, UsageError)


@pytest.mark.parametrize("kind", ["file", "link", "nowhere"])
def test_nothing_is_written_where_a_name_is_taken(tmp_path, monkeypatch, kind):
    """Of a page and a file, neither is written where one cannot be."""
    monkeypatch.setattr("inspector.cli.embed.supervised", lambda work, **_: work())
    model, package = tmp_path / "model.onnx", tmp_path / "web.tgz"
    model.write_bytes(_network().SerializeToString())
    there, out = tmp_path / "there", tmp_path / "out.onnx"
    if kind != "nowhere":
        there.write_bytes(b"mine")
    if kind == "file":
        there.rename(out)
    else:
        out.symlink_to(there)
    words = ["embed", str(model), "-o", str(out), "--page", str(tmp_path / "page")]
    words += ["--web-runtime", str(package), "--preprocess", "unit"]
    found = CliRunner().invoke(program, words, standalone_mode=False)
    assert isinstance(found.exception, UsageError)
    assert ("leads nowhere" if kind == "nowhere" else "exists already") in str(found.exception)
    assert not (tmp_path / "page").exists()
    if kind == "nowhere":
        assert out.is_symlink()
        assert not there.exists()
    else:
        assert out.read_bytes() == b"mine"


@pytest.mark.parametrize(("further", "status"), [(2.0, "pass"), (1.0, "fail")])
def test_a_heatmap_is_judged_by_how_far_the_twins_own_maps_are_apart(
    tmp_path, monkeypatch, further, status
):
    """Where gates flip by rounding, the float32 and the float64 map of the twin differ as well."""
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, _network()), out, "guided-backprop")
    again = inspector.load(out, preprocess="unit")
    base, facts = base_of(again)
    right = Plan.by_twin

    def moved(plan, layer, *, exact=False):
        found = right(plan, layer)
        found[0, 0, 0] += 0.02 * found.max() * (further if exact else 1.0)
        return found

    monkeypatch.setattr(Plan, "by_twin", moved)
    found = {check.name: check for check in checks_of(again, base, facts)}["heatmap"]
    assert found.status == status
    assert "whose own maps in float32 and float64 are" in found.text


def test_a_network_that_no_file_holds_is_refused_before_anything_is_computed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["inspector.embed.written"], "LARGEST", 1000)
    out = tmp_path / "never.onnx"
    with pytest.raises(ModelRefused, match="float16 or int8 weights"):
        embed(_opened(tmp_path, _network()), out)
    assert not out.exists()


def test_a_map_of_many_cells_is_stretched_without_a_matrix_of_its_size(tmp_path):
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "a", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "q"),
        node("MatMul", "q v", "y"),
    ]
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(6, 3, 3, 3)), "v": rng.normal(size=(6, 5))}
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    path, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(onnx_model(nodes, {"x": ("n", 3, 256, 256)}, {"y": ("n", 5)}, constants), path)
    opened = inspector.load(path)
    made = embed(opened, out)
    assert made.after - made.before < 8192  # a matrix of 256 by 128 has 128 KiB
    checks = checks_of(inspector.load(out), opened, made.facts)
    assert {check.status for check in checks} == {"pass"}


def test_a_layer_in_which_the_images_of_a_batch_are_channels_is_refused(tmp_path):
    """A convolution per image, written as one of two groups."""
    nodes = [
        node("Reshape", "x beside", "a"),
        node("Conv", "a w", "b", pads=[1, 1, 1, 1], group=2),
        node("Reshape", "b apart", "c"),
        node("Relu", "c", "d"),
        node("GlobalAveragePool", "d", "p"),
        node("Flatten", "p", "q"),
        node("MatMul", "q v", "y"),
    ]
    constants = {"beside": np.array([1, 6, 16, 16]), "apart": np.array([2, 4, 16, 16])}
    constants |= {"w": _w(8, 3, 3, 3), "v": _w(4, 5)}
    model = onnx_model(nodes, {"x": (2, 3, 16, 16)}, {"y": (2, 5)}, constants)
    opened, out = _opened(tmp_path, model), tmp_path / "out.onnx"
    with pytest.raises(MethodRefused, match="2 images of the file's batch are not"):
        embed(opened, out, layer="b")
    assert not out.exists()


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "cam"])
def test_sums_over_many_cells_do_not_lose_digits(tmp_path, method):
    """ONNX Runtime adds one cell to the sum of those before it, in float32."""
    w, head = _w(8, 3, 3, 3), _w(8, 5)
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("GlobalAveragePool", "b", "p"),
        node("Flatten", "p", "q"),
        node("MatMul", "q v", "y"),
    ]
    shape = ("N", 3, 224, 224)
    made = onnx_model(nodes, {"x": shape}, {"y": ("N", 5)}, {"w": w, "v": head})
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, made), out, method)
    again = inspector.load(out, preprocess="unit")
    (check,) = (one for one in checks_of(again, *base_of(again)) if one.name == "heatmap")
    assert float(check.text.split()[1]) < 1e-5, check


@pytest.mark.parametrize("rest", [["f"], [], ["y", "y"]])
def test_an_output_that_is_a_sequence_stays_one(tmp_path, rest):
    made = _network(extra=[node("Identity", "f", "g")])
    made.graph.node.append(helper.make_node("SequenceConstruct", ["y", *rest], ["all"]))
    made.graph.output.append(helper.make_tensor_sequence_value_info("all", TensorProto.FLOAT, None))
    opened, out = _opened(tmp_path, made), tmp_path / "out.onnx"
    assert opened.forward(_w(3, 3, 16, 16), ["y"])["y"].shape == (3, 5)
    assert len(opened.forward(_w(1, 3, 16, 16), ["all"])["all"]) == 1
    embed(opened, out)
    again = inspector.load(out, preprocess="unit")
    assert {check.status for check in checks_of(again, *base_of(again))} == {"pass"}


@pytest.mark.parametrize("name", ["gradient/0", "heatmap", "heatmap_class", "gradient/c1"])
@pytest.mark.parametrize("old", ["x", "w1", "f", "y"])
def test_names_that_a_heatmap_takes_are_refused(tmp_path, old, name):
    made = _network()
    for one in made.graph.node:
        for names in (one.input, one.output):
            for place, found in enumerate(names):
                names[place] = name if found == old else found
    for one in (*made.graph.initializer, *made.graph.input, *made.graph.output):
        one.name = name if one.name == old else one.name
    _refused(tmp_path, _opened(tmp_path, made), ModelRefused, f"tensor named '{name}'")


@pytest.mark.parametrize("opset", [7, 13])
def test_a_class_that_does_not_exist_has_no_map(tmp_path, opset):
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, _network(opset)), out, class_input=True)
    x = _w(2, 3, 16, 16)
    for classes in ([5], [-2], [4, 5], [-2, -1]):
        (found,) = _run(out, {"x": x, "heatmap_class": np.array(classes, np.int32)}, [HEATMAP])
        known = np.broadcast_to([-1 <= one < 5 for one in classes], 2)
        np.testing.assert_array_equal(np.isnan(found).all((1, 2)), ~known)
        np.testing.assert_array_equal(np.isnan(found).any((1, 2)), ~known)


def test_of_one_score_no_class_is_picked(tmp_path):
    made = _network()
    made.graph.initializer[2].CopyFrom(numpy_helper.from_array(_w(6, 1), "w3"))
    made.graph.initializer[3].CopyFrom(numpy_helper.from_array(_w(1), "bias"))
    made.graph.node.append(node("Sigmoid", "y", "sure"))
    made.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("sure", TensorProto.FLOAT, ["N", 1])
    )
    opened = _opened(tmp_path, made)
    _refused(tmp_path, opened, UsageError, "one score, for two classes", class_input=True)


def _weight(model):
    """One number of one weight."""
    tensor = model.graph.initializer[1]
    value = numpy_helper.to_array(tensor).copy()
    value[0, 0, 0, 0] += 1e-3
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _operator(model):
    next(one for one in model.graph.node if one.output[0] == "y").op_type = "Sub"


def _attribute(model):
    model.graph.node[0].attribute[0].ints[0] = 2
    model.graph.node[0].attribute[0].ints[2] = 0


@pytest.mark.parametrize("change", [None, _weight, _operator, _attribute])
@pytest.mark.parametrize("opset", [7, 16])
def test_a_network_that_was_changed_behind_its_heatmap_is_found(tmp_path, change, opset):
    out = tmp_path / "out.onnx"
    made = embed(_opened(tmp_path, _network(opset)), out, "gradient", class_input=True)
    model = onnx.load_from_string(out.read_bytes())
    if change is not None:
        change(model)
    for one in model.graph.node:  # names of nodes, and what tools note of shapes, are no part of it
        one.name, one.doc_string = "", "seen"
    out.write_bytes(model.SerializeToString())
    again = inspector.load(out, preprocess="unit")
    base, facts = base_of(again)
    assert facts == made.facts
    found = {check.name: check.status for check in checks_of(again, base, facts)}
    assert found["network"] == ("pass" if change is None else "fail")


def test_nodes_of_a_heatmap_that_the_model_reads_are_refused(tmp_path):
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, _network()), out)
    model = onnx.load_from_string(out.read_bytes())
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(node("Neg", "before", HEATMAP))
    out.write_bytes(model.SerializeToString())
    with pytest.raises(ModelRefused, match="cannot be told from those of the model"):
        base_of(inspector.load(out, preprocess="unit"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("layer", "nowhere", "name a layer 'nowhere'"),
        ("layer", ["f"], "name a layer"),
        ("layer", None, "name no layer, which grad-cam reads"),
        ("method", "occlusion", "name a method 'occlusion'"),
        ("method", "nothing", "say what cannot be"),
        ("method", 3, "say what cannot be"),
        ("target", "99", "say what cannot be"),
        ("size", "weird", "name a size 'weird'"),
        ("size", {}, "name a size"),
    ],
)
def test_metadata_that_say_what_cannot_be_are_refused(tmp_path, name, value, said):
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, _network()), out)
    again = inspector.load(out, preprocess="unit")
    base, facts = base_of(again)
    with pytest.raises(UsageError, match=said):
        checks_of(again, base, {**facts, name: value})


def _otherwise_stored(model):
    """Weights as lists of floats, tensors and nodes in another order."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor)
            tensor.ClearField("raw_data")
            tensor.float_data.extend(value.ravel().tolist())
    order = [*model.graph.initializer][::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(order)
    for one in model.graph.node:
        attributes = sorted(one.attribute, key=lambda a: a.name, reverse=True)
        del one.attribute[:]
        one.attribute.extend(attributes)


@pytest.mark.parametrize("apart", [False, True])
def test_how_a_file_stores_its_network_is_no_change(tmp_path, apart):
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, _network()), out)
    model = onnx.load_from_string(out.read_bytes())
    if apart:
        onnx.save(model, out, save_as_external_data=True, location="w.bin", size_threshold=64)
    else:
        _otherwise_stored(model)
        out.write_bytes(model.SerializeToString())
    again = inspector.load(out, preprocess="unit")
    found = {check.name: check.status for check in checks_of(again, *base_of(again))}
    assert found == dict.fromkeys(["network", "outputs", "outputs, optimised", "heatmap"], "pass")


def test_a_class_that_does_not_exist_has_no_map_in_half_precision(tmp_path):
    made = _network()
    for one in made.graph.initializer:
        value = numpy_helper.to_array(one).astype(np.float16)
        one.CopyFrom(numpy_helper.from_array(value, one.name))
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    out = tmp_path / "out.onnx"
    embed(_opened(tmp_path, made), out, class_input=True)
    feeds = {"x": _w(2, 3, 16, 16).astype(np.float16), "heatmap_class": np.array([9, 1], np.int32)}
    (found,) = _run(out, feeds, [HEATMAP])
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
