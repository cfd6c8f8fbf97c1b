"""Which pixels a model expects that normalises by itself: its numbers tell."""

import numpy as np
import onnx
import pytest
from field_checks import open_case

from converters.graph import Graph
from inspector.network.inputs.own_normalisation import expected_range

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)

BODIES = {
    "nothing": ("t = Identity(x)", {}, None),
    "a network without": ("t = Relu(x)", {}, None),
    "mean and deviation of 0..1": ("u = Sub(x, a) t = Div(u, b)", {"a": MEAN, "b": STD}, "unit"),
    "mean and deviation of 0..255": (
        "u = Sub(x, a) t = Div(u, b)",
        {"a": 255 * MEAN, "b": 255 * STD},
        "raw",
    ),
    "a mean alone": ("t = Sub(x, a)", {"a": 255 * MEAN}, "raw"),
    "a mean of 0..1 alone": ("t = Sub(x, a)", {"a": MEAN}, "unit"),
    "divided by 255": ("t = Div(x, a)", {"a": np.float32(255)}, "raw"),
    "divided, then the mean": (
        "u = Div(x, c) v = Sub(u, a) t = Div(v, b)",
        {"a": MEAN, "b": STD, "c": np.float32(255)},
        "raw",
    ),
    "to -1..1 from 0..255": (
        "u = Mul(x, a) t = Add(u, b)",
        {"a": np.float32(1 / 127.5), "b": np.float32(-1)},
        "raw",
    ),
    "to -1..1 from 0..1": (
        "u = Mul(x, a) t = Sub(u, b)",
        {"a": np.float32(2), "b": np.float32(1)},
        "unit",
    ),
    "back to 0..255 first": (
        "u = Mul(x, a) t = Sub(u, b)",
        {"a": np.float32(255), "b": 255 * MEAN},
        "unit",
    ),
    "behind a transpose and a cast": (
        "u = Transpose<perm=[0,1,3,2]>(x) v = Cast<to=1>(u) t = Div(v, a)",
        {"a": np.float32(255)},
        "raw",
    ),
    "a negative": ("t = Sub(a, x)", {"a": np.float32(1)}, "unit"),
    "a factor that says nothing": ("t = Mul(x, a)", {"a": np.float32(1e-5)}, None),
}


def network(body, constants):
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"g (float[1,3,32,32] x) => (float[1,2] y) {{ {body} "
        "c1 = Conv(t, w) r = Relu(c1) p = GlobalAveragePool(r) y = Flatten(p) }"
    )
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
    for name, value in {"w": weight, **constants}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


@pytest.mark.parametrize("kind", BODIES)
def test_the_numbers_of_a_models_own_normalisation_tell_its_pixels(kind):
    body, constants, preset = BODIES[kind]
    found = expected_range(Graph(network(body, constants)), "x")
    assert (None if found is None else found[0]) == preset


@pytest.mark.parametrize(("spread", "preset"), [(60.0, "raw"), (0.25, "unit")])
def test_a_first_batch_normalisation_tells_by_its_statistics(spread, preset):
    mean = {"raw": 120.0, "unit": 0.45}[preset]
    constants = {
        "s": np.ones(3, np.float32),
        "b": np.zeros(3, np.float32),
        "m": np.full(3, mean, np.float32),
        "v": np.full(3, spread**2, np.float32),
    }
    model = network("t = BatchNormalization(x, s, b, m, v)", constants)
    assert expected_range(Graph(model), "x") == (preset, "BatchNormalization")


@pytest.mark.parametrize(("factor", "scale"), [(1, 255.0), (255, 1.0)])
def test_the_guess_follows_it_and_says_so(tmp_path, factor, scale):
    constants = {"a": factor * MEAN, "b": factor * STD}
    model = network("u = Sub(x, a) t = Div(u, b)", constants)
    explainer = open_case(tmp_path, model, preprocess=None)
    recipe = explainer.preprocessing.preprocess
    assert (recipe.scale, set(recipe.mean), set(recipe.std)) == (scale, {0.0}, {1.0})
    assert any("normalises pixels of 0" in text for text in explainer.preprocessing.warnings)
