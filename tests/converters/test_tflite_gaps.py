"""TFLite files without TensorFlow: operators without a function, and texts of labels in them."""

import io
import zipfile
from types import SimpleNamespace

import pytest

from converters.errors import ConversionFailed
from converters.to_onnx.tflite import metadata, writer


@pytest.mark.parametrize(
    ("kinds", "said", "advice"),
    [
        (["CONV_2D", "VAR_HANDLE"], "'VAR_HANDLE'", "keeps its weights in variables"),
        (["VAR_HANDLE", "ASSIGN_VARIABLE"], "'ASSIGN_VARIABLE', 'VAR_HANDLE'", "each run changes"),
        (["FlexErf"], "'FlexErf'", "give the SavedModel or Keras model"),
        (["CALL_ONCE", "FlexErf"], "'CALL_ONCE', 'FlexErf'", "give the SavedModel or Keras"),
        (["Mine", "CONV_2D"], "'Mine'", "report it with the file"),
    ],
)
def test_what_a_file_with_unknown_operators_was_made_by_is_said(kinds, said, advice):
    operators = [SimpleNamespace(op_type=kind) for kind in kinds]
    body = SimpleNamespace(operators=operators, inputs=[0], outputs=[1])
    model = SimpleNamespace(main=0, subgraphs=[body], network=body)
    with pytest.raises(ConversionFailed, match=f"does not know: {said};") as refused:
        writer._require_known(model)
    assert advice in refused.value.hint


CODES = "/m/01yrx\n/m/0bt9lr\n"


@pytest.mark.parametrize(
    ("texts", "described", "names"),
    [
        ({"a.txt": "cat\ndog\n"}, [], ("cat", "dog")),
        ({"a.txt": "0 cat\n1: big dog\n"}, [], ("cat", "big dog")),
        ({"a.txt": "0 cat\n2 dog\n"}, [], ("0 cat", "2 dog")),
        ({"a.txt": "x\n", "b.txt": "y\n"}, [], ()),
        ({"labels_de.txt": "Katze\n", "labels.txt": "cat\n"}, [], ("cat",)),
        ({"de.txt": "Katze\n", "x.txt": "cat\n"}, [("de.txt", "de"), ("x.txt", "")], ("cat",)),
        ({"de.txt": "Katze\n", "e.txt": "cat\n"}, [("de.txt", "de"), ("e.txt", "en")], ("cat",)),
        ({"a.txt": CODES, "e.txt": "cat\ndog"}, [("a.txt", ""), ("e.txt", "en")], ("cat", "dog")),
        ({"a.txt": CODES}, [("a.txt", "")], ("/m/01yrx", "/m/0bt9lr")),
        ({"a.txt": "cat\n", "b.txt": "x\n"}, [("gone.txt", ""), ("a.txt", "")], ("cat",)),
    ],
)
def test_of_several_texts_the_one_of_labels_in_words_is_taken(texts, described, names):
    """Google's labellers bring codes, and words in a file of a locale."""
    content = io.BytesIO(b"TFL3" * 9)
    with zipfile.ZipFile(content, "a") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    assert metadata._labels(content.getvalue(), described) == names
