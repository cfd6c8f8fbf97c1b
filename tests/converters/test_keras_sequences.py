"""Keras models as people write them: `Sequential`, nested, augmented, and files of Keras 2."""

import importlib.util

import onnx
import pytest
from frameworks_apart import run_script

import inspector
from converters.conversion import convert

MISSING = [name for name in ("tensorflow", "tf2onnx") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.converters,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def built(folder, *arguments):
    """Let Keras write its files in a process of its own."""
    run_script("keras_sequences.py", folder, *arguments)
    return folder


@pytest.fixture(scope="session")
def sequences(tmp_path_factory):
    """Files of Keras 3."""
    return built(tmp_path_factory.mktemp("sequences"))


@pytest.mark.parametrize(
    "name", ["input_layer.keras", "input_layer.h5", "built.keras", "nested_augmented.keras"]
)
def test_a_sequence_of_layers_converts(sequences, tmp_path, name):
    record = convert(str(sequences / name), tmp_path / "m.onnx")
    assert record.worst <= 1e-5
    assert {trial.samples for trial in record.trials} == {1, 3, 4}  # the batch is free
    model = inspector.load(tmp_path / "m.onnx")
    assert model.input.layout == "NHWC"
    if "augmented" in name:  # it rescales pixels itself, and its augmentation is gone
        assert model.preprocessing.preprocess.scale == 1.0
        assert model.preprocessing.preprocess.channels == "GRAY"


def test_outputs_in_a_dictionary_are_told_apart(sequences, tmp_path):
    """Keras returns them by name, in whatever order their author wrote; ONNX in one order."""
    record = convert(str(sequences / "named_outputs.keras"), tmp_path / "m.onnx")
    assert record.worst <= 1e-5
    model = onnx.load(tmp_path / "m.onnx")  # noqa: TID251 - this test made the file
    shapes = [
        tuple(axis.dim_value for axis in entry.type.tensor_type.shape.dim[1:])
        for entry in model.graph.output
    ]
    assert sorted(shapes) == [(1,), (4,), (26, 26, 2)]


@pytest.mark.skipif(importlib.util.find_spec("tf_keras") is None, reason="tf-keras is missing")
def test_a_file_of_keras_2_is_loaded_by_tf_keras(tmp_path, monkeypatch):
    """As Teachable Machine writes it, with numbered names beside it."""
    monkeypatch.setenv("INSPECTOR_CACHE", str(tmp_path / "cache"))
    source = built(tmp_path, "tf_keras") / "keras_model.h5"
    record = convert(str(source), tmp_path / "m.onnx")
    assert record.worst <= 1e-5
    assert "tf_keras" in record.versions
    assert (record.preprocess["scale"], record.preprocess["crop_pct"]) == (127.5, 1.0)
    (tmp_path / "labels.txt").write_text("0 cat\n1 dog\n2 fox\n")
    model = inspector.load(source)
    assert model.class_labels.names == ("cat", "dog", "fox")
    assert model.class_labels.source == "labels.txt beside the model"
    assert model.preprocessing.preprocess.mean == (1.0,)
