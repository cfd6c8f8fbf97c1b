"""Every method against its paper's formula, written out literally on a small random network.

The network's forward pass is written once more in NumPy (float64), and its gradients are taken
by differences: nothing here differentiates automatically.
"""

import itertools

import numpy as np
import onnx
import pytest
import torch
from networks import CLASSES, HEIGHT, WIDTH, Net, correlate, node, onnx_model
from onnx import TensorProto, helper, numpy_helper
from oracles import (
    ORACLES,
    by_differences,
    convolutional,
    literal_grad_cam,
    literal_occlusion,
    literal_plus_plus_weights,
    literal_signal,
)

import inspector
from inspector.engines.twin import TwinEngine
from inspector.errors import MethodRefused, UsageError
from inspector.heatmap import EMPTY
from inspector.methods import grad_cam, grad_cam_plus_plus, methods
from inspector.photos.occluder import windows
from inspector.photos.preprocess_choice import Preprocess

TIGHT = 2e-5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
RECIPE = Preprocess(size=(HEIGHT, WIDTH), scale=255.0, mean=MEAN, std=STD)


def photo(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def encoded(pixels):
    """What the network is fed, written out: (C, H, W) in float32 arithmetic, then widened."""
    x = pixels.astype(np.float32).transpose(2, 0, 1) / np.float32(255)
    mean, std = np.float32(MEAN), np.float32(STD)
    return ((x - mean[:, None, None]) / std[:, None, None]).astype(np.float64)


@pytest.fixture
def opened(tmp_path):
    def open_(net):
        path = tmp_path / f"net{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(net.proto(), path)
        return inspector.load(path, device="cpu", preprocess=RECIPE)

    return open_


def close(found, wanted, tolerance=1e-4):
    peak = np.abs(wanted).max()
    assert peak > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * peak)


# -- every method against its formula ----------------------------------------------------------


def test_every_method_has_an_oracle():
    """A method without one is not tested: write its formula down in ``tests/oracles.py``.

    Those of transformers have theirs in ``test_attention_methods.py``, those of boxes in
    ``test_d_rise.py``.
    """
    others = {"attention-rollout", "attention-gradient", "d-rise"}
    assert set(methods()) - set(convolutional()) == others
    assert sorted(ORACLES) == sorted(convolutional())


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("method", ORACLES)
def test_a_method_computes_its_formula(opened, method, deep):
    """On every class, so that one that pays no heed to the target fails, unless it says so."""
    net, pixels = Net(5, deep=deep), photo(5)
    x, slow = encoded(pixels), ORACLES[method]
    options = ",".join(f"{key}={value}" for key, value in slow.options.items())
    model = opened(net)
    wanted = [slow.function(net, x, target) for target in range(CLASSES)]
    peak = max(np.abs(values).max() for values in wanted)
    pairs = itertools.combinations(wanted, 2)
    apart = any(np.abs(a - b).max() > 0.01 * peak for a, b in pairs)
    assert apart == methods()[method].class_specific
    for target, values in enumerate(wanted):
        report = model.explain(pixels, f"{method}:{options}", target=str(target), layer="A")
        attribution = report.explanation.attribution
        assert (attribution.method, attribution.index) == (method, target)
        assert attribution.score == pytest.approx(net(x)[target], rel=1e-5)
        assert attribution.values.shape == values.shape
        np.testing.assert_allclose(attribution.values, values, rtol=0, atol=TIGHT * peak)
        assert not [note for note in attribution.notes if "unreliable" in note]


# -- class activation maps -------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
def test_grad_cam_is_not_vacuous_and_the_counterfactual_weighs_with_minus_g(opened, deep):
    net, pixels = Net(2, deep=deep), photo(2)
    A = net.layer(encoded(pixels))
    model = opened(net)
    maps, wanted = [], []
    for target in range(CLASSES):
        g = by_differences(lambda a, t=target: net.tail(a)[t], A)
        wanted += [literal_grad_cam(A, g), literal_grad_cam(A, -g)]
        both = ["grad-cam", "grad-cam:counterfactual=yes"]
        report = model.explain(pixels, both, target=str(target), layer="A")
        maps += [explanation.attribution.values for explanation in report.explanations]
    assert sum(w.max() > 0 for w in wanted) >= CLASSES
    for found, want in zip(maps, wanted, strict=True):
        np.testing.assert_allclose(found, want, atol=1e-5 * max(w.max() for w in wanted))


def test_grad_cam_plus_plus_weights_in_float64():
    rng = np.random.default_rng(3)
    A = np.maximum(rng.standard_normal((2, 7, 5, 4)), 0)
    A[0, 3] = 0  # a dead channel
    g = rng.standard_normal(A.shape) * 10.0 ** rng.integers(-6, 3, A.shape)  # over nine decades
    g[rng.random(A.shape) < 0.2] = 0
    wanted = np.stack([literal_plus_plus_weights(a, b) for a, b in zip(A, g, strict=True)])
    assert (wanted > 0).all()
    np.testing.assert_allclose(grad_cam_plus_plus.weights(A, g), wanted, rtol=1e-12)
    found = grad_cam_plus_plus.weights(torch.from_numpy(A), torch.from_numpy(g))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)
    assert not grad_cam_plus_plus.unsafe(A, g)


def test_grad_cam_weights_on_numpy_and_torch():
    g = np.random.default_rng(4).standard_normal((2, 3, 4, 5))
    wanted = np.array([[g[n, k].sum() / 20 for k in range(3)] for n in range(2)])
    np.testing.assert_allclose(grad_cam.weights(g), wanted, rtol=1e-12)
    np.testing.assert_allclose(grad_cam.weights(torch.from_numpy(g)).numpy(), wanted, rtol=1e-12)


def test_grad_cam_plus_plus_warns_before_the_relu(opened):
    """Where A is negative the denominator can vanish."""
    net = Net(6)
    net.w2 *= 100  # sums of A of either sign, and large
    report = opened(net).explain(photo(6), "grad-cam++", layer="c2")
    assert any("denominator" in w for w in report.explanation.warnings)
    assert np.isfinite(report.attribution).all()


def test_grad_cam_before_the_relu_uses_the_values_there(opened):
    net, pixels = Net(7), photo(7)
    x = encoded(pixels)
    r1 = np.maximum(correlate(x, net.w1.astype(float), 1), 0)
    p1 = r1.reshape(4, HEIGHT // 2, 2, WIDTH // 2, 2).max(axis=(2, 4))
    c2 = correlate(p1, net.w2.astype(float), 1)
    target = int(net(x).argmax())
    g = by_differences(lambda c: net.tail(np.maximum(c, 0))[target], c2)
    found = opened(net).explain(pixels, "grad-cam", layer="c2").attribution
    close(found, literal_grad_cam(c2, g), 1e-5)


@pytest.mark.parametrize("target", range(CLASSES))
def test_cam_is_the_weighted_sum_and_accounts_for_the_logit(opened, target):
    net, pixels = Net(8), photo(8)
    A = net.layer(encoded(pixels))
    wanted = sum(net.head[target, k] * A[k] for k in range(len(A)))
    report = opened(net).explain(pixels, "cam", target=str(target))
    close(report.attribution, wanted, 1e-5)
    assert report.attribution.min() < 0 or wanted.min() >= 0  # signed
    assert report.explanation.facts["cam_residual"] < 1e-5
    logit = report.explanation.attribution.score
    assert report.attribution.mean() + net.bias[target] == pytest.approx(logit, abs=1e-4)


def test_the_residual_of_a_cam_is_said_where_it_is_more_than_rounding(opened, tmp_path):
    """Levels of 1/20 lie between the map and the score."""
    net, pixels = Net(9), photo(9)
    proto = net.proto()
    for constant in (("scale", np.float32(0.05)), ("zero", np.uint8(0))):
        proto.graph.initializer.append(numpy_helper.from_array(constant[1], constant[0]))
    head = proto.graph.node[-1]
    levels = [
        node("QuantizeLinear", "f scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "d"),
    ]
    proto.graph.node.extend([*levels, node("Gemm", "d head bias", "logits", transB=1)])
    proto.graph.node.remove(head)
    path = tmp_path / "levels.onnx"
    onnx.save(proto, path)
    model = inspector.load(path, device="cpu", preprocess=RECIPE)
    explanation = model.explain(pixels, "cam").explanation
    pooled = net.layer(encoded(pixels)).mean(axis=(1, 2))
    exact = net.head @ pooled + net.bias
    coarse = net.head @ (np.rint(pooled / 0.05).clip(0, 255) * 0.05) + net.bias
    index = explanation.attribution.index
    residual = explanation.facts["cam_residual"]
    wanted = abs(coarse[index] - exact[index]) / np.abs(coarse).max()
    assert residual == pytest.approx(wanted, rel=1e-3)
    assert residual > 1e-3
    said = [warning for warning in explanation.warnings if f"{residual:.1e}" in warning]
    assert len(said) == 1
    assert said[0] in explanation.to_dict()["warnings"]
    explanation = opened(net).explain(pixels, "cam").explanation
    assert explanation.facts["cam_residual"] < 1e-5
    assert not explanation.warnings


@pytest.mark.parametrize("seed", range(3))
def test_cam_is_z_times_grad_cam_before_its_relu(opened, seed):
    net, pixels = Net(20 + seed), photo(seed)
    model = opened(net)
    Z = (HEIGHT // 2) * (WIDTH // 2)
    for target in range(CLASSES):
        cam = model.explain(pixels, "cam", target=str(target)).attribution
        positive = model.explain(pixels, "grad-cam", target=str(target)).attribution
        negative = model.explain(
            pixels, "grad-cam:counterfactual=yes", target=str(target)
        ).attribution
        close(Z * (positive - negative), cam, 1e-5)


def test_cam_is_refused_for_two_layers_behind_the_pooling(tmp_path):
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3)),
        "h1": rng.standard_normal((4, 5)),
        "h2": rng.standard_normal((5, CLASSES)),
    }
    nodes = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "m"),
        node("Flatten", "m", "f"),
        node("MatMul", "f h1", "g"),
        helper.make_node("Relu", ["g"], ["q"], name="the second layer"),
        node("MatMul", "q h2", "y"),
    ]
    path = tmp_path / "two.onnx"
    onnx.save(
        onnx_model(
            nodes,
            {"x": [1, 3, HEIGHT, WIDTH]},
            {"y": [1, CLASSES]},
            {k: v.astype(np.float32) for k, v in constants.items()},
            opset=17,
        ),
        path,
    )
    model = inspector.load(path, device="cpu", preprocess=RECIPE)
    with pytest.raises(MethodRefused, match="CAM is not exact") as caught:
        model.explain(photo(0), "cam")
    assert "the second layer" in str(caught.value)
    assert model.explain(photo(0), "grad-cam").attribution.shape == (HEIGHT - 2, WIDTH - 2)


def test_nothing_positive_gives_an_empty_map_that_says_so(opened):
    net, pixels = Net(9, negative=True), photo(9)
    report = opened(net).explain(pixels, ["grad-cam", "grad-cam++", "cam"])
    for explanation in report.explanations:
        assert explanation.attribution.empty
        assert explanation.to_dict()["attribution"]["empty"] is True
        assert explanation.to_dict()["peak"] is None
    for explanation in report.explanations[:2]:
        assert not explanation.attribution.values.any()
    assert any(EMPTY in warning for warning in report.explanations[0].warnings)


def test_several_photos_and_targets_in_one_call_equal_one_at_a_time(opened):
    net = Net(10, deep=True)
    model = opened(net)
    pixels = [photo(seed) for seed in range(3)]
    every = [
        "grad-cam",
        "grad-cam++",
        "gradient",
        "guided-backprop",
        "deconvnet",
        "guided-grad-cam",
        "occlusion:window=5,stride=3",
        "hires-cam",
        "layer-cam",
        "x-grad-cam",
        "eigen-cam",
        "score-cam",
        "ablation-cam",
        "recipro-cam",
        "input-x-gradient",
        "integrated-gradients:steps=3",
        "smooth-grad:samples=3",
        "rise:masks=12",
    ]
    together = model.explain(pixels, every, target="top2", layer="A")
    assert len(together.images) == 3
    for picture, report in zip(pixels, together.images, strict=True):
        order = np.argsort(-net(encoded(picture)))
        assert [p["index"] for p in report.predictions] == list(order)
        at = iter(report.explanations)
        for method in every:
            for rank in range(2):
                found = next(at)
                assert found.attribution.method == method.partition(":")[0]
                assert found.attribution.index == order[rank]
                alone = model.explain(picture, method, target=str(order[rank]), layer="A")
                peak = max(np.abs(alone.attribution).max(), 1e-6)
                np.testing.assert_allclose(
                    found.attribution.values, alone.attribution, atol=1e-5 * peak
                )


# -- input space -----------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("method", "rule"), [("guided-backprop", "guided"), ("deconvnet", "deconvnet")]
)
def test_rules_through_the_whole_network(opened, method, rule, deep):
    net, pixels = Net(12, deep=deep), photo(12)
    model = opened(net)
    for target in range(CLASSES):
        wanted = literal_signal(net, encoded(pixels), target, rule)
        explanation = model.explain(pixels, method, target=str(target)).explanation
        close(explanation.attribution.values, wanted, 1e-5)
        count = 3 if deep else 2
        assert explanation.facts["coverage"] == (
            f"{count} of {count} activations under the {rule} rule: {count} Relu; 0 unknown"
        )
        assert any("weakly" in w for w in explanation.warnings)


def test_smooth_activations_are_refused_and_labelled(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "x w", "c"),
        node("Sigmoid", "c", "s"),
        node("Mul", "c s", "a"),
        node("GlobalAveragePool", "a", "m"),
        node("Flatten", "m", "f"),
        node("MatMul", "f h", "y"),
    ]
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "h": rng.standard_normal((4, CLASSES)).astype(np.float32),
    }
    path = tmp_path / "silu.onnx"
    onnx.save(
        onnx_model(
            nodes,
            {"x": [1, 3, HEIGHT, WIDTH]},
            {"y": [1, CLASSES]},
            constants,
            opset=17,
        ),
        path,
    )
    model = inspector.load(path, device="cpu", preprocess=RECIPE)
    for method in ("guided-backprop", "deconvnet", "guided-grad-cam"):
        with pytest.raises(MethodRefused, match="Silu"):
            model.explain(photo(0), method)
        report = model.explain(photo(0), f"{method}:extension=signal-first")
        assert any("extension" in w for w in report.explanation.warnings)
    assert model.explain(photo(0), "gradient").attribution.any()


# -- occlusion -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "stride"), [(1, 1), (4, 4), (3, 2), (5, 3), (10, 1), (10, 10), (7, 7)]
)
def test_occlusion_against_brute_force(opened, window, stride):
    net, pixels = Net(14), photo(14)
    x = encoded(pixels)
    target = int(net(x).argmax())
    fill = (np.float64(MEAN) - MEAN) / STD  # the data set's mean, in pixel space: network zero
    wanted = literal_occlusion(lambda v: net(v)[target], x, fill, window, stride)
    report = opened(net).explain(pixels, f"occlusion:window={window},stride={stride}")
    assert report.attribution.shape == (1, HEIGHT, WIDTH)
    close(report.attribution[0], wanted, 1e-4)
    facts = report.explanation.facts["occlusion"]
    assert (facts["window"], facts["stride"], facts["measure"]) == (window, stride, "score")


@pytest.mark.parametrize(("fill", "level"), [("grey", 127.5), ("0", 0), ("255", 255)])
def test_the_occluder_is_a_pixel_value(opened, fill, level):
    net, pixels = Net(15), photo(15)
    x = encoded(pixels)
    target = int(net(x).argmax())
    colour = (level / 255 - np.float64(MEAN)) / STD
    wanted = literal_occlusion(lambda v: net(v)[target], x, colour, 4, 2)
    report = opened(net).explain(pixels, f"occlusion:window=4,stride=2,fill={fill}")
    close(report.attribution[0], wanted, 1e-4)
    np.testing.assert_allclose(report.explanation.facts["occlusion"]["fill"], colour, rtol=1e-5)


def test_occlusion_of_a_probability(opened):
    net, pixels = Net(16, softmax=True), photo(16)
    x = encoded(pixels)
    target = int(net(x).argmax())

    def probability(v):
        z = net(v)
        return (np.exp(z - z.max()) / np.exp(z - z.max()).sum())[target]

    model = opened(net)
    fill = np.zeros(3)
    report = model.explain(pixels, "occlusion:window=4,stride=3")
    close(report.attribution[0], literal_occlusion(probability, x, fill, 4, 3), 1e-4)
    assert report.explanation.facts["occlusion"]["measure"] == "probability"
    report = model.explain(pixels, "occlusion:window=4,stride=3,measure=score")
    wanted = literal_occlusion(lambda v: net(v)[target], x, fill, 4, 3)
    close(report.attribution[0], wanted, 1e-4)


@pytest.mark.parametrize(
    ("height", "width", "window", "stride"),
    [(12, 10, 4, 4), (224, 224, 32, 16), (7, 9, 3, 2), (5, 5, 5, 5), (6, 11, 4, 3), (9, 9, 2, 1)],
)
def test_windows_cover_every_pixel_and_mirror(height, width, window, stride):
    boxes = list(windows(height, width, window, stride))
    count = np.zeros((height, width), int)
    for y0, x0, y1, x1 in boxes:
        assert 0 <= y0 < y1 <= height
        assert 0 <= x0 < x1 <= width
        assert y1 - y0 <= window
        assert x1 - x0 <= window
        count[y0:y1, x0:x1] += 1
    assert count.min() >= 1
    assert len(set(boxes)) == len(boxes)


@pytest.mark.parametrize(
    "options",
    [
        "window=0,stride=11",
        "window=13",
        "window=-1",
        "stride=6,window=5",
        "fill=blue",
        "fill=300",
        "measure=luck",
        "window=4,measure=probability",
    ],
)
def test_occlusion_options_out_of_range_are_refused(opened, options):
    with pytest.raises(UsageError):
        opened(Net(17)).explain(photo(17), f"occlusion:{options}")


# -- what a gradient cannot do, or should not be trusted with --------------------------------------


def test_a_gradient_that_stops_on_the_way_is_refused_and_occlusion_works(tmp_path):
    """Through integers nothing can be differentiated: no silent map of zeros."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "x w", "c"),
        node("Cast", "c", "whole", to=TensorProto.INT32),
        node("Cast", "whole", "back", to=TensorProto.FLOAT),
        node("GlobalAveragePool", "back", "m"),
        node("Flatten", "m", "y"),
    ]
    path = tmp_path / "whole.onnx"
    onnx.save(
        onnx_model(
            nodes,
            {"x": [1, 3, HEIGHT, WIDTH]},
            {"y": [1, 4]},
            {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32) * 9},
            opset=17,
        ),
        path,
    )
    model = inspector.load(path, device="cpu", preprocess=RECIPE)
    for method in ("gradient", "guided-backprop"):
        with pytest.raises(MethodRefused, match="gradient stops"):
            model.explain(photo(0), method)
    with pytest.raises(MethodRefused, match="gradient stops"):
        model.explain(photo(0), "grad-cam", layer="c")
    assert model.explain(photo(0), "occlusion:window=4,stride=4").attribution.any()


def test_a_twin_that_computes_something_else_is_found_out(opened):
    """Every gradient run compares the twin's score with that of ONNX Runtime."""
    from converters.graph import Graph

    net = Net(18)
    for method in ("gradient", "grad-cam"):
        model = opened(net)
        model.model.engine = "twin"
        report = model.explain(photo(18), method)
        assert report.explanation.facts["twin_difference"] < 1e-5
        assert not any("another network" in w for w in report.explanation.warnings)
        net_ = Net(18)
        net_.head = net.head + np.float32(0.1)
        model = opened(net)
        model.model.engine, model.model.twin_engine = "twin", TwinEngine(Graph(net_.proto()))
        with pytest.raises(MethodRefused, match="the twin fails"):
            model.explain(photo(18), method)
        model.unverified = True
        report = model.explain(photo(18), method)
        assert report.explanation.facts["twin_difference"] > 1e-3
        assert any("another network" in w for w in report.explanation.warnings)


def test_a_target_before_the_layer_is_refused(opened):
    with pytest.raises(MethodRefused, match="does not depend on the layer"):
        opened(Net(19)).explain(photo(19), "grad-cam", layer="A", target="r1[0,3,3]")


def test_one_unit_of_an_inner_tensor_as_the_target(opened):
    """The gradient of one unit reaches its receptive field and nothing else."""
    net, pixels = Net(21), photo(21)
    x = encoded(pixels)
    c1 = correlate(x, net.w1.astype(np.float64), 1)
    wanted = by_differences(lambda v: correlate(v, net.w1.astype(np.float64), 1)[2, 5, 4], x)
    report = opened(net).explain(pixels, "gradient", target="c1[2,5,4]")
    close(report.attribution, wanted, 1e-5)
    assert report.explanation.attribution.score == pytest.approx(c1[2, 5, 4], rel=1e-4)
    outside = report.attribution.copy()
    outside[:, 4:7, 3:6] = 0
    assert not outside.any()
