"""Exact CAM heads: the weights against what onnxruntime computes, and why others are refused."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.graph import Graph
from inspector.network.classifier.head import LinearHead, NoHead, find_head
from inspector.target import find_scores

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def _run(model, feeds, names):
    """Values of any tensors, optimisations off, so that names mean what the file says."""
    ort = pytest.importorskip("onnxruntime")
    model = onnx.ModelProto.FromString(model.SerializeToString())
    have = {o.name for o in model.graph.output}
    for name in names:
        if name not in have:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(names), feeds)


def _check(model, head, feeds, tolerance):
    """Every class's map sums up to its score, sample by sample, by a slow literal mean."""
    A, logits = _run(model, feeds, [head.features, head.logits])
    logits = logits.reshape(len(logits), -1).astype(np.float64)
    scale = np.abs(logits).max()
    for c in range(min(logits.shape[1], 12)):
        maps = head.cam(A, c)
        assert maps.shape[0] == len(A)
        literal = maps.sum((1, 2)) / maps[0].size + head.bias[c]
        assert np.abs(literal - logits[:, c]).max() < tolerance * scale
        assert head.residual(A, c, logits[:, c]).max() < tolerance * scale
    assert np.abs(head.logits_of(A) - logits).max() < tolerance * scale
    # The check can fail: another class's score is not this map's.
    assert head.residual(A, 0, logits[:, 1] + scale).min() > tolerance * scale


def _random(name, *shape):
    # Seeded by the name: the same weights wherever the name appears.
    generator = np.random.default_rng(sum(name.encode()))
    return numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)


CONSTANTS = {
    "w": (5, 6),
    "wt": (6, 5),
    "b": (5,),
    "b1": (1, 5),
    "conv": (5, 6, 1, 1),
    "w2": (5, 5),
    "s": (6,),
    "t": (6,),
    "m": (6,),
    "s4": (1, 6, 1, 1),
    "s2": (1, 6),
    "b4": (5, 1, 1),
    "wide": (5, 96),
    "bcol": (5, 1),
}


def _model(body, *, inputs="float[N,6,4,4] x", outputs="float[N,5] z", opset=17):
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )
    used = {name for node in model.graph.node for name in node.input}
    for name, shape in CONSTANTS.items():
        if name in used:
            model.graph.initializer.append(_random(name, *shape))
    if "v" in used:
        variance = numpy_helper.to_array(_random("v", 6)) ** 2 + 0.1
        model.graph.initializer.append(numpy_helper.from_array(variance, "v"))
    return model


GAP = "a = Relu(x) p = GlobalAveragePool(a) f = Flatten(p) "
FLAT = "a = Relu(x) f = ReduceMean<axes = [2, 3], keepdims = 0>(a) "

LINEAR = {
    "gemm transB": GAP + "z = Gemm<transB = 1>(f, w, b)",
    "gemm alpha beta": GAP + "z = Gemm<alpha = 0.3, beta = -2.0>(f, wt, b)",
    "gemm without bias": GAP + "z = Gemm(f, wt)",
    "matmul add": GAP + "y = MatMul(f, wt) z = Add(y, b)",
    "add in front": GAP + "y = MatMul(f, wt) z = Add(b1, y)",
    "transposed batch, gemm transA": (
        GAP + "q = Transpose(f) z = Gemm<transA = 1, transB = 1>(q, w, b)"
    ),
    "weights on the left": (
        GAP + "q = Transpose(f) y = MatMul(w, q) o = Add(y, bcol) z = Transpose(o)"
    ),
    "gemm of weights and features": GAP + "y = Gemm<transB = 1>(w, f, bcol) z = Transpose(y)",
    "weights transposed in the graph": GAP + "u = Transpose<perm = [1, 0]>(w) z = MatMul(f, u)",
    "conv after pooling": (
        "a = Relu(x) p = GlobalAveragePool(a) y = Conv(p, conv, b) z = Flatten(y)"
    ),
    "conv, bias by add": (
        "a = Relu(x) p = GlobalAveragePool(a) y = Conv(p, conv) o = Add(y, b4) z = Flatten(o)"
    ),
    "reduce mean, negative axes": (
        "a = Relu(x) p = ReduceMean<axes = [-1, -2], keepdims = 0>(a) z = Gemm<transB = 1>(p, w, b)"
    ),
    "mean after mean": (
        "a = Relu(x) i = ReduceMean<axes = [3], keepdims = 0>(a) "
        "f = ReduceMean<axes = [2], keepdims = 0>(i) z = Gemm<transB = 1>(f, w, b)"
    ),
    "columns first": (
        "a = Relu(x) i = ReduceMean<axes = [2], keepdims = 0>(a) "
        "f = ReduceMean<axes = [2], keepdims = 0>(i) z = Gemm<transB = 1>(f, w, b)"
    ),
    "reduce sum": (
        "k = Constant<value = int64[2] {2, 3}>() a = Relu(x) p = ReduceSum(a, k) f = Flatten(p) "
        "z = Gemm<transB = 1>(f, w, b)"
    ),
    "average pool over the map": (
        "a = Relu(x) p = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(a) f = Flatten(p) "
        "z = Gemm<transB = 1>(f, w, b)"
    ),
    "average pool that counts its padding": (
        "a = Relu(x) p = AveragePool<kernel_shape = [6, 5], pads = [1, 0, 1, 1], "
        "count_include_pad = 1>(a) f = Flatten(p) z = Gemm<transB = 1>(f, w, b)"
    ),
    "average pool that does not": (
        "a = Relu(x) p = AveragePool<kernel_shape = [6, 5], pads = [1, 0, 1, 1]>(a) "
        "f = Flatten(p) z = Gemm<transB = 1>(f, w, b)"
    ),
    "dropout, cast, identity, reshape": (
        "a = Relu(x) p = GlobalAveragePool(a) d = Dropout(p) c = Cast<to = 1>(d) "
        "k = Constant<value = int64[2] {-1, 6}>() r = Reshape(c, k) i = Identity(r) "
        "z = Gemm<transB = 1>(i, w, b)"
    ),
    "reshape that copies the batch": (
        "a = Relu(x) p = GlobalAveragePool(a) k = Constant<value = int64[2] {0, -1}>() "
        "r = Reshape(p, k) z = Gemm<transB = 1>(r, w, b)"
    ),
    "computed shape": (
        "a = Relu(x) p = GlobalAveragePool(a) n = Shape<end = 1>(p) "
        "k = Constant<value = int64[1] {-1}>() h = Concat<axis = 0>(n, k) r = Reshape(p, h) "
        "z = Gemm<transB = 1>(r, w, b)"
    ),
    "squeeze and unsqueeze": (
        "a = Relu(x) p = GlobalAveragePool(a) k = Constant<value = int64[2] {-1, -2}>() "
        "q = Squeeze(p, k) j = Constant<value = int64[1] {1}>() u = Unsqueeze(q, j) "
        "y = MatMul(u, wt) z = Squeeze(y, j)"
    ),
    "batch normalisation after pooling": (
        GAP + "n = BatchNormalization<epsilon = 0.01>(f, s, t, m, v) z = Gemm<transB = 1>(n, w, b)"
    ),
    "batch normalisation of 1x1 maps": (
        "a = Relu(x) p = GlobalAveragePool(a) n = BatchNormalization(p, s, t, m, v) "
        "f = Flatten(n) z = Gemm<transB = 1>(f, w, b)"
    ),
    "batch normalisation before pooling": (
        "a = Relu(x) n = BatchNormalization(a, s, t, m, v) p = GlobalAveragePool(n) "
        "f = Flatten(p) z = Gemm<transB = 1>(f, w, b)"
    ),
    "arithmetic on both sides": (
        "a = Relu(x) p = GlobalAveragePool(a) e = Mul(p, s4) f = Flatten(e) g = Sub(f, s2) "
        "h = Div(g, s) i = Sub(t, h) y = Gemm<transB = 1>(i, w, b) "
        "c = Constant<value_float = 3.0>() j = Mul(c, y) k = Add(j, b1) z = Div(k, c)"
    ),
    "two linear layers without anything between": (
        GAP + "y = Gemm<transB = 1>(f, w, b) z = MatMul(y, w2)"
    ),
    "channels last": (
        "a = Relu(x) l = Transpose<perm = [0, 2, 3, 1]>(a) "
        "p = ReduceMean<axes = [1, 2], keepdims = 0>(l) z = Gemm<transB = 1>(p, w, b)"
    ),
    "channels last, kept axes, matmul on the last": (
        "a = Relu(x) l = Transpose<perm = [0, 2, 3, 1]>(a) p = ReduceMean<axes = [-3, -2]>(l) "
        "y = MatMul(p, wt) k = Constant<value = int64[2] {-1, 5}>() z = Reshape(y, k)"
    ),
    "pooled maps turned to channels last": (
        "a = Relu(x) p = GlobalAveragePool(a) l = Transpose<perm = [0, 2, 3, 1]>(p) "
        "f = Flatten(l) z = Gemm<transB = 1>(f, w, b)"
    ),
    "softmax behind": GAP + "y = Gemm<transB = 1>(f, w, b) z = Softmax(y)",
}


def _image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", LINEAR)
def test_maps_sum_up_to_the_score(name):
    model = _model(LINEAR[name])
    graph = Graph(model)
    head = find_head(graph, find_scores(graph))
    assert isinstance(head, LinearHead), head
    assert head.kind == "linear"
    assert head.features == ("n" if name == "batch normalisation before pooling" else "a")
    assert (head.channel_axis, head.weights.shape, head.bias.shape) == (1, (5, 6), (5,))
    _check(model, head, {"x": _image(3, 6, 4, 4)}, 1e-6)


def test_weights_are_in_the_order_of_the_channels():
    model = _model(LINEAR["channels last"])
    graph = Graph(model)
    head = find_head(graph, find_scores(graph))
    np.testing.assert_array_equal(head.weights, numpy_helper.to_array(_random("w", 5, 6)))
    np.testing.assert_array_equal(head.bias, numpy_helper.to_array(_random("b", 5)))


def test_a_map_that_the_graph_keeps_channels_last():
    body = (
        "a = Relu(x) p = ReduceMean<axes = [1, 2], keepdims = 0>(a) z = Gemm<transB = 1>(p, w, b)"
    )
    model = _model(body, inputs="float[N,4,3,6] x")
    graph = Graph(model)
    head = find_head(graph, find_scores(graph))
    assert head.channel_axis == 3
    assert head.cam(np.zeros((2, 4, 3, 6)), 0).shape == (2, 4, 3)
    _check(model, head, {"x": _image(3, 4, 3, 6)}, 1e-6)


def test_one_map_a_class_and_the_relu_before_it():
    body = "c = Conv(x, conv, b) r = Relu(c) p = GlobalAveragePool(r) z = Softmax(p)"
    model = _model(body, outputs="float[N,5,1,1] z", opset=12)
    graph = Graph(model)
    head = find_head(graph, find_scores(graph))
    assert (head.kind, head.features) == ("class map", "r")
    np.testing.assert_array_equal(head.weights, np.eye(5))
    np.testing.assert_array_equal(head.bias, np.zeros(5))
    assert any("not negative" in note for note in head.notes)
    _check(model, head, {"x": _image(2, 6, 4, 4)}, 1e-6)
    without = _model("c = Conv(x, conv, b) p = GlobalAveragePool(c) z = Flatten(p)")
    graph = Graph(without)
    head = find_head(graph, find_scores(graph))
    assert (head.kind, head.features) == ("class map", "c")
    assert not any("not negative" in note for note in head.notes)


def _quantised():
    model = _model(
        "a = Relu(x) p = GlobalAveragePool(a) q = QuantizeLinear(p, step, zero) "
        "d = DequantizeLinear(q, step, zero) f = Flatten(d) "
        "u = DequantizeLinear<axis = 0>(wq, ws, wz) z = Gemm<transB = 1>(f, u, b)"
    )
    generator = np.random.default_rng(7)
    arrays = {
        "step": np.float32(0.004),
        "zero": np.uint8(0),
        "wq": generator.integers(-128, 128, (5, 6)).astype(np.int8),
        "ws": generator.uniform(0.001, 0.02, 5).astype(np.float32),
        "wz": generator.integers(-5, 6, 5).astype(np.int8),
    }
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model, arrays


def test_a_quantised_head_is_exact_up_to_its_rounding():
    model, arrays = _quantised()
    graph = Graph(model)
    head = find_head(graph, find_scores(graph))
    assert head.quantised
    assert any("rounding" in note for note in head.notes)
    q, zero = arrays["wq"].astype(float), arrays["wz"].astype(float)
    np.testing.assert_allclose(
        head.weights, (q - zero[:, None]) * arrays["ws"].astype(float)[:, None], rtol=1e-12
    )
    # Half a step in each channel is the most that rounding can do.
    A, logits = _run(model, {"x": _image(4, 6, 4, 4)}, ["a", "z"])
    for c in range(5):
        bound = np.abs(head.weights[c]).sum() * 0.002 + 1e-6
        assert head.residual(A, c, logits[:, c]).max() <= bound


REFUSED = {
    "relu between two layers": (
        GAP + "y = Gemm<transB = 1>(f, w, b) r = Relu(y) z = MatMul(r, w2)",
        "Relu",
        "two layers or more",
    ),
    "flattened map": (
        "a = Relu(x) f = Flatten(a) z = Gemm<transB = 1>(f, wide, b)",
        "Relu",
        "own weight",
    ),
    "max pooling": (
        "a = Relu(x) p = GlobalMaxPool(a) f = Flatten(p) z = Gemm<transB = 1>(f, w, b)",
        "GlobalMaxPool",
        "by the maximum",
    ),
    "generalised mean": (
        (
            "c = Constant<value_float = 3.0>() a = Relu(x) u = Pow(a, c) p = GlobalAveragePool(u) "
            "i = Constant<value_float = 0.333>() g = Pow(p, i) f = Flatten(g) "
            "z = Gemm<transB = 1>(f, w, b)"
        ),
        "Pow",
        "generalised mean",
    ),
    "layer normalisation": (
        FLAT + "n = LayerNormalization(f, s, t) z = Gemm<transB = 1>(n, w, b)",
        "LayerNormalization",
        "normalises each sample",
    ),
    "layer normalisation, channels last": (
        (
            "a = Relu(x) p = GlobalAveragePool(a) l = Transpose<perm = [0, 2, 3, 1]>(p) "
            "n = LayerNormalization(l, s, t) c = Transpose<perm = [0, 3, 1, 2]>(n) "
            "f = Flatten(c) z = Gemm<transB = 1>(f, w, b)"
        ),
        "LayerNormalization",
        "normalises each sample",
    ),
    "two poolings": (
        (
            "a = Relu(x) c = Conv(a, conv) p = GlobalAveragePool(c) q = GlobalMaxPool(c) "
            "j = Concat<axis = 1>(p, q) f = Flatten(j) z = MatMul(f, cat)"
        ),
        "Concat",
        "joins several",
    ),
    "part of the map": (
        (
            "a = Relu(x) p = AveragePool<kernel_shape = [3, 3], strides = [3, 3]>(a) "
            "f = Flatten(p) z = Gemm<transB = 1>(f, w, b)"
        ),
        "AveragePool",
        "is not the whole map 4x4",
    ),
    "product of two branches": (
        GAP + "g = Sigmoid(f) k = Mul(f, g) z = Gemm<transB = 1>(k, w, b)",
        "Mul",
        "joins two computed tensors",
    ),
    "a kernel over the map": (
        "a = Relu(x) p = Conv<kernel_shape = [4, 4]>(a, kernel, b) z = Flatten(p)",
        "Conv",
        "its 4x4 kernel",
    ),
    "mean over tokens": (
        (
            "k = Constant<value = int64[3] {0, 6, 16}>() r = Reshape(x, k) "
            "t2 = Transpose<perm = [0, 2, 1]>(r) f = ReduceMean<axes = [1], keepdims = 0>(t2) "
            "z = Gemm<transB = 1>(f, w, b)"
        ),
        "ReduceMean",
        "not over the positions of a map",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_forbids_an_exact_map_is_named(name):
    body, op_type, words = REFUSED[name]
    model = _model(body)
    model.graph.initializer.append(_random("cat", 10, 5))
    model.graph.initializer.append(_random("kernel", 5, 6, 4, 4))
    graph = Graph(model)
    head = find_head(graph, find_scores(graph))
    assert isinstance(head, NoHead), head
    assert {n.name: n.op_type for n in graph.nodes}[head.node] == op_type
    assert words in head.reason


def test_a_window_over_a_map_of_unknown_size_needs_the_shape():
    body = (
        "a = Relu(x) p = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(a) f = Flatten(p) "
        "z = Gemm<transB = 1>(f, w, b)"
    )
    graph = Graph(_model(body, inputs="float[N,6,H,W] x"))
    scores = find_scores(graph)
    assert "not known" in find_head(graph, scores).reason
    assert isinstance(find_head(graph, scores, {"a": (1, 6, 4, 4)}), LinearHead)
    assert isinstance(find_head(graph, scores, {"a": (1, 6, 7, 7)}), NoHead)


def test_no_classifier_no_head():
    graph = Graph(_model("z = Relu(x)", outputs="float[N,6,4,4] z"))
    head = find_head(graph, find_scores(graph))
    assert head.node == ""
    assert "no classifier" in head.reason


def test_a_class_that_does_not_exist():
    graph = Graph(_model(LINEAR["gemm transB"]))
    head = find_head(graph, find_scores(graph))
    with pytest.raises(IndexError, match="class -1 of 5"):
        head.cam(np.zeros((1, 6, 4, 4)), -1)


def test_a_constant_of_any_size_is_not_filled():
    model = _model(
        GAP + "n = Constant<value = int64[2] {1000000, 1000000}>() u = ConstantOfShape(n) "
        "z = MatMul(f, u)"
    )
    graph = Graph(model)
    head = find_head(graph, find_scores(graph))
    assert isinstance(head, NoHead)
    assert "too many elements" in head.reason


# --- real models ------------------------------------------------------------------------------


def _float32(model):
    """The same network computed in float32: its float16 numbers are float32 numbers too."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def _photo(shared, size, *, channels_last=False):
    from PIL import Image

    path = min(p for p in (shared / "photos").rglob("*") if p.suffix in {".jpg", ".png"})
    pixels = np.asarray(Image.open(path).convert("RGB").resize((size, size)), dtype=np.float32)
    pixels = pixels[..., ::-1] - np.float32([104, 117, 123])
    return np.ascontiguousarray(pixels if channels_last else pixels.transpose(2, 0, 1))[None]


def _zoo(shared, name):
    path = shared / "zoo" / f"{name}.onnx"
    model = onnx.load(path, load_external_data=False)  # noqa: TID251 - a test
    graph = Graph(model, folder=path.parent)
    return model, graph, find_head(graph, find_scores(graph))


def test_squeezenet_in_float32_and_as_it_is(shared):
    model, _, head = _zoo(shared, "winml_squeezenet_fp16_opset7")
    assert (head.kind, head.features) == ("class map", "conv10_2")
    photo = _photo(shared, 224)
    _check(_float32(model), head, {"data_0": photo}, 1e-4)
    # As published it pools in float16, whose spacing is 2^-10: an honest residual is larger.
    A, logits = _run(model, {"data_0": photo.astype(np.float16)}, [head.features, head.logits])
    best = int(logits.ravel().argmax())
    assert head.residual(A, best, logits[:, best])[0] < 2**-10 * float(logits.max())


def test_channels_last_resnet(shared):
    model, _, head = _zoo(shared, "tf2onnx_resnet50thin_nhwc")
    assert (head.kind, head.features, head.channel_axis) == ("linear", "Relu_48:0", 1)
    _check(model, head, {"input:0": _photo(shared, 224, channels_last=True)}, 1e-4)


def test_small_third_party_heads(shared):
    model, _, head = _zoo(shared, "torch_dynamo_mnist_opset18")
    assert head.features == "relu_2"
    _check(model, head, {"input": _image(1, 1, 28, 28)}, 1e-5)
    model, _, head = _zoo(shared, "paddle_ocr_cls")
    _check(model, head, {"x": _image(2, 3, 48, 192)}, 1e-5)
    model, _, head = _zoo(shared, "customvision_computer_mltools")
    assert (head.features, head.weights.shape) == ("fire9_concat", (5, 512))
    _check(model, head, {"data": _photo(shared, 227)}, 1e-5)


def test_quantised_mobilenet(shared):
    model, _, head = _zoo(shared, "mobilenetv2_qdq_int8_244")
    assert head.quantised
    photo = _photo(shared, 244) / np.float32(60)
    A, logits = _run(model, {"image": photo}, [head.features, head.logits])
    steps = np.abs(head.logits_of(A) - logits).max() / np.abs(logits).max()
    assert 0 < steps < 0.05  # rounding shows, and is small


NO_HEAD = {
    "caffe2_zfnet512_constant_weights": "n19",
    "cntk_mnist": "Pooling160",
    "fastestdet_detector": "",
    "keras2onnx_mnist_nhwc": "Relu",
    "marabou_cifar_deep": "Relu:30",
    "mixed_ops_dynamic_batch": "Concat:cat_out",
    "mltools_style_transfer": "",
    "tf2onnx_mesonet_nhwc": "model/leaky_re_lu/LeakyRelu",
    "tf2onnx_traffic_sign_nhwc": "StatefulPartitionedCall/sequential_11/dense_22/Relu",
    "winml_cifar10_convnet": "Relu_8",
    "yolox_person_detector": "",
}


@pytest.mark.parametrize("name", NO_HEAD)
def test_third_party_models_without_a_linear_head(name, shared):
    _, _, head = _zoo(shared, name)
    assert isinstance(head, NoHead)
    assert head.node == NO_HEAD[name]
    assert head.reason


@pytest.mark.parametrize("name", ["resnet20", "all_cnn_c"])
def test_the_sample_models(name):
    path = SAMPLES / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path.name} is not built")
    model = onnx.load(path)  # noqa: TID251 - a test
    graph = Graph(model)
    head = find_head(graph, find_scores(graph))
    assert isinstance(head, LinearHead), head
    assert head.kind == {"resnet20": "linear", "all_cnn_c": "class map"}[name]
    (image,) = graph.inputs
    _check(model, head, {image: _image(1, 3, 32, 32)}, 1e-5)


def test_bias_broadcast_along_an_axis_before_opset_7():
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Conv", ["p", "conv"], ["y"]),
        helper.make_node("Add", ["y", "b"], ["o"], broadcast=1, axis=1),
        helper.make_node("Flatten", ["o"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, 4, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 5])],
        [_random("conv", 5, 6, 1, 1), _random("b", 5)],
    )
    view = Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)]))
    head = find_head(view, find_scores(view))
    np.testing.assert_array_equal(head.bias, numpy_helper.to_array(_random("b", 5)))
