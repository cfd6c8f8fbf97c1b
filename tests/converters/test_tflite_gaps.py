"""TFLite operators without a function: the refusal says what the file was made by."""

from types import SimpleNamespace

import pytest

from converters.errors import ConversionFailed
from converters.to_onnx.tflite import writer


@pytest.mark.parametrize(
    ("kinds", "said", "advice"),
    [
        (["CONV_2D", "VAR_HANDLE"], "'VAR_HANDLE'", "keeps its weights in variables"),
        (["FlexErf"], "'FlexErf'", "give the SavedModel or Keras model"),
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
