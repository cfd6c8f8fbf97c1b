"""The nine CNNs that the onnx wheel carries, with the outputs that their authors expect."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from converters import onnx_file
from converters.to_torch.program import Program

pytestmark = pytest.mark.conformance

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODELS = sorted(FOLDER.glob("*.onnx"))
RTOL, ATOL = 1e-3, 1e-7
"""Of the onnx test suite itself (``onnx.backend.test.case.model``)."""


def arrays(path):
    """A .pb file: one serialised tensor."""
    proto = onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(proto)


def test_there_are_nine():
    assert len(MODELS) == 9


def given(graph, path):
    """Input of a light model: what its data holds, else a constant ramp as the suite feeds."""
    stored = path.with_name(f"{path.stem}_input_0.pb")
    (name, value), *_ = graph.inputs.items()
    if stored.exists():
        return {name: arrays(stored)}
    size = int(np.prod(value.shape))
    ramp = np.arange(size, dtype=np.float32) / size
    return {name: ramp.reshape(value.shape)}


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_expected_outputs(path):
    file = onnx_file.read(path)
    feeds = given(file.graph, path)
    expected = arrays(path.with_name(f"{path.stem}_output_0.pb"))
    program = Program(file.graph)
    with torch.no_grad():
        (found,) = program.run(
            {k: torch.from_numpy(v.copy()) for k, v in feeds.items()}, file.graph.outputs
        ).values()
    np.testing.assert_allclose(found.numpy(), expected, rtol=RTOL, atol=ATOL)
