"""Whether the number that is explained is the one that the user meant."""

import numpy as np
import onnx
import pytest

import inspector
from inspector.errors import UnknownTarget

INPUT = "float[1,3,16,16] x"
FEATURES = (
    "c = Conv<kernel_shape = [3,3], pads = [1,1,1,1]>(x, w) r = Relu(c) "
    "p = GlobalAveragePool(r) f = Flatten(p) "
)
OCCLUSION = "occlusion:window=4,stride=4"


@pytest.fixture
def opened(tmp_path):
    def make(body, outputs, *, inputs=INPUT, name="net", head=(4, 3), **more):
        rng = np.random.default_rng(0)
        text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
        model = onnx.parser.parse_model(text)
        for tensor, shape in (("w", (4, 3, 3, 3)), ("k", head)):
            values = rng.normal(size=shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, tensor))
        for number in (0, 1):
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(np.array([number], np.int64), f"i{number}")
            )
        numbers = {"one": 1, "hundred": 100, "small": 1e-6}
        for tensor, number in numbers.items():
            value = onnx.numpy_helper.from_array(np.array(number, np.float32), tensor)
            model.graph.initializer.append(value)
        for tensor, places in {"turn": [2, 1, 0], "many": [99]}.items():
            value = onnx.numpy_helper.from_array(np.array(places, np.int64), tensor)
            model.graph.initializer.append(value)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        return inspector.load(path, device="cpu", preprocess="unit", unverified=True, **more)

    return make


@pytest.fixture
def photo():
    return np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)


ENDS = {
    "softmax": "y = Softmax(z)",
    "log-softmax": "y = LogSoftmax(z)",
    "sigmoid": "y = Sigmoid(z)",
    "hard sigmoid": "y = HardSigmoid(z)",
    "written softmax": "e = Exp(z) s = ReduceSum(e, i1) y = Div(e, s)",
    "written sigmoid": "n = Neg(z) e = Exp(n) d = Add(e, one) y = Div(one, d)",
    "exp of log-softmax": "l = LogSoftmax(z) y = Exp(l)",
    "cast and identity": "s = Softmax(z) t = Identity(s) y = Cast<to = 1>(t)",
    "reshaped": "s = Softmax(z) t = Unsqueeze(s, i1) y = Squeeze(t, i1)",
    "transposed": (
        "s = Softmax(z) t = Unsqueeze(s, i1) v = Transpose<perm = [0,2,1]>(t) y = Flatten(v)"
    ),
    "chosen": "s = Softmax(z) g = Gather<axis = 1>(s, turn) y = Gather<axis = 1>(g, turn)",
    "cut": "s = Softmax(z) y = Slice(s, i0, many, i1)",
    "percent": "s = Softmax(z) y = Mul(s, hundred)",
    "clamped": "s = Softmax(z) y = Clip(s, small, one)",
    "clamped logarithm": "s = Softmax(z) a = Add(s, small) y = Log(a)",
    "log-sigmoid": "s = Sigmoid(z) y = Log(s)",
    "joined": "s = Softmax(z) y = Concat<axis = 1>(s, f)",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_named_probability_stands_for_the_score_before_it(opened, photo, end):
    width = 7 if end == "joined" else 3
    model = opened(FEATURES + "z = MatMul(f, k) " + ENDS[end], f"float[1,{width}] y")
    found = model.explain(photo, "gradient", target="y[1]").explanation
    score = model.explain(photo, "gradient", target="z[1]").explanation
    assert found.attribution.tensor == "z"
    assert found.attribution.score == score.attribution.score
    np.testing.assert_array_equal(found.attribution.values, score.attribution.values)
    assert any("the score before it, in 'z'" in text for text in found.warnings)
    assert not any("the score before it" in text for text in score.warnings)


CARRIED = [*(end for end in ENDS if end not in {"joined", "transposed", "hard sigmoid"})]


@pytest.mark.parametrize("end", CARRIED)
def test_the_scores_of_a_classifier_are_those_before_what_keeps_their_order(opened, photo, end):
    if end in {"chosen", "cut"}:
        pytest.skip("another choice of classes has another number of each")
    model = opened(FEATURES + "z = MatMul(f, k) " + ENDS[end], "float[1,3] y")
    assert model.scores.tensor == "z"
    assert model.explain(photo, OCCLUSION).images[0].predictions[0]["probability"] is not None


def test_one_minus_a_sigmoid_is_explained_on_the_side_that_it_predicts(opened, photo):
    body = FEATURES + "z = MatMul(f, k) s = Sigmoid(z) y = Sub(one, s)"
    model = opened(body, "float[1,1] y", head=(4, 1))
    assert "which falls where they rise" in model.scores.why
    z = model.forward(_input_of(photo), ["z"])["z"].item()
    report = model.explain(photo, "gradient", target="0")
    (found,) = report.explanations
    assert (found.attribution.tensor, found.attribution.opposed) == ("z", False)
    assert found.attribution.score == pytest.approx(-z, rel=1e-5)
    assert found.attribution.probability == pytest.approx(1 - 1 / (1 + np.exp(-z)), rel=1e-5)
    score = model.explain(photo, "gradient", target="z[0]").explanation.attribution.values
    np.testing.assert_array_equal(found.attribution.values, -score)
    top = model.explain(photo, "gradient", target="top1").explanation.attribution
    assert top.probability > 0.5
    assert top.opposed is (z > 0)
    assert top.label == ("not class 0" if z > 0 else "class 0")
    other = model.explain(photo, "gradient", target="-top1").explanation.attribution
    assert (other.label, other.opposed) == ("class 0" if z > 0 else "not class 0", z <= 0)
    named = model.explain(photo, "gradient", target="y[0]").explanation.attribution
    assert named.score == pytest.approx(-z, rel=1e-5)


def test_one_minus_a_sigmoid_scores_the_second_of_two_labels(opened, photo):
    body = FEATURES + "z = MatMul(f, k) s = Sigmoid(z) y = Sub(one, s)"
    model = opened(body, "float[1,1] y", head=(4, 1), labels=["ill", "well"])
    y = model.forward(_input_of(photo), ["y"])["y"].item()
    for label, share in (("well", y), ("ill", 1 - y)):
        found = model.explain(photo, "gradient", target=label).explanation.attribution
        assert found.probability == pytest.approx(share, rel=1e-4)
        assert (found.label, found.opposed) == (label, False)


def test_a_multiple_of_a_sigmoid_is_a_quantity(opened, photo):
    """100 sigmoid(z) may be an age: neither a class nor explained by the score before it."""
    body = FEATURES + "z = MatMul(f, k) s = Sigmoid(z) age = Mul(s, hundred)"
    model = opened(body, "float[1,1] age", head=(4, 1))
    assert model.scores.activation is None
    found = model.explain(photo, "gradient", target="age[0]").explanation
    assert found.attribution.tensor == "age"
    assert not any(
        "come from" in text for text in model.explain(photo, "gradient").images[0].warnings
    )


def _input_of(photo):
    return photo.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)


def test_a_part_of_a_join_without_an_activation_is_explained_as_it_is_named(opened, photo):
    body = FEATURES + "z = MatMul(f, k) s = Softmax(z) y = Concat<axis = 1>(s, f)"
    found = opened(body, "float[1,7] y").explain(photo, "gradient", target="y[4]").explanation
    assert (found.attribution.tensor, found.warnings[:0]) == ("y", ())
    assert not any("probability" in text for text in found.warnings)


def test_a_probability_that_cannot_be_followed_is_said(opened, photo):
    body = FEATURES + (
        "z = MatMul(f, k) s = Softmax(z) u = Unsqueeze(i1, i0) y = GatherElements<axis = 1>(s, u)"
    )
    found = opened(body, "float[1,1] y").explain(photo, "gradient", target="y[0]").explanation
    assert found.attribution.tensor == "y"
    assert any("GatherElements" in text and "Softmax" in text for text in found.warnings)


HEADS = FEATURES + (
    "z = MatMul(f, k) race = Softmax(z) a = ReduceSum<keepdims = 1>(f, i1) age = Identity(a) "
)


def test_other_heads_are_mentioned_and_reached(opened, photo):
    model = opened(HEADS, "float[1,1] age, float[1,3] race")
    report = model.explain(photo, OCCLUSION).images[0]
    assert {one["output"] for one in report.predictions} == {"race"}
    assert any("other outputs are 'age' (1)" in text for text in report.warnings)
    for target in ("age", "age[0]"):
        found = model.explain(photo, OCCLUSION, target=target).explanation.attribution
        assert (found.tensor, found.label) == ("age", target)


@pytest.mark.parametrize("method", ["gradient", OCCLUSION, "cam", "grad-cam:counterfactual=yes"])
@pytest.mark.parametrize("target", ["1", "top1", "y[2]"])
def test_the_opposite_direction_is_the_negative(opened, photo, method, target):
    model = opened(FEATURES + "z = MatMul(f, k) y = Softmax(z)", "float[1,3] y")
    one = model.explain(photo, method, target=target).explanation.attribution
    other = model.explain(
        photo, "grad-cam" if "counter" in method else method, target=f"-{target}"
    ).explanation.attribution
    sign = 1 if "counter" in method else -1
    np.testing.assert_allclose(other.values, sign * one.values, rtol=1e-5, atol=1e-7)
    assert other.score == -one.score
    assert other.probability == pytest.approx(1 - one.probability)
    assert other.label == (f"-{one.label}" if "[" in target else f"not {one.label}")


def test_a_negative_integer_is_refused_and_a_leading_minus_is_not(opened, photo):
    model = opened(FEATURES + "z = MatMul(f, k) y = Softmax(z)", "float[1,3] y")
    with pytest.raises(UnknownTarget, match="opposite direction of class 1"):
        model.explain(photo, "cam", target=-1)
    assert model.explain(photo, "cam", target="-1").explanation.attribution.label == "not class 1"


UNIT = FEATURES + "z = Gemm<alpha = -1.0>(f, k) y = Sigmoid(z)"


@pytest.mark.parametrize("labels", [None, ["healthy", "diseased"], ["diseased"]])
def test_top1_of_one_unit_is_the_side_that_it_predicts(opened, photo, labels):
    model = opened(UNIT, "float[1,1] y", head=(4, 1), labels=labels)
    logit = model.explain(photo, "cam", target="y[0]").explanation.attribution.score
    report = model.explain(photo, "cam").images[0]
    best, found = report.predictions[0], report.explanations[0].attribution
    assert found.score == abs(logit)
    assert found.probability == pytest.approx(1 / (1 + np.exp(-abs(logit))))
    assert best["probability"] == pytest.approx(found.probability)
    assert best["label"] == found.label
    assert logit < 0, "the case is made for the negative side"
    name = {1: "not diseased", 2: "healthy"}.get(len(labels or ()), "not class 0")
    assert found.label == name
    assert model.explain(photo, "cam", target="-top1").explanation.attribution.score == logit


def test_two_labels_of_one_unit_are_class_0_and_1(opened, photo):
    model = opened(UNIT, "float[1,1] y", head=(4, 1), labels=["healthy", "diseased"])
    low, high = (model.explain(photo, "cam", target=t).explanation.attribution for t in "01")
    assert (low.label, low.index, high.label, high.index) == ("healthy", 0, "diseased", 1)
    np.testing.assert_array_equal(low.values, -high.values)
    assert [one["index"] for one in model.explain(photo, "cam").images[0].predictions] == [0, 1]
    twice = model.explain(photo, "cam", target="-healthy").explanation.attribution
    assert (twice.label, twice.score) == ("diseased", high.score)


@pytest.mark.parametrize("order", ["q, s", "s, q"])
def test_p_and_1_minus_p_are_two_classes_of_one_unit(opened, photo, order):
    body = FEATURES + f"z = MatMul(f, k) s = Sigmoid(z) q = Sub(one, s) y = Concat<axis=1>({order})"
    model = opened(body, "float[1,2] y", head=(4, 1))
    report = model.explain(photo, "cam", target="0").images[0]
    tensor = report.explanations[0].attribution.tensor
    assert (tensor, model.scores.activation) == ("z", "sigmoid")
    logit = model.explain(photo, "cam", target="z[0]").explanation.attribution.score
    p = 1 / (1 + np.exp(-logit))
    expected = (1 - p, p) if order == "q, s" else (p, 1 - p)
    shown = {one["index"]: one["probability"] for one in report.predictions}
    assert [shown[0], shown[1]] == pytest.approx(list(expected))
    named = model.explain(photo, "cam", target="y[0]").explanation.attribution
    np.testing.assert_array_equal(named.values, report.explanations[0].attribution.values)


PERCENT = {
    # output name, classes, class names, whether percentages are given
    "an embedding without a name": ("output", 128, None, False),
    "angles": ("angles", 3, None, False),
    "five landmarks": ("landmarks", 10, None, False),
    "something": ("output", 7, None, False),
    "something with names": ("output", 3, ["a", "b", "c"], True),
    "logits of ten": ("logits", 10, None, True),
    "a thousand class scores": ("class_scores", 1000, None, True),
}


@pytest.mark.parametrize("case", PERCENT)
def test_percentages_are_given_only_where_the_file_says_that_it_classifies(opened, photo, case):
    name, count, labels, given = PERCENT[case]
    model = opened(
        FEATURES + f"{name} = MatMul(f, k)",
        f"float[1,{count}] {name}",
        head=(4, count),
        labels=labels,
    )
    report = model.explain(photo, "cam").images[0]
    assert all((one["probability"] is not None) == given for one in report.predictions)
    assert any("does not say what" in text for text in report.warnings) != given
    best = report.predictions[0]
    if not given:
        assert best["label"] == f"{name}[{best['index']}]"
        again = model.explain(photo, "cam", target=best["label"]).explanation.attribution
        assert again.score == pytest.approx(best["score"])


def test_probabilities_get_no_second_softmax(opened, photo):
    # Exp(z) / sum, where the sum passes a node that hides it.
    body = FEATURES + "z = MatMul(f, k) e = Exp(z) s = ReduceSum(e, i1) t = Abs(s) y = Div(e, t)"
    report = opened(body, "float[1,3] y").explain(photo, OCCLUSION).images[0]
    for one in report.predictions:
        assert one["probability"] == pytest.approx(one["score"])
        assert not one["assumed_softmax"]


NUMBERS = {
    "rank 1": "float[1] y",
    "rank 0": "float y",
}


@pytest.mark.parametrize("rank", NUMBERS)
def test_one_number_is_addressed_with_and_without_an_index(opened, photo, rank):
    body = (
        "y = ReduceSum<keepdims = 0>(f, i1)" if rank == "rank 1" else "y = ReduceSum<keepdims=0>(f)"
    )
    model = opened(FEATURES + body, NUMBERS[rank])
    with pytest.raises(UnknownTarget) as caught:
        model.explain(photo, OCCLUSION)
    assert "such as y[0];" in caught.value.hint
    scores = [
        model.explain(photo, OCCLUSION, target=target).explanation.attribution.score
        for target in ("y", "y[0]", "y[-1]")
    ]
    assert len(set(scores)) == 1
    assert model.explain(photo, OCCLUSION, target="-y").explanation.attribution.score == -scores[0]


CELLS = "t = Transpose<perm = [0,2,3,1]>(r) s = Constant<value_ints = [256,4]>() y = Reshape(t, s)"


def test_an_output_without_a_batch_axis_is_addressed_as_it_is_printed(opened, photo):
    model = opened(FEATURES + CELLS, "float[256,4] y")
    with pytest.raises(UnknownTarget) as caught:
        model.explain(photo, OCCLUSION, target="y[3]")
    assert "no batch axis" in str(caught.value)
    assert "y[3,i]" in caught.value.hint
    assert "y[3,:]" in caught.value.hint
    one = model.explain(photo, OCCLUSION, target="y[40,2]").explanation.attribution.score
    whole = model.explain(photo, OCCLUSION, target="y[40,:]").explanation.attribution.score
    parts = [
        model.explain(photo, OCCLUSION, target=f"y[40,{i}]").explanation.attribution.score
        for i in range(4)
    ]
    assert one == parts[2]
    assert whole == pytest.approx(sum(parts), rel=1e-5)
    with pytest.raises(UnknownTarget, match=r"outputs: y \(256, 4\)"):
        model.explain(photo, OCCLUSION)


def _hinted(error):
    return error.hint.partition("such as ")[2].partition(";")[0]


DETECTORS = {
    "a score per row of boxes": (
        (
            "t = Transpose<perm = [0,2,3,1]>(r) a = Constant<value_ints = [1,256,4]>() "
            "boxes = Reshape(t, a) m = ReduceMax<axes = [2]>(boxes) scores = Sigmoid(m)"
        ),
        "float[1,256,4] boxes, float[1,256,1] scores",
        "scores[",
    ),
    "coordinates and scores in one": (
        (
            "a = Constant<value_ints = [1,4,256]>() t = Reshape(r, a) "
            "h = Constant<value_ints = [2,2]>() u, v = Split<axis = 1>(t, h) "
            "k9 = Constant<value_float = 90.0>() b = Mul(u, k9) q = Sigmoid(v) "
            "y = Concat<axis = 1>(b, q)"
        ),
        "float[1,4,256] y",
        "y[",
    ),
    "a free plane": ("y = Identity(c)", "float[1,4,h,v] y", "y["),
}


@pytest.mark.parametrize("case", DETECTORS)
def test_the_hint_is_a_score_that_works(opened, photo, case):
    body, outputs, start = DETECTORS[case]
    inputs = "float[1,3,a,b] x" if "free" in case else INPUT
    model = opened(FEATURES + body, outputs, inputs=inputs)
    assert not model.scores.classifier
    with pytest.raises(UnknownTarget) as caught:
        model.explain(photo, OCCLUSION, task="classifier")
    target = _hinted(caught.value)
    assert target.startswith(start)
    if case == "coordinates and scores in one":
        assert target[2] in "23"
    if case == "a free plane":
        assert "0" not in target[2:-1].split(",")[1:]
    assert np.isfinite(model.explain(photo, OCCLUSION, target=target).attribution).all()


def test_a_sequence_is_no_classifier(opened, photo):
    body = (
        "c = Conv<kernel_shape = [3,3], pads = [1,1,1,1]>(x, w) r = Relu(c) "
        "m = ReduceMean<axes = [2], keepdims = 0>(r) t = Transpose<perm = [2,0,1]>(m) "
        "y = MatMul(t, k)"
    )
    model = opened(body, "float[T,1,3] y", inputs="float[1,3,16,b] x")
    with pytest.raises(UnknownTarget, match="sequence of 224 steps") as caught:
        model.explain(photo, OCCLUSION)
    assert _hinted(caught.value).startswith("y[")


def test_a_saturated_probability_is_said_with_the_option_that_helps(opened, photo):
    body = (
        FEATURES
        + "b = Constant<value_float = 30000.0>() u = Mul(f, b) z = MatMul(u, k) y = Softmax(z)"
    )
    model = opened(body, "float[1,3] y")
    found = model.explain(photo, OCCLUSION).explanation
    assert any(t.startswith("saturated") and "measure=score" in t for t in found.warnings)
    assert not any("no positive evidence" in text for text in found.warnings)
    other = model.explain(photo, f"{OCCLUSION},measure=score").explanation
    assert not any("saturated" in text for text in other.warnings)
    assert np.ptp(other.attribution.values) > 0


def test_two_models_are_compared_on_the_same_side_of_a_unit(opened, photo):
    from inspector.compare import compare

    first, second = (opened(UNIT, "float[1,1] y", head=(4, 1), name=name) for name in "ab")
    for target in ("top1", "-top1", "-0"):
        found = compare(first, second, [photo], "cam", target=target)
        (pair,) = found.images[0].maps
        assert not found.images[0].flip
        assert pair.scores[0] == pair.scores[1]
        assert pair.similarity.rank == pytest.approx(1)


@pytest.mark.parametrize(
    "end",
    [
        "s = Softmax(z) y = Slice(s, i1, many, i1)",
        "s = Softmax(z) t = Sigmoid(z) u = Slice(t, i1, many, i1) y = Concat<axis = 1>(u, s)",
    ],
)
def test_a_part_of_a_softmax_is_not_called_unknown(opened, photo, end):
    width = 5 if "Concat" in end else 2
    model = opened(FEATURES + "z = MatMul(f, k) " + end, f"float[1,{width}] y")
    report = model.explain(photo, "gradient")
    (said,) = (text for text in report.images[0].warnings if "percentages" in text)
    assert "come from S" in said
    assert "no softmax" not in said
    target = said.partition("--target ")[2].split()[0]
    found = model.explain(photo, "gradient", target=target).explanation
    assert found.attribution.tensor == "z"
