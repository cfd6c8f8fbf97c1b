"""What ``inspector layers`` and ``inspector check`` say of a model."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

import inspector
from inspector.errors import UsageError
from inspector.network.receptive_fields import receptive_field
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


TILED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,64,64] x) => (float[4,2] logits)
<int64[6] cut = {1, 3, 2, 32, 2, 32}, int64[4] tile = {4, 3, 32, 32}>
{
    u = Reshape(x, cut)
    v = Transpose<perm=[0,2,4,1,3,5]>(u)
    t = Reshape(v, tile)
    c = Conv<pads=[1,1,1,1]>(t, w)
    r = Relu(c)
    p = GlobalAveragePool(r)
    logits = Flatten(p)
}
"""


def test_grids_of_tiles_are_listed(tmp_path):
    model = parser.parse_model(TILED)
    filters = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(filters, "w"))
    onnx.save(model, tmp_path / "tiles.onnx")
    (row,) = overview(inspector.load(tmp_path / "tiles.onnx")).rows
    assert row.stride == (1, 1)
    assert row.field == "within its grid"
    assert row.note == (
        "4 grids that are rows of its batch; top left corners (row, column) at "
        "(0, 0), (0, 32), (32, 0), (32, 32)"
    )
