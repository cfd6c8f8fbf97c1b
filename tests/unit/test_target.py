"""The scores before softmax, and every way to name one of them."""

import re

import numpy as np
import onnx
import onnx.parser
import pytest

from converters.graph import Graph
from inspector.errors import UnknownTarget
from inspector.probability import looks_like_probabilities, probabilities
from inspector.target import (
    Scores,
    Target,
    find_scores,
    parse_target,
    scores_of,
)


def _graph(body, inputs="float[N,3,4,4] x", outputs="float[N,5] y", opset=17):
    text = f'<ir_version: 8, opset_import: ["" : {opset}, "ai.onnx.ml" : 3]>'
    text += f" g ({inputs}) => ({outputs}) {{ {body} }}"
    return Graph(onnx.parser.parse_model(text))


FEATURES = "w = Constant<value = float[3,5] {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}>() "
FEATURES += "p = GlobalAveragePool(x) f = Flatten(p) z = MatMul(f, w) "

ENDINGS = {
    "softmax": ("y = Softmax(z)", "z", "softmax"),
    "log softmax": ("y = LogSoftmax(z)", "z", "log_softmax"),
    "log of softmax": ("s = Softmax(z) y = Log(s)", "z", "log_softmax"),
    "sigmoid": ("y = Sigmoid(z)", "z", "sigmoid"),
    "none": ("y = Identity(z)", "y", None),
    "relu is part of the score": ("r = Relu(z) y = Softmax(r)", "r", "softmax"),
    "cast": ("s = Softmax(z) y = Cast<to = 1>(s)", "z", "softmax"),
    "written out": (
        (
            "m = ReduceMax<axes = [1]>(z) d = Sub(z, m) e = Exp(d) "
            "a = Constant<value = int64[1] {1}>() t = ReduceSum(e, a) y = Div(e, t)"
        ),
        "z",
        "softmax",
    ),
    "written out without the shift": (
        "e = Exp(z) a = Constant<value = int64[1] {1}>() t = ReduceSum(e, a) y = Div(e, t)",
        "z",
        "softmax",
    ),
    "log softmax written out": (
        (
            "m = ReduceMax<axes = [1]>(z) d = Sub(z, m) e = Exp(d) "
            "a = Constant<value = int64[1] {1}>() t = ReduceSum(e, a) l = Log(t) y = Sub(d, l)"
        ),
        "z",
        "log_softmax",
    ),
    "another division": ("e = Exp(z) t = Neg(e) y = Div(e, t)", "y", None),
    "shift by something else": (
        (
            "m = ReduceMax<axes = [1]>(f) d = Sub(z, m) e = Exp(d) "
            "a = Constant<value = int64[1] {1}>() t = ReduceSum(e, a) y = Div(e, t)"
        ),
        "d",
        "softmax",
    ),
    "rounded": (
        (
            "c = Constant<value = float {0.1}>() o = Constant<value = uint8 {0}>() s = Softmax(z) "
            "q = QuantizeLinear(s, c, o) y = DequantizeLinear(q, c, o)"
        ),
        "z",
        "softmax",
    ),
    "rounded scores": (
        (
            "c = Constant<value = float {0.1}>() o = Constant<value = uint8 {0}>() "
            "q = QuantizeLinear(z, c, o) y = DequantizeLinear(q, c, o)"
        ),
        "z",
        None,
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_scores_stand_before_the_final_activation(name):
    body, tensor, activation = ENDINGS[name]
    scores = find_scores(_graph(FEATURES + body))
    assert (scores.tensor, scores.activation) == (tensor, activation)
    assert (scores.output, scores.classes, scores.classifier) == ("y", 5, True)
    assert scores.why


def test_softmax_before_the_reshape():
    body = "p = GlobalAveragePool(x) s = Softmax<axis = 1>(p) y = Flatten(s)"
    scores = find_scores(_graph(body, "float[N,7,4,4] x", "float[N,7] y"))
    assert (scores.tensor, scores.activation, scores.classes) == ("p", "softmax", 7)


def test_scores_with_axes_of_size_one():
    body = "p = GlobalAveragePool(x) y = Softmax(p)"
    inputs, outputs = "float[N,7,4,4] x", "float[N,7,1,1] y"
    old = find_scores(_graph(body, inputs, outputs, opset=7))
    assert (old.tensor, old.activation, old.classes, old.axis) == ("p", "softmax", 7, 1)
    # From opset 13 on the default axis is the last one: ones everywhere, no probabilities.
    new = find_scores(_graph(body, inputs, outputs, opset=13))
    assert (new.tensor, new.activation) == ("y", None)


def test_channels_last_scores():
    outputs = "float[N,1,1,7] y"
    scores = find_scores(_graph("y = Softmax(x)", "float[N,1,1,7] x", outputs))
    assert (scores.tensor, scores.axis, scores.classes) == ("x", 3, 7)
    (target,) = parse_target("4", scores=scores)
    array = np.arange(14.0).reshape(2, 1, 1, 7)
    np.testing.assert_array_equal(target.of({target.tensor: array}), [4, 11])


def test_batchless_output_leads_back_to_rows():
    scores = find_scores(_graph("s = Softmax(x) y = Squeeze(s)", "float[1,7] x", "float[7] y"))
    assert (scores.tensor, scores.activation, scores.classes) == ("x", "softmax", 7)
    scores = find_scores(_graph("z = Neg(x) y = Squeeze(z)", "float[1,7] x", "float[7] y"))
    assert (scores.tensor, scores.activation, scores.classes) == ("z", None, 7)


def test_best_class_and_name_outputs_lead_back_to_the_scores():
    body = FEATURES + "s = Softmax(z) i = ArgMax<axis = 1>(s) y = Cast<to = 6>(i)"
    scores = find_scores(_graph(body, outputs="int32[N,1] y"))
    assert (scores.tensor, scores.activation, scores.classes) == ("z", "softmax", 5)


def test_the_deepest_of_several_classifiers_wins():
    body = FEATURES + "aux = Neg(f) r = Relu(z) main = Softmax(r)"
    graph = _graph(body, outputs="float[N,3] aux, float[N,5] main")
    scores = find_scores(graph)
    assert (scores.tensor, scores.output) == ("r", "main")
    assert "'aux'" in scores.why


def test_logits_beside_probabilities_keep_the_activation():
    scores = find_scores(_graph(FEATURES + "y = Softmax(z)", outputs="float[N,5] z, float[N,5] y"))
    assert (scores.tensor, scores.activation) == ("z", "softmax")


ROWS = "t = Transpose<perm = [0,2,3,1]>(x) y = Reshape(t, s) "
NO_CLASSIFIER = {
    "segmentation": ("float[N,3,4,4] x", "float[N,3,4,4] y", "y = Sigmoid(x)"),
    "boxes in a list": (
        "float[1,3,4,4] x",
        "float[1,16,3] y",
        "s = Constant<value_ints = [1,16,3]>() " + ROWS,
    ),
    "boxes in place of images": (
        "float[1,3,4,4] x",
        "float[16,3] y",
        "s = Constant<value_ints = [16,3]>() " + ROWS,
    ),
    "one number": ("float[N,3,4,4] x", "float y", "y = ReduceMean<keepdims = 0>(x)"),
    "no declared shape": ("float[N,3,4,4] x", "float[] y", "y = Mystery(x)"),
}


@pytest.mark.parametrize("name", NO_CLASSIFIER)
def test_what_is_no_classifier(name):
    inputs, outputs, body = NO_CLASSIFIER[name]
    scores = find_scores(_graph(body, inputs, outputs))
    assert not scores.classifier
    assert scores.classes is None
    with pytest.raises(UnknownTarget, match="has none") as caught:
        parse_target("top1", scores=scores, values=[1.0])
    assert "OUTPUT[i,j,...]" in caught.value.hint
    assert "outputs: y" in caught.value.hint


ZOO = {
    "caffe2_zfnet512_constant_weights": ("r20", "softmax", 1000),
    "cntk_mnist": ("Plus214_Output_0", None, 10),
    "conv_qdq_external_ini": None,
    "customvision_computer_mltools": ("fc", "sigmoid", 5),
    "fastestdet_detector": None,
    "keras2onnx_mnist_nhwc": ("dense_15", None, 10),
    "marabou_cifar_deep": ("output", None, 10),
    "mixed_ops_dynamic_batch": ("gemm_out", None, 10),
    "mltools_squeezenet_zipmap": ("fc", "sigmoid", 10),
    "mltools_style_transfer": None,
    "mobilenetv2_qdq_int8_244": ("onnx::QuantizeLinear_1576", None, 1000),
    "paddle_ocr_cls": ("linear_1.tmp_1", "softmax", 2),
    "paddle_ocr_det": None,
    "pytorch_super_resolution": None,
    "qdq_conv_perchannel": None,
    "tf2onnx_mesonet_nhwc": ("model/dense_1/BiasAdd:0", "sigmoid", 1),
    "tf2onnx_resnet50thin_nhwc": ("fc_nsfw/BiasAdd:0", "softmax", 2),
    "tf2onnx_traffic_sign_nhwc": ("dense_23", None, 43),
    "torch_dynamo_mnist_opset18": ("logits", None, 10),
    "ultraface_rfb320_detector": None,
    "winml_cifar10_convnet": ("modelOutput", None, 10),
    "winml_squeezenet_fp16_opset7": ("pool10_1", "softmax", 1000),
    "yolox_person_detector": None,
}


@pytest.mark.parametrize("name", ZOO)
def test_the_scores_of_third_party_models(name, shared):
    model = onnx.load(shared / "zoo" / f"{name}.onnx", load_external_data=False)  # noqa: TID251 - a test
    scores = find_scores(Graph(model))
    found = (scores.tensor, scores.activation, scores.classes) if scores.classifier else None
    assert found == ZOO[name]


# --- naming a target --------------------------------------------------------------------------

LABELS = ("tabby, tabby cat", "tiger cat", "Egyptian cat", "crane", "crane", "fire engine")


def _scores(**changes):
    outputs = tuple(
        _graph(
            "y = Identity(x) b = Identity(x)", outputs="float[N,6] y, float[1,3,4,5] b"
        ).outputs.values()
    )
    tensors = frozenset({"y", "b", "odd[0]/name:0", "a,b"})
    fields = {"tensor": "y", "output": "y", "activation": None, "classes": 6, "why": "."}
    return Scores(**(fields | {"outputs": outputs, "tensors": tensors} | changes))


def _classes(text, **kwargs):
    values = kwargs.pop("values", [0.1, 0.9, 0.3, 0.9, -1.0, 0.2])
    labels = kwargs.pop("labels", LABELS)
    targets = parse_target(text, scores=_scores(**kwargs), labels=labels, values=values)
    return [t.class_index for t in targets]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("top1", [1]),
        ("TOP3", [1, 3, 2]),
        ("0", [0]),
        (" 5 ", [5]),
        ("5,0,5", [5, 0]),
        ("tabby, tabby cat", [0]),
        ("Tabby", [0]),
        ("TABBY CAT", [0]),
        ("tiger  cat", [1]),
        ("egypt", [2]),
        ("engine, tiger", [5, 1]),
        ("top1,fire engine,2", [1, 5, 2]),
    ],
)
def test_classes_by_any_name(text, expected):
    assert _classes(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("6", "classes run from 0 to 5"),
        ("-6", "no class 6"),
        ("999999999999", "no class"),
        ("top7", "top1 to top6"),
        ("top0", "no top0"),
        ("cat", r"names 3 classes.*0 \(tabby"),
        ("crane", r"names 2 classes.*3 \(crane\), 4 \(crane\)"),
        ("fire engin e", "nearest: fire engine"),
        ("tabbi", "nearest: tabby"),
        ("", "empty target"),
        ("0,nothing like it", "nothing like it"),
    ],
)
def test_classes_that_do_not_exist(text, words):
    with pytest.raises(UnknownTarget) as caught:
        _classes(text)
    assert re.search(words, str(caught.value)), str(caught.value)
    assert caught.value.exit_status == 2


def test_without_names_or_scores():
    with pytest.raises(UnknownTarget, match="--labels"):
        _classes("cat", labels=())
    with pytest.raises(UnknownTarget, match="needs the scores"):
        _classes("top1", values=None)
    with pytest.raises(UnknownTarget, match="NaN"):
        _classes("top1", values=[np.nan] * 6)
    assert _classes("4", labels=()) == [4]
    with pytest.raises(UnknownTarget, match="run from 0 to 5"):
        _classes("6", classes=None)


def test_one_unit_with_two_names_scores_the_second():
    scores = _scores(classes=1)
    for text, label, sign in (
        ("top1", "cat", -1),
        ("0", "cat", -1),
        ("cat", "cat", -1),
        ("1", "dog", 1),
        ("dog", "dog", 1),
        ("-top1", "dog", 1),
        ("-dog", "cat", -1),
    ):
        (target,) = parse_target(text, scores=scores, labels=("cat", "dog"), values=[-0.3])
        assert (target.class_index, target.label, target.sign) == (0, label, sign)
        assert target.shown_index == ("cat", "dog").index(label)
    with pytest.raises(UnknownTarget, match="no class 2"):
        parse_target("2", scores=scores, labels=("cat", "dog"), values=[-0.3])


def test_elements_of_a_tensor_against_plain_indexing():
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    cases = {
        "b[1,2,3]": array[:, 1, 2, 3],
        "b[-1, -2, -3]": array[:, -1, -2, -3],
        "b[0]": array[:, 0].sum((1, 2)),
        "b[:,1:3,2]": array[:, :, 1:3, 2].sum((1, 2)),
        "b[1, :, -2:]": array[:, 1, :, -2:].sum((1, 2)),
    }
    for text, expected in cases.items():
        (target,) = parse_target(text, scores=_scores())
        assert (target.tensor, target.class_index) == ("b", None)
        np.testing.assert_allclose(target.of({target.tensor: array}), expected, rtol=1e-12)


def test_element_of_a_torch_tensor_has_a_gradient():
    torch = pytest.importorskip("torch")
    (target,) = parse_target("b[1,:,2]", scores=_scores())
    x = torch.ones(2, 3, 4, 5, requires_grad=True)
    target.of({target.tensor: x}).sum().backward()
    expected = np.zeros((2, 3, 4, 5))
    expected[:, 1, :, 2] = 1
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_tensor_names_may_hold_brackets_slashes_and_colons():
    targets = parse_target("odd[0]/name:0[1,2], b[0,:,1]", scores=_scores())
    assert [(t.tensor, t.index) for t in targets] == [
        ("odd[0]/name:0", (1, 2)),
        ("b", (0, slice(None), 1)),
    ]


def test_a_tensor_name_with_a_comma():
    (target,) = parse_target("a,b[3]", scores=_scores())
    assert (target.tensor, target.index) == ("a,b", (3,))


def test_the_classifiers_own_score_written_the_long_way_is_that_class():
    (target,) = parse_target("y[4]", scores=_scores(), labels=LABELS)
    assert (target.tensor, target.class_index) == ("y", 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("b[3,0,0]", "index 0 selects nothing of an axis of size 3"),
        ("b[0,0,0,0]", "4 indices for 3 axes"),
        ("b[0,2:2]", "selects nothing"),
        ("b[x]", "'x' is not an index"),
        ("b[]", "is not an index"),
        ("b[0:2:1]", "is not an index"),
        ("bb[0]", "no tensor 'bb'; nearest: b"),
        ("y", "which of its elements: y[3]"),
    ],
)
def test_elements_that_do_not_exist(text, words):
    with pytest.raises(UnknownTarget) as caught:
        parse_target(text, scores=_scores())
    assert words in str(caught.value)


def test_an_index_outside_of_an_undeclared_shape_is_found_when_it_is_used():
    with pytest.raises(UnknownTarget, match="outside"):
        Target("t", (9,), "t[9]").of({"t": np.zeros((1, 3))})
    with pytest.raises(UnknownTarget, match="outside"):
        Target("t", (0, 0), "t[0,0]").of({"t": np.zeros((1, 3))})
    with pytest.raises(UnknownTarget, match="no element"):
        Target("t", (slice(5, None),), "t[5:]").of({"t": np.zeros((1, 3))})


# --- probabilities ----------------------------------------------------------------------------


def test_probabilities_against_the_textbook_and_far_out():
    z = np.array([[1.0, -2.0, 0.5], [3.0, 3.0, 3.0]])
    soft = probabilities(z, "softmax")
    np.testing.assert_allclose(soft.values, np.exp(z) / np.exp(z).sum(1, keepdims=True), rtol=1e-14)
    assert not soft.assumed
    np.testing.assert_allclose(probabilities(z, "log_softmax").values, soft.values)
    np.testing.assert_allclose(probabilities(z, "sigmoid").values, 1 / (1 + np.exp(-z)), rtol=1e-14)
    far = np.array([1e4, -1e4, 0.0], dtype=np.float32)
    np.testing.assert_array_equal(probabilities(far, "softmax").values, [1, 0, 0])
    np.testing.assert_array_equal(probabilities(far, "sigmoid").values, [1, 0, 0.5])


def test_no_activation_no_probabilities_unless_asked_for():
    assert probabilities([1.0, 2.0], None) is None
    read = probabilities([1.0, 2.0], None, assume_softmax=True)
    assert read.assumed
    assert read.values.sum() == pytest.approx(1)
    assert probabilities([1.0], None, assume_softmax=True) is None


def test_hidden_softmax_is_noticed():
    assert "probabilities" in looks_like_probabilities([0.2, 0.7, 0.1])
    assert looks_like_probabilities([0.2, 0.7, 0.3]) == ""
    assert looks_like_probabilities([1.2, -0.2]) == ""
    assert looks_like_probabilities([1.0]) == ""
    assert looks_like_probabilities([np.nan, 1.0]) == ""


def test_a_class_without_a_name_is_taken_as_it_is_printed():
    from inspector.target.spec import _by_label
    from inspector.tasks.words import class_of

    assert _by_label("class 3", (), 10) == class_of("class 3", (), 10) == 3
    assert _by_label("class 3", ("x", "class 3"), None) == 1
    with pytest.raises(UnknownTarget):
        _by_label("class 12", (), 10)


def test_numbers_of_some_samples_are_those_of_each_alone():
    """One element is read of all samples together; what is summed, sample by sample."""
    rng = np.random.default_rng(0)
    values = {"y": rng.normal(size=(6, 5)).astype(np.float32), "m": rng.normal(size=(6, 2, 3, 3))}
    one, other = Target("y", (1,), "b"), Target("y", (3,), "-d", sign=-1)
    plane = Target("m", (0,), "m[0]")
    targets = [one, other, one, plane, other, plane]
    alone = [
        float(scores_of({name: value[row : row + 1] for name, value in values.items()}, [own])[0])
        for row, own in enumerate(targets)
    ]
    assert scores_of(values, targets).tolist() == alone
    assert alone[:2] == [float(values["y"][0, 1]), -float(values["y"][1, 3])]
    with pytest.raises(UnknownTarget, match="lies outside"):
        scores_of(values, [Target("y", (9,), "none")] * 6)
