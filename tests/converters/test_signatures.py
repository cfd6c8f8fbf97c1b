"""Sources of several functions: which one is read, and how another is chosen."""

import importlib.util

import pytest
from frameworks_apart import run_script

import inspector
from converters.conversion import convert
from converters.errors import ConversionFailed
from converters.source import Options

MISSING = [
    name for name in ("tensorflow", "tf2onnx", "tflite") if importlib.util.find_spec(name) is None
]
pytestmark = [
    pytest.mark.converters,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """Files of two functions, built by TensorFlow in a process of its own."""
    folder = tmp_path_factory.mktemp("signatures")
    run_script("signature_networks.py", folder)
    return folder


@pytest.mark.parametrize(
    ("name", "wanted", "side", "read"),
    [
        ("two.tflite", "", 32, "classify"),
        ("two.tflite", "embed", 16, "embed"),
        ("two", "embed", 16, "embed"),
    ],
)
def test_the_function_that_is_read_is_said_and_chosen(networks, tmp_path, name, wanted, side, read):
    record = convert(
        str(networks / name), tmp_path / "m.onnx", trust=True, options=Options(signature=wanted)
    )
    assert record.worst <= 1e-5
    assert record.notes[0].startswith(f"its signature '{read}' is read; --signature chooses")
    model = inspector.load(tmp_path / "m.onnx", preprocess="unit")
    assert model.preprocessing.preprocess.size == (side, side)


def test_a_function_that_is_not_there_is_refused_with_those_that_are(networks, tmp_path):
    with pytest.raises(ConversionFailed, match=r"has no signature 'train'; .*classify.*embed"):
        convert(
            str(networks / "two.tflite"), tmp_path / "m.onnx", options=Options(signature="train")
        )


def test_several_functions_of_which_none_serves_are_listed(networks, tmp_path):
    with pytest.raises(ConversionFailed, match=r"such as --signature classify"):
        convert(str(networks / "two"), tmp_path / "m.onnx", trust=True)


def test_a_function_that_takes_files_of_pictures_names_one_that_takes_pixels(networks, tmp_path):
    with pytest.raises(ConversionFailed, match=r"takes texts \('files'\)") as refused:
        convert(str(networks / "others"), tmp_path / "m.onnx", trust=True)
    assert "--signature augmented" in refused.value.hint


def test_a_shape_that_is_not_said_is_asked_for_and_texts_are_left_out(networks, tmp_path):
    source = str(networks / "others")
    options = Options(signature="pixels")
    with pytest.raises(ConversionFailed, match="no shape of its input 'image'") as refused:
        convert(source, tmp_path / "m.onnx", trust=True, options=options)
    assert "--input '?,224,224,3'" in refused.value.hint
    options = Options(signature="pixels", inputs=((None, 32, 32, 3),))
    record = convert(source, tmp_path / "m.onnx", trust=True, options=options)
    assert record.worst <= 1e-5
    assert record.notes[1] == "outputs that are texts are left out: 'label'"
    file = inspector.load(tmp_path / "m.onnx", preprocess="unit").file
    assert [value.name for value in file.model.graph.output] == ["scores"]


@pytest.mark.parametrize(
    ("signature", "said"),
    [("augmented", "RandomFlip.*give its .keras file"), ("brain", "computes in bfloat16")],
)
def test_what_a_graph_for_inference_does_not_do_is_said(networks, tmp_path, signature, said):
    options = Options(signature=signature)
    with pytest.raises(ConversionFailed, match=f"(?i){said}"):
        convert(str(networks / "others"), tmp_path / "m.onnx", trust=True, options=options)


def test_a_factor_of_one_branch_stays_in_it(networks, tmp_path):
    """tf2onnx multiplied the weights of the convolution before both by it."""
    options = Options(signature="either")
    record = convert(str(networks / "others"), tmp_path / "m.onnx", trust=True, options=options)
    assert record.worst <= 1e-4  # of random images, the mean of which has either sign
