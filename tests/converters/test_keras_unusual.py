"""Keras models with something unusual, held against what Keras computed before it saved them."""

import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
from frameworks_apart import run_script

from converters.conversion import convert
from converters.errors import ConversionFailed
from converters.source import Options

MISSING = [name for name in ("tensorflow", "tf2onnx") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.converters,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Files of Keras 3, written in a process of its own."""
    folder = tmp_path_factory.mktemp("unusual")
    run_script("keras_unusual.py", folder)
    return folder


@pytest.mark.parametrize(
    ("name", "difference", "note"),
    [
        ("mixed_float16", 2e-3, "compute in mixed_float16: in float32 here"),
        ("mixed_bfloat16", 2e-2, "compute in mixed_bfloat16: in float32 here"),
        ("float64", 1e-6, "compute in float64: in float32 here"),
        ("augmented", 1e-6, ""),  # whose statistics stay what they were
        ("in_a_list", 1e-6, ""),
        ("under_names", 1e-6, ""),
        ("greatest", 0.0, ""),
        ("one_sample", 1e-6, "the batch stays 1"),
    ],
)
def test_the_file_computes_what_keras_did(models, tmp_path, name, difference, note):
    record = convert(str(models / f"{name}.keras"), tmp_path / "m.onnx")
    assert record.worst <= 1e-5
    assert note in " ".join(record.notes)
    assert bool(record.notes) is bool(note)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    with np.load(models / f"{name}.npz") as known:
        arrays = sorted((known[key] for key in known if key != "result"), key=lambda a: a.ndim)
        inputs = sorted(session.get_inputs(), key=lambda value: len(value.shape))
        found = session.run(None, {i.name: a for i, a in zip(inputs, arrays, strict=True)})[0]
        result = known["result"]
    assert found.shape == result.shape
    assert np.abs(found - result).max() <= difference * np.abs(result).max()


def test_channels_come_first_without_a_gpu(models, tmp_path):
    """TensorFlow computes them by XLA there; their pixels are planes."""
    record = convert(str(models / "channels_first.keras"), tmp_path / "m.onnx")
    assert record.worst <= 1e-5
    assert (record.preprocess["size"], record.preprocess["layout"]) == ([16, 16], "NCHW")
    (value,) = onnx.load(tmp_path / "m.onnx").graph.input  # noqa: TID251 - this test made the file
    assert [axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]] == [3, 16, 16]


def test_sizes_that_have_to_be_known_are_asked_for(models, tmp_path):
    source = str(models / "sizes_left_open.keras")
    with pytest.raises(ConversionFailed, match="symbolic") as refused:
        convert(source, tmp_path / "m.onnx")
    assert "--input '?,224,224,3'" in refused.value.hint
    options = Options(inputs=((None, 32, 32, 3),))
    assert convert(source, tmp_path / "m.onnx", options=options).worst <= 1e-5


def test_a_network_of_words_is_refused(models, tmp_path):
    with pytest.raises(ConversionFailed, match="takes texts"):
        convert(str(models / "text.keras"), tmp_path / "m.onnx")
