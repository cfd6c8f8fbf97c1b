"""JAX and Flax to ONNX, for real, in the environment that ``make converters-apart`` makes."""

import json
import re
from pathlib import Path

import onnx
import pytest
from trained_resnet20 import SAMPLES, SETTINGS, assert_same_pictures

import inspector
from converters.conversion import convert, recognise
from converters.errors import ConversionFailed, NotTrusted
from converters.source import Options

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-jax" / "bin" / "python"
IMAGES = Options(inputs=((None, 16, 16, 3),))

apart = [
    pytest.mark.apart,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-jax: make converters-apart"),
]


@pytest.fixture(autouse=True)
def folder_of_networks(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setenv("SAMPLE_MODELS", str(SAMPLES))
    monkeypatch.setenv("INSPECTOR_SANDBOX", "off")  # the sample models lie elsewhere


def converted(name, output, options=IMAGES, **settings):
    return convert(
        f"jax_networks:{name}",
        output / f"{name}.onnx",
        options=options,
        trust=True,
        python=str(PYTHON),
        **settings,
    )


def test_a_function_of_jax_is_recognised_and_is_a_program(tmp_path):
    found = recognise("jax_networks:small")
    assert found is not None
    assert (found.framework, found.title) == ("jax", "JAX / Flax")
    assert "runs" in found.program
    with pytest.raises(NotTrusted, match="--trust"):
        convert("jax_networks:small", tmp_path / "m.onnx", options=IMAGES)
    torch = recognise("torch_networks:small")
    assert torch is not None
    assert torch.framework == "pytorch"


def test_where_jax_is_not_installed_its_own_environment_is_described(tmp_path):
    with pytest.raises(ConversionFailed, match="not installed") as raised:
        convert("jax_networks:small", tmp_path / "m.onnx", options=IMAGES, trust=True)
    assert "python -m venv" in raised.value.hint
    assert "pip install flax jax jax2onnx" in raised.value.hint
    assert "--python" in raised.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["small", "attention", "with_variables", "plain"])
class TestSmallNetworks:
    pytestmark = apart

    def test_the_file_computes_what_the_source_does(self, name, tmp_path):
        certificate = converted(name, tmp_path)
        assert certificate.worst <= 1e-5
        assert {trial.samples for trial in certificate.trials} == {1, 3, 4}  # the batch is free
        assert {"jax", "flax", "jax2onnx"} <= set(certificate.versions)
        assert certificate.notes == ()


class TestJax:
    pytestmark = apart

    def test_a_trained_network_gives_the_picture_that_pytorch_gives(self, tmp_path):
        options = Options(inputs=((None, 32, 32, 3),))
        certificate = converted("resnet20", tmp_path, options, preprocess=SETTINGS)
        assert certificate.worst <= 1e-4
        assert certificate.top1 == 1.0
        assert_same_pictures(certificate.path, "NHWC")

    def test_outputs_keep_the_names_of_a_dictionary(self, tmp_path):
        file = inspector.load(converted("plain", tmp_path).path).file
        assert [value.name for value in file.model.graph.output] == ["maps", "scores"]

    def test_a_function_may_take_several_arrays_and_one_free_batch(self, tmp_path):
        options = Options(inputs=((None, 8), (4, 8)))
        certificate = converted("pair", tmp_path, options)
        assert [trial.samples for trial in certificate.trials] == [1, 3]
        shapes = onnx.load(certificate.path).graph.input  # noqa: TID251 - written by the test
        assert [v.type.tensor_type.shape.dim[0].dim_value for v in shapes] == [0, 4]

    def test_a_batch_can_be_fixed(self, tmp_path):
        certificate = converted("small", tmp_path, Options(IMAGES.inputs, dynamic_batch=False))
        assert {trial.samples for trial in certificate.trials} == {1}
        beside = tmp_path / "small.onnx.certificate.json"
        assert json.loads(beside.read_text())["source"]["framework"] == "JAX / Flax"

    @pytest.mark.parametrize(
        ("name", "options", "said"),
        [
            ("small", Options(), "--input '\\?,224,224,3'"),
            ("small", Options(((None, 3, 16, 16),)), "does not take 1x3x16x16 .*NHWC"),
            ("small", Options(IMAGES.inputs, weights="w.msgpack"), "leave --weights out"),
            ("pair", IMAGES, "takes 2 arguments, and --input gives 1 shape"),
            ("positional", IMAGES, "window_shape=..., strides=..."),
            ("failing", IMAGES, "ValueError: no weights here"),
            ("number", IMAGES, "makes a int, not a model"),
            ("absent", IMAGES, "has no 'absent'"),
        ],
    )
    def test_what_does_not_fit_is_named(self, name, options, said, tmp_path):
        with pytest.raises(ConversionFailed) as raised:
            converted(name, tmp_path, options)
        assert re.search(said, f"{raised.value.what} {raised.value.hint}")
        assert not list(tmp_path.iterdir())
