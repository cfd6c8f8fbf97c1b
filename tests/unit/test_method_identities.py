"""Identities between methods that hold by algebra, and what the perturbing ones do on odd files."""

import numpy as np
import onnx
import pytest
from networks import CLASSES, HEIGHT, WIDTH, Net, node, onnx_model
from oracles import convolutional

import inspector
from inspector.errors import UsageError
from inspector.methods import eigen_cam, x_grad_cam
from inspector.photos.preprocess_choice import Preprocess

RECIPE = Preprocess(size=(HEIGHT, WIDTH), scale=255.0, mean=(0.5,) * 3, std=(0.25,) * 3)
Z = (HEIGHT // 2) * (WIDTH // 2)


def photo(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def opened(tmp_path):
    def open_(proto):
        path = tmp_path / f"net{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(proto, path)
        return inspector.load(path, device="cpu", preprocess=RECIPE)

    return open_


def maps(model, pixels, *names, **asked):
    report = model.explain(pixels, list(names), **asked)
    return [found.attribution.values.astype(float) for found in report.explanations]


def near(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_behind_a_mean_and_a_linear_layer_the_family_is_one(opened):
    """HiResCAM is Grad-CAM, and what one place adds to an empty layer is CAM / Z."""
    model = opened(Net(3).proto())
    for target in map(str, range(CLASSES)):
        cam, grad, hires, recipro = maps(
            model,
            photo(3),
            "cam",
            "grad-cam",
            "hires-cam",
            "recipro-cam:window=no",
            target=target,
        )
        near(hires, grad)
        near(recipro, cam / Z)
        near(np.maximum(cam, 0) / Z, grad)


def test_the_score_drops_by_the_channel_s_part_of_it(opened):
    net = Net(4)
    model = opened(net.proto())
    (found,) = maps(model, photo(4), "ablation-cam", target="1", layer="A")
    x = (photo(4).transpose(2, 0, 1) / 255 - 0.5) / 0.25
    activation = net.layer(x)
    weights = net.head[1] * activation.mean(axis=(1, 2)) / abs(net(x)[1])
    near(found, np.maximum(np.tensordot(weights, activation, 1), 0))


def test_values_of_integrated_gradients_add_up_to_the_difference(opened):
    net = Net(5, deep=True)
    report = opened(net.proto()).explain(photo(5), "integrated-gradients:steps=200,baseline=grey")
    found = report.explanation
    x = (photo(5).transpose(2, 0, 1) / 255 - 0.5) / 0.25
    gained = (net(x) - net(np.zeros_like(x)))[found.attribution.index]
    assert found.attribution.values.sum() == pytest.approx(gained, rel=0.01)
    assert found.facts["completeness_residual"] < 0.01
    few = opened(net.proto()).explain(photo(5), "integrated-gradients:steps=1").explanation
    if few.facts["completeness_residual"] > 0.05:
        assert any("more steps" in text for text in few.warnings)


@pytest.mark.parametrize("shape", [(4, 3, 5), (20, 3, 2)])
def test_the_principal_map_is_that_of_a_singular_value_decomposition(shape):
    rng = np.random.default_rng(0)
    activation = rng.standard_normal(shape)
    rows = activation.reshape(shape[0], -1).T
    _, _, right = np.linalg.svd(rows, full_matrices=False)
    wanted = (rows @ right[0]).reshape(shape[1:])
    wanted = -wanted if wanted.sum() < 0 else wanted
    np.testing.assert_allclose(eigen_cam.principal_map(activation), wanted, atol=1e-9)


def test_a_map_whose_values_cancel_makes_its_weight_unreliable(opened):
    activation = np.array([[[[1.0, -1.0], [2.0, -2.0]]]])
    assert x_grad_cam.unsafe(activation)
    assert x_grad_cam.weights(activation, np.ones_like(activation)) == 0
    assert not x_grad_cam.unsafe(np.abs(activation))
    report = opened(Net(6).proto()).explain(photo(6), "x-grad-cam", layer="c2")
    assert np.isfinite(report.attribution).all()


def test_a_method_that_is_not_class_specific_says_so(opened):
    model = opened(Net(7).proto())
    for name, method in convolutional().items():
        quick = f"{name}:{method.quick.format(half=4)}"
        report = model.explain(photo(7), quick, layer="A", target="0")
        said = any("not class-specific" in text for text in report.explanation.warnings)
        assert said != method.class_specific, name


def skipping(fixed):
    """A layer that a skip connection passes by; the skip carries the sizes of the batch along."""
    rng = np.random.default_rng(1)
    constants = {
        "w1": rng.standard_normal((4, 3, 3, 3)),
        "w2": rng.standard_normal((4, 4, 3, 3)) / 3,
        "h": rng.standard_normal((4, CLASSES)),
    }
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1]),
        node("Relu", "c2", "r2"),
        node("Shape", "r1", "size"),
        node("Reshape", "r2 size", "same"),
        node("Add", "same r1", "sum"),
        node("GlobalAveragePool", "sum", "m"),
        node("Flatten", "m", "f"),
        node("MatMul", "f h", "logits"),
    ]
    batch = 1 if fixed else "n"
    return onnx_model(
        nodes,
        {"x": [batch, 3, HEIGHT, WIDTH]},
        {"logits": [batch, CLASSES]},
        {name: value.astype(np.float32) for name, value in constants.items()},
        opset=17,
    )


@pytest.mark.parametrize("fixed", [False, True])
def test_the_tail_runs_beside_a_skip_connection_whatever_the_batch(opened, fixed):
    """Drops of the score, by the whole network run once more in ONNX Runtime per channel."""
    model = opened(skipping(fixed))
    (found,) = maps(model, photo(8), "ablation-cam", layer="r2", target="2")
    x = ((photo(8).transpose(2, 0, 1) / 255 - 0.5) / 0.25).astype(np.float32)[None]
    whole = {n: model.forward(x, [n])[n][0].astype(float) for n in ("r1", "r2", "logits")}
    head = np.random.default_rng(1)
    head.standard_normal((4, 3, 3, 3)), head.standard_normal((4, 4, 3, 3))
    h = head.standard_normal((4, CLASSES))[:, 2]
    total = np.zeros((HEIGHT, WIDTH))
    for k in range(4):
        without = whole["r2"].copy()
        without[k] = 0
        score = h @ (without + whole["r1"]).mean(axis=(1, 2))
        total += (whole["logits"][2] - score) / abs(whole["logits"][2]) * whole["r2"][k]
    near(found, np.maximum(total, 0))


def test_a_planted_square_is_found_by_every_method(opened):
    """Class 0 is the redness, and the photo has one red square."""
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "A"),
        node("GlobalAveragePool", "A", "m"),
        node("Flatten", "m", "f"),
        node("MatMul", "f h", "logits"),
    ]
    w = np.zeros((2, 3, 3, 3), np.float32)
    w[0, 0], w[0, 1], w[0, 2] = 1 / 9, -1 / 18, -1 / 18
    w[1] = -w[0]
    model = opened(
        onnx_model(
            nodes,
            {"x": ["n", 3, HEIGHT, WIDTH]},
            {"logits": ["n", 2]},
            {"w": w, "h": np.eye(2, dtype=np.float32)},
            opset=17,
        )
    )
    pixels = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    pixels[2:6, 3:8] = (255, 40, 40)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[1:7, 2:9] = True
    for name, method in convolutional().items():
        if method.rule == "deconvnet":  # without pooling it does not depend on the image at all
            continue
        quick = {
            "occlusion": "occlusion:window=4,stride=2",
            "rise": "rise:masks=300",
            "smooth-grad": "smooth-grad:noise=0.02",
        }.get(name, name)
        found = model.explain(pixels, quick, target="0").explanation.heatmap.values
        peak = np.unravel_index(np.nanargmax(found), found.shape)
        assert inside[peak], name


@pytest.mark.parametrize(
    "request_",
    [
        "score-cam:channels=-1",
        "ablation-cam:channels=-2",
        "integrated-gradients:steps=0",
        "integrated-gradients:baseline=blue",
        "smooth-grad:samples=0",
        "smooth-grad:noise=-1",
        "smooth-grad:noise=nan",
        "smooth-grad:seed=-1",
        "rise:masks=1",
        "rise:cells=0",
        "rise:cells=11",
        "rise:keep=1.0",
        "rise:seed=-1",
    ],
)
def test_options_out_of_range_are_refused(opened, request_):
    with pytest.raises(UsageError):
        opened(Net(9).proto()).explain(photo(9), request_)
