"""What ``inspector layers`` and ``inspector check`` say of a model."""

from pathlib import Path

import inspector
from inspector.errors import UsageError
from inspector.network import receptive_field
from inspector.overview import overview

MODEL = Path(__file__).parents[2] / "sample_models" / "all_cnn_c.onnx"


def test_one_layer_without_a_receptive_field_does_not_take_it_from_the_others(monkeypatch):
    expected = overview(inspector.load(MODEL)).rows
    lost, field_of = expected[2].tensor, receptive_field._field

    def failing(net, tensor, *rest):
        if tensor == lost:
            raise UsageError("the field is lost", where=tensor)
        return field_of(net, tensor, *rest)

    monkeypatch.setattr(receptive_field, "_field", failing)
    found = overview(inspector.load(MODEL)).rows
    assert [row for row in found if row.tensor != lost] == [
        row for row in expected if row.tensor != lost
    ]
    assert len(expected) == len(found)
    assert found[2].field == "none"
    assert found[2].note == f"{lost}: the field is lost"
