from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from converters.graph import Graph
from converters.onnx_file import read
from inspector.errors import ModelRefused, UnknownLayer
from inspector.network.layer_choice import default_layer, select_layer
from inspector.network.layers import channel_axes, find_layers
from inspector.network.quantisation.levels import copies_of
from inspector.network.tail import depends_on, tail_of

W = np.ones((2, 2, 1, 1), np.float32)


def graph(body, *, inputs="float[1,2,8,8] x", output="y", opset=18, **constants):
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => (float {output}) {{'
    model = parser.parse_model(f"{text} {body} }}")
    used = {name for node in model.graph.node for name in node.input}
    given = {"w": W, "w2": W, "w3": W, **constants}
    for name in used & set(given):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(given[name]), name))
    return Graph(model)


def chains(g):
    return [(layer.tensor, layer.chain) for layer in find_layers(g)]


HEAD = " p = GlobalAveragePool({0}) y = Flatten(p)"


def batch_norm(name, out):
    return f" {out} = BatchNormalization({name}, v, v, v, v)"


V = {"v": np.ones(2, np.float32)}


def test_a_residual_block_is_one_layer_named_for_its_main_branch():
    body = (
        "c1 = Conv(x, w) r1 = Relu(c1) c2 = Conv(r1, w2)"
        + batch_norm("c2", "b2")
        + " d = Conv(x, w3) s = Add(b2, d) r2 = Relu(s)"
        + HEAD.format("r2")
    )
    g = graph(body, **V)
    first, last = find_layers(g)
    assert (first.tensor, first.chain) == ("r1", ("Conv", "Relu"))
    assert (last.tensor, last.convolution) == ("r2", "c2")
    assert last.chain == ("Conv", "BatchNormalization", "Add", "Relu")


def test_the_fork_behind_an_activation_ends_a_layer_and_a_residual_sum_may_be_its_end():
    g = graph("c = Conv(x, w) s = Add(c, x) a = Relu(s) d = Conv(s, w2) y = Add(a, d)")
    assert chains(g)[0] == ("s", ("Conv", "Add"))


def test_an_activation_that_branches_and_joins_is_followed():
    g = graph(
        "c = Conv(x, w) s = Sigmoid(c) m = Mul(c, s) p = MaxPool<kernel_shape=[2,2]>(m)"
        " y = Conv(p, w2)"
    )
    assert chains(g)[0] == ("m", ("Conv", "Silu"))


def test_bias_and_batch_normalisation_as_mul_and_add_belong_to_the_layer():
    g = graph("c = Conv(x, w) a = Add(c, v) m = Mul(a, v) r = Relu(m)" + HEAD.format("r"), **V)
    assert chains(g) == [("r", ("Conv", "Add", "Mul", "Relu"))]


def test_no_pooling_is_passed():
    g = graph("c = Conv(x, w) p0 = MaxPool<kernel_shape=[2,2]>(c) r = Relu(p0)" + HEAD.format("r"))
    assert chains(g) == [("c", ("Conv",))]


def test_group_normalisation_as_exported_is_passed():
    body = (
        "c = Conv(x, w) r0 = Reshape(c, s0) n = InstanceNormalization(r0, v, v)"
        " r1 = Reshape(n, s1) a = Relu(r1)"
    )
    g = graph(body + HEAD.format("a"), s0=np.array([0, 2, -1]), s1=np.array([1, 2, 8, 8]), **V)
    assert chains(g) == [("a", ("Conv", "GroupNormalization", "Relu"))]


SQUEEZE = " p = GlobalAveragePool({0}) f1 = Conv(p, w2) r1 = Relu(f1) f2 = Conv(r1, w3) g0 = Sigmoid(f2) m = Mul({0}, g0)"  # noqa: E501 - one block


def test_squeeze_excite_is_passed_and_its_convolutions_are_gates():
    body = "c = Conv(x, w) a = Relu(c)" + SQUEEZE.format("a") + " s = Add(m, x) r = Relu(s)"
    g = graph(body + " q = GlobalAveragePool(r) y = Flatten(q)")
    layers = find_layers(g)
    assert [(layer.tensor, layer.gate) for layer in layers] == [
        ("r1", True),
        ("f2", True),
        ("r", False),
    ]
    assert layers[-1].chain == ("Conv", "Relu", "Mul", "Add", "Relu")
    # A map as large as can be: a gate is not a default whatever its size.
    shapes = dict.fromkeys(("r1", "f2"), (1, 2, 8, 8)) | {"r": (1, 2, 4, 4)}
    assert default_layer(layers, shapes)[0].tensor == "r"


def test_spatial_attention_is_a_gate_too():
    g = graph("c = Conv(x, w) a = Conv(c, w2) s = Sigmoid(a) m = Mul(c, s)" + HEAD.format("m"))
    assert [(layer.tensor, layer.gate) for layer in find_layers(g)] == [("a", True), ("m", False)]


def test_two_gates_that_multiply_each_other_are_scores():
    body = "c = Conv(x, w) d = Conv(x, w2) s = Sigmoid(c) t = Sigmoid(d) m = Mul(s, t)"
    layers = find_layers(graph(body + HEAD.format("m")))
    assert [(layer.tensor, layer.gate) for layer in layers] == [("s", False), ("t", False)]


def test_a_join_of_branches_is_a_layer_of_its_own():
    body = "a = Conv(x, w) b = Conv(x, w2) ra = Relu(a) rb = Relu(b) j = Concat<axis=1>(ra, rb)"
    g = graph(body + HEAD.format("j"))
    layers = find_layers(g)
    assert [layer.tensor for layer in layers] == ["ra", "rb", "j"]
    shapes = {"ra": (1, 2, 8, 8), "rb": (1, 2, 8, 8), "j": (1, 4, 8, 8)}
    chosen, reason = default_layer(layers, shapes)
    assert chosen.tensor == "j"
    assert "join of branches" in reason
    assert "4 maps of 8x8" in reason


def test_the_normalisation_and_relu_behind_a_join_belong_to_it():
    g = graph(
        "a = Conv(x, w) j = Concat<axis=1>(a, a)"
        + batch_norm("j", "b")
        + " r = Relu(b)"
        + HEAD.format("r"),
        v=np.ones(4, np.float32),
    )
    assert chains(g)[-1] == ("r", ("Concat", "BatchNormalization", "Relu"))


def test_the_default_is_the_last_map_larger_than_1x1_on_the_way_to_the_scores():
    body = (
        "c1 = Conv(x, w) r1 = Relu(c1) aside = Conv(r1, w3) p = GlobalAveragePool(r1)"
        " c2 = Conv(p, w2) y = Flatten(c2)"
    )
    layers = find_layers(graph(body))
    shapes = {"r1": (1, 2, 8, 8), "aside": (1, 2, 8, 8), "c2": (1, 2, 1, 1)}
    chosen, reason = default_layer(layers, shapes)
    assert chosen.tensor == "r1"
    assert "larger than 1x1" in reason
    assert "2 maps of 8x8" in reason
    assert "Relu" in reason
    assert not next(layer for layer in layers if layer.tensor == "aside").on_path


def test_a_layer_with_attention_behind_it_says_so():
    body = (
        "c = Conv(x, w) f = Flatten<axis=2>(c) q = MatMul(f, k) a = Softmax(q) m = MatMul(a, f)"
        " y = ReduceMean<keepdims=0>(m, axes)"
    )
    layers = find_layers(graph(body, k=np.ones((64, 2), np.float32), axes=np.array([1])))
    _, reason = default_layer(layers, {"c": (1, 2, 8, 8)})
    assert "attention behind it" in reason


def test_a_network_without_convolution_has_no_layers_and_one_of_points_no_default():
    assert find_layers(graph("f = Flatten(x) y = Relu(f)")) == ()
    layers = find_layers(graph("c = Conv(x, w) y = Flatten(c)"))
    with pytest.raises(ModelRefused, match="larger than 1x1"):
        default_layer(layers, {"c": (1, 2, 1, 1)})


def test_quantised_layers_are_read_behind_dequantise_linear():
    z = {"s": np.float32(0.1), "z": np.uint8(0)}
    body = "c = Conv(x, w) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z)"
    assert chains(graph(body + HEAD.format("d"), **z)) == [("d", ("Conv",))]
    twice = body + " e = DequantizeLinear(q, s, z) m = Mul(d, e) "
    assert chains(graph(twice + HEAD.format("m"), **z))[0] == ("d", ("Conv",))


def test_layers_that_are_quantised_for_some_readers_only_are_read_before():
    z = {"s": np.float32(0.1), "z": np.uint8(0), "t": np.float32(0.2)}
    body = "c = Conv(x, w) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z)"
    passed_by = body + " m = Mul(d, c) "
    assert chains(graph(passed_by + HEAD.format("m"), **z))[0] == ("c", ("Conv",))
    apart = body + " o = QuantizeLinear(c, t, z) e = DequantizeLinear(o, t, z) m = Mul(d, e) "
    assert chains(graph(apart + HEAD.format("m"), **z))[0] == ("c", ("Conv",))
    dedicated = body + " o = QuantizeLinear(c, s, z) e = DequantizeLinear(o, s, z) m = Mul(d, e) "
    assert chains(graph(dedicated + HEAD.format("m"), **z))[0] == ("d", ("Conv",))


def test_dynamic_quantisation_belongs_to_the_layer():
    body = (
        "q, s, z = DynamicQuantizeLinear(x) c = ConvInteger(q, k, z) f = Cast<to=1>(c)"
        " t = Mul(s, ws) m = Mul(f, t) a = Add(m, v) r = Relu(a)"
    )
    g = graph(body + HEAD.format("r"), k=np.ones((2, 2, 1, 1), np.uint8), ws=np.float32(0.1), **V)
    assert chains(g) == [("r", ("ConvInteger", "Mul", "Add", "Relu"))]


def test_maps_that_leave_nchw_are_layers_once_they_are_back():
    body = (
        "c = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(c) m = MatMul(t, k) g0 = Relu(m)"
        " u = Transpose<perm=[0,3,1,2]>(g0) s = Add(u, x)"
    )
    g = graph(body + HEAD.format("s"), k=np.ones((2, 2), np.float32))
    assert chains(g) == [("c", ("Conv",)), ("s", ("MatMul", "Relu", "Add"))]
    axes = channel_axes(g)
    assert (axes["c"], axes["t"], axes["m"], axes["u"]) == (1, 3, 3, 1)
    assert "y" not in axes


SHAPES = {"r": (1, 2, 8, 8), "c2": (1, 2, 1, 1), "c": (1, 2, 8, 8), "y": (1, 2)}


@pytest.fixture
def small():
    g = graph(
        "c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) c2 = Conv(p, w2) y = Flatten(c2)"
    )
    return g, find_layers(g)


@pytest.mark.parametrize(
    ("spec", "tensor"),
    [("r", "r"), (0, "r"), ("0", "r"), (-1, "c2"), ("-2", "r"), ("last", "r"), ("c", "c")],
)
def test_a_layer_is_found_by_name_index_and_last(small, spec, tensor):
    g, layers = small
    found = select_layer(layers, spec, SHAPES, g)
    assert found.tensor == tensor
    assert found.index == {"r": 0, "c2": 1, "c": 0}[tensor]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rr", "nearest: r"),
        (5, "the model has 2"),
        ("-3", "0 to 1"),
        ("y", r"of shape \[1, 2\]"),
        ("p", "of unknown shape"),
    ],
)
def test_what_is_no_layer_is_refused_with_the_nearest_names(small, spec, says):
    g, layers = small
    with pytest.raises(UnknownLayer, match=says):
        select_layer(layers, spec, SHAPES, g)


def test_a_numbered_tensor_is_an_index_unless_it_is_a_layer():
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node("Conv", ["x", "w"], ["0"]),
                onnx.helper.make_node("Relu", ["0"], ["1"]),
                onnx.helper.make_node("Conv", ["1", "w"], ["7"]),
                onnx.helper.make_node("GlobalAveragePool", ["7"], ["8"]),
            ],
            "old",
            [onnx.helper.make_tensor_value_info("x", 1, [1, 2, 8, 8])],
            [onnx.helper.make_tensor_value_info("8", 1, None)],
            [numpy_helper.from_array(W, "w")],
        )
    )
    g = Graph(model)
    layers = find_layers(g)
    shapes = {"0": (1, 2, 8, 8)}
    assert select_layer(layers, "1", shapes, g).tensor == "1"  # a layer, though 1 is an index
    assert select_layer(layers, 1, shapes, g).tensor == "7"
    assert select_layer(layers, "0", shapes, g).tensor == "1"  # tensor "0" is not a layer


@pytest.mark.parametrize(
    ("name", "tensor", "chain", "count"),
    [
        ("tf2onnx_resnet50thin_nhwc", "Relu_48:0", ("Conv", "Add", "Relu"), 49),
        ("winml_squeezenet_fp16_opset7", "conv10_2", ("Conv", "Relu"), 34),
        ("paddle_ocr_cls", "hardswish_17.tmp_0", ("Conv", "BatchNormalization", "HardSwish"), 53),
        ("mobilenetv2_qdq_int8_244", "onnx::GlobalAveragePool_1547", ("Conv", "Relu"), 52),
        ("winml_cifar10_convnet", "43", ("Conv", "Relu"), 4),
    ],
)
def test_the_last_layer_of_real_networks(shared, name, tensor, chain, count):
    g = Graph(onnx.load(str(shared / "zoo" / f"{name}.onnx")))  # noqa: TID251 - third-party data
    layers = [layer for layer in find_layers(g) if layer.on_path]
    assert len(layers) == count
    last = [layer for layer in layers if not layer.gate][-1]
    assert (last.tensor, last.chain) == (tensor, chain)
    assert [layer.index for layer in layers] == list(range(count))


@pytest.mark.parametrize("name", ["resnet20.onnx", "zfnet.onnx"])
def test_what_a_target_depends_on_is_what_its_tail_reaches(name):
    path = Path(__file__).parents[2] / "sample_models" / name
    net = read(path).graph
    names = [node.outputs[0] for node in net.nodes]
    for target in names:
        depends = depends_on(net, target)
        for tensor in names:
            tail = tail_of(net, copies_of(net, tensor), target)
            assert depends(tensor) == tail.connected, (tensor, target)
