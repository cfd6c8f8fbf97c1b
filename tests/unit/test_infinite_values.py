"""Networks whose values leave what floats hold: every method draws, or refuses by name."""

import numpy as np
import pytest
from networks import node, onnx_model

from inspector import cli
from inspector.errors import ImageRefused, MethodRefused, NotFinite
from inspector.explain import load
from inspector.methods import methods


def overflowing(path, size):
    """conv - conv - mean - linear, whose second convolution gives ``size`` squared per weight."""
    rng = np.random.default_rng(0)
    constants = {
        "v": (rng.standard_normal((4, 3, 3, 3)) * size).astype(np.float32),
        "w": (rng.standard_normal((6, 4, 3, 3)) * size).astype(np.float32),
        "m": rng.standard_normal((6, 5)).astype(np.float32),
    }
    nodes = [
        node("Conv", "x v", "c"),
        node("Relu", "c", "r"),
        node("Conv", "r w", "d"),
        node("Relu", "d", "s"),
        node("GlobalAveragePool", "s", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f m", "y"),
    ]
    proto = onnx_model(nodes, {"x": ["n", 3, 12, 12]}, {"y": ["n", 5]}, constants)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture(scope="module", params=[1e15, 1e17])
def explainer(request, tmp_path_factory):
    path = overflowing(tmp_path_factory.mktemp("infinite") / "m.onnx", request.param)
    return load(path, preprocess="unit", device="cpu", unverified=True)


@pytest.mark.parametrize("name", sorted(methods()))
def test_a_method_draws_or_refuses(explainer, name):
    photo = np.random.default_rng(1).integers(0, 256, (12, 12, 3), np.uint8)
    try:
        found = explainer.explain(photo, name, target="1")
    except MethodRefused:
        return
    heatmap = found.explanation.heatmap
    assert np.isfinite(heatmap.values[heatmap.seen]).all()


@pytest.mark.parametrize("engine", ["twin", "onnx"])
@pytest.mark.parametrize("name", ["grad-cam", "hires-cam", "layer-cam", "gradient"])
def test_a_gradient_that_is_no_number_is_not_an_empty_map(tmp_path, name, engine):
    rng = np.random.default_rng(0)
    constants = {
        "v": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "m": rng.standard_normal((4, 5)).astype(np.float32),
        "nought": np.float32(0),
    }
    nodes = [
        node("Conv", "x v", "c"),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f m", "u"),
        node("Mul", "u nought", "z"),
        node("Sqrt", "z", "q"),  # its slope at 0 is infinite, times 0 no number
        node("Add", "u q", "y"),
    ]
    path = tmp_path / "m.onnx"
    proto = onnx_model(nodes, {"x": ["n", 3, 12, 12]}, {"y": ["n", 5]}, constants)
    path.write_bytes(proto.SerializeToString())
    opened = load(path, preprocess="unit", device="cpu", unverified=True, engine=engine)
    photo = rng.integers(0, 256, (12, 12, 3), np.uint8)
    with pytest.raises(ImageRefused, match="not finite"):
        opened.explain(photo, name, target="1")


def test_arithmetic_that_fails_is_a_refusal():
    def fails(_):
        np.linalg.eigh(np.full((3, 3), np.nan))

    method = next(iter(methods().values()))
    with pytest.raises(NotFinite, match="Eigenvalues"):
        type(method)(**{**vars(method), "function": fails})(None)


def test_check_says_what_the_values_do(tmp_path, capsys):
    path = overflowing(tmp_path / "m.onnx", 1e25)
    assert cli.run(["check", str(path), "--preprocess", "unit"]) in (0, 3)
    shown = capsys.readouterr()
    assert "internal error" not in shown.out + shown.err
