"""TFLite files and SavedModels as TensorFlow writes them, and what their metadata says."""

import importlib.util

import pytest
from frameworks_apart import run_script

import inspector
from converters import conversion
from converters.conversion import convert
from converters.to_onnx.tflite.metadata import metadata_of, preprocess_of_span
from converters.to_onnx.tflite.model import read_model

MISSING = [
    name for name in ("tensorflow", "tf2onnx", "tflite") if importlib.util.find_spec(name) is None
]
pytestmark = [
    pytest.mark.converters,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """All files, built by TensorFlow in a process of its own."""
    folder = tmp_path_factory.mktemp("tflite")
    run_script("tflite_networks.py", folder)
    return folder


@pytest.mark.parametrize("name", ["pool_dense", "pool_dense_int8", "upsampled", "softmax"])
def test_every_input_of_an_operator_is_kept(networks, tmp_path, name):
    """The bias behind a pool, that of a transposed convolution, the beta of a softmax."""
    record = convert(str(networks / f"{name}.tflite"), tmp_path / "m.onnx")
    assert record.worst <= (0.01 if "int8" in name else 1e-5)
    assert record.offset == 0
    assert (record.spread is None) == ("int8" not in name)  # the kernels are compared too


@pytest.mark.parametrize("kind", ["photo-like", "random"])
def test_kernels_are_compared_on_more_inputs_of_a_kind_where_the_file_differs(
    networks, tmp_path, monkeypatch, kind
):
    """By how much they part is the limit then, which a few inputs would leave to chance."""
    source = str(networks / "pool_dense_int8.tflite")
    few = convert(source, tmp_path / "few.onnx")
    monkeypatch.setattr(conversion, "_differing", lambda *_: frozenset({kind}))
    many = convert(source, tmp_path / "many.onnx")
    assert sum(one.kind == kind for one in many.kernels) >= 12
    assert len(many.kernels) == len(few.kernels) + 12
    assert many.spread >= few.spread
    assert many.trials == few.trials


def test_class_numbers_of_a_quantised_segmenter(networks, tmp_path):
    record = convert(str(networks / "classes_uint8.tflite"), tmp_path / "m.onnx")
    assert 0.9 <= record.equal <= 1.0
    assert "integers equal" in str(record)


@pytest.mark.parametrize(("name", "node"), [("points", "Squeeze"), ("boxes", "Slice")])
def test_a_batch_that_the_network_leaves_stays_one(networks, tmp_path, name, node):
    """Writing "copy" into every Reshape that begins with 1 broke these networks."""
    record = convert(str(networks / f"{name}.tflite"), tmp_path / "m.onnx")
    assert record.worst <= 1e-5
    assert any("batch stays 1" in note and node in note for note in record.notes)
    assert {trial.samples for trial in record.trials} == {1}
    assert len(record.trials) > 3  # no verdict by one sample


def test_shapes_that_the_file_computes_are_those_of_its_own_input(networks, tmp_path):
    """It says (1, 1) of what becomes (tokens, width)."""
    record = convert(str(networks / "tokens.tflite"), tmp_path / "m.onnx")
    assert record.worst <= 1e-5


def test_a_batch_that_is_proved_is_free(networks, tmp_path):
    record = convert(str(networks / "joined.tflite"), tmp_path / "m.onnx")
    assert record.worst <= 1e-5
    assert {trial.samples for trial in record.trials} == {1, 3, 4}


def test_constants_that_a_saved_model_captures_are_its_weights(networks, tmp_path):
    record = convert(str(networks / "captured"), tmp_path / "m.onnx", trust=True)
    assert record.worst <= 1e-5
    assert {trial.samples for trial in record.trials} == {1, 3, 4}


def test_names_and_normalisation_of_tflite_metadata(networks, tmp_path):
    record = convert(str(networks / "described.tflite"), tmp_path / "m.onnx")
    assert record.labels == 4
    assert record.preprocess["mean"] == [127.5] * 3
    assert record.preprocess["std"] == [63.75] * 3
    model = inspector.load(tmp_path / "m.onnx")
    assert model.class_labels.names == ("cat", "dog", "fox", "owl")
    assert not model.preprocessing.guessed


def test_a_usual_span_of_a_quantised_input_is_its_preprocessing():
    for span, low, high in (
        ((0.0, 0.9999), 0.0, 1.0),
        ((-1.0, 0.9922), -1.0, 1.0),
        ((0.0, 255.0), 0.0, 255.0),
    ):
        found = preprocess_of_span(span, 3)
        ends = [(pixel / found["scale"] - found["mean"][0]) / found["std"][0] for pixel in (0, 255)]
        assert ends == pytest.approx([low, high])
    assert preprocess_of_span((-4.6, 4.7), 3) == {}  # of normalised pixels: says no more
    assert preprocess_of_span(None, 3) == {}


def test_broken_metadata_says_nothing(networks):
    data = bytearray((networks / "described.tflite").read_bytes())
    start = data.index(b"M001") - 4
    data[start : start + 4] = b"\xff\xff\xff\x7f"
    found = metadata_of(read_model(bytes(data)), bytes(data))
    assert (found.labels, found.mean) == ((), ())
